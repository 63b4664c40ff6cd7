"""Learned keys of numbers in the real host: pictures are the naive formula's, and a changed number is never read late."""

from functools import partial

import pytest
import torch
from cologen.prw.learned_keys import LearnedKeys, LearnedSource
from cologen.prw.source import Source
from naive_learned_keys import NaiveLearnedKeys, learned_keys_file
from safetensors.torch import save_file
from sampling import add_sources, apply_bank, assert_close, naive_model
from tiny import latent
from tiny_flux2 import TEXT_WIDTH, tiny_flux2

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.slow]


@pytest.fixture(scope="module")
def model(comfy):
    from cologen.training.comfyui.enter_host import load_model

    return load_model(tiny_flux2().state_dict(), torch.float32)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    save_file(learned_keys_file(), path := tmp_path_factory.mktemp("keys") / "brightness.safetensors")
    return LearnedKeys.open(path)


def prompt(seed=4, tokens=5):
    return [[torch.randn(1, tokens, TEXT_WIDTH, generator=torch.Generator().manual_seed(seed)), {}]]


def sample(model, positive, negative=None, cfg=1.0, batch=1, steps=3):
    import comfy.sample
    import comfy.samplers

    empty = torch.zeros(batch, 128, 4, 6)
    noise, sampler = comfy.sample.prepare_noise(empty, 7), comfy.samplers.sampler_object("euler")
    sigmas, rest = torch.linspace(1, 0, steps + 1), dict(disable_pbar=True, seed=7)
    with torch.inference_mode():
        negative = negative or prompt(5)
        return comfy.sample.sample_custom(model, noise, cfg, sampler, sigmas, positive, negative, empty, **rest)


def naive_number(value, **rest):
    return dict(tensors=learned_keys_file(), value=value, **rest)


naive = partial(naive_model, bank=None, formula=NaiveLearnedKeys, make_conditioning=prompt)


def test_both_prompts_of_cfg_have_numbers_of_their_own(model, keys):
    positive = add_sources(prompt(), LearnedSource(keys, 0.8), Source(latent(1, 3, 2, 3, 128)))
    negative = add_sources(prompt(5), LearnedSource(keys, 0.5, strength=0.5))
    found = sample(apply_bank(model, None), positive, negative, cfg=4.0, batch=2)
    pairs = {
        4: [naive_number(0.8), dict(latent=latent(1, 3, 2, 3, 128))],
        5: [naive_number(0.5, log_bias=torch.tensor(0.5).log())],
    }
    expected = naive(model, tiny_flux2().state_dict(), sources=pairs)
    assert_close(found, sample(expected, prompt(), prompt(5), cfg=4.0, batch=2))
    assert (found - sample(model, prompt(), prompt(5), cfg=4.0, batch=2)).abs().max() > 0.01


@pytest.mark.parametrize("keep", [False, True])
def test_a_changed_number_gives_what_a_fresh_model_gives(model, keys, keep):
    used = apply_bank(model, None)
    first = sample(used, add_sources(prompt(), LearnedSource(keys, 0.2, keep=keep)))
    changed = sample(used, add_sources(prompt(), LearnedSource(keys, 0.9, keep=keep)))
    assert torch.equal(changed, sample(apply_bank(model, None), add_sources(prompt(), LearnedSource(keys, 0.9))))
    assert (changed - first).abs().max() > 0.01
    assert torch.equal(sample(used, add_sources(prompt(), LearnedSource(keys, 0.2, keep=keep))), first)


def test_a_window_is_that_part_of_the_sampling(model, keys):
    late = sample(apply_bank(model, None), add_sources(prompt(), LearnedSource(keys, 0.8, start=0.9)), steps=1)
    assert torch.equal(late, sample(model, prompt(), steps=1))
    early = sample(apply_bank(model, None), add_sources(prompt(), LearnedSource(keys, 0.8, end=0.5)), steps=1)
    assert torch.equal(early, sample(apply_bank(model, None), add_sources(prompt(), LearnedSource(keys, 0.8)), steps=1))
