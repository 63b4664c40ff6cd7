"""Sources without experts on FLUX.2: diffusers' pipeline for klein 9B-KV is the oracle."""

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.base_model import Base
from cologen.prw.base_weights import BaseWeights
from cologen.prw.embedded_host import EmbeddedHost, velocity
from cologen.prw.kv_cache import SampleKV
from cologen.prw.source import Routing, Source
from cologen.prw.weaving import named_blocks
from flux2_in_diffusers import convert_to_diffusers, predict_with_references
from tiny_flux2 import flux2_inputs, tiny_flux2

TIMES = (1.0, 0.7, 0.25)


def reference(height=3, width=5, seed=8, **knobs):
    return Source(torch.randn(1, 128, height, width, generator=torch.Generator().manual_seed(seed)), **knobs)


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("references", [1, 2, 3])
def test_references_are_read_as_diffusers_reads_them(references, guided):
    flux = tiny_flux2(guidance_embed=guided)
    theirs, attachment = convert_to_diffusers(flux), Attachment(BaseWeights(Base.of(flux)))
    sources = [reference(2 + i, 5 - i, seed=8 + i, number=1 + i) for i in range(references)]
    cache = None
    with torch.inference_mode():
        for time in TIMES:
            x, _, context, _, guidance = flux2_inputs(guided=guided)
            times = torch.full((1,), time)
            found = velocity(flux, x, times, context, None, guidance, attachment, sources)
            expected, cache = predict_with_references(
                theirs, flux, x, times, context, guidance, [s.latent for s in sources], cache
            )
            assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
            plain = flux(x, times, context, guidance=guidance)
            assert (plain - expected).abs().max() > 0.02 * expected.abs().max()  # or nothing would have been read


def test_a_source_outlives_its_prompt_its_noise_and_their_size():
    flux = tiny_flux2()
    attachment, source = Attachment(BaseWeights(Base.of(flux))), reference()
    passes = []
    flux.img_in.register_forward_hook(lambda *_: passes.append(1))
    host = EmbeddedHost(flux, torch.float32)
    inputs = flux2_inputs()
    attachment.prepare(host, [source], inputs)
    assert len(passes) == 1
    other = flux2_inputs(tokens=9)
    attachment.prepare(host, [source], inputs._replace(context=other.context, times=other.times / 2))
    attachment.prepare(host, [source], inputs._replace(guidance=torch.ones(1)))
    larger = flux2_inputs(height=5, width=7)
    assert larger.x.shape != inputs.x.shape
    found = velocity(flux, *larger, attachment, [source])
    assert len(passes) == 2  # the picture's own
    assert torch.equal(found, velocity(flux, *larger, Attachment(BaseWeights(Base.of(flux))), [source]))
    passes.clear()
    attachment.prepare(host, [reference(seed=9)], inputs)
    assert len(passes) == 1


@pytest.mark.parametrize("placement", ["cpu", "fp8"])
def test_what_references_share_is_brought_once_a_block(monkeypatch, placement):
    """Of a batch of two it is one entry as well, on its way to the device or out of fp8."""
    flux, read, reads = tiny_flux2(), SampleKV.read, []
    monkeypatch.setattr(SampleKV, "read", lambda self, block, device: reads.append(block) or read(self, block, device))
    attachment = Attachment(BaseWeights(Base.of(flux)))
    sources = [reference(seed=8 + i, number=1 + i, placement=placement) for i in range(3)]
    velocity(flux, *flux2_inputs(batch=2), attachment, sources)
    assert reads == [name for name, _ in named_blocks(flux)]


def test_references_apart_are_each_alone():
    flux = tiny_flux2()
    host, inputs = EmbeddedHost(flux, torch.float32), flux2_inputs()
    sources = [reference(2 + i, 5 - i, seed=8 + i, number=1 + i, together=False) for i in range(2)]
    both = Attachment(BaseWeights(Base.of(flux))).prepare(host, sources, inputs).sources
    for source, found in zip(sources, both):
        (alone,) = Attachment(BaseWeights(Base.of(flux))).prepare(host, [source], inputs).sources
        assert torch.equal(found.pe, alone.pe)
        for block in Base.of(flux).blocks():
            assert all(map(torch.equal, found.read(block, x := torch.device("cpu")), alone.read(block, x)))
    joined = Attachment(BaseWeights(Base.of(flux))).prepare(
        host, [reference(2 + i, 5 - i, seed=8 + i, number=1 + i) for i in range(2)], inputs
    )
    k = [sources[0].read("single_blocks.1", torch.device("cpu"))[0] for sources in (both, joined.sources)]
    assert (k[0] - k[1]).abs().max() > 0.01


def test_pictures_of_two_tasks_are_read_as_diffusers_reads_two_references():
    flux = tiny_flux2()
    kinds = [dict(task="edit", lean=0.5), dict(task="subject", strength=0.7, shift=(0.0, 2.0))]
    sources = [
        reference(2 + i, 5 - i, seed=8 + i, number=1 + i, routing=Routing(**kind)) for i, kind in enumerate(kinds)
    ]
    x, times, context, _, guidance = flux2_inputs()
    with torch.inference_mode():
        found = velocity(flux, x, times, context, None, guidance, Attachment(BaseWeights(Base.of(flux))), sources)
        latents = [source.latent for source in sources]
        expected, _ = predict_with_references(
            convert_to_diffusers(flux), flux, x, times, context, guidance, latents, None
        )
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
