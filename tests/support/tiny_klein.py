"""A server's folder with small random models in the place of FLUX.2 klein's, and what makes klein's workflows run on them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from cologen.training.base.random_models import TINY
from cologen.training.comfyui.server import Server, open_picture
from PIL import Image
from safetensors.torch import save_file
from tiny_flux2 import tiny_flux2
from tiny_server import make_tiny_base, make_tiny_vae
from torch import Tensor

WIDTH = TINY["context_in_dim"]
"""Of the tokens that the stand-in for a text encoder gives."""


def make_klein_base(root: Path, pictures: dict[str, Image.Image], names: Iterable[str]) -> Path:
    """The tiny base folder with a random FLUX.2 under each name, and the host's small VAE of FLUX.2, taef2."""
    make_tiny_base(root, pictures)
    for seed, name in enumerate(names):
        save_file(tiny_flux2(seed, context_in_dim=WIDTH).state_dict(), root / "models/diffusion_models" / name)
    (root / "models/vae_approx").mkdir(exist_ok=True)
    for part in ("encoder", "decoder"):
        prefix = f"taesd_{part}."
        weights = {name: value for name, value in make_tiny_vae(128).items() if name.startswith(prefix)}
        weights = {name.removeprefix(prefix): value.contiguous() for name, value in weights.items()}
        save_file(weights, root / f"models/vae_approx/taef2_{part}.safetensors")
    return root


def replace_encoders(graph: dict) -> dict:
    """The graph with the small VAE, and with a node that stands for a text encoder; the text encoder's loader is left out."""
    for node in graph.values():
        if node["class_type"] == "VAELoader":
            node["inputs"]["vae_name"] = "taef2"
        if node["class_type"] == "CLIPTextEncode":
            node |= {"class_type": "TinyText", "inputs": {"seed": len(node["inputs"]["text"])}}
    return {number: node for number, node in graph.items() if node["class_type"] != "CLIPLoader"}


def change_inputs(graph: dict, kind: str, **inputs) -> dict:
    """A copy of the graph in which each node of a kind has other inputs."""
    return {
        number: {**node, "inputs": node["inputs"] | inputs} if node["class_type"] == kind else node
        for number, node in graph.items()
    }


def draw_graph(server: Server, base: Path, graph: dict) -> Tensor:
    """What the graph's one SaveImage has saved, 0 to 255: (height, width, channels)."""
    (save,) = [number for number, node in graph.items() if node["class_type"] == "SaveImage"]
    return torch.from_numpy(np.array(open_picture(base, server.run(graph), save), dtype=np.float32))
