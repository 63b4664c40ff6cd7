"""FLUX.2 in the real host: sources are read as diffusers' pipeline for klein 9B-KV reads references, and as our own FLUX.2."""

import dataclasses

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.base_model import Base
from cologen.prw.base_weights import BaseWeights
from cologen.prw.embedded_host import velocity
from cologen.prw.flux.sampling import sample_euler
from cologen.prw.source import Source
from cologen.prw.stream_group import StreamGroup
from flux2_in_diffusers import convert_to_diffusers, predict_with_references
from sampling import add_sources, apply_bank, assert_close
from tiny_flux2 import TEXT_WIDTH, tiny_flux2

pytestmark = pytest.mark.usefixtures("comfy")

SIGMAS = torch.tensor([1.0, 0.85, 0.6, 0.3, 0.0])
ROWS = 512
"""Text rows that the host pads a prompt to, on the left."""


@pytest.fixture(scope="module")
def flux(comfy):
    return tiny_flux2()


@pytest.fixture(scope="module")
def model(flux):
    from cologen.training.comfyui.enter_host import load_model

    return load_model(flux.state_dict(), torch.float32)


def prompt(seed=4, tokens=5):
    return [[torch.randn(1, tokens, TEXT_WIDTH, generator=torch.Generator().manual_seed(seed)), {}]]


def reference(seed=8, height=3, width=5, **knobs):
    return Source(torch.randn(1, 128, height, width, generator=torch.Generator().manual_seed(seed)), **knobs)


def sample(model, positive, negative=None, cfg=1.0, batch=1, seed=7, size=(4, 6)):
    import comfy.sample
    import comfy.samplers

    empty = torch.zeros(batch, 128, *size)
    noise = comfy.sample.prepare_noise(empty, seed)
    kind = comfy.samplers.sampler_object("euler")
    with torch.inference_mode():
        return comfy.sample.sample_custom(
            model, noise, cfg, kind, SIGMAS, positive, negative or prompt(5), empty, disable_pbar=True, seed=seed
        )


def padded(positive):
    (context, _), *_ = positive
    return torch.cat([context.new_zeros(len(context), ROWS - context.shape[1], TEXT_WIDTH), context], dim=1)


def noise_of(batch=1, seed=7):
    import comfy.sample

    return comfy.sample.prepare_noise(torch.zeros(batch, 128, 4, 6), seed)


def read_as_diffusers(flux, positive, *sources):
    """What our samplers ask of FLUX, answered by diffusers' model and its cache of references."""
    theirs, caches, latents = convert_to_diffusers(flux), [None], [source.latent for source in sources]

    def predict(x, times, _):
        context = padded(positive).expand(len(x), -1, -1)
        out, caches[0] = predict_with_references(theirs, flux, x, times, context, None, latents, caches[0])
        return out

    return predict


@pytest.mark.parametrize("references", [1, 2])
def test_a_whole_run_is_diffusers(model, flux, references):
    sources = [reference(8 + i, 2 + i, 5 - i) for i in range(references)]
    found = sample(apply_bank(model, None), add_sources(prompt(), *sources))
    with torch.inference_mode():
        expected = sample_euler(read_as_diffusers(flux, prompt(), *sources), noise_of(), SIGMAS.tolist())
    assert_close(found, expected, 1e-5)
    assert (found - sample(model, prompt())).abs().max() > 0.01


LEFT = torch.tensor([[1.0, 1.0, 0.3, 0.0, 0.0, 0.0]]).repeat(4, 1)
KNOBS = [
    {},
    {"strength": 0.4},
    {"region": LEFT},
    {"start": 0.3},
    {"end": 0.5},
    {"placement": "cpu"},
    {"placement": "fp8"},
]


@pytest.mark.parametrize("knobs", KNOBS, ids=lambda knobs: " ".join(knobs) or "none")
def test_knobs_do_what_they_do_on_our_own(model, flux, knobs):
    source = reference(**knobs)
    found = sample(apply_bank(model, None), add_sources(prompt(), source))
    attachment, context = Attachment(BaseWeights(Base.of(flux))), padded(prompt())
    to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    begin, end = to_sigma(source.start), to_sigma(source.end) if source.end < 1 else -1.0
    whole = dataclasses.replace(source, start=0.0, end=1.0)

    def predict(x, times, _):
        sources = [whole] if end < times[0] <= begin else []
        return velocity(flux, x, times, context, None, None, attachment, sources)

    with torch.inference_mode():
        assert_close(found, sample_euler(predict, noise_of(), SIGMAS.tolist()), 1e-4)
    if knobs.keys() - {"placement"}:
        assert (found - sample(apply_bank(model, None), add_sources(prompt(), reference()))).abs().max() > 1e-3


def test_a_kept_reference_is_not_run_again_for_a_new_prompt_noise_or_size(model, monkeypatch):
    from cologen.prw.comfyui.patch import require_attachment

    used, kept = apply_bank(model, None), reference(keep=True)
    sample(used, add_sources(prompt(), kept))
    groups, compute = [], StreamGroup.compute
    monkeypatch.setattr(StreamGroup, "compute", lambda group, rows: groups.append(group) or compute(group, rows))
    changes = [(4, 8, (4, 6)), (6, 7, (4, 6)), (6, 8, (3, 5))]
    found = [sample(used, add_sources(prompt(text), kept), seed=seed, size=size) for text, seed, size in changes]
    assert not groups and require_attachment(used).cache.kept
    for picture, (text, seed, size) in zip(found, changes):
        fresh = sample(apply_bank(model, None), add_sources(prompt(text), kept), seed=seed, size=size)
        assert torch.equal(picture, fresh)
    assert len(groups) == len(changes)


def test_a_picture_without_a_source_is_the_hosts_own(model):
    plain, patched = sample(model, prompt()), apply_bank(model, None)
    assert torch.equal(sample(patched, prompt()), plain)
    sample(patched, add_sources(prompt(), reference()))
    assert torch.equal(sample(patched, prompt()), plain) and torch.equal(sample(model, prompt()), plain)
    assert torch.equal(sample(patched, add_sources(prompt(), reference(strength=0.0))), plain)


@pytest.mark.slow
def test_both_sides_of_cfg_and_a_batch_read_their_own(model, flux):
    one, other = reference(), reference(9, 2, 4)
    positive, negative = add_sources(prompt(), one), add_sources(prompt(5), other)
    found = sample(apply_bank(model, None), positive, negative, cfg=3.0, batch=2)
    wanted, unwanted = read_as_diffusers(flux, prompt(), one), read_as_diffusers(flux, prompt(5), other)

    def predict(x, times, _):
        away = unwanted(x, times, _)
        return away + 3 * (wanted(x, times, _) - away)

    with torch.inference_mode():
        assert_close(found, sample_euler(predict, noise_of(2), SIGMAS.tolist()))


def test_a_bank_of_flux_1_is_refused_in_a_sentence(model):
    from tiny import tiny_bank, tiny_flux

    with pytest.raises(ValueError, match="The model is a FLUX.2, the bank was made for FLUX.1"):
        apply_bank(model, tiny_bank(tiny_flux()))
