"""A function's docstring begins with its verb; a property's, which is read like a value, may be a noun."""

import ast
from collections.abc import Iterator

import pytest
from pack import ROOT

NO_VERBS = {
    "A", "An", "The", "One", "Each", "Every", "All", "This", "It", "Its",
    "What", "Whether", "How", "Where", "Which", "Who", "Why", "When", "With", "Within,", "Called", "From", "By", "For", "As",
}  # fmt: skip


def list_functions(room: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in sorted((ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and not any(
                "property" in ast.unparse(each) for each in node.decorator_list
            ):
                yield f"{path.relative_to(ROOT)}: {node.name}", node


@pytest.mark.parametrize("room", ["prw", "training", "nodes"])
def test_what_a_function_does_is_said_by_a_verb(room):
    said = {name: doc for name, node in list_functions(room) if (doc := ast.get_docstring(node))}
    assert len(said) > 30
    assert [name for name, doc in said.items() if doc.split()[0] in NO_VERBS] == []
