"""Writes web/docs/pictures/: `python tests/tools/make_pictures.py [NODE ...]` with a ComfyUI at hand, whenever the toy set changes.

A picture is a small graph in a real server: what it previews are the tiles, the previews' titles are their labels.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import support_path  # noqa: F401
from canvas import Canvas
from cologen.training.comfyui.server import Server, open_picture
from cologen.training.monitor.route_map import INK, PAPER
from pack import HOST, ROOT
from pictures_toy import PICTURES
from PIL import Image, ImageDraw, ImageFont, ImageOps
from tiny_server import make_tiny_base
from workflows_toy import Toy

FOLDER = ROOT / "web" / "docs" / "pictures"
SIDE, GAP, LINE, FONT = 192, 8, 28, 20
COLOURS = 192
"""Of the palette: small files, and no colour of the toy world suffers."""
PATIENCE = 3600
"""Seconds for a graph: some of them train."""


def drawn(server: Server, base: Path, info: dict, name: str) -> Image.Image:
    canvas = Canvas(info)
    PICTURES[name](Toy(canvas))
    entry = server.run(canvas.prompt(), PATIENCE)
    previews = [node for node in canvas.nodes if node.kind == "PreviewImage"]
    return sheet([(node.title, open_picture(base, entry, str(node.number))) for node in previews])


def sheet(tiles: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Each below its label, in pairs or in threes; one tile without a label is the picture itself."""
    (label, first), *more = tiles
    if not (label or more):
        return first
    columns = 2 if len(tiles) % 3 else 3
    rows = -(-len(tiles) // columns)
    paper = Image.new("RGB", (columns * (SIDE + GAP) + GAP, rows * (SIDE + LINE + GAP)), PAPER)
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default(size=FONT)
    for i, (label, tile) in enumerate(tiles):
        x, y = GAP + i % columns * (SIDE + GAP), i // columns * (SIDE + LINE + GAP)
        draw.text((x, y), label, INK, font)
        paper.paste(ImageOps.contain(tile, (SIDE, SIDE), Image.Resampling.NEAREST), (x, y + LINE))
    return paper


def main(names: Sequence[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        base = make_tiny_base(Path(folder) / "base", {})
        server = Server(HOST, base)
        try:
            info = server.get("/object_info")
            for name in names or PICTURES:
                path = FOLDER / f"{name}.png"
                drawn(server, base, info, name).quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
                sys.stdout.write(f"{path}: {path.stat().st_size / 1024:.0f} KiB\n")
        finally:
            server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
