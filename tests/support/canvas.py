"""Graphs as the frontend saves them, written in Python: nodes on a grid, linked by name.

Sockets, widgets and their order come from the host's own description of its nodes, so a workflow cannot name what is
not there, and a changed node changes the file.
"""

from typing import Any, NamedTuple

COLUMN, ROW = 380, 60
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "BOUNDING_BOXES")
SEEDS = ("seed", "noise_seed")
"""Widgets behind which the frontend puts one of its own: what becomes of the number after a run."""


class Output(NamedTuple):
    node: "Node"
    slot: int


class Node:
    def __init__(self, number: int, kind: str, info: dict, place: dict):
        self.number, self.kind, self.info, self.place = number, kind, info, place
        self.values: dict[str, Any] = {}
        self.kept: dict[str, Any] = {}
        """Of linked knobs, what stands on the node, where that is not its default."""
        self.after = "fixed"

    def __getitem__(self, output: str | int) -> Output:
        return Output(self, output if isinstance(output, int) else self.info["output_name"].index(output))

    @property
    def types(self) -> dict[str, Any]:
        """Input names in their order -> type, options."""
        groups = self.info["input"]
        order = [name for group in ("required", "optional") for name in self.info["input_order"].get(group, [])]
        return {name: {**groups.get("required", {}), **groups.get("optional", {})}[name] for name in order}

    def is_widget(self, name: str) -> bool:
        kind, *rest = self.types[name]
        return isinstance(kind, list) or (kind in WIDGETS and not (rest and rest[0].get("forceInput")))

    def choices(self, name: str) -> list | None:
        kind, *rest = self.types[name]
        return kind if isinstance(kind, list) else rest[0]["options"] if kind == "COMBO" else None

    def accepts(self, name: str, value: Any) -> bool:
        """Files need not be here."""
        choices = self.choices(name)
        return isinstance(value, Output) or choices is None or value in choices or "." in str(value)

    def default(self, name: str) -> Any:
        kind, *rest = self.types[name]
        options, choices = rest[0] if rest else {}, self.choices(name)
        if choices is not None:
            return options.get("default", choices[0] if choices else "")
        return options.get("default", {"STRING": "", "BOOLEAN": False}.get(kind, 0))


class Canvas:
    def __init__(self, info: dict):
        self.info, self.nodes, self.groups = info, [], []

    def add(
        self, kind: str, at: tuple[float, float], title: str = "", /, box=(300, 0), models=(), after="fixed", **values
    ) -> Node:
        """`at` in columns and rows; `models` are (name, folder, url) of files that the node wants."""
        place = dict(pos=[at[0] * COLUMN, at[1] * ROW], size=list(box), title=title, models=models)
        node = Node(len(self.nodes) + 1, kind, self.info[kind], place)
        for name, value in values.items():
            assert name in node.types, f"{kind} has no input {name}: {', '.join(node.types)}"
            assert node.accepts(name, value), f"{kind}'s {name} offers no {value}"
        node.values, node.after = values, after
        self.nodes.append(node)
        return node

    def note(self, text: str, at: tuple[float, float], size=(360, 200)) -> None:
        node = Node(len(self.nodes) + 1, "MarkdownNote", {"input": {}, "input_order": {}, "output_name": []}, {})
        node.place = dict(pos=[at[0] * COLUMN, at[1] * ROW], size=list(size), title="", models=())
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
            slot = [entry["name"] for entry in self._sockets(target, numbers)].index(name)
            kind = source.node.info["output"][source.slot]
            rows.append([numbers[target.number, name], source.node.number, source.slot, target.number, slot, kind])
        return {
            "last_node_id": len(self.nodes),
            "last_link_id": len(links),
            "nodes": [self._node(i, node, numbers, rows) for i, node in enumerate(self.nodes)],
            "links": rows,
            "groups": [],
            "config": {},
            "extra": {},
            "version": 0.4,
        }

    def prompt(self) -> dict:
        """The same for the host's API."""
        graph = {}
        for node in self.nodes:
            if node.kind != "MarkdownNote":
                given = {name: node.default(name) for name in node.types if node.is_widget(name)} | node.values
                inputs = {
                    name: [str(v.node.number), v.slot]
                    if isinstance(v, Output)
                    else {"__value__": v}
                    if isinstance(v, list)
                    else v
                    for name, v in given.items()
                }
                graph[str(node.number)] = {"class_type": node.kind, "inputs": inputs}
        return graph

    def _sockets(self, node: Node, numbers: dict) -> list[dict]:
        entries = []
        for name, (kind, *_) in node.types.items():
            linked = isinstance(node.values.get(name), Output)
            if node.is_widget(name) and not linked:
                continue
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
            "pos": node.place["pos"],
            "size": node.place["size"],
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
            "widgets_values": [node.text] if node.kind == "MarkdownNote" else self._widgets(node),
        }
        if node.place["title"]:
            entry["title"] = node.place["title"]
        if node.place["models"]:
            keys = ("name", "directory", "url")
            entry["properties"]["models"] = [dict(zip(keys, model)) for model in node.place["models"]]
        return entry

    def _widgets(self, node: Node) -> list:
        values = []
        for name in filter(node.is_widget, node.types):
            value = node.values.get(name, node.default(name))
            values.append(node.kept.get(name, node.default(name)) if isinstance(value, Output) else value)
            options = node.types[name][1] if len(node.types[name]) > 1 else {}
            if name in SEEDS or options.get("control_after_generate"):
                values.append(node.after)
            if options.get("image_upload"):
                values.append("image")
        return values
