"""A graph as one node of another: built once, placed as often as wanted."""

from collections.abc import Mapping, Sequence
from uuid import NAMESPACE_URL, uuid5

from canvas import Canvas
from nodes_on_canvas import Node, Output

ENTRY, EXIT = -10, -20
"""The frontend's numbers for the two ends of a subgraph."""
END_WIDTH = 160


def draw_links(rows: Sequence[Sequence], extra: Mapping) -> dict:
    """Links and reroutes as a subgraph has them, from those of a graph."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    parents = {end["id"]: {"parentId": end["parentId"]} for end in extra.get("linkExtensions", [])}
    links = [dict(zip(keys, row)) | parents.get(row[0], {}) for row in rows]
    return {"links": links, "reroutes": extra.get("reroutes", [])}


class Subgraph:
    """`inputs` are name -> type; one that leads to a widget has that widget's description. The builder fills `canvas` and gives `outputs`."""

    def __init__(self, canvas: Canvas, name: str, inputs: Mapping[str, list]):
        self.name, self.number = name, str(uuid5(NAMESPACE_URL, f"cologen/{name}"))
        self.canvas = Canvas(canvas.info)
        self.inputs, self.outputs = dict(inputs), {}
        info = {"output_name": list(inputs), "output": [kind for kind, *_ in inputs.values()]}
        self.entry = Node(ENTRY, "entry", {"input": {}, "input_order": {}, **info})
        self.entry.column = -1

    def __getitem__(self, name: str) -> Output:
        return self.entry[name]

    def info(self) -> dict:
        """As the host would describe a node like this."""
        kinds = [value.node.info["output"][value.slot] for value in self.outputs.values()]
        names = list(self.outputs)
        return {
            "input": {"required": self.inputs},
            "input_order": {"required": list(self.inputs)},
            "output_name": names,
            "output": kinds,
        }

    def add_to(self, canvas: Canvas, title: str, section: str, **values) -> Node:
        canvas.subgraphs[self.number] = self
        canvas.info = {**canvas.info, self.number: self.info()}
        return canvas.add(self.number, title, section=section, **values)

    def definition(self) -> dict:
        """As the frontend writes it."""
        drawn = self.canvas.to_workflow()
        exits = [
            [-1 - i, value.node.number, value.slot, EXIT, i, self.info()["output"][i]]
            for i, value in enumerate(self.outputs.values())
        ]
        rows = drawn["links"]
        last = len(rows)
        rows += [[last - row[0], *row[1:]] for row in exits]
        for row in rows[last:]:
            node = drawn["nodes"][row[1] - 1]["outputs"][row[2]]
            node["links"] = [*(node["links"] or []), row[0]]
        right = max(node.pos[0] + node.size[0] for node in self.canvas.nodes)
        return {
            "id": self.number,
            "version": 1,
            "state": {
                "lastGroupId": 0,
                "lastNodeId": len(self.canvas.nodes),
                "lastLinkId": len(rows),
                "lastRerouteId": len(drawn["extra"].get("reroutes", [])),
            },
            "revision": 0,
            "config": {},
            "name": self.name,
            "inputNode": {"id": ENTRY, "bounding": [-2 * END_WIDTH, 0, END_WIDTH, 40 + 20 * len(self.inputs)]},
            "outputNode": {"id": EXIT, "bounding": [right + END_WIDTH, 0, END_WIDTH, 40 + 20 * len(self.outputs)]},
            "inputs": [
                self._end(name, kind, i, [row[0] for row in rows if row[1] == ENTRY and row[2] == i])
                for i, (name, (kind, *_)) in enumerate(self.inputs.items())
            ],
            "outputs": [self._end(name, row[5], row[4], [row[0]]) for name, row in zip(self.outputs, rows[last:])],
            "widgets": [],
            "nodes": drawn["nodes"],
            "groups": [],
            **draw_links(rows, drawn["extra"]),
            "extra": {},
        }

    def _end(self, name: str, kind: str, slot: int, links: list[int]) -> dict:
        number = str(uuid5(NAMESPACE_URL, f"cologen/{self.name}/{name}"))
        return {"id": number, "name": name, "type": kind, "linkIds": links, "pos": [0, 20 * slot]}

    def prompt(self, node: Node) -> dict:
        """Its nodes for the host's API, where `node` stands for it."""
        given = {name: node.default(name) for name in node.types if node.is_widget(name)} | node.values

        def resolve(value):
            if isinstance(value, Output) and value.node is self.entry:
                return given[list(self.inputs)[value.slot]]
            return (f"{node.number}:{value.node.number}", value.slot) if isinstance(value, Output) else value

        return {
            f"{node.number}:{inner.number}": (inner, {name: resolve(value) for name, value in inner.filled().items()})
            for inner in self.canvas.nodes
        }
