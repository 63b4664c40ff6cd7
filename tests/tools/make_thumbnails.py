"""Writes example_workflows/*.jpg: `python tests/tools/make_thumbnails.py [WORKFLOW ...]` after tests/server/test_frontend.py, with a ComfyUI at hand.

A toy workflow is run, and what it shows are the tiles. FLUX's are shown as graphs, from the screenshots.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import support_path  # noqa: F401
from cologen.training.comfyui.server import Server, open_picture
from make_pictures import PATIENCE, sheet
from make_workflows import FOLDER, WORKFLOWS, drawn
from pack import HOST, SCREENSHOTS
from PIL import Image
from tiny_server import make_tiny_base

SHOWN = ("SaveImage", "PreviewImage")
MOST = 3
"""Tiles: what was drawn, and what it was drawn from."""
CANVAS, WIDE = (120, 100, 1900, 1045), 600
"""The part of a screenshot without the page's own buttons."""
BACKGROUND, MARGIN = 45, 20
"""The canvas is no lighter than this."""


def ran(server: Server, base: Path, info: dict, name: str) -> Image.Image:
    canvas = drawn(name, info)
    entry = server.run(canvas.prompt(), PATIENCE)
    nodes = sorted((node for node in canvas.nodes if node.kind in SHOWN), key=lambda node: SHOWN.index(node.kind))
    (_, first), *_ = tiles = [(node.title, open_picture(base, entry, str(node.number))) for node in nodes]
    if wide(first):
        return first.resize((WIDE, WIDE * first.height // first.width), Image.Resampling.NEAREST)
    return sheet([tile for tile in tiles if not wide(tile[1])][:MOST])


def wide(picture: Image.Image) -> bool:
    """Several pictures in a row."""
    return picture.width > 2 * picture.height


def graph(name: str) -> Image.Image:
    found = Image.open(SCREENSHOTS / f"{name}.png").convert("RGB").crop(CANVAS)
    left, top, right, bottom = found.convert("L").point(lambda value: 255 * (value > BACKGROUND)).getbbox()
    found = found.crop((left - MARGIN, top - MARGIN, right + MARGIN, bottom + MARGIN))
    return found.resize((WIDE, WIDE * found.height // found.width), Image.Resampling.LANCZOS)


def main(names: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = make_tiny_base(Path(folder) / "base", {})
        server = Server(HOST, base)
        try:
            info = server.get("/object_info")
            for name in names or WORKFLOWS:
                picture = ran(server, base, info, name) if name.startswith("toy") else graph(name)
                path = FOLDER / f"{name}.jpg"
                picture.save(path, quality=88)
                sys.stdout.write(f"{path}: {path.stat().st_size / 1024:.0f} KiB\n")
        finally:
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
