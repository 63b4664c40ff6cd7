"""Workflows with templates, run in a real server on tiny random models: small files stand for klein base-4B, its templates, VAE and text encoder."""

import numpy as np
import pytest
import torch
from cologen.training.base.random_models import TINY
from cologen.training.comfyui.server import make_node, open_picture
from make_workflows import drawn
from naive_learned_keys import learned_keys_file
from safetensors.torch import save_file
from tiny_flux2 import tiny_flux2
from tiny_server import SIDE as PICTURE
from tiny_server import change_nodes, draw_scene
from tiny_template import template_weights
from workflows_flux2 import SIDE
from workflows_templates import WORKFLOWS

pytestmark = pytest.mark.slow

SMALL, STEPS = 64, 3


@pytest.fixture(scope="module", autouse=True)
def files(base, klein):
    for seed, name in enumerate(("ControlNet", "Edit", "Upscaler"), 50):
        weights = template_weights(tiny_flux2(seed, context_in_dim=TINY["context_in_dim"]).state_dict())
        save_file(weights, base / f"models/cologen/Template-KleinBase4B-{name}.safetensors")
    save_file(learned_keys_file(), base / "models/cologen/brightness.safetensors")


@pytest.fixture(scope="module")
def draw(server, base):
    """Runs a graph that was made small, and gives its picture."""

    def run(graph: dict) -> torch.Tensor:
        (save,) = [number for number, node in graph.items() if node["class_type"] == "SaveImage"]
        return torch.from_numpy(np.array(open_picture(base, server.run(graph), save), dtype=np.float32))

    return run


def shrink(graph: dict) -> dict:
    """The graph with pictures and steps that a test can wait for, and with what stands for files."""
    for node in graph.values():
        inputs, kind = node["inputs"], node["class_type"]
        sizes = {name: SMALL for name in ("width", "height", "size") if inputs.get(name) == SIDE}
        inputs |= sizes | ({"steps": STEPS} if "steps" in inputs else {})
        if kind == "ImageScaleToTotalPixels":
            inputs |= {"megapixels": 0.01, "resolution_steps": 16}
        if kind == "VAELoader":
            inputs["vae_name"] = "taef2"
        if kind == "CLIPTextEncode":
            node |= {"class_type": "TinyText", "inputs": {"seed": len(inputs["text"])}}
    return {number: node for number, node in graph.items() if node["class_type"] != "CLIPLoader"}


def small(server, name: str) -> dict:
    return shrink(drawn(name, server.get("/object_info")).prompt())


@pytest.mark.parametrize("name", WORKFLOWS)
def test_it_draws_and_its_template_is_read(server, draw, name):
    graph = small(server, name)
    picture, none = draw(graph), draw(change_nodes(graph, "CoLoGenSourceOptions", strength=0.0))
    assert picture.std() > 1 and (picture - none).abs().mean() > 0.1


def test_inpainting_leaves_the_rest_of_the_picture_as_it_was(server, draw):
    picture = draw(small(server, "flux2_klein_inpaint"))
    scene = torch.from_numpy(np.array(draw_scene(), dtype=np.float32))
    grown = PICTURE // 2 - 10
    assert torch.equal(picture[:, :grown], scene[:, :grown])
    assert (picture[:, PICTURE // 2 :] - scene[:, PICTURE // 2 :]).abs().mean() > 1


def test_learned_keys_of_a_number_change_the_picture(server, draw):
    """A node between the prompt and the task; the same value twice is the same picture."""
    graph = small(server, "flux2_klein_control")
    (task,) = [node for node in graph.values() if node["class_type"] == "CoLoGenControl"]

    def with_number(value: float, strength: float = 1.0) -> torch.Tensor:
        knobs = dict(value=value, strength=strength, start=0.0, end=1.0)
        number = make_node(
            "CoLoGenLearnedKeys", conditioning=task["inputs"]["positive"], file="brightness.safetensors", **knobs
        )
        told = {**task, "inputs": task["inputs"] | {"positive": ["number", 0]}}
        return draw({**{key: told if node is task else node for key, node in graph.items()}, "number": number})

    bright = with_number(0.9)
    assert torch.equal(with_number(0.9), bright) and (with_number(0.1) - bright).abs().mean() > 0.1
    assert (with_number(0.9, strength=0.0) - draw(graph)).abs().max() <= 1  # other conds share a batch
