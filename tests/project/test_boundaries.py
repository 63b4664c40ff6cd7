"""The rooms' order: what stands earlier knows nothing of what stands later, and only some rooms know the host."""

import ast
from pathlib import Path

import pytest
from pack import ROOT

ROOMS = (
    "prw/files", "prw/flux", "prw", "prw/bank", "prw/bank/importers", "prw/personalization", "prw/coredi", "prw/comfyui",
    "training/recipes", "training/distributed", "training/checkpoint", "training/base",
    "training/data", "training/data/formats", "training/data/sets", "training/data/labels", "training/data/tasks",
    "training/encoders", "training/data/encoded", "training", "training/monitor", "training/from_scratch", "training/toy", "training/world", "training/subject",
    "training/coredi", "training/setup", "training/comfyui", "training/evaluation", "training/experiments",
    "training/bench", "training/cli", "nodes/inputs", "nodes",
)  # fmt: skip
"""From the lowest; a room may import what stands before it and itself."""
HOST_ROOMS = {"prw/comfyui", "training/comfyui", "nodes/inputs", "nodes"}
HOST_MODULES = {"comfy", "comfy_api", "comfy_extras", "comfyui_version", "folder_paths", "nodes", "server", "execution"}
FILES = sorted(path for top in ("prw", "training", "nodes") for path in (ROOT / top).rglob("*.py"))


def room_of(path):
    if path.name == "__main__.py":  # starts the terminal
        return "training/cli"
    return str(path.relative_to(ROOT).parent)


def imports(path):
    """(level, module, name) of every import in a file, those within functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, node.module or "", alias.name) for alias in node.names)


def imported_file(path, level, module, name):
    """The file that a relative import reads."""
    folder = path.parents[level - 1].joinpath(*filter(None, module.split(".")))
    places = (folder / f"{name}.py", folder / name / "__init__.py", folder.with_suffix(".py"), folder / "__init__.py")
    return next(place for place in places if place.exists())


def stands_alone(path):
    """A file that imports nothing of ours belongs to no room: errors, schedules."""
    return not any(level for level, *_ in imports(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_know_only_what_stands_before_them(path):
    own = ROOMS.index("training/cli" if path.name == "__main__.py" else room_of(path))
    for level, module, name in imports(path):
        if level:
            found = imported_file(path, level, module, name)
            room = room_of(found)
            assert ROOMS.index(room) <= own or stands_alone(found), f"{room_of(path)} imports {room}: {module} {name}"
        else:
            first = module.split(".")[0]
            assert first not in {"prw", "training", "cologen"}, f"{path.name} imports {module} absolutely"
            if room_of(path) not in HOST_ROOMS:
                assert first not in HOST_MODULES, f"{path.name} imports the host's {module}"


def test_every_room_is_packed():
    listed = (ROOT / "pyproject.toml").read_text()
    for path in FILES:
        assert f'"cologen.{".".join(Path(room_of(path)).parts)}",' in listed
