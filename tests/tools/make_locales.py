"""Writes locales/: `python tests/tools/make_locales.py` with a ComfyUI at hand, whenever a schema or a translation changes.

English comes from the schemas alone. Translations are looked up by the English phrase (tests/tools/phrases.json): one that was
reworded stays English until somebody translates it, and a test names it.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import support_path  # noqa: F401
from pack import ROOT

FOLDER = ROOT / "locales"
PHRASES = Path(__file__).with_name("phrases.json")
LANGUAGES = ("en", "zh", "ja")
CATEGORIES = ("tasks",)
"""Ours; the host translates "training" and "sampling", and CoLoGen is a name."""
AFTER = "control_after_generate"
"""A widget that the frontend adds; its name in every language is the host's own."""

Tree = dict[str, "str | Tree"]


def described(name: str, tooltip: str) -> Tree:
    return {"name": name, "tooltip": tooltip}


def node_of(schema) -> Tree:
    """As the frontend looks for it: outputs by number, and named only if they are not called by their type."""
    inputs = {item.id: described(item.id, item.tooltip) for item in schema.inputs}
    if any(getattr(item, AFTER, None) for item in schema.inputs):
        inputs[AFTER] = {"name": AFTER.replace("_", " ")}
    outputs = {str(i): output_of(item) for i, item in enumerate(schema.outputs)}
    texts = {"display_name": schema.display_name, "description": schema.description, "inputs": inputs}
    return texts | ({"outputs": outputs} if outputs else {})


def output_of(item) -> Tree:
    return described(item.display_name, item.tooltip) if item.display_name else {"tooltip": item.tooltip}


def english() -> dict[str, Tree]:
    """File name -> what it says."""
    from cologen.nodes import NODES

    schemas = [node.define_schema() for node in NODES]
    nodes = {schema.node_id: node_of(schema) for schema in sorted(schemas, key=lambda schema: schema.node_id)}
    return {"nodeDefs": nodes, "main": {"nodeCategories": {name: name for name in CATEGORIES}}}


def each(tree: Tree, change: Callable[[str], str]) -> Tree:
    return {key: change(value) if isinstance(value, str) else each(value, change) for key, value in tree.items()}


def phrases() -> dict[str, dict[str, str]]:
    return json.loads(PHRASES.read_text(encoding="utf-8"))


def locale(language: str) -> dict[str, Tree]:
    known = phrases()
    return each(english(), lambda text: known.get(text, {}).get(language, text))


def text_of(tree: Tree) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    for language in LANGUAGES:
        (FOLDER / language).mkdir(parents=True, exist_ok=True)
        for name, tree in locale(language).items():
            path = FOLDER / language / f"{name}.json"
            path.write_text(text_of(tree), encoding="utf-8")
            sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
