"""Two branches: the formula on explicit matrices."""

import pytest
import torch
from cologen.prw.flux.math import attention, rotary, rotate
from cologen.prw.personalization.attention_probe import BlockAttention
from cologen.prw.personalization.dual_branch import AuxiliaryProbe, BlendSettings, ConceptProbe, compute_shares
from naive import softmax_attention
from naive_branches import contrast, sum_noun_attention
from two_branches import CONCEPT, KEEP, OTHER, TAKE


@pytest.fixture
def view():
    """A block with 5 tokens of text, 12 of the picture, 2 more with queries, and 7 appended keys."""
    g = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, 3, n, 24, generator=g) for n in (19, 26, 26))
    ids = torch.cat([torch.zeros(2, 5, 3), torch.randint(0, 9, (2, 21, 3), generator=g)], 1)
    mask = torch.randn(19, 26, generator=g)
    return BlockAttention("double_blocks.0", q, k, v, rotary(ids, (8, 8, 8), 100), mask, 5, 12, lambda pe: bound(pe))


def bound(pe):
    return lambda q, k, v, mask=None: attention(q, k, v, pe, mask)


def turned(view):
    return rotate(view.q, view.pe), rotate(view.k, view.pe)


def test_what_some_keys_bear_is_their_mass_times_their_mean(view):
    q, k = turned(view)
    weights = (q @ k.mT * 24**-0.5 + view.mask).softmax(-1)
    for start, stop in ((0, 5), (19, 26)):
        mass = weights[:, :, 5:17, start:stop].sum(-1, keepdim=True)
        alone = (q @ k[:, :, start:stop].mT * 24**-0.5 + view.mask[:, start:stop]).softmax(-1)
        expected = (mass * (alone @ view.v[:, :, start:stop])[:, :, 5:17]).transpose(1, 2).flatten(2)
        assert (view.attend_to([slice(start, stop)]) - expected).abs().max() < 1e-5
    everything = softmax_attention(q, k, view.v, view.mask)[:, :, 5:17].transpose(1, 2).flatten(2)
    assert (view.attend_to([slice(0, 19), slice(19, None)]) - everything).abs().max() < 1e-5


def test_maps_are_those_of_a_plain_loop(view):
    q, k = turned(view)
    other = AuxiliaryProbe({}, set(), 12, bound)
    other.observe(view, CONCEPT)
    _, elsewhere = other.recorded["double_blocks.0"]
    for b in range(2):
        for h in range(3):
            heat = sum_noun_attention(q[b, h, 5:17], k[b, h], CONCEPT.noun, CONCEPT.prompt_length, sharpen=True)
            assert torch.allclose(elsewhere[b, h], torch.tensor(contrast([1 - value for value in heat])), atol=1e-4)


@pytest.mark.parametrize("strength, which", [(KEEP, 0), (TAKE, 1)])
def test_far_strengths_give_one_branch_s_own_text(view, strength, which):
    g = torch.Generator().manual_seed(5)
    foreign = view._replace(q=torch.randn(view.q.shape, generator=g), v=torch.randn(view.v.shape, generator=g))
    other = AuxiliaryProbe({}, set(), 12, bound)
    other.observe(foreign, OTHER)
    said = ConceptProbe({}, set(), 12, bound, auxiliary=other, blend=BlendSettings(strength)).observe(view, CONCEPT)
    text, rest = [slice(0, 5)], [slice(5, None)]
    found = view.attend_to(text + rest) + said
    assert (found - (view, foreign)[which].attend_to(text) - view.attend_to(rest)).abs().max() < 1e-5
    if which == 0:
        assert not said.any()


def test_shares_add_up_to_one():
    a, b = torch.rand(2, 3, 4, 5)
    for strength in (KEEP, -2.0, 0.0, 2.0, TAKE):
        own, other = compute_shares(a, b, strength)
        assert torch.allclose(own + other, torch.ones_like(own))
    assert torch.allclose(compute_shares(a, b, 0.0)[0], torch.sigmoid(a))
