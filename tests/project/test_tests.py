"""How the tests are kept: none imports another, and what several need lies in tests/support."""

import ast

import pytest
from pack import ROOT

TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("*.py"))


def imported_modules(path) -> set[str]:
    """The first word of every module that a file imports, those within functions too."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.split(".")[0])
    return modules


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_imports_another(path):
    tests = {file.stem for file in FILES if file.stem.startswith("test_")}
    assert not imported_modules(path) & tests


def test_helpers_have_names_of_their_own():
    """tests/support and tests/tools are both on the path."""
    names = [path.stem for folder in ("support", "tools") for path in (TESTS / folder).glob("*.py")]
    assert len(names) == len(set(names))
