"""Experts on FLUX.2 in the real host: pictures are the naive formula's, and never those of another run's keys and values."""

from functools import partial

import pytest
import torch
from cologen.prw.source import Routing, Source
from naive_flux2 import NaiveFlux2
from sampling import add_sources, apply_bank, assert_close, naive_model
from tiny import latent, tiny_bank
from tiny_flux2 import TEXT_WIDTH, tiny_flux2

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.slow]

NAMES = ("inpaint", "ground", "control")
LAYERS = ("double_blocks.1.img_attn.qkv", "single_blocks.0.linear1")


@pytest.fixture(scope="module")
def flux(comfy):
    return tiny_flux2()


@pytest.fixture(scope="module")
def bank(flux):
    return tiny_bank(flux)


def load(flux):
    from cologen.training.comfyui.enter_host import load_model

    return load_model(flux.state_dict(), torch.float32)


@pytest.fixture(scope="module")
def model(flux):
    return load(flux)


def prompt(seed=4, tokens=5):
    return [[torch.randn(1, tokens, TEXT_WIDTH, generator=torch.Generator().manual_seed(seed)), {}]]


def source(task="control", height=3, width=5, seed=3, **knobs):
    outer = dict(keep=knobs.pop("keep", False), strength=knobs.pop("source_strength", 1.0))
    return Source(latent(1, height, width, seed, 128), Routing(task=task, **knobs), **outer)


def naive_source(task="control", height=3, width=5, seed=3, **rest):
    return dict(latent=latent(1, height, width, seed, 128), stage=task, names=NAMES, **rest)


def sample(model, positive, negative=None, cfg=1.0, batch=1, size=(4, 6), steps=3):
    import comfy.sample
    import comfy.samplers

    empty = torch.zeros(batch, 128, *size)
    noise, sampler = comfy.sample.prepare_noise(empty, 7), comfy.samplers.sampler_object("euler")
    sigmas, rest = torch.linspace(1, 0, steps + 1), dict(disable_pbar=True, seed=7)
    with torch.inference_mode():
        return comfy.sample.sample_custom(
            model, noise, cfg, sampler, sigmas, positive, negative or prompt(5), empty, **rest
        )


naive = partial(naive_model, formula=NaiveFlux2, make_conditioning=prompt)


@pytest.mark.parametrize("position", ["reference", "aligned"])
@pytest.mark.parametrize("batch, size", [(1, (4, 6)), (2, (3, 5))])
def test_a_picture_is_the_naive_formula_sampled_by_the_host(model, flux, bank, position, batch, size):
    how = dict(batch=batch, size=size)
    found = sample(apply_bank(model, bank), add_sources(prompt(), source(position=position)), **how)
    expected = naive(model, flux.state_dict(), bank, {4: [naive_source(position=position)]})
    assert_close(found, sample(expected, prompt(), **how))
    base = sample(apply_bank(model, bank), add_sources(prompt(), source(position=position, strength=0.0)), **how)
    assert (found - base).abs().max() > 0.01


def test_guidance_is_the_picture_s_and_a_source_has_the_bank_s():
    flux = tiny_flux2(guidance_embed=True)
    model, bank = load(flux), tiny_bank(flux)
    guided = [[prompt()[0][0], {"guidance": 2.0}]]
    found = sample(apply_bank(model, bank), add_sources(guided, source()))
    assert_close(found, sample(naive(model, flux.state_dict(), bank, {4: [naive_source()]}), guided))
    assert (found - sample(apply_bank(model, bank), add_sources(prompt(), source()))).abs().max() > 0.01


def test_both_prompts_of_cfg_read_their_own_sources(model, flux, bank):
    second = source("ground", 2, 4, seed=9, source_strength=0.6)
    positive, negative = add_sources(prompt(), source(), second), add_sources(prompt(5), source("inpaint", seed=8))
    found = sample(apply_bank(model, bank), positive, negative, cfg=2.5, batch=2)
    pairs = {
        4: [naive_source(), naive_source("ground", 2, 4, 9, number=2, log_bias=torch.tensor(0.6).log())],
        5: [naive_source("inpaint", seed=8)],
    }
    assert_close(found, sample(naive(model, flux.state_dict(), bank, pairs), prompt(), prompt(5), cfg=2.5, batch=2))


def low_rank(layer, flux):
    rows, columns = flux.state_dict()[f"{layer}.weight"].shape
    g = torch.Generator().manual_seed(len(layer))
    return 0.02 * torch.randn(rows, 2, generator=g) @ torch.randn(2, columns, generator=g)


def with_lora(model, flux, strength):
    if not strength:
        return model
    clone = model.clone()
    patches = {f"diffusion_model.{layer}.weight": ("diff", (low_rank(layer, flux),)) for layer in LAYERS}
    assert len(clone.add_patches(patches, strength)) == len(LAYERS)
    return clone


def test_a_lora_on_the_base_changes_what_a_source_says(model, flux, bank):
    found = sample(with_lora(apply_bank(model, bank), flux, 0.7), add_sources(prompt(), source()))
    weights = dict(flux.state_dict())
    for layer in LAYERS:
        weights[f"{layer}.weight"] = weights[f"{layer}.weight"] + 0.7 * low_rank(layer, flux)
    expected = sample(naive(model, weights, bank, {4: [naive_source()]}), prompt())
    assert_close(found, expected)
    assert (found - sample(apply_bank(model, bank), add_sources(prompt(), source()))).abs().max() > 0.01


CHANGES = {
    "picture": dict(seed=12),
    "prompt": dict(prompt=6),
    "size": dict(size=(6, 4)),
    "source's size": dict(height=4, width=4),
    "task": dict(task="ground"),
    "expert strength": dict(strength=0.5),
    "source strength": dict(source_strength=0.4),
    "position": dict(position="aligned"),
    "LoRA": dict(lora=1.0),
    "weaker LoRA": dict(lora=0.3),
}


def run(model, flux, keep, lora=0.0, **change):
    size, text = change.pop("size", (4, 6)), change.pop("prompt", 4)
    positive = add_sources(prompt(text), source(keep=keep, **change))
    return sample(with_lora(model, flux, lora), positive, size=size, steps=2)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_input_gives_what_a_fresh_attachment_gives(model, flux, bank, what, keep):
    used, change = apply_bank(model, bank), CHANGES[what]
    first = run(used, flux, keep)
    changed = run(used, flux, keep, **change)
    assert torch.allclose(changed, run(apply_bank(model, bank), flux, keep, **change), atol=1e-5)
    assert torch.allclose(run(used, flux, keep), first, atol=1e-5)
    if what != "size":
        assert not torch.allclose(changed, first, atol=1e-3)


def test_a_kept_source_runs_once_for_two_prompts(flux, bank):
    used, calls = apply_bank(load(flux), bank), []
    used.model.diffusion_model.double_blocks[0].img_attn.qkv.register_forward_hook(lambda *_: calls.append(1))
    run(used, flux, True)
    assert len(calls) == 2 + 1
    run(used, flux, True, prompt=6)
    assert len(calls) == 2 * 2 + 1
