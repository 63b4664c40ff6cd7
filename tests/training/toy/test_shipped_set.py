"""The toy set that ships: small enough, and the same in the host as with us."""

import numpy as np
import pack  # noqa: F401
import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.prw.base_model import Base
from cologen.prw.flux.checkpoint import load_flux
from cologen.training.cli.demo import SHOWS, run_demo
from cologen.training.from_scratch.store import BANK, FLUX, TEXT, VAE, open_encoders, open_models
from cologen.training.toy.store import TOY
from cologen.training.toy.tasks import make_questions
from PIL import Image

TEXTS = ["make the circle at the top left blue", "", "a big striped red cross bottom right, on a sky background"]


def test_it_is_small_and_whole():
    sizes = [(TOY.folder / name).stat().st_size for name in (FLUX, VAE, TEXT, BANK)]
    assert sum(sizes) <= 32 * 2**20
    flux, bank = load_flux(TOY.folder / FLUX), Bank.open(TOY.folder / BANK)
    assert sum(parameter.numel() for parameter in flux.parameters()) <= 13e6
    assert flux.params.hidden_size // flux.params.num_heads == 128
    assert not bank.info.base.describe_incompatibility(Base.of(flux)) and not bank.info.base.describe_difference(
        Base.of(flux).with_probe(flux.float())
    )
    assert list(bank.info.experts) == list(bank.info.routers) == ["inpaint", "ground", "control", "subject", "edit"]


def test_a_picture_survives_the_vae():
    encoders = open_encoders(TOY)
    pictures = np.stack([question.example.target for question in make_questions("edit", 24, 99)])
    back = encoders.decode(encoders.encode(pictures)).astype(float)
    assert 10 * np.log10(255**2 / ((back - pictures) ** 2).mean()) > 30  # dB
    assert torch.allclose(encoders.encode(pictures), encoders.vae.encode(as_pixels(pictures)), atol=2e-3)


def as_pixels(pictures):
    return torch.from_numpy(pictures).movedim(-1, 1).float() / 255


@pytest.mark.slow
@pytest.mark.parametrize("world", SHOWS)
def test_the_demo_draws_a_sheet(tmp_path, world):
    sheet = Image.open(run_demo(tmp_path, name=world))
    assert sheet.width > 1000 and np.asarray(sheet).std() > 20


@pytest.mark.usefixtures("comfy")
class TestInTheHost:
    def test_words_mean_the_same(self):
        from cologen.training.comfyui.built_in import load_clip

        clip, encoders = load_clip(TOY), open_encoders(TOY)
        for text in TEXTS:
            found, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
            wanted, wanted_pooled = encoders.encode_prompts([text])
            assert torch.allclose(found, wanted, atol=1e-5) and torch.allclose(pooled, wanted_pooled, atol=1e-5)

    def test_pictures_and_latents_are_the_same(self):
        from cologen.training.comfyui.built_in import load_vae

        vae, encoders = load_vae(TOY), open_encoders(TOY)
        picture = make_questions("edit", 1, 98)[0].example.target
        latent = vae.encode(torch.from_numpy(picture)[None].float() / 255)
        assert torch.allclose(latent, encoders.encode([picture]), atol=5e-3)
        wanted = encoders.vae.decode(latent.float()).movedim(1, -1)
        assert (vae.decode(latent) - wanted).abs().max() < 2e-2

    def test_the_stock_loader_takes_flux(self):
        from cologen.training.comfyui.built_in import load_model

        model, toy = load_model(TOY, {"dtype": torch.float32}), open_models(TOY)
        g = torch.Generator().manual_seed(0)
        x, times = torch.randn(2, 16, 8, 8, generator=g), torch.tensor([0.2, 0.9])
        context, pooled = toy.encoders.encode_prompts(TEXTS[:2])
        with torch.inference_mode():
            found = model.model.diffusion_model(x, times, context, pooled)
            assert torch.allclose(found, toy.flux(x, times, context, pooled), atol=1e-4)
