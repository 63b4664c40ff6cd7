"""Writes example_workflows/*.jpg: `python tests/make_thumbnails.py` after tests/test_frontend.py, with a ComfyUI at hand.

A toy workflow is run, and what it shows are the tiles. FLUX.1-dev's are shown as graphs, from the screenshots.
"""

import sys
import tempfile
from pathlib import Path

from cologen.training.server import Server, base_directory, shown
from make_pictures import PATIENCE, sheet
from make_workflows import FOLDER, WORKFLOWS, drawn
from pack import HOST
from PIL import Image
from test_frontend import SHOTS

SHOWN = ("SaveImage", "PreviewImage")
MOST = 3
"""Tiles: what was drawn, and what it was drawn from."""
GRAPH, WIDE = (120, 100, 1800, 1045), 600
"""The part of a screenshot without the page's own buttons."""


def ran(server: Server, base: Path, info: dict, name: str) -> Image.Image:
    canvas = drawn(name, info)
    entry = server.run(canvas.prompt(), PATIENCE)
    nodes = sorted((node for node in canvas.nodes if node.kind in SHOWN), key=lambda node: SHOWN.index(node.kind))
    tiles = [(node.place["title"], shown(base, entry, str(node.number))) for node in nodes[:MOST]]
    return (
        tiles[0][1].resize((WIDE, WIDE * tiles[0][1].height // tiles[0][1].width), 0) if wide(tiles) else sheet(tiles)
    )


def wide(tiles: list) -> bool:
    """A row of pictures in one is shown alone."""
    return tiles[0][1].width > 3 * tiles[0][1].height


def graph(name: str) -> Image.Image:
    found = Image.open(SHOTS / f"{name}.png").convert("RGB").crop(GRAPH)
    return found.resize((WIDE, WIDE * found.height // found.width), Image.Resampling.LANCZOS)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = base_directory(Path(folder) / "base", {})
        server = Server(HOST, base)
        try:
            info = server.get("/object_info")
            for name in WORKFLOWS:
                picture = ran(server, base, info, name) if name.startswith("toy") else graph(name)
                path = FOLDER / f"{name}.jpg"
                picture.save(path, quality=88)
                sys.stdout.write(f"{path}: {path.stat().st_size / 1024:.0f} KiB\n")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
