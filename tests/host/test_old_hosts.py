"""A ComfyUI older than our hook loads the pack and says, at the node that needs it, what it needs.

Old versions stand beside the host as ComfyUI-<anything>, or are named in COMFYUI_OLD_PATHS. Each runs in
a process of its own, through its own loader of custom nodes.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pack import HOST, ROOT

VERSION = re.compile(r'"0\.(\d+)')


def find_neighbours() -> list[Path]:
    """Other versions of ComfyUI beside the host; packs and copies are called ComfyUI-SOMETHING, too."""
    found = sorted(HOST.parent.glob("ComfyUI-*/comfyui_version.py")) if HOST else []
    return [path.parent for path in found if (version := VERSION.search(path.read_text())) and int(version[1]) < 17]


named = os.environ.get("COMFYUI_OLD_PATHS", "").split(os.pathsep)
OLD = [Path(p) for p in named if p] or find_neighbours()

pytestmark = [
    pytest.mark.usefixtures("comfy"),
    pytest.mark.skipif(not OLD, reason="no older ComfyUI found (COMFYUI_OLD_PATHS)"),
]

SCRIPT = """
import asyncio, sys
pack, old = sys.argv[1:]
sys.argv[1:] = ["--cpu"]
sys.path.insert(0, old)
import comfy.options
comfy.options.enable_args_parsing()
import comfy.cli_args, nodes
assert asyncio.run(nodes.load_custom_node(pack)), "the pack did not load"
ours = {name: cls for name, cls in nodes.NODE_CLASS_MAPPINGS.items() if name.startswith("CoLoGen")}
for cls in ours.values():
    cls.INPUT_TYPES()
print("NODES", len(ours))
try:
    ours["CoLoGenApply"].execute(model=None, experts=None)
except RuntimeError as error:
    print("SAID", error)
"""


@pytest.mark.parametrize("old", OLD, ids=lambda path: path.name)
def test_an_old_host_gets_a_sentence(old):
    from cologen.nodes import NODES

    done = subprocess.run([sys.executable, "-c", SCRIPT, str(ROOT), str(old)], cwd=old, capture_output=True, text=True)
    version = (old / "comfyui_version.py").read_text().split('"')[-2]
    assert f"NODES {len(NODES)}" in done.stdout, done.stderr[-2000:]
    assert (
        f"SAID This is ComfyUI {version}, whose FLUX has no hook for CoLoGen, expected 0.17.0 or newer" in done.stdout
    )
