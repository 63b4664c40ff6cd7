"""Attention maps: the softmax over all keys that the naive formula writes out, summed over a source's."""

import math

import pytest
import torch
from host_family import HostFamily

pytestmark = pytest.mark.usefixtures("comfy")
STEPS = 3


@pytest.fixture(scope="module", params=["flux1", pytest.param("flux2", marks=pytest.mark.slow)])
def family(comfy, request):
    return HostFamily(request.param)


def record(model, positive, drawn, steps=STEPS, blocks="all", **latent):
    from cologen.prw.comfyui.source_attention import record_attention

    with torch.inference_mode():
        return record_attention(model, positive, {"samples": drawn, **latent}, steps, blocks)


def weave(family, *sources):
    from sampling import add_sources, apply_bank

    return apply_bank(family.model, family.bank), add_sources(family.prompt(), *sources)


def read_naively(family, drawn, sources, blocks, steps=STEPS):
    """Shares (source, picture, token) by a softmax over all keys, block by block and time by time."""
    seen = []

    class Watched(family.formula):
        def attention(self, q, k, v, bias, text, picture):
            score = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias
            weights = (score - score.amax(-1, keepdim=True)).exp()
            weights = weights / weights.sum(-1, keepdim=True)
            assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
            first, shares = text + picture, []
            for one in sources:
                keys = one["latent"].shape[-2] * one["latent"].shape[-1] // (1 if family.is_flux2 else 4)
                shares.append(weights[:, :, text : text + picture, first : first + keys].sum(-1).mean(1))
                first += keys
            assert first == k.shape[2]
            seen.append(torch.stack(shares))
            return super().attention(q, k, v, bias, text, picture)

    base = family.model.model
    naive, noise = Watched(family.flux.state_dict()), torch.randn(drawn.shape, generator=torch.manual_seed(0))
    context, options = family.prompt()[0]
    clean, total = base.process_latent_in(drawn), torch.zeros(())
    if family.is_flux2:
        context = torch.cat([context.new_zeros(1, 512 - context.shape[1], context.shape[2]), context], 1)
    numbered = [{"number": i + 1, **one} for i, one in enumerate(sources)]
    for i in range(steps):
        sigma = float(base.model_sampling.percent_to_sigma((i + 0.5) / steps))
        x, times = sigma * noise + (1 - sigma) * clean, torch.full((len(drawn),), sigma)
        pooled = options["pooled_output"].expand(len(x), -1) if "pooled_output" in options else None
        guidance = None if family.is_flux2 else torch.full((len(x),), 3.5)
        seen.clear()
        naive(x, times, context.expand(len(x), -1, -1), pooled, guidance, numbered, family.bank)
        chosen = {"all": slice(None), "double": slice(2), "single": slice(2, None)}[blocks]
        total = total + torch.stack(seen[chosen]).mean(0) / steps
    return total


def assert_same(found, wanted):
    shares = torch.stack([one.shares for one in found])
    assert shares.shape == (*wanted.shape[:2], 4, 4) and wanted.max() > 0.01
    assert (shares.flatten(2) - wanted).abs().max() <= 1e-5


@pytest.mark.parametrize("blocks", ["all", "double", "single"])
def test_a_map_is_the_softmax_summed_over_a_sources_keys(family, blocks):
    drawn = family.latent(batch=2, seed=9)
    found = record(*weave(family, family.source(), family.source("inpaint", seed=6)), drawn, blocks=blocks)
    assert_same(found, read_naively(family, drawn, [family.naive_source(), family.naive_source("inpaint", 6)], blocks))
    assert [one.title for one in found] == ["control, source 1", "inpaint, source 2"]


def test_strength_and_region_count_as_the_attention_sees_them(family):
    drawn, half = family.latent(seed=9), torch.zeros(64, 64)
    half[:, :32] = 1
    woven = weave(family, family.source(source_strength=0.25, region=half), family.source("inpaint", seed=6))
    found = record(*woven, drawn)
    bias = torch.full((family.text_rows + 16,), 0.25).log()
    bias[family.text_rows :][[2, 3, 6, 7, 10, 11, 14, 15]] = -torch.inf
    sources = [family.naive_source(log_bias=bias), family.naive_source("inpaint", 6)]
    wanted = read_naively(family, drawn, sources, "all")
    assert_same(found, wanted)
    assert not found[0].shares[..., 2:].any() and (found[0].shares[..., :2] > 0).all()


def test_a_source_that_is_off_is_read_nowhere_and_a_window_counts_its_part(family):
    drawn, other = family.latent(seed=9), family.source("inpaint", seed=6)
    off, beside = record(*weave(family, family.source(source_strength=0.0), other), drawn)
    assert off.shares.shape == (1, 4, 4) and not off.shares.any() and beside.shares.min() > 0
    assert not record(*weave(family, family.source(source_strength=0.0)), drawn)[0].shares.any()
    (always,), (late,) = (record(*weave(family, family.source(start=start)), drawn, 2) for start in (0.0, 0.5))
    assert 0 < late.shares.mean() < 0.8 * always.shares.mean()


def test_maps_of_a_picture_are_the_same_alone_and_in_a_batch_and_in_small_parts(family, monkeypatch):
    from cologen.prw import attention_share

    drawn = family.latent(batch=2, seed=9)
    woven = weave(family, family.source(batch=2))
    (both,) = record(*woven, drawn)
    assert (both.shares[0] - both.shares[1]).abs().max() > 1e-4
    monkeypatch.setattr(attention_share, "MAX_WEIGHTS", 2**14)
    (parts,) = record(*woven, drawn)
    assert (parts.shares - both.shares).abs().max() < 1e-6
    monkeypatch.undo()
    (first,) = record(*weave(family, family.source(latent_=family.latent(2, seed=3)[:1])), drawn[:1])
    noise = torch.randn(drawn.shape, generator=torch.manual_seed(0))
    assert torch.equal(noise[:1], torch.randn(drawn[:1].shape, generator=torch.manual_seed(0)))
    assert (first.shares[0] - both.shares[0]).abs().max() < 1e-5


def test_a_source_of_two_prompts_counts_once_and_the_negative_not_at_all(family):
    from sampling import add_sources

    drawn = family.latent(seed=9)
    model, one = weave(family, family.source())
    two = add_sources(family.prompt(6), family.source())
    (first,), (second,), (both,) = (record(model, prompt, drawn) for prompt in (one, two, one + two))
    assert (both.shares - (first.shares + second.shares) / 2).abs().max() < 1e-5


def test_guidance_measures_the_positive_prompt_alone(family):
    """The same patch in a sampling with cfg, where both prompts share a batch and carry the source."""
    from cologen.prw.comfyui.source_attention import AttentionRecorder
    from sampling import add_sources

    recorders = []
    for cfg in (1.0, 3.0):
        model, positive = weave(family, family.source())
        recorders.append(AttentionRecorder(("double", "single")))
        model.set_model_attn1_patch(recorders[-1])
        negative = add_sources(family.prompt(5), family.source())
        family.sample(model, positive, negative, cfg=cfg, steps=1)
    (alone,), (guided,) = (recorder.sums.values() for recorder in recorders)
    assert (alone - guided).abs().max() < 1e-4 and alone.min() > 0


def test_a_map_changes_nothing_of_the_sampling(family, monkeypatch):
    from cologen.prw.comfyui import source_attention

    model, positive = weave(family, family.source())
    before, patches = family.sample(model, positive), list(model.model_options["transformer_options"]["patches"])
    hooks = [list(model.model_options["transformer_options"]["patches"][kind]) for kind in patches]
    record(model, positive, before)
    after = model.model_options["transformer_options"]["patches"]
    assert list(after) == patches and [list(after[kind]) for kind in patches] == hooks

    def refuse(*given):
        raise AssertionError("a sampling measures attention")

    monkeypatch.setattr(source_attention, "measure_shares", refuse)
    assert torch.equal(family.sample(model, positive), before)
    with pytest.raises(AssertionError, match="a sampling measures"):
        record(model, positive, before)


def test_where_there_is_nothing_to_look_at_a_sentence_says_so(family):
    model, positive = weave(family, family.source())
    with pytest.raises(ValueError, match="The latent is empty, expected a drawn one"):
        record(model, positive, torch.zeros_like(family.latent()))
    with pytest.raises(ValueError, match="has no source to be read, expected one"):
        record(model, family.prompt(), family.latent())
    with pytest.raises(ValueError, match="has no CoLoGen bank"):
        record(family.model, positive, family.latent())
    (entry, options), *_ = positive
    with pytest.raises(ValueError, match="expected all of it"):
        record(model, [[entry, {**options, "area": (4, 4, 0, 0), "strength": 1.0}]], family.latent())
