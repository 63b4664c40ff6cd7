"""FLUX.2 klein's workflows, run in a real server on a tiny random FLUX.2: small files stand for its model, VAE and text encoder."""

import numpy as np
import pytest
import torch
from cologen.training.comfyui.server import open_picture
from make_workflows import drawn
from tiny_server import change_nodes
from workflows_flux2 import SIDE, WORKFLOWS

pytestmark = pytest.mark.usefixtures("klein")

SMALL = 64


def shrink(graph: dict) -> dict:
    """The graph with pictures that a test can wait for, and with what stands for files."""
    for node in graph.values():
        inputs = node["inputs"]
        inputs |= {
            name: inputs[name] * SMALL // SIDE for name in ("width", "height") if isinstance(inputs.get(name), int)
        }
        for box in inputs.get("editor_state", {}).get("__value__", []):
            box |= {side: box[side] * SMALL // SIDE for side in ("x", "y", "width", "height")}
        if node["class_type"] == "ImageScaleToTotalPixels":
            inputs["megapixels"] = 0.01
        if node["class_type"] == "VAELoader":
            inputs["vae_name"] = "taef2"
        if node["class_type"] == "CLIPTextEncode":
            node |= {"class_type": "TinyText", "inputs": {"seed": 3}}
    return {number: node for number, node in graph.items() if node["class_type"] != "CLIPLoader"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_it_draws_and_its_pictures_are_read(server, base, name):
    graph = shrink(drawn(name, server.get("/object_info")).prompt())
    (save,) = [number for number, node in graph.items() if node["class_type"] == "SaveImage"]

    def draw(graph: dict) -> torch.Tensor:
        return torch.from_numpy(np.array(open_picture(base, server.run(graph), save), dtype=np.float32))

    picture, none = draw(graph), draw(change_nodes(graph, "CoLoGenSourceOptions", strength=0.0))
    assert picture.std() > 1 and (picture - none).abs().mean() > 0.1
