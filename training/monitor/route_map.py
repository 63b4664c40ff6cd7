"""Route maps as pictures: blocks across, experts down, the gate as brightness; below, what older experts change."""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from ...prw.router import Route

TILE, GAP, LEFT, TOP, LINE = 14, 2, 120, 42, 22
PAPER, EMPTY, INK = (24, 26, 31), (42, 45, 53), (222, 226, 232)
COLOURS = ((255, 176, 59), (84, 179, 255), (126, 217, 87), (240, 106, 158), (178, 132, 255), (88, 214, 196))
Changes = Mapping[str, Mapping[str, float]]
"""Row of ABLATIONS -> block -> how far its keys and values move if older experts' blocks go there, in parts of their size."""
RouteMap = tuple[str, Sequence[str], Mapping[str, Route], Changes]
"""A source's title, expert names in column order, block -> route, and what older experts change (empty: not asked for)."""


def draw_routes(maps: Sequence[RouteMap]) -> Image.Image:
    """Draws one map a source."""
    if not maps:
        return _draw_sheet(1, 1, [("No source in this conditioning: add CoLoGen Source.", (), {}, {})])
    blocks = max(len(routes) for _, _, routes, _ in maps)
    rows = max(len(names) + len(changes) for _, names, _, changes in maps)
    return _draw_sheet(blocks, rows, maps)


def _draw_sheet(blocks: int, rows: int, maps: Sequence[RouteMap]) -> Image.Image:
    height = TOP + rows * LINE + 24
    sheet = Image.new("RGB", (max(LEFT + blocks * (TILE + GAP) + 16, 420), height * len(maps)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for i, (title, names, routes, changes) in enumerate(maps):
        labels = [*zip(names, COLOURS * len(names)), *((f"older: {way}", INK) for way in changes)]
        draw.text((12, i * height + 10), title, INK, font)
        for row, (name, colour) in enumerate(labels):
            draw.text((12, i * height + TOP + row * LINE), name[:15], colour, font)
        for column, (block, route) in enumerate(routes.items()):
            x = LEFT + column * (TILE + GAP) + (GAP * 3 if block.startswith("single") else 0)
            shares = [average_gate(route, row) for row in range(len(names))]
            shares += [min(moves[block], 1.0) for moves in changes.values()]
            _draw_column(draw, x, i * height + TOP, [colour for _, colour in labels], shares)
        if routes:
            draw.text((LEFT, (i + 1) * height - 22), "double blocks, then single blocks", INK, font)
    return sheet


def _draw_column(
    draw: ImageDraw.ImageDraw, x: int, top: int, colours: Sequence[tuple[int, ...]], shares: Sequence[float]
) -> None:
    """Draws a tile a row, from EMPTY at 0 to the row's colour at 1."""
    for row, (colour, share) in enumerate(zip(colours, shares)):
        mixed = tuple(round(e + (c - e) * share) for e, c in zip(EMPTY, colour, strict=True))
        draw.rectangle((x, top + row * LINE, x + TILE - 1, top + row * LINE + TILE - 1), mixed)


def describe_changes(maps: Sequence[RouteMap]) -> str:
    """Says block by block what older experts change: a table a source."""
    lines = []
    for title, names, routes, changes in maps:
        older = [block for block, route in routes.items() if bool((route.expert != len(names) - 1).any())]
        lines.append(f"{title}: older experts in {len(older)} of {len(routes)} blocks")
        for block in changes and older:
            taken = "+".join(names[column] for column in routes[block].expert.unique().tolist())
            moves = ", ".join(f"{changes[way][block]:.1%} if to {way}" for way in changes)
            lines.append(
                f"  {block}: {taken} at {float(routes[block].gate.float().mean()):.2f}; keys and values move by {moves}"
            )
    return "\n".join(lines)


def average_gate(route: Route, column: int) -> float:
    """Mean gate of the samples (or tokens) that took this expert, weighted by how many did."""
    return float((route.gate * (route.expert == column)).float().mean())
