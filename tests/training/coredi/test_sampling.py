"""Pictures drawn along with their features, against a loop that is written out."""

from dataclasses import replace

import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.prw.config import SourceInfo
from cologen.prw.embedded_host import EmbeddedHost
from cologen.prw.flux.inputs import EncodedPrompt, FluxInputs
from cologen.prw.flux.math import timestep_embedding
from cologen.prw.source import Routing
from cologen.training.batch import NoisedBatch
from cologen.training.coredi.sampling import FeatureSampler
from cologen.training.forward import run_source
from cologen.training.sampling import SamplingSettings, sample_latents
from sampling import SIGMAS, conditioning
from tiny import source, tiny_flux
from tiny_features import forward_with_features, random_features, tiny_feature_trainer
from tiny_run import tiny_dataset, tiny_host

TIMES = (1.0, 0.8, 0.5, 0.0)
PLACES = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [0, 0.5, 0.5]])


@pytest.fixture(scope="module")
def host():
    return tiny_host()


def a_case(host, way, up=0.2):
    trainer, lessons = tiny_feature_trainer(host, way, up=up), tiny_dataset("inpaint").samples
    heads = [trainer.export_features()]
    noise = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(2))
    told, untold = (EncodedPrompt(lessons.context[i : i + 2], lessons.pooled[i : i + 2]) for i in (0, 2))
    settings = SamplingSettings(TIMES, cfg=2.5, negative=untold)
    return heads, (host, trainer.bank, Routing(task="inpaint"), lessons.source[:2], noise, told, settings), untold


@pytest.mark.parametrize("way", ["coredi", "self"])
def test_without_weight_it_is_the_plain_picture(host, way):
    heads, case, _ = a_case(host, way)
    plain = sample_latents(*case)
    assert torch.equal(FeatureSampler(heads, 0.0)(*case), plain)
    assert not torch.allclose(FeatureSampler(heads, 1.0)(*case), plain, atol=1e-3)


def told_of(head, tokens):
    norm = (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    return (norm * head["norm.weight"] + head["norm.bias"]) @ head["head.weight"].T + head["head.bias"]


def pooled_of(tokens):
    """Of 2 x 2 tokens: a cell each, and the mean."""
    return torch.cat((tokens, tokens.mean(1, keepdim=True)), dim=1)


@pytest.mark.parametrize("weight, time", [(1.0, "zero"), (1.5, "zero"), (1.5, "shared")])
@pytest.mark.parametrize("way", ["coredi", "self"])
def test_it_is_eulers_way_for_picture_and_features(host, way, weight, time):
    heads, case, untold = a_case(host, way, up=0.0)  # no expert bends the tokens
    _, bank, routing, source, x, told, settings = case
    bank = Bank(replace(bank.info, source=SourceInfo(time)), bank.tensors)
    case = (host, bank, routing, source, x, told, settings)
    head = heads[0].tensors
    z = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0)) if way == "coredi" else None

    @torch.no_grad()
    def forward(t, text, z):
        source_context = run_source(host, bank, routing, source, FluxInputs(x, torch.full((2,), t), *text))
        given = NoisedBatch(x, x, FluxInputs(x, torch.full((2,), t), *text), source_context)
        h = torch.zeros(2, 0, 32) if z is None else z @ head["in.weight"].T + head["in.kind"]
        picture, own = forward_with_features(host, given, h, PLACES[: h.shape[1]])
        vec = host.flux.time_in(timestep_embedding(given.inputs.times)) + host.flux.vector_in(text[1])
        rows = host.flux.final_layer(picture, vec)
        return rows.view(2, 2, 2, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(2, 16, 4, 4), own, picture

    for t, following in zip(TIMES, TIMES[1:]):
        on, own, picture = forward(t, told, z)
        off, plain = forward(t, told, None)[0], forward(t, untold, None)[0]
        v = off + weight * (on - off)
        x = x + (following - t) * (plain + 2.5 * (v - plain))
        if way == "coredi":
            z = z + (following - t) * (z - told_of(head, own)) / t
        else:
            z = pooled_of(told_of(head, picture))
    found = FeatureSampler(heads, weight)(*case)
    assert torch.allclose(found, host.unscale_latent(x), atol=1e-3)


def test_fp16_overflows_as_the_host_s_does(bank, monkeypatch):
    from cologen.prw import weaving
    from cologen.prw.coredi import feature_stream

    def large(*given):
        h, kv = usual(*given)
        return h * 1e3 * 1e3, kv

    usual = weaving.run_double_block
    for module in (weaving, feature_stream):
        monkeypatch.setattr(module, "run_double_block", large)
    half = tiny_flux(torch.float16)
    ((text, options),) = conditioning(4)
    given = source().latent, torch.randn(1, 16, 8, 8), EncodedPrompt(text, options["pooled_output"])
    case = (EmbeddedHost(half, torch.float16), bank, Routing(task="control"), *given, SamplingSettings(SIGMAS))
    assert torch.isfinite(sample_latents(*case)).all()
    assert torch.isfinite(FeatureSampler([random_features(half)])(*case)).all()


def test_a_router_for_each_token_is_a_sentence(host):
    heads, case, _ = a_case(host, "coredi")
    _, bank, *rest = case
    routers = {name: replace(router, per="token") for name, router in bank.info.routers.items()}
    bank = Bank(replace(bank.info, routers=routers), bank.tensors)
    with pytest.raises(ValueError, match="chooses an expert for each token, expected one for a whole source"):
        FeatureSampler(heads)(host, bank, *rest)
