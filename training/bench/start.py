"""What the pack adds to ComfyUI's start: seconds to import it and build its schemas, and what it drags along."""

import json
import subprocess
import sys

from ..find_host import PACK, require_host

HEAVY = ("peft", "transformers", "datasets", "kornia", "diffusers", "tensorboard", "torchvision", "pandas")
"""Packages that take long to import: none may come along."""

PROBE = """
import asyncio, importlib.util, json, sys, time
root, host, heavy = json.loads(sys.argv[1])
sys.path.insert(0, host)
import comfy.cli_args
comfy.cli_args.args.cpu = True
import comfy_api.latest, comfy_extras.nodes_flux, comfy.sd, folder_paths, comfyui_version
before, start = set(sys.modules), time.perf_counter()
spec = importlib.util.spec_from_file_location("pack", root + "/__init__.py", submodule_search_locations=[root])
pack = importlib.util.module_from_spec(spec)
sys.modules["pack"] = pack
spec.loader.exec_module(pack)
async def load():
    extension = await pack.comfy_entrypoint()
    await extension.on_load()
    return [node.GET_SCHEMA() for node in await extension.get_node_list()]
schemas = asyncio.run(load())
seconds = time.perf_counter() - start
added = {name.split(".")[0] for name in set(sys.modules) - before}
print(json.dumps({"seconds": seconds, "nodes": len(schemas), "heavy": sorted(added & set(heavy))}))
"""


def bench_import(repeats: int) -> dict:
    """Measures the fastest of several fresh processes: its seconds, how many nodes, which of HEAVY came along."""
    request = json.dumps([str(PACK), str(require_host()), HEAVY])
    runs = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", PROBE, request], capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
    return min(runs, key=lambda run: run["seconds"])
