"""The built-in world's models are made from nothing by one call, and FLUX's stopped training goes on as if nothing had happened."""

import shutil

import numpy as np
import pytest
import torch
from cologen.prw.flux.flux1 import LATENT_SCALE, LATENT_SHIFT
from cologen.training.toy.make import ToyRecipe, make_flux, make_toy_models
from cologen.training.toy.pretrain import Pretraining, draw_captioned
from cologen.training.toy.store import FLUX, SHIPPED, TEXT, VAE, open_toy_encoders

SMALL = ToyRecipe(
    text_iterations=2, text_batch=4, decoder_iterations=2, decoder_batch=2, flux_iterations=4, flux_batch=2
)
pytestmark = pytest.mark.slow


class Killed(Exception):
    pass


def stop_at(kind: str, iteration: int):
    def progress(made: str, done: int, total: int) -> None:
        if (made, done) == (kind, iteration):
            raise Killed

    return progress


def test_a_stopped_making_goes_on_as_if_nothing_had_happened(tmp_path):
    toy = make_toy_models(SMALL, tmp_path / "whole", 3, lambda *_: None)
    assert all(torch.isfinite(parameter).all() for parameter in toy.flux.parameters())
    (tmp_path / "cut").mkdir()
    for name in (TEXT, VAE):
        shutil.copy(tmp_path / "whole" / name, tmp_path / "cut" / name)
    with pytest.raises(Killed):
        make_flux(SMALL, tmp_path / "cut", 3, stop_at("flux", 3), every=2)
    made = []
    make_flux(SMALL, tmp_path / "cut", 3, lambda _, done, total: made.append(done), every=2)
    assert made == [3, 4]
    assert (tmp_path / "cut" / FLUX).read_bytes() == (tmp_path / "whole" / FLUX).read_bytes()
    with pytest.raises(ValueError, match="a base of another recipe or seed .*choose another folder"):
        make_toy_models(SMALL, tmp_path / "whole", 4, lambda *_: None)


def test_pretraining_learns():
    run = Pretraining(open_toy_encoders(SHIPPED), 100, 4, 3e-3)
    pictures, texts = draw_captioned(np.random.default_rng(1), 16)
    latents = (run.encoders.encode(list(pictures)) - LATENT_SHIFT) * LATENT_SCALE

    def measure() -> float:
        with torch.no_grad():
            return run.loss(latents, *run.encoders.encode_prompts(texts), torch.Generator().manual_seed(0)).item()

    before = measure()
    for _ in range(20):
        run.step()
    assert measure() < 0.9 * before
