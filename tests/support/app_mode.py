"""App mode: what the frontend shows of a graph where the graph itself is hidden."""

from collections.abc import Sequence

from nodes_on_canvas import Node, Output

ASKED = {
    "LoadImage": "image",
    "CoLoGenToyQuestion": "question_seed",
    "CoLoGenGround": "phrase",
    "CoLoGenMarkedPrompt": "text",
    "CLIPTextEncode": "text",
    "CoLoGenSourceOptions": "strength",
    "KSampler": "seed",
    "RandomNoise": "noise_seed",
}
"""A knob by node, in the order of the graph."""
SHOWN = "SaveImage"


def describe_app(nodes: Sequence[Node]) -> dict:
    """As the frontend saves it beside a graph; nothing where no picture is saved."""
    results = [node.number for node in nodes if node.kind == SHOWN]
    asked = [(node, ASKED[node.kind]) for node in nodes if node.kind in ASKED]
    inputs = [[node.number, name] for node, name in asked if is_asked(node.values.get(name, True))]
    return {"linearData": {"inputs": inputs, "outputs": results}} if results else {}


def is_asked(value) -> bool:
    """Neither another node's output nor the words of a prompt that has none."""
    return not isinstance(value, Output) and value != ""
