"""Noisy top-1 routing: equation 2 and 3, and what a user may ask of it."""

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.base_model import Base
from cologen.prw.base_weights import BaseWeights
from cologen.prw.embedded_host import velocity
from cologen.prw.router import Steering, route
from tiny import inputs, source, tiny_bank, tiny_flux

D, N = 16, 4


@pytest.fixture
def given():
    g = torch.Generator().manual_seed(0)
    return torch.randn(3, 7, D, generator=g), torch.randn(D, N, generator=g), torch.randn(D, N, generator=g)


def test_without_noise_the_route_is_the_softmax_of_the_pooled_tokens(given):
    h, weight, _ = given
    for _ in range(3):
        found = route(h, weight)
        for sample in range(3):
            logits = [sum(h[sample].mean(0)[d] * weight[d, n] for d in range(D)) for n in range(N)]
            p = torch.tensor(logits).exp() / torch.tensor(logits).exp().sum()
            assert torch.allclose(found.probs[sample], p, atol=1e-5)
            assert found.expert[sample] == p.argmax() and torch.allclose(found.gate[sample], p.max(), atol=1e-5)


def test_training_noise_is_equation_2(given):
    h, weight, noise = given
    torch.manual_seed(5)
    found = route(h, weight, noise)
    torch.manual_seed(5)
    eps = torch.randn(3, N)
    pooled = h.mean(1)
    w = pooled @ weight + eps * torch.log1p(torch.exp(pooled @ noise))
    assert torch.allclose(found.probs, torch.softmax(w, -1), atol=1e-5)
    assert not torch.equal(found.probs, route(h, weight, noise).probs)


def test_token_routes_treat_each_token_as_a_sample(given):
    h, weight, _ = given
    found = route(h, weight, per="token")
    for i in range(7):
        alone = route(h[:, i : i + 1], weight)
        assert torch.equal(found.expert[:, i], alone.expert) and torch.allclose(found.gate[:, i], alone.gate)


def test_the_gate_carries_gradient_to_the_router(given):
    h, weight, _ = given
    weight.requires_grad_()
    route(h, weight).gate.sum().backward()
    assert weight.grad.abs().max() > 0


def test_a_forced_expert_is_taken_with_gate_one(given):
    h, weight, _ = given
    for column in range(N):
        found = route(h, weight, steering=Steering(forced=column))
        assert (found.expert == column).all() and (found.gate == 1).all()


def test_a_full_lean_always_wins_and_none_changes_nothing(given):
    h, weight, _ = given
    lean = torch.tensor([0.0, 1.0, 1.0, -1.0])
    found = route(h, 50 * weight, steering=Steering(lean=lean))
    assert set(found.expert.tolist()) <= {1, 2}
    best = 1 + (50 * h.mean(1) @ weight)[:, 1:3].argmax(-1)
    assert torch.equal(found.expert, best)
    assert torch.equal(route(h, weight, steering=Steering(lean=torch.zeros(N))).probs, route(h, weight).probs)


def chosen(bank, one):
    flux, attachment = tiny_flux(), Attachment(bank)
    velocity(flux, *inputs(), attachment, [one])
    (entry,) = attachment.cache.entries.values()
    return [(int(r.expert), float(r.gate)) for r in entry.sample.routes.values()]


def test_knobs_of_a_source_reach_the_router():
    bank = tiny_bank(tiny_flux())
    free = chosen(bank, source())
    assert {column for column, _ in free} > {0}
    assert {column for column, _ in chosen(bank, source(lean=-1.0))} == {0}  # inpaint is the concept expert
    assert {column for column, _ in chosen(bank, source(lean=1.0))} == {1}  # ground the localisation expert
    assert chosen(bank, source(expert="control")) == [(2, 1.0)] * 4
    assert chosen(bank, source("inpaint", expert="control")) == [(0, 1.0)] * 4  # alone: not in that router


@pytest.mark.parametrize("lean", [-1.0, 0.5])
def test_a_lean_of_the_base_s_own_weights_changes_nothing(lean):
    weights = BaseWeights(Base.of(tiny_flux()))
    assert chosen(weights, source(lean=lean)) == chosen(weights, source())


def test_a_lean_without_leaning_experts_changes_nothing():
    bank = tiny_bank(tiny_flux(), names=("control", "edit"))
    assert chosen(bank, source("edit", lean=1.0)) == chosen(bank, source("edit"))
