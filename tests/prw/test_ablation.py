"""Older experts' blocks given to another: the same as a bank whose older experts are that other, or nothing."""

from dataclasses import replace

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.bank.bank import Bank
from cologen.prw.embedded_host import velocity
from cologen.prw.router import Steering, route
from cologen.prw.source import Routing
from tiny import inputs, source, tiny_bank, tiny_flux

PARTS = ("down", "up")


@pytest.fixture(scope="module")
def flux():
    return tiny_flux()


def draw(flux, bank, **routing):
    one = source("control")
    one = replace(one, routing=replace(one.routing, **routing))
    with torch.no_grad():
        return velocity(flux, *inputs(), Attachment(bank), [one])


def rewritten(bank, change, blocks):
    """A bank whose experts before the last are changed in these blocks: (tensor, the last expert's) -> tensor."""
    *older, newest = bank.info.experts
    tensors = dict(bank.tensors)
    for name in older:
        for key in [key for key in tensors if key.startswith(f"experts.{name}.")]:
            place = key.removeprefix(f"experts.{name}.")
            if any(place.startswith(f"{block}.") for block in blocks):
                tensors[key] = change(tensors[key], tensors[f"experts.{newest}.{place}"])
    return Bank(bank.info, tensors)


@pytest.mark.parametrize("per", ["sample", "token"])
@pytest.mark.parametrize(
    "way, change",
    [("newest", lambda own, newest: newest), ("none", lambda own, newest: torch.zeros_like(own))],
    ids=["newest", "none"],
)
def test_an_ablated_route_is_that_of_a_bank_with_other_older_experts(flux, per, way, change):
    bank = tiny_bank(flux, per=per)
    blocks = bank.info.base.blocks()
    found = draw(flux, bank, older=way)
    assert torch.allclose(found, draw(flux, rewritten(bank, change, blocks)), atol=1e-5)
    assert not torch.allclose(found, draw(flux, bank), atol=1e-3)
    last = blocks[-1]
    found = draw(flux, bank, older=way, older_in=(last,))
    assert torch.allclose(found, draw(flux, rewritten(bank, change, [last])), atol=1e-5)


def test_a_router_s_only_expert_is_its_newest(flux):
    bank = tiny_bank(flux)
    one = replace(source("inpaint"), routing=Routing("inpaint"))
    with torch.no_grad():
        drawn = [
            velocity(flux, *inputs(), Attachment(bank), [replace(one, routing=Routing("inpaint", older=way))])
            for way in ("", "newest", "none")
        ]
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])


def test_the_gate_stays_and_only_older_columns_lose_it():
    g = torch.Generator().manual_seed(0)
    h, weight = torch.randn(20, 5, 16, generator=g), torch.randn(16, 3, generator=g)
    routed = route(h, weight)
    newest, none = (route(h, weight, steering=Steering(older=way)) for way in ("newest", "none"))
    for i in range(20):
        assert newest.expert[i] == 2 and newest.gate[i] == routed.gate[i]
        assert none.expert[i] == routed.expert[i]
        assert none.gate[i] == (routed.gate[i] if routed.expert[i] == 2 else 0)
    assert {0, 1, 2} == set(routed.expert.tolist())


def test_a_wrong_word_is_named():
    with pytest.raises(ValueError, match="older is 'all', expected"):
        Routing(older="all")
