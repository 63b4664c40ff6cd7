"""A contact sheet: of every example the source, the target and the prompt."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ..data.sample import Example
from .route_map import INK, PAPER

SIDE, GAP, COLUMNS = 224, 12, 2
"""A picture's side and the gap between cells, in pixels; examples in a row."""
LINE, LINES = 16, 3
"""Height of a line in pixels, and lines of the prompt."""
LETTERS = 2 * SIDE // 7
"""That fit under both pictures."""


def draw_contact_sheet(examples: Sequence[tuple[str, Example]]) -> Image.Image:
    """Draws (name of the set, example) in a grid."""
    cell = (2 * SIDE + GAP, SIDE + (LINES + 1) * LINE + GAP)
    down = -(-len(examples) // COLUMNS)
    page = Image.new("RGB", (GAP + COLUMNS * (cell[0] + GAP), GAP + down * cell[1]), PAPER)
    for i, (name, example) in enumerate(examples):
        corner = (GAP + i % COLUMNS * (cell[0] + GAP), GAP + i // COLUMNS * cell[1])
        draw_cell(page, corner, name, example)
    return page


def draw_cell(page: Image.Image, corner: tuple[int, int], name: str, example: Example) -> None:
    draw, (x, y) = ImageDraw.Draw(page), corner
    for i, pixels in enumerate((example.source, example.target)):
        page.paste(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x + i * SIDE, y))
    head = " · ".join(part for part in (name, example.id, example.kind) if part)
    words = textwrap.wrap(example.prompt or "(no prompt)", LETTERS)[:LINES]
    for i, line in enumerate([head[:LETTERS], *words]):
        draw.text((x, y + SIDE + i * LINE), line, INK, ImageFont.load_default(size=12))
