"""Graphs of today open next year: ids, inputs, their order and defaults are those of frozen_nodes.json.

`PYTHONPATH=tests/support python tests/server/test_frozen_nodes.py` freezes what is new; what is frozen may only change where the host is told of it (NodeReplace).
"""

import json
import sys
import tempfile
from pathlib import Path

from cologen.training.comfyui.server import Server
from pack import HOST
from tiny_server import make_tiny_base

FROZEN = Path(__file__).with_name("frozen_nodes.json")


def shape(node: dict) -> dict:
    """What saved graphs rely on: widgets by place, sockets by name, outputs by both."""
    inputs = {
        name: description
        for group in ("required", "optional")
        for name, description in node["input"].get(group, {}).items()
    }
    order = [name for group in ("required", "optional") for name in node["input_order"].get(group, [])]
    return {
        "inputs": [[name, kind(inputs[name]), default(inputs[name])] for name in order],
        "outputs": [list(pair) for pair in zip(node["output_name"], map(str, node["output"]))],
    }


def kind(description: list) -> str:
    return "COMBO" if isinstance(description[0], list) else description[0]


def default(description: list):
    return description[1].get("default") if len(description) > 1 else None


def described(server: Server) -> dict:
    info = server.get("/object_info")
    return {name: shape(node) for name, node in info.items() if node["python_module"].endswith("CoLoGen")}


def test_what_was_frozen_is_as_it_was_or_replaced(server):
    frozen, now = json.loads(FROZEN.read_text(encoding="utf-8")), described(server)
    replaced = server.get("/node_replacements")
    for name, before in frozen.items():
        if name in replaced:
            continue
        assert name in now, f"{name} is gone: graphs that have it would not open"
        for part, entries in before.items():
            assert now[name][part][: len(entries)] == entries, f"{name}: new {part} go last, old ones stay"


def test_every_node_is_frozen(server):
    assert described(server) == json.loads(FROZEN.read_text(encoding="utf-8")), (
        "PYTHONPATH=tests/support python tests/server/test_frozen_nodes.py"
    )


def freeze() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(HOST, make_tiny_base(Path(folder) / "base", {}))
        try:
            rows = [f"{json.dumps(name)}: {json.dumps(node)}" for name, node in sorted(described(server).items())]
        finally:
            server.stop()
    FROZEN.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    sys.stdout.write(f"{len(rows)} nodes\n")


if __name__ == "__main__":
    freeze()
