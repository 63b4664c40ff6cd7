"""Subgraph blueprints as the frontend publishes them: a canvas whose graph is one node, with the inputs and knobs that its face shows."""

import uuid
from typing import Any

from canvas import Canvas, Node, Output
from subgraph import draw_links

FACE, RESULT = -10, -20
"""Numbers that the frontend gives to a subgraph's own inputs and outputs."""
WIDTH, SLOT, MARGIN = 400, 20, 200


class Blueprint(Canvas):
    def __init__(self, info: dict, name: str):
        super().__init__(info)
        self.name, self.description, self.aliases = name, "", []
        self.face = Node(FACE, "", {"input": {}, "input_order": {}, "output": [], "output_name": []})
        self.shown: list[tuple[str, Node, str]] = []
        """In the face's order: its name, and the first node and input that it feeds."""
        self.results: list[tuple[str, Output]] = []

    def show(self, name: str, *targets: tuple[Node, str]) -> None:
        """Puts inputs of nodes on the face, under one name; a knob begins with the first node's value."""
        node, key = targets[0]
        kept = node.values.get(key, node.default(key)) if node.is_widget(key) else None
        slot = len(self.shown)
        self.shown.append((name, node, key))
        self.face.info["output"].append("COMBO" if node.choices(key) is not None else node.types[key][0])
        self.face.info["output_name"].append(name)
        for target, key in targets:
            assert not isinstance(target.values.get(key), Output), f"{target.kind}'s {key} is linked already"
            target.values[key] = Output(self.face, slot)
            target.kept[key] = kept

    def give(self, name: str, output: Output) -> None:
        self.results.append((name, output))

    def find(self, kind: str, title: str = "") -> Node:
        (node,) = [node for node in self.nodes if node.kind == kind and title in node.title]
        return node

    def describe(self, text: str, *aliases: str) -> None:
        self.description, self.aliases = text, list(aliases)

    def to_workflow(self) -> dict:
        """The one node, and beside it what is in it."""
        inner, host = super().to_workflow(), len(self.nodes) + 1
        return {
            "id": self._make_id("workflow"),
            "revision": 0,
            "last_node_id": host,
            "last_link_id": 0,
            "nodes": [self._draw_host(host)],
            "links": [],
            "groups": [],
            "definitions": {"subgraphs": [self._draw_inside(inner)]},
            "config": {},
            "extra": {"BlueprintDescription": self.description, "BlueprintSearchAliases": self.aliases},
            "version": 0.4,
        }

    def prompt(self) -> dict:
        """As the frontend sends the one node alone: numbers with the host's before them, sockets of the face left open."""
        host = len(self.nodes) + 1
        graph = {}
        for number, node in super().prompt().items():
            inputs = {name: self._flatten(host, number, name, value) for name, value in node["inputs"].items()}
            graph[f"{host}:{number}"] = node | {"inputs": {k: v for k, v in inputs.items() if v is not None}}
        return graph

    def _flatten(self, host: int, number: str, name: str, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        if value[0] == str(FACE):
            return self.nodes[int(number) - 1].kept[name]
        return [f"{host}:{value[0]}", value[1]]

    def _make_id(self, what: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"cologen/{self.name}/{what}"))

    def _draw_host(self, number: int) -> dict:
        inputs = [
            {"name": name, "type": kind, "link": None} | ({"widget": {"name": name}} if node.is_widget(key) else {})
            for (name, node, key), kind in zip(self.shown, self.face.info["output"])
        ]
        return {
            "id": number,
            "type": self._make_id("subgraph"),
            "pos": [0, 0],
            "size": [WIDTH, 60 + 30 * len(inputs)],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": inputs,
            "outputs": [
                {"name": name, "type": output.node.info["output"][output.slot], "links": []}
                for name, output in self.results
            ],
            "title": self.name,
            "properties": {},
            "widgets_values": [node.kept[key] for _, node, key in self.shown if node.is_widget(key)],
        }

    def _draw_inside(self, inner: dict) -> dict:
        places = [node["pos"] for node in inner["nodes"]]
        left, right, top = min(x for x, _ in places), max(x for x, _ in places) + WIDTH, min(y for _, y in places)
        links = inner["links"] + [
            [len(inner["links"]) + 1 + slot, output.node.number, output.slot, RESULT, slot, output.node.info["output"][output.slot]]
            for slot, (_, output) in enumerate(self.results)
        ]  # fmt: skip
        for link, origin, slot, target, *_ in links:
            if target == RESULT:
                (node,) = [node for node in inner["nodes"] if node["id"] == origin]
                node["outputs"][slot]["links"] = [*(node["outputs"][slot]["links"] or []), link]
        names = self.face.info["output_name"], [name for name, _ in self.results]
        inputs = [self._draw_slot(i, name, FACE, links) for i, name in enumerate(names[0])]
        outputs = [self._draw_slot(i, name, RESULT, links) for i, name in enumerate(names[1])]
        state = {"lastNodeId": len(self.nodes) + 1, "lastLinkId": len(links), "lastGroupId": len(inner["groups"])}
        state["lastRerouteId"] = len(inner["extra"].get("reroutes", []))
        return {
            "id": self._make_id("subgraph"),
            "version": 1,
            "state": state,
            "revision": 0,
            "config": {},
            "name": self.name,
            "category": "CoLoGen",
            "description": self.description,
            "inputNode": {"id": FACE, "bounding": [left - MARGIN, top, 120, 40 + SLOT * len(inputs)]},
            "outputNode": {"id": RESULT, "bounding": [right + MARGIN - 120, top, 120, 40 + SLOT * len(outputs)]},
            "inputs": inputs,
            "outputs": outputs,
            "widgets": [],
            "nodes": inner["nodes"],
            "groups": inner["groups"],
            **draw_links(links, inner["extra"]),
            "extra": {},
        }

    def _draw_slot(self, i: int, name: str, end: int, links: list) -> dict:
        """An input or output of the subgraph, with its links."""
        own = [row for row in links if (row[1:3] if end == FACE else row[3:5]) == [end, i]]
        return {
            "id": self._make_id(f"{end}/{name}"),
            "name": name,
            "type": own[0][5],
            "linkIds": [row[0] for row in own],
        }
