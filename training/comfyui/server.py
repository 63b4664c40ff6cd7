"""A real ComfyUI server of our own with tiny random models, driven over its API: for the demo and the tests."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import save_file

from ...prw.bank.edit import random_bank
from ...prw.base_model import Base
from ...prw.tasks import TASKS
from ..base.random_models import TINY, bank_info, random_flux
from ..data.sample import Example
from ..toy.evaluate import CFG, STEPS
from .find_host import ROOT, enter_host, needed_host, random_vae

TOY = "toy world (built in)"
"""The nodes' name for it (nodes/toy.py)."""
SIDE = 128
GREY = (128, 128, 128)
TEXT_NODE = f'''
"""Stands for a text encoder, which is too large for a test: a seed gives a CONDITIONING."""
import torch


class TinyText:
    CATEGORY = "test"
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls):
        return {{"required": {{"seed": ("INT", {{"default": 0}})}}}}

    def encode(self, seed):
        g = torch.Generator().manual_seed(seed)
        text = torch.randn(1, 5, {TINY["context_in_dim"]}, generator=g)
        pooled = torch.randn(1, {TINY["vec_in_dim"]}, generator=g)
        return ([[text, {{"pooled_output": pooled, "guidance": 3.5}}]],)


NODE_CLASS_MAPPINGS = {{"TinyText": TinyText}}
'''


def scene() -> Image.Image:
    picture = Image.new("RGB", (SIDE, SIDE), (96, 148, 196))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 84, SIDE, SIDE), (92, 138, 76))
    draw.ellipse((18, 40, 62, 84), (214, 72, 62))
    draw.polygon([(72, 84), (94, 36), (116, 84)], (236, 186, 66))
    return picture


def sources() -> dict[str, Image.Image]:
    """What each task is given, drawn from one scene."""
    whole = scene()
    hole = whole.copy()
    ImageDraw.Draw(hole).rectangle((66, 30, 120, 90), GREY)
    subject = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    subject.paste(whole.crop((14, 36, 66, 88)), (38, 38))
    edges = whole.convert("L").filter(ImageFilter.FIND_EDGES).point(lambda value: 255 * (value > 40)).convert("RGB")
    given = {"inpaint": hole, "ground": whole, "control": edges, "subject": subject, "edit": whole}
    return {task: given.get(task, whole) for task in TASKS}


def base_directory(root: Path, pictures: dict[str, Image.Image]) -> Path:
    """Folders as ComfyUI wants them, with a tiny random FLUX, VAE and bank, and input pictures."""
    for folder in ("models/diffusion_models", "models/vae", "models/cologen", "input", "custom_nodes/tiny_text"):
        (root / folder).mkdir(parents=True)
    flux = random_flux(gain=1.0)
    bank = random_bank(bank_info(Base.of(flux), rank=8), up=0.3, router=0.3)
    save_file(flux.state_dict(), root / "models/diffusion_models/tiny_flux.safetensors")
    save_file(random_vae(), root / "models/vae/tiny_vae.safetensors")
    bank.save(root / "models/cologen/tiny.safetensors")
    for name, picture in pictures.items():
        picture.save(root / "input" / f"{name}.png")
    (root / "custom_nodes/tiny_text/__init__.py").write_text(TEXT_NODE)
    (root / "custom_nodes/CoLoGen").symlink_to(ROOT, target_is_directory=True)
    return root


class Server:
    def __init__(self, host: Path, base: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = base / "server.log"
        command = [
            sys.executable,
            str(host / "main.py"),
            "--cpu",
            "--port",
            str(self.port),
            "--base-directory",
            str(base),
        ]
        command += ["--database-url", "sqlite:///:memory:"] if (host / "alembic_db").is_dir() else []
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1"}
            )
        self._wait()

    def _wait(self):
        for _ in range(1200):
            if self.process.poll() is not None:
                break
            try:
                return self.get("/system_stats")
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)
        self.stop()
        raise RuntimeError("ComfyUI did not start:\n" + self.log.read_text()[-4000:])

    def get(self, path: str):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return json.load(answer)

    def run(self, prompt: dict, seconds: float = 600) -> dict:
        """Queues an API prompt and returns its history entry."""
        data = json.dumps({"prompt": prompt}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/prompt", data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                number = json.load(answer)["prompt_id"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from None
        for _ in range(int(seconds / 0.1)):
            history = self.get(f"/history/{number}")
            if number in history:
                return history[number]
            time.sleep(0.1)
        raise TimeoutError(self.log.read_text()[-4000:])

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def node(kind: str, /, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def prompt(task: str = "control", strength: float = 1.0, loader: str = "CoLoGenLoadFlux") -> dict:
    """LoadFlux -> LoadExperts -> Apply -> Source -> KSampler -> VAEDecode -> SaveImage, and the route map."""
    knobs = dict(task=task, strength=strength, expert_strength=1.0, start=0.0, end=1.0, size=0)
    hidden = dict(position="auto", shift_right=1.0, shift_down=0.0, lean=0.0, expert="", router="", keep_on="gpu")
    sampler = dict(seed=1, steps=3, cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0)
    files = dict(unet_name="tiny_flux.safetensors", weight_dtype="default")
    if loader == "CoLoGenLoadFlux":
        files |= dict(clip_name1="none", clip_name2="none", vae_name="tiny_vae.safetensors")
    return {
        "flux": node(loader, **files),
        "vae": node("VAELoader", vae_name="tiny_vae.safetensors"),
        "bank": node("CoLoGenLoadExperts", bank_name="tiny.safetensors"),
        "apply": node("CoLoGenApply", model=["flux", 0], experts=["bank", 0]),
        "text": node("TinyText", seed=3),
        "image": node("LoadImage", image=f"{task}.png"),
        "source": node(
            "CoLoGenSource", conditioning=["text", 0], vae=["vae", 0], image=["image", 0],
            keep_between_runs=False, **knobs, **hidden,
        ),
        "latent": node("EmptySD3LatentImage", width=128, height=128, batch_size=1),
        "sample": node(
            "KSampler", model=["apply", 0], positive=["source", 0], negative=["text", 0],
            latent_image=["latent", 0], **sampler,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["vae", 0]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="woven"),
        "map": node("CoLoGenRouteMap", model=["apply", 0], conditioning=["source", 0], latent=["latent", 0]),
        "keep": node("CoLoGenSaveExperts", experts=["bank", 0], name="copies/again"),
    }  # fmt: skip


def toy_prompt(name: str, text: str, task: str, seed: int = 7) -> dict:
    """The built-in toy world through stock nodes: words and a source in, a picture out."""
    loaders = dict(weight_dtype="default", clip_name1="none", clip_name2="none", vae_name=TOY)
    knobs = dict(task=task, strength=1.0, expert_strength=1.0, start=0.0, end=1.0, size=0, keep_between_runs=False)
    hidden = dict(position="auto", shift_right=1.0, shift_down=0.0, lean=0.0, expert="", router="", keep_on="gpu")
    source = dict(vae=["flux", 2], image=["image", 0], **knobs, **hidden)
    sampler = dict(seed=seed, steps=STEPS, cfg=CFG, sampler_name="euler", scheduler="simple", denoise=1.0)
    return {
        "flux": node("CoLoGenLoadFlux", unet_name=TOY, **loaders),
        "bank": node("CoLoGenLoadExperts", bank_name=TOY),
        "apply": node("CoLoGenApply", model=["flux", 0], experts=["bank", 0]),
        "image": node("LoadImage", image=f"{name}.png"),
        "text": node("CLIPTextEncode", clip=["flux", 1], text=text),
        "empty": node("CLIPTextEncode", clip=["flux", 1], text=""),
        "source": node("CoLoGenSource", conditioning=["text", 0], **source),
        "without": node("CoLoGenSource", conditioning=["empty", 0], **source),
        "latent": node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
        "sample": node(
            "KSampler", model=["apply", 0], positive=["source", 0], negative=["without", 0],
            latent_image=["latent", 0], **sampler,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["flux", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix=name),
    }  # fmt: skip


def demo_pictures(folder: Path, asked: list[Example]) -> list[np.ndarray]:
    """What the built-in toy world answers through a server."""
    host = needed_host()
    enter_host(host)
    base = base_directory(folder, {example.id: Image.fromarray(example.source) for example in asked})
    server = Server(host, base)
    try:
        entries = [server.run(toy_prompt(example.id, example.prompt, example.task)) for example in asked]
        return [np.array(shown(base, entry, "save")) for entry in entries]
    finally:
        server.stop()


def shown(base: Path, entry: dict, node_id: str) -> Image.Image:
    """The picture that a node of a finished prompt saved or previewed."""
    if entry["status"]["status_str"] != "success":
        raise RuntimeError(f"ComfyUI could not run the graph: {entry['status']['messages']}")
    image = entry["outputs"][node_id]["images"][0]
    folder = {"output": "output", "temp": "temp"}[image["type"]]
    return Image.open(base / folder / image["subfolder"] / image["filename"]).convert("RGB")
