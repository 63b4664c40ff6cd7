"""A ComfyUI server with a tiny random FLUX, VAE and bank, and the graph that most tests run on it."""

from pathlib import Path

import numpy as np
import torch
from cologen.prw.bank.edit import make_random_bank
from cologen.prw.base_model import Base
from cologen.prw.tasks import TASKS
from cologen.training.base.random_models import TINY, bank_info, random_flux
from cologen.training.comfyui.server import make_base_folder, make_node, open_picture
from PIL import Image, ImageDraw, ImageFilter
from safetensors.torch import save_file
from torch import Tensor

SIDE = 128
GREY = (128, 128, 128)
TEXT_NODE = f'''
"""Stands for a text encoder, which is too large for a test: a seed gives a CONDITIONING."""
import torch


class TinyText:
    CATEGORY = "test"
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls):
        return {{"required": {{"seed": ("INT", {{"default": 0}})}}}}

    def encode(self, seed):
        g = torch.Generator().manual_seed(seed)
        text = torch.randn(1, 5, {TINY["context_in_dim"]}, generator=g)
        pooled = torch.randn(1, {TINY["vec_in_dim"]}, generator=g)
        return ([[text, {{"pooled_output": pooled, "guidance": 3.5}}]],)


NODE_CLASS_MAPPINGS = {{"TinyText": TinyText}}
'''

KLEIN_CLIP_NODE = f'''
"""Stands for klein's text encoder, which is too large for a test."""
import torch


class Clip:
    def tokenize(self, text, **_):
        return text

    def encode_from_tokens(self, tokens, return_pooled=False):
        g = torch.Generator().manual_seed(sum(map(ord, tokens)))
        return torch.randn(1, 5, {TINY["context_in_dim"]}, generator=g), None

    def encode_from_tokens_scheduled(self, tokens):
        text, _ = self.encode_from_tokens(tokens)
        return [[text, {{"pooled_output": torch.zeros(1, {TINY["vec_in_dim"]})}}]]


class TinyKleinClip:
    CATEGORY = "test"
    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls):
        return {{"required": {{}}}}

    def load(self):
        return (Clip(),)


NODE_CLASS_MAPPINGS = {{"TinyKleinClip": TinyKleinClip}}
'''


def draw_scene() -> Image.Image:
    picture = Image.new("RGB", (SIDE, SIDE), (96, 148, 196))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 84, SIDE, SIDE), (92, 138, 76))
    draw.ellipse((18, 40, 62, 84), (214, 72, 62))
    draw.polygon([(72, 84), (94, 36), (116, 84)], (236, 186, 66))
    return picture


def draw_sources() -> dict[str, Image.Image]:
    """What each task is given, drawn from one scene."""
    scene = draw_scene()
    hole = scene.copy()
    ImageDraw.Draw(hole).rectangle((66, 30, 120, 90), GREY)
    subject = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    subject.paste(scene.crop((14, 36, 66, 88)), (38, 38))
    edges = scene.convert("L").filter(ImageFilter.FIND_EDGES).point(lambda value: 255 * (value > 40)).convert("RGB")
    sources = {"inpaint": hole, "ground": scene, "control": edges, "subject": subject, "edit": scene}
    return {task: sources.get(task, scene) for task in TASKS}


def make_tiny_vae(channels: int = 16) -> dict[str, Tensor]:
    """Seeded weights for the host's small autoencoder, as a file that its VAE loader takes; FLUX.2's has 128 channels."""
    from comfy.taesd.taesd import TAESD

    module = TAESD(latent_channels=channels)
    g = torch.Generator().manual_seed(5)
    weights = {}
    for name, value in module.state_dict().items():
        fan_in = value[0].numel() if value.ndim > 1 else 0
        noise = torch.randn(value.shape, generator=g) * (1.0 / fan_in) ** 0.5 if fan_in else torch.zeros_like(value)
        weights[name] = torch.ones_like(value) if name == "vae_scale" else noise
    return weights


def make_tiny_base(root: Path, pictures: dict[str, Image.Image]) -> Path:
    """A base folder for a server with the tiny models, a node that stands for a text encoder, and input pictures."""
    make_base_folder(root, pictures)
    flux = random_flux(gain=1.0)
    bank = make_random_bank(bank_info(Base.of(flux), rank=8), up=0.3, router=0.3)
    save_file(flux.state_dict(), root / "models/diffusion_models/tiny_flux.safetensors")
    save_file(make_tiny_vae(), root / "models/vae/tiny_vae.safetensors")
    bank.save(root / "models/cologen/tiny.safetensors")
    (root / "custom_nodes/tiny_text").mkdir()
    (root / "custom_nodes/tiny_text/__init__.py").write_text(TEXT_NODE)
    return root


def make_tiny_prompt(task: str = "control", strength: float = 1.0, loader: str = "CoLoGenLoadFlux") -> dict:
    """LoadFlux -> LoadExperts -> Apply -> Source -> KSampler -> VAEDecode -> SaveImage, and the route map."""
    knobs = dict(task=task, strength=strength, expert_strength=1.0, start=0.0, end=1.0, size=0)
    hidden = dict(position="auto", shift_right=1.0, shift_down=0.0, lean=0.0, expert="", router="", keep_on="gpu")
    sampler = dict(seed=1, steps=3, cfg=1.0, sampler_name="euler", scheduler="simple", denoise=1.0)
    files = dict(unet_name="tiny_flux.safetensors", weight_dtype="default")
    if loader == "CoLoGenLoadFlux":
        files |= dict(clip_name1="none", clip_name2="none", vae_name="tiny_vae.safetensors")
    return {
        "flux": make_node(loader, **files),
        "vae": make_node("VAELoader", vae_name="tiny_vae.safetensors"),
        "bank": make_node("CoLoGenLoadExperts", bank_name="tiny.safetensors"),
        "apply": make_node("CoLoGenApply", model=["flux", 0], experts=["bank", 0]),
        "text": make_node("TinyText", seed=3),
        "image": make_node("LoadImage", image=f"{task}.png"),
        "source": make_node(
            "CoLoGenSource", conditioning=["text", 0], vae=["vae", 0], image=["image", 0],
            keep_between_runs=False, **knobs, **hidden,
        ),
        "latent": make_node("EmptySD3LatentImage", width=128, height=128, batch_size=1),
        "sample": make_node(
            "KSampler", model=["apply", 0], positive=["source", 0], negative=["text", 0],
            latent_image=["latent", 0], **sampler,
        ),
        "decode": make_node("VAEDecode", samples=["sample", 0], vae=["vae", 0]),
        "save": make_node("SaveImage", images=["decode", 0], filename_prefix="woven"),
        "map": make_node("CoLoGenRouteMap", model=["apply", 0], conditioning=["source", 0], latent=["latent", 0]),
        "keep": make_node("CoLoGenSaveExperts", experts=["bank", 0], name="copies/again"),
    }  # fmt: skip


def read_pixels(base: Path, entry: dict, node_id: str = "save") -> np.ndarray:
    """What a node of a finished prompt saved or showed, as numbers that can be subtracted."""
    return np.asarray(open_picture(base, entry, node_id), dtype=int)


def change_nodes(graph: dict, kind: str, **inputs) -> dict:
    """The graph with other inputs of every node of a kind."""
    return {
        number: {**node, "inputs": node["inputs"] | inputs} if node["class_type"] == kind else node
        for number, node in graph.items()
    }
