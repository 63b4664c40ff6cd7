"""Graphs that ship, as files: what the host says of its nodes, and the text that stands in a file."""

import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import support_path  # noqa: F401
from canvas import Canvas
from cologen.training.comfyui.server import Server
from pack import HOST
from tiny_server import make_tiny_base


def text_of(canvas: Canvas) -> str:
    return json.dumps(canvas.to_workflow(), indent=1, ensure_ascii=False) + "\n"


def write_graphs(folder: Path, names: Iterable[str], build: Callable[[str, dict], Canvas]) -> None:
    """Writes a file for each name, by today's nodes."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as base, Server(HOST, make_tiny_base(Path(base) / "base", {})) as server:
        info = server.get("/object_info")
    for name in names:
        path = folder / f"{name}.json"
        path.write_text(text_of(build(name, info)), encoding="utf-8")
        sys.stdout.write(f"{path}\n")
