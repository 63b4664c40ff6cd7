"""Graphs as the frontend saves them, written in Python: nodes that are linked by name, and placed by layout.py.

Sockets, widgets and their order come from the host's own description of its nodes, so a workflow cannot name what is
not there, and a changed node changes the file.
"""

from collections.abc import Sequence
from typing import Any

from app_mode import describe_app
from lanes import route_links
from layout import BLOCKS, GIVEN, SECTIONS, arrange
from nodes_on_canvas import NOTE, SEEDS, Node, Output

LETTER, LINE = 7, 22
"""Of a note's words."""
UNMOVED = {"__value__": ["", ""]}
"""What the frontend sends for a slider that shows nothing yet."""


def note_height(text: str, wide: float) -> float:
    """What a note needs in the frontend's font, and a line that points at other languages below."""
    rows = sum(-(-len(paragraph) * LETTER // (wide - 40)) for paragraph in text.splitlines() if paragraph)
    return LINE * rows + LINE * text.count("\n\n") / 2 + 3 * LINE


class Canvas:
    blocks: Sequence[Sequence[str]] = BLOCKS
    section = ""
    """Where all nodes stand that are added from now on, if not by their kind."""

    def __init__(self, info: dict):
        self.info, self.nodes = info, []
        self.subgraphs: dict[str, Any] = {}
        """Kind of node -> the subgraph that it stands for."""

    def add(self, kind: str, title: str = "", /, box=(0, 0), models=(), after="fixed", section="", **values) -> Node:
        """`models` are (name, folder, url) of files that the node wants; a section is that of its kind if none is given."""
        section = section or self.section or SECTIONS.get(kind, GIVEN)
        node = Node(len(self.nodes) + 1, kind, self.info[kind], title, box, models, section)
        node.values, node.after = values, after
        for name, value in values.items():
            assert name in node.types, f"{kind} has no input {name}: {', '.join(node.types)}"
            assert node.accepts(name, value), f"{kind}'s {name} offers no {value}"
        self.nodes.append(node)
        return node

    def compare(self, before: Output, after: Output) -> None:
        """Two pictures below a slider, which the host has in the new drawing of nodes."""
        self.add("ImageCompare", "Before and after", image_a=before, image_b=after, compare_view=UNMOVED)

    def note(self, text: str, section="", wide=360) -> None:
        info = {"input": {}, "input_order": {}, "output_name": []}
        node = Node(len(self.nodes) + 1, NOTE, info, "", (wide, note_height(text, wide)), (), section)
        node.text = text
        self.nodes.append(node)

    def to_workflow(self) -> dict:
        """As the frontend writes it."""
        links = [
            (target, name, value)
            for target in self.nodes
            for name, value in target.values.items()
            if isinstance(value, Output)
        ]
        numbers = {(target.number, name): i + 1 for i, (target, name, _) in enumerate(links)}
        rows = []
        for target, name, source in links:
            slot = target.sockets().index(name)
            kind = source.node.info["output"][source.slot]
            rows.append([numbers[target.number, name], source.node.number, source.slot, target.number, slot, kind])
        groups = arrange(self.nodes, self.blocks)
        return {
            "last_node_id": len(self.nodes),
            "last_link_id": len(links),
            "nodes": [self._node(i, node, numbers, rows) for i, node in enumerate(self.nodes)],
            "links": rows,
            "groups": [{"id": i + 1, **group} for i, group in enumerate(groups)],
            "config": {},
            "extra": route_links(self.nodes, rows, groups) | describe_app(self.nodes),
            "version": 0.4,
            **(
                {"definitions": {"subgraphs": [sub.definition() for sub in self.subgraphs.values()]}}
                if self.subgraphs
                else {}
            ),
        }

    def prompt(self) -> dict:
        """The same for the host's API, where a subgraph's nodes stand one by one."""
        graph = {}
        for node in self.nodes:
            if node.kind in self.subgraphs:
                inside = self.subgraphs[node.kind].prompt(node)
                graph |= {number: self._call(inner.kind, given) for number, (inner, given) in inside.items()}
            elif node.kind != NOTE:
                graph[str(node.number)] = self._call(node.kind, node.filled())
        return graph

    def _call(self, kind: str, given: dict) -> dict:
        return {"class_type": kind, "inputs": {name: self._address(value) for name, value in given.items()}}

    def _address(self, value):
        """Where the host finds a value: a subgraph's output is that of a node in it."""
        if not isinstance(value, Output):
            return (
                {"__value__": value} if isinstance(value, list) else list(value) if isinstance(value, tuple) else value
            )
        if value.node.kind not in self.subgraphs:
            return [str(value.node.number), value.slot]
        inner, slot = list(self.subgraphs[value.node.kind].outputs.values())[value.slot]
        return [f"{value.node.number}:{inner.number}", slot]

    def _sockets(self, node: Node, numbers: dict) -> list[dict]:
        entries = []
        for name in node.sockets():
            kind = node.types[name][0]
            entry = {
                "name": name,
                "type": "COMBO" if isinstance(kind, list) else kind,
                "link": numbers.get((node.number, name)),
            }
            entries.append(entry | ({"widget": {"name": name}} if node.is_widget(name) else {}))
        return entries

    def _node(self, order: int, node: Node, numbers: dict, rows: list) -> dict:
        entry = {
            "id": node.number,
            "type": node.kind,
            "pos": node.pos,
            "size": node.size,
            "flags": {},
            "order": order,
            "mode": 0,
            "inputs": self._sockets(node, numbers),
            "outputs": [
                {
                    "name": name,
                    "type": kind,
                    "links": [r[0] for r in rows if r[1] == node.number and r[2] == slot] or None,
                }
                for slot, (name, kind) in enumerate(zip(node.info["output_name"], node.info.get("output", [])))
            ],
            "properties": {"Node name for S&R": node.kind},
            "widgets_values": [node.text] if node.kind == NOTE else self._widgets(node),
        }
        if node.title:
            entry["title"] = node.title
        if node.models:
            keys = ("name", "directory", "url")
            entry["properties"]["models"] = [dict(zip(keys, model)) for model in node.models]
        return entry

    def _widgets(self, node: Node) -> list:
        values = []
        for name in filter(node.is_widget, node.types):
            value = node.values.get(name, node.default(name))
            values.append(node.kept.get(name, node.default(name)) if isinstance(value, Output) else value)
            options = node.options(name)
            if name in SEEDS or options.get("control_after_generate"):
                values.append(node.after)
            if options.get("image_upload"):
                values.append("image")
        return values
