"""The arrow nodes -> training -> prw, and the files that may know the host."""

import ast

import pytest
from pack import ROOT

MAY_IMPORT = {"prw": {"prw"}, "training": {"training", "prw"}, "nodes": {"nodes", "training", "prw"}}
HOST_MODULES = {"comfy", "comfy_api", "comfy_extras", "comfyui_version", "folder_paths", "nodes", "server", "execution"}
HOST_FILES = {"prw/flux_patch.py", "training/host/find.py", "training/host/training.py"}
FILES = sorted(path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))


def imported(path):
    """(level, module) of every import in a file, those within functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrow(path):
    folder, *below = path.relative_to(ROOT).parts[:-1]
    for level, module in imported(path):
        first = module.split(".")[0]
        if level == 2 + len(below):
            assert first in MAY_IMPORT[folder], f"{path.name} imports {module}"
        if level == 0:
            assert first not in {"prw", "training", "cologen"}, f"{path.name} imports {module} absolutely"
            if folder != "nodes" and str(path.relative_to(ROOT)) not in HOST_FILES:
                assert first not in HOST_MODULES, f"{path.name} imports the host's {module}"
