"""A ComfyUI server of our own in another process, driven over its API."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..find_host import PACK

START_SECONDS = 600


class Server:
    """Starts a ComfyUI on the CPU, runs prompts on it, and stops it."""

    def __init__(self, host: Path, base: Path, options: Sequence[str] = ()):
        """`host` is ComfyUI's own folder, `base` that of models, inputs, outputs and custom nodes; `options` are ComfyUI's."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = base / "server.log"
        where = ["--port", str(self.port), "--base-directory", str(base)]
        command = [sys.executable, str(host / "main.py"), "--cpu", *where, *options]
        command += ["--database-url", "sqlite:///:memory:"] if (host / "alembic_db").is_dir() else []
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1"}
            )
        self._wait()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error) -> None:
        self.stop()

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)
        self.stop()
        raise RuntimeError("ComfyUI did not start:\n" + self.log.read_text()[-4000:])

    def get(self, path: str) -> Any:
        """Gives the JSON that the server answers on a path."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=300) as answer:
            return json.load(answer)

    def run(self, prompt: Mapping[str, dict], seconds: float = 600) -> dict:
        """Queues an API prompt and returns its history entry."""
        data = json.dumps({"prompt": prompt}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/prompt", data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                number = json.load(answer)["prompt_id"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from None
        for _ in range(int(seconds / 0.1)):
            history = self.get(f"/history/{number}")
            if number in history:
                return history[number]
            time.sleep(0.1)
        raise TimeoutError(self.log.read_text()[-4000:])

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def make_base_folder(root: Path, pictures: Mapping[str, Image.Image]) -> Path:
    """Makes a server's base folder with this pack and input pictures, and without models."""
    for folder in ("models/diffusion_models", "models/vae", "models/cologen", "input", "custom_nodes"):
        (root / folder).mkdir(parents=True)
    for name, picture in pictures.items():
        picture.save(root / "input" / f"{name}.png")
    (root / "custom_nodes/CoLoGen").symlink_to(PACK, target_is_directory=True)
    return root


def make_node(kind: str, /, **inputs: Any) -> dict:
    """Makes a node of an API prompt."""
    return {"class_type": kind, "inputs": inputs}


def open_picture(base: Path, entry: dict, node_id: str, number: int = 0) -> Image.Image:
    """Opens the picture that a node of a finished prompt saved or previewed."""
    if entry["status"]["status_str"] != "success":
        raise RuntimeError(f"ComfyUI could not run the graph: {entry['status']['messages']}")
    image = entry["outputs"][node_id]["images"][number]
    folder = {"output": "output", "temp": "temp"}[image["type"]]
    return Image.open(base / folder / image["subfolder"] / image["filename"]).convert("RGB")
