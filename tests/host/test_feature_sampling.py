"""Features drawn along in the real host: what it draws is what our own FLUX does, which test_along.py holds to formulas."""

import pytest
import torch
from cologen.prw.embedded_host import EmbeddedHost
from cologen.prw.flux.inputs import EncodedPrompt
from cologen.prw.source import Routing
from cologen.training.coredi.sampling import FeatureSampler
from cologen.training.sampling import SamplingSettings
from sampling import SIGMAS, apply_bank, assert_close, conditioning, sample
from tiny import host_model, source
from tiny_features import random_features, read_features, sample_sourced, sourced_conditioning

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture(scope="module")
def model(comfy, flux, bank):
    return apply_bank(host_model(flux), bank)


def own_picture(flux, bank, features, weight, cfg, batch):
    import comfy.sample

    noise = comfy.sample.prepare_noise(torch.zeros(batch, 16, 8, 8), 7)
    told, untold = (
        EncodedPrompt(text.expand(batch, -1, -1), options["pooled_output"].expand(batch, -1))
        for ((text, options),) in (conditioning(4), conditioning(6))
    )
    given = source().latent.expand(batch, -1, -1, -1), noise, told
    host = EmbeddedHost(flux, torch.float32)
    known = [random_features(flux, "self", "inpaint"), features]
    settings = SamplingSettings(SIGMAS, guidance=3.5, cfg=cfg, negative=untold if cfg != 1 else None)
    return FeatureSampler(known, weight, seed=9)(host, bank, Routing(task="control"), *given, settings)


@pytest.mark.parametrize("way", ["coredi", "self"])
@pytest.mark.parametrize("weight, cfg, batch", [(1.0, 1.0, 1), (1.0, 2.5, 2), (1.5, 1.0, 2), (1.5, 2.5, 1)])
def test_the_host_draws_what_our_own_flux_does(model, flux, bank, way, weight, cfg, batch):
    features = random_features(flux, way)
    found = sample_sourced(read_features(model, features, weight), cfg=cfg, batch=batch)
    assert_close(found, own_picture(flux, bank, features, weight, cfg, batch), 5e-4)
    assert not torch.allclose(found, sample_sourced(model, cfg=cfg, batch=batch), atol=1e-2)


def test_without_weight_or_without_a_source_of_their_task_nothing_changes(model, flux):
    plain = sample_sourced(model)
    assert torch.equal(sample_sourced(read_features(model, random_features(flux), 0.0)), plain)
    for weight in (1.0, 1.5):
        elsewhere = read_features(model, random_features(flux, task="inpaint"), weight)
        assert torch.equal(sample_sourced(elsewhere), plain)
        assert torch.equal(sample(elsewhere, conditioning()), sample(model, conditioning()))


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler_ancestral", "uni_pc"])
def test_any_sampler_draws_the_same_each_time(model, flux, sampler):
    read = read_features(model, random_features(flux))
    found, again = (sample_sourced(read, sampler=sampler) for _ in range(2))
    assert torch.isfinite(found).all() and torch.equal(found, again)
    assert not torch.allclose(found, sample_sourced(model, sampler=sampler), atol=1e-2)


def test_a_source_that_may_act_only_in_part_keeps_its_mask(model, flux, bank):
    """Strength below 1 is a mask over the source's keys; a prompt that reads nothing makes another, over features'."""
    from cologen.prw.comfyui.conditioning import add_source

    weak = add_source(conditioning(4), source(source_strength=0.5))
    silent = random_features(flux)
    silent.tensors["in.weight"].zero_()
    alone, both = (
        sample(read_features(model, silent), weak, sourced_conditioning(6), cfg=cfg, steps=2) for cfg in (1.0, 1.0001)
    )
    assert_close(both, alone, 1e-2)
    assert not torch.allclose(alone, sample(model, weak, sourced_conditioning(6), steps=2), atol=1e-2)


def test_two_tasks_of_one_bank_each_have_their_own(model, flux):
    one, other = random_features(flux), random_features(flux, "self", "inpaint", seed=9)
    both = read_features(read_features(model, one), other)
    assert torch.equal(sample_sourced(both), sample_sourced(read_features(model, one)))
    with pytest.raises(ValueError, match="already reads features of control"):
        read_features(both, one)
