"""Route maps as pictures: blocks across, experts down, the gate as brightness; below, what older experts change.

They are as wide as a node shows them, so that words stay readable there however many blocks a model has.
"""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from ...prw.router import Route

WIDTH, LEFT, LINE, MARGIN, FONT = 520, 150, 30, 12, 18
"""Of a picture, of its names, of a row, round all, and of letters, in pixels."""
WIDEST, HIGH, APART = 36, 22, 6
"""A tile's most pixels across, its height, and the gap between double and single blocks."""
PAPER, EMPTY, INK = (24, 26, 31), (42, 45, 53), (222, 226, 232)
COLOURS = ((255, 205, 0), (176, 84, 250), (64, 240, 236), (206, 96, 28), (214, 255, 171), (0, 145, 116))
"""They stay apart for people who see red, green or blue otherwise, and on PAPER."""
STEPS = 12
"""Tiles of the legend, from 0 to 1."""
Colour = tuple[int, ...]
Changes = Mapping[str, Mapping[str, float]]
"""Row of ABLATIONS -> block -> how far its keys and values move if older experts' blocks go there, in parts of their size."""
RouteMap = tuple[str, Sequence[str], Mapping[str, Route], Changes]
"""A source's title, expert names in column order, block -> route, and what older experts change (empty: not asked for)."""


def draw_routes(maps: Sequence[RouteMap]) -> Image.Image:
    """Draws one map a source, one below the other."""
    maps = maps or [("No source in this conditioning: add CoLoGen Source.", (), {}, {})]
    return stack_pictures([_draw_map(*one) for one in maps])


def stack_pictures(pictures: Sequence[Image.Image]) -> Image.Image:
    """Stacks pictures one below the other, on paper as wide as the widest."""
    sheet = Image.new("RGB", (max(one.width for one in pictures), sum(one.height for one in pictures)), PAPER)
    y = 0
    for picture in pictures:
        sheet.paste(picture, (0, y))
        y += picture.height
    return sheet


def _draw_map(title: str, names: Sequence[str], routes: Mapping[str, Route], changes: Changes) -> Image.Image:
    font = ImageFont.load_default(size=FONT)
    heads = wrap_words(title, font, WIDTH - 2 * MARGIN)
    labels = [*zip(names, COLOURS * len(names)), *((f"older: {way}", INK) for way in changes)]
    top = MARGIN + len(heads) * LINE
    height = top + (len(labels) + 2 if routes else 0) * LINE + MARGIN
    picture = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(picture)
    for i, line in enumerate(heads):
        draw.text((MARGIN, MARGIN + i * LINE), line, INK, font)
    for row, (name, colour) in enumerate(labels):
        draw.text((MARGIN, top + row * LINE), cut_words(name, font, LEFT - 2 * MARGIN), colour, font)
    places = place_blocks(list(routes))
    for (block, route), (left, right) in zip(routes.items(), places):
        shares = [average_gate(route, row) for row in range(len(names))]
        shares += [min(moves[block], 1.0) for moves in changes.values()]
        for row, ((_, colour), share) in enumerate(zip(labels, shares, strict=True)):
            _draw_tile(draw, left, right, top + row * LINE, mix_colour(colour, share))
    if routes:
        _draw_foot(draw, font, top + len(labels) * LINE, list(zip(routes, places)))
    return picture


def place_blocks(blocks: Sequence[str]) -> list[tuple[int, int]]:
    """Finds where each block's tiles begin and end across; double and single blocks stand apart."""
    step = min(WIDEST, (WIDTH - LEFT - MARGIN - APART) / max(len(blocks), 1))
    gap = 1 if step < 10 else 2
    starts = [LEFT + i * step + APART * block.startswith("single") for i, block in enumerate(blocks)]
    return [(round(start), round(start + step) - gap) for start in starts]


def _draw_foot(
    draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, y: int, blocks: Sequence[tuple]
) -> None:
    """Names the kinds of blocks below their first, and says what brightness means."""
    x = 0.0
    for kind in ("double", "single"):
        first = next((left for block, (left, _) in blocks if block.startswith(kind)), None)
        if first is not None:
            x = max(x, first)
            draw.text((x, y), kind, INK, font)
            x += draw.textlength(kind, font) + MARGIN
    y += LINE
    draw.text((MARGIN, y), "strength", INK, font)
    draw.text((LEFT, y), "0", INK, font)
    for i in range(STEPS):
        left = LEFT + 20 + i * HIGH
        _draw_tile(draw, left, left + HIGH - 1, y, mix_colour(INK, i / (STEPS - 1)))
    draw.text((LEFT + 28 + STEPS * HIGH, y), "1", INK, font)


def _draw_tile(draw: ImageDraw.ImageDraw, left: int, right: int, top: int, colour: Colour) -> None:
    draw.rectangle((left, top, right - 1, top + HIGH - 1), colour)


def mix_colour(colour: Colour, share: float) -> Colour:
    """Mixes a colour: from EMPTY at 0 to the colour at 1."""
    return tuple(round(e + (c - e) * share) for e, c in zip(EMPTY, colour, strict=True))


def wrap_words(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Wraps a text into lines that are no wider than so many pixels, unless a word is."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines[-1:] = [longer] if font.getlength(longer) <= width or not lines[-1] else [lines[-1], word]
    return lines


def cut_words(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: float) -> str:
    """Gives the text, or as much of its beginning as fits into so many pixels; "" where none does."""
    shorter = (text[:end] + "..." for end in range(len(text) - 1, 0, -1))
    return next((words for words in (text, *shorter) if font.getlength(words) <= width), "")


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
    """Computes mean gate of the samples (or tokens) that took this expert, weighted by how many did."""
    return float((route.gate * (route.expert == column)).float().mean())
