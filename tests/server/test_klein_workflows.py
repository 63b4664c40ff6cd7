"""FLUX.2 klein's workflows, run in a real server on a tiny random FLUX.2: small files stand for its model, VAE and text encoder."""

import numpy as np
import pytest
import torch
from cologen.training.base.random_models import TINY
from cologen.training.comfyui.server import open_picture
from make_workflows import drawn
from safetensors.torch import save_file
from tiny_flux2 import tiny_flux2
from tiny_server import draw_scene, make_tiny_base, make_tiny_vae
from workflows_flux2 import KLEIN, SIDE, WORKFLOWS

pytestmark = pytest.mark.usefixtures("comfy")

SMALL = 64


@pytest.fixture(scope="module")
def base(tmp_path_factory, comfy):
    root = make_tiny_base(tmp_path_factory.mktemp("comfy"), {"example": draw_scene()})
    save_file(tiny_flux2(context_in_dim=TINY["context_in_dim"]).state_dict(), root / "models/diffusion_models" / KLEIN)
    (root / "models/vae_approx").mkdir(exist_ok=True)
    for part in ("encoder", "decoder"):
        names = {name: value for name, value in make_tiny_vae(128).items() if name.startswith(f"taesd_{part}.")}
        weights = {name.removeprefix(f"taesd_{part}."): value.contiguous() for name, value in names.items()}
        save_file(weights, root / f"models/vae_approx/taef2_{part}.safetensors")
    return root


@pytest.fixture(scope="module")
def server(start_server, base):
    return start_server(base)


def shrink(graph: dict) -> dict:
    """The graph with pictures that a test can wait for, and with what stands for files."""
    for node in graph.values():
        inputs = node["inputs"]
        inputs |= {
            name: inputs[name] * SMALL // SIDE for name in ("width", "height") if isinstance(inputs.get(name), int)
        }
        if node["class_type"] == "ImageScaleToTotalPixels":
            inputs["megapixels"] = 0.01
        if node["class_type"] == "VAELoader":
            inputs["vae_name"] = "taef2"
        if node["class_type"] == "CLIPTextEncode":
            node |= {"class_type": "TinyText", "inputs": {"seed": 3}}
    return {number: node for number, node in graph.items() if node["class_type"] != "CLIPLoader"}


def change(graph: dict, kind: str, **inputs) -> dict:
    return {
        number: {**node, "inputs": node["inputs"] | inputs} if node["class_type"] == kind else node
        for number, node in graph.items()
    }


@pytest.mark.parametrize("name", WORKFLOWS)
def test_it_draws_and_its_pictures_are_read(server, base, name):
    graph = shrink(drawn(name, server.get("/object_info")).prompt())
    (save,) = [number for number, node in graph.items() if node["class_type"] == "SaveImage"]

    def draw(graph: dict) -> torch.Tensor:
        return torch.from_numpy(np.array(open_picture(base, server.run(graph), save), dtype=np.float32))

    picture, none = draw(graph), draw(change(graph, "CoLoGenSourceOptions", strength=0.0))
    assert picture.std() > 1 and (picture - none).abs().mean() > 0.1
