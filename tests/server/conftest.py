"""One server for the modules that only draw: each adds its files to `base`, under names of its own."""

import pytest
from cologen.training.base.random_models import TINY
from cologen.training.comfyui.server import Server
from pack import FRONTEND, HOST
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from tiny_flux2 import tiny_flux2
from tiny_server import KLEIN_CLIP_NODE, SIDE, draw_scene, draw_sources, make_tiny_base, make_tiny_vae
from workflows_flux2 import KLEIN
from workflows_flux2_train import BASE, DISTILLED


def draw_hole() -> Image.Image:
    """The scene, and the mask editor's hole in its right half as transparent pixels."""
    picture = draw_scene().convert("RGBA")
    alpha = Image.new("L", picture.size, 255)
    ImageDraw.Draw(alpha).rectangle((SIDE // 2, 0, SIDE, SIDE), 0)
    picture.putalpha(alpha)
    return picture


@pytest.fixture(scope="session")
def base(tmp_path_factory, comfy):
    root = make_tiny_base(tmp_path_factory.mktemp("comfy"), {**draw_sources(), "example": draw_hole()})
    (root / "custom_nodes/tiny_klein_clip").mkdir()
    (root / "custom_nodes/tiny_klein_clip/__init__.py").write_text(KLEIN_CLIP_NODE)
    return root


@pytest.fixture(scope="session")
def server(base):
    with Server(HOST, base, FRONTEND) as server:
        yield server


@pytest.fixture(scope="module")
def info(server):
    """What the host says of its nodes."""
    return server.get("/object_info")


@pytest.fixture(scope="session")
def klein(base):
    """Small files that stand for the models of FLUX.2 klein and for its VAE."""
    for seed, name in enumerate((BASE, DISTILLED, KLEIN)):
        flux = tiny_flux2(seed, context_in_dim=TINY["context_in_dim"])
        save_file(flux.state_dict(), base / "models/diffusion_models" / name)
    (base / "models/vae_approx").mkdir()
    for part in ("encoder", "decoder"):
        names = {name: value for name, value in make_tiny_vae(128).items() if name.startswith(f"taesd_{part}.")}
        weights = {name.removeprefix(f"taesd_{part}."): value.contiguous() for name, value in names.items()}
        save_file(weights, base / f"models/vae_approx/taef2_{part}.safetensors")
