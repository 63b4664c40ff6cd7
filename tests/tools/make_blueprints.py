"""Writes subgraphs/: `python tests/tools/make_blueprints.py` with a ComfyUI at hand. tests/server/test_blueprints.py opens them."""

import json
import sys
import tempfile
from pathlib import Path

import blueprints_flux
import blueprints_flux2
import support_path  # noqa: F401
from blueprint import Blueprint
from cologen.training.comfyui.server import Server
from pack import HOST, ROOT
from tiny_server import make_tiny_base

FOLDER = ROOT / "subgraphs"
BLUEPRINTS = blueprints_flux.BLUEPRINTS | blueprints_flux2.BLUEPRINTS


def build(name: str, info: dict) -> Blueprint:
    canvas = Blueprint(info, name)
    BLUEPRINTS[name](canvas)
    return canvas


def write_text(canvas: Blueprint) -> str:
    return json.dumps(canvas.to_workflow(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Server(HOST, make_tiny_base(Path(folder) / "base", {})) as server:
        info = server.get("/object_info")
    for name in BLUEPRINTS:
        path = FOLDER / f"{name}.json"
        path.write_text(write_text(build(name, info)), encoding="utf-8")
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
