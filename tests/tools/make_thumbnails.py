"""Writes example_workflows/*.jpg: `python tests/tools/make_thumbnails.py [WORKFLOW ...]` with a ComfyUI at hand.

A workflow of the built-in set is run, and its picture is what it was given beside what it drew. One that needs files says in words what it
does, below what the built-in set makes of the same task; no picture claims to be FLUX's.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import support_path  # noqa: F401
from cologen.training.comfyui.server import Server, open_picture
from make_pictures import PATIENCE
from make_workflows import FOLDER, WORKFLOWS, drawn
from pack import HOST
from PIL import Image, ImageDraw, ImageFont, ImageOps
from thumbnail_words import WORDS, Card
from tiny_server import make_tiny_base

WIDE, HIGH, MARGIN = 600, 400, 20
PAPER, INK, PALE, BORDER = (24, 27, 34), (240, 240, 236), (150, 158, 172), (58, 64, 78)
BORROWED = "pictures: the built-in set"
"""Said where they are not of this very workflow."""


class Runner:
    """Runs each workflow of the built-in set once."""

    def __init__(self, server: Server, base: Path):
        self.server, self.base, self.info = server, base, server.get("/object_info")
        self.tiles: dict[str, dict[str, Image.Image]] = {}

    def run(self, name: str) -> dict[str, Image.Image]:
        """Title -> what a node of this title showed."""
        if name not in self.tiles:
            canvas = drawn(name, self.info)
            entry = self.server.run(canvas.prompt(), PATIENCE)
            nodes = [node for node in canvas.nodes if str(node.number) in entry["outputs"]]
            self.tiles[name] = {
                node.title: self.join(entry, str(node.number))
                for node in nodes
                if entry["outputs"][str(node.number)].get("images")
            }
        return self.tiles[name]

    def join(self, entry: dict, number: str) -> Image.Image:
        """All that a node showed, side by side."""
        count = len(entry["outputs"][number]["images"])
        pictures = [open_picture(self.base, entry, number, i) for i in range(count)]
        row = Image.new("RGB", (sum(picture.width for picture in pictures), pictures[0].height))
        for i, picture in enumerate(pictures):
            row.paste(picture, (i * picture.width, 0))
        return row


def draw_card(card: Card, tiles: Sequence[Image.Image]) -> Image.Image:
    """Pictures from what was given to what came, an arrow between them, and words below."""
    paper = Image.new("RGB", (WIDE, HIGH), PAPER)
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default(size=27)
    draw.text((MARGIN, HIGH - 88), card.title, INK, font)
    draw.text((MARGIN, HIGH - 48), card.words, PALE, ImageFont.load_default(size=19))
    room = (HIGH - 88 - 2 * MARGIN, (WIDE - 2 * MARGIN - 46 * (len(tiles) - 1)) // len(tiles))
    fitted = [ImageOps.contain(tile, (room[1], room[0]), Image.Resampling.NEAREST) for tile in tiles]
    x = (WIDE - sum(tile.width for tile in fitted) - 46 * (len(fitted) - 1)) // 2
    for i, tile in enumerate(fitted):
        y = MARGIN + (room[0] - tile.height) // 2
        draw.rectangle((x - 2, y - 2, x + tile.width + 1, y + tile.height + 1), outline=BORDER, width=2)
        paper.paste(tile, (x, y))
        if i:
            draw_sign(draw, x - 23, MARGIN + room[0] // 2, "arrow" if i == len(fitted) - 1 else "plus")
        x += tile.width + 46
    return paper


def draw_sign(draw: ImageDraw.ImageDraw, x: int, y: int, sign: str) -> None:
    if sign == "plus":
        draw.line((x - 9, y, x + 9, y), INK, 4)
        draw.line((x, y - 9, x, y + 9), INK, 4)
    else:
        draw.line((x - 12, y, x + 6, y), INK, 4)
        draw.polygon([(x + 13, y), (x + 2, y - 9), (x + 2, y + 9)], INK)


def make_thumbnail(runner: Runner, name: str) -> Image.Image:
    card = WORDS[name]
    paper = draw_card(card, [runner.run(workflow)[title] for workflow, title in card.tiles])
    if any(workflow != name for workflow, _ in card.tiles):
        font = ImageFont.load_default(size=13)
        ImageDraw.Draw(paper).text((WIDE - MARGIN, HIGH - 8), BORROWED, PALE, font, anchor="rs")
    return paper


def main(names: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = make_tiny_base(Path(folder) / "base", {})
        with Server(HOST, base) as server:
            runner = Runner(server, base)
            for name in names or WORKFLOWS:
                path = FOLDER / f"{name}.jpg"
                make_thumbnail(runner, name).save(path, quality=85, optimize=True)
                sys.stdout.write(f"{path}: {path.stat().st_size / 1024:.0f} KiB\n")


if __name__ == "__main__":
    main(sys.argv[1:])
