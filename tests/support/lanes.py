"""Links over more than one column: up or down between columns, and across in a lane where no node stands, as the frontend's reroutes.

So no link comes out from behind a node that it has nothing to do with.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from layout import GAP, TITLE
from nodes_on_canvas import Node

CLEAR, BETWEEN, STEP, FIRST = 12, 10, 11, 20
"""From a lane to a node, between two lanes, between two ways in a gap, and from a column to the first of these."""
SWING = 100
"""Longer ways up or down have a corner."""


class Target(NamedTuple):
    column: int
    link: int
    y: float


class Lane(NamedTuple):
    y: float
    first: int
    last: int
    """Columns that it passes."""


def route_links(nodes: Sequence[Node], rows: Sequence[Sequence], groups: Sequence[dict]) -> dict:
    """The frontend's `extra` of a graph: reroutes, and the last one of each link that has some."""
    by_number = {node.number: node for node in nodes}
    far: dict[tuple[int, int], list[Target]] = defaultdict(list)
    for link, origin, slot, target, socket, _ in rows:
        node = by_number[target]
        if origin in by_number and node.column > by_number[origin].column + 1:
            far[origin, slot].append(Target(node.column, link, node.input_y(node.sockets()[socket])))
    ways = Ways(nodes)
    lanes: list[Lane] = []
    for (origin, slot), targets in sorted(far.items(), key=lambda entry: max(entry[1]).column):
        source = by_number[origin]
        lanes.append(find_lane(nodes, groups, lanes, (source.column, source.output_y(slot)), sorted(targets)))
        ways.follow(lanes[-1], source.column + 1, source.output_y(slot), sorted(targets))
    return {"reroutes": ways.reroutes, "linkExtensions": ways.ends} if ways.reroutes else {}


class Ways:
    """The reroutes so far, in gaps before columns."""

    def __init__(self, nodes: Sequence[Node]):
        self.lefts = {node.column: node.pos[0] for node in nodes}
        self.used: Counter[int] = Counter()
        self.reroutes: list[dict] = []
        self.ends: list[dict] = []

    def follow(self, lane: Lane, first: int, y: float, targets: Sequence[Target]) -> None:
        """From a source's height into the lane, and out of it before each column that has targets."""
        x, links = self.find_way(first), [target.link for target in targets]
        parent = self.turn(x, y, lane.y, None, links)
        parent = self.add(x, lane.y, parent, links)
        for column in sorted({target.column for target in targets}):
            x, here = self.find_way(column), [target for target in targets if target.column == column]
            parent = self.add(x, lane.y, parent, [target.link for target in targets if target.column >= column])
            for target in here:
                last = self.turn(x, target.y, lane.y, parent, [target.link])
                self.ends.append({"id": target.link, "parentId": last})

    def find_way(self, column: int) -> float:
        """A free place in the gap before a column."""
        self.used[column] += 1
        return self.lefts[column] - GAP + FIRST + STEP * (self.used[column] % ((GAP - 2 * FIRST) // STEP))

    def turn(self, x: float, y: float, other: float, parent: int | None, links: list[int]) -> int | None:
        """A corner at the height of a node, if the way there is long: without it the link would swing out behind other nodes."""
        return self.add(x, y, parent, links) if abs(y - other) > SWING else parent

    def add(self, x: float, y: float, parent: int | None, links: list[int]) -> int:
        entry = {"id": len(self.reroutes) + 1, "pos": [x, y], "linkIds": links}
        self.reroutes.append(entry | ({} if parent is None else {"parentId": parent}))
        return entry["id"]


def find_lane(
    nodes: Sequence[Node],
    groups: Sequence[dict],
    lanes: Sequence[Lane],
    source: tuple[int, float],
    targets: Sequence[Target],
) -> Lane:
    """The free lane with the shortest ways to it."""
    first, last = source[0] + 1, targets[-1].column - 1
    between = [node for node in nodes if first <= node.column <= last]
    taken = [lane.y for lane in lanes if lane.first <= last and first <= lane.last]
    ends = [source[1], *(target.y for target in targets)]

    def is_free(y: float) -> bool:
        passes = all(y < top(node) - CLEAR or y > bottom(node) + CLEAR for node in between)
        return passes and all(abs(y - other) >= BETWEEN for other in taken)

    wanted = list_lanes(between, ends, groups)
    y = min(filter(is_free, wanted), key=lambda y: (sum(abs(y - end) for end in ends), y))
    return Lane(y, first, last)


def list_lanes(between: Iterable[Node], ends: Iterable[float], groups: Sequence[dict]) -> Iterable[float]:
    """Straight on, just above or below a node, and outside of everything."""
    above = min(group["bounding"][1] for group in groups)
    below = max(group["bounding"][1] + group["bounding"][3] for group in groups)
    steps = [(CLEAR + 1) + BETWEEN * i for i in range(40)]
    edges = (edge for node in between for i in steps[:3] for edge in (top(node) - i, bottom(node) + i))
    return chain(ends, edges, (above - i for i in steps), (below + i for i in steps))


def top(node: Node) -> float:
    return node.pos[1] - TITLE


def bottom(node: Node) -> float:
    return node.pos[1] + node.size[1]
