"""Route maps as pictures: blocks across, experts down, the gate as brightness."""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from ...prw.router import Route

TILE, GAP, LEFT, TOP, LINE = 14, 2, 120, 42, 22
PAPER, EMPTY, INK = (24, 26, 31), (42, 45, 53), (222, 226, 232)
COLOURS = ((255, 176, 59), (84, 179, 255), (126, 217, 87), (240, 106, 158), (178, 132, 255), (88, 214, 196))


def draw_routes(maps: Sequence[tuple[str, Sequence[str], Mapping[str, Route]]]) -> Image.Image:
    """Draws one map a source, each given as (title, expert names in column order, block -> route)."""
    if not maps:
        return _draw_sheet(1, 1, [("No source in this conditioning: add CoLoGen Source.", (), {})])
    blocks = max(len(routes) for _, _, routes in maps)
    experts = max(len(names) for _, names, _ in maps)
    return _draw_sheet(blocks, experts, maps)


def _draw_sheet(
    blocks: int, experts: int, maps: Sequence[tuple[str, Sequence[str], Mapping[str, Route]]]
) -> Image.Image:
    height = TOP + experts * LINE + 24
    sheet = Image.new("RGB", (max(LEFT + blocks * (TILE + GAP) + 16, 420), height * len(maps)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for i, (title, names, routes) in enumerate(maps):
        draw.text((12, i * height + 10), title, INK, font)
        for row, name in enumerate(names):
            draw.text((12, i * height + TOP + row * LINE), name[:15], COLOURS[row % len(COLOURS)], font)
        for column, (block, route) in enumerate(routes.items()):
            _draw_column(draw, i * height + TOP, column, names, route, block.startswith("single"))
        if routes:
            draw.text((LEFT, (i + 1) * height - 22), "double blocks, then single blocks", INK, font)
    return sheet


def _draw_column(
    draw: ImageDraw.ImageDraw, top: int, column: int, names: Sequence[str], route: Route, single: bool
) -> None:
    x = LEFT + column * (TILE + GAP) + (GAP * 3 if single else 0)
    for row in range(len(names)):
        colour = tuple(
            round(e + (c - e) * average_gate(route, row))
            for e, c in zip(EMPTY, COLOURS[row % len(COLOURS)], strict=True)
        )
        draw.rectangle((x, top + row * LINE, x + TILE - 1, top + row * LINE + TILE - 1), colour)


def average_gate(route: Route, column: int) -> float:
    """Mean gate of the samples (or tokens) that took this expert, weighted by how many did."""
    return float((route.gate * (route.expert == column)).float().mean())
