"""A contact sheet: what the model is given, what it shall draw, and the words."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ..data.sample import Example
from .route_map import INK, PAPER

SIDE, GAP, ACROSS = 224, 12, 2
"""Of a picture; between cells; examples in a row."""
LINE, LINES = 16, 3
WIDE = 2 * SIDE // 7
"""Letters that fit under both pictures."""


def draw_contact_sheet(examples: Sequence[tuple[str, Example]]) -> Image.Image:
    """Of (set, example)."""
    cell = (2 * SIDE + GAP, SIDE + (LINES + 1) * LINE + GAP)
    down = -(-len(examples) // ACROSS)
    page = Image.new("RGB", (GAP + ACROSS * (cell[0] + GAP), GAP + down * cell[1]), PAPER)
    for i, (name, example) in enumerate(examples):
        place = (GAP + i % ACROSS * (cell[0] + GAP), GAP + i // ACROSS * cell[1])
        draw_cell(page, place, name, example)
    return page


def draw_cell(page: Image.Image, place: tuple[int, int], name: str, example: Example) -> None:
    draw, (x, y) = ImageDraw.Draw(page), place
    for i, pixels in enumerate((example.source, example.target)):
        page.paste(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x + i * SIDE, y))
    head = " · ".join(part for part in (name, example.id, example.kind) if part)
    words = textwrap.wrap(example.prompt or "(no prompt)", WIDE)[:LINES]
    for i, line in enumerate([head[:WIDE], *words]):
        draw.text((x, y + SIDE + i * LINE), line, INK, ImageFont.load_default(size=12))
