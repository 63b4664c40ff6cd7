"""Banks merged, split, dropped and renamed: what is in them means what it meant before."""

from dataclasses import replace

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.bank.bank import Bank
from cologen.prw.bank.compress import share_down
from cologen.prw.bank.edit import drop, make_random_bank, merge, rename, split
from cologen.prw.config import RouterInfo, SourceInfo
from cologen.prw.embedded_host import velocity
from cologen.prw.files.errors import BankError
from cologen.prw.files.lazy_tensors import Renamed
from cologen.prw.source_format import SourceFormat
from tiny import inputs, products, source, tiny_bank, tiny_info


@pytest.fixture(scope="module")
def bank(flux):
    return tiny_bank(flux, rank=8)


def picture(flux, bank, task="control", **knobs):
    return velocity(flux, *inputs(), Attachment(bank), [source(task, **knobs)])


def saved(bank, folder):
    return Bank.open(bank.save(folder / "small.safetensors"))


def test_parts_of_a_shared_bank_meet_again_and_strangers_of_one_group_do_not(flux, bank):
    shared = share_down(bank, 12)[0]
    again = merge(split(shared, name) for name in bank.info.experts)
    assert again.info == shared.info and torch.equal(products(again), products(shared))
    mine = rename(tiny_bank(flux, rank=8, seed=8), {name: f"my_{name}" for name in bank.info.experts})
    with pytest.raises(BankError, match="different matrices for the group shared, expected one name a group"):
        merge([shared, share_down(mine, 12)[0]])
    other = share_down(mine, 12, "mine")[0]
    assert torch.equal(products(merge([shared, other])), torch.cat((products(shared), products(other))))


def test_nothing_is_computed_before_it_is_asked_for_and_then_once(bank, tmp_path):
    asked = []

    def noted(name, tensor):
        asked.append(name)
        return tensor

    computed = Bank(bank.info, Renamed(bank.tensors, {name: name for name in bank.tensors}, noted))
    part = split(merge([computed]), "ground")
    assert not asked
    part.save(tmp_path / "part.safetensors")
    assert sorted(asked) == sorted(part.tensors)


def test_fresh_scaled_experts_are_those_without_scales(flux):
    scaled, plain = (make_random_bank(tiny_info(flux, scaled=scaled), up=0.3) for scaled in (True, False))
    assert torch.equal(products(scaled), products(plain)) and products(plain).any()


def test_experts_that_are_told_the_picture_s_guidance_join_banks_of_any(flux, bank):
    live = tiny_info(flux, names=("canny",), habits=SourceFormat(guidance="live"))
    canny = make_random_bank(replace(live, routers={}, source=SourceInfo(guidance=30.0)), up=0.3)
    for pair in ((bank, canny), (canny, bank)):
        both = merge(pair)
        assert both.info.source.guidance == bank.info.source.guidance
        for one, parent in ((dict(expert="canny"), canny), (dict(task="control"), bank)):
            assert torch.equal(picture(flux, both, **one), picture(flux, parent, **one))
    routed = Bank(replace(canny.info, routers={"canny": RouterInfo(("canny",))}), canny.tensors)
    for other in (routed, Bank(replace(canny.info, source=SourceInfo("shared")), canny.tensors)):
        with pytest.raises(BankError, match="modulate their sources differently"):
            merge([bank, other])


def test_a_dropped_expert_leaves_its_router_s_column(flux, bank, tmp_path):
    less = saved(drop(bank, ["inpaint"]), tmp_path)
    assert list(less.info.experts) == ["ground", "control"] and list(less.info.routers) == ["ground", "control"]
    assert less.info.routers["control"].experts == ("ground", "control")
    for name in ("weight", "noise"):
        key = f"routers.control.single_blocks.0.{name}"
        assert torch.equal(less.tensors[key], bank.tensors[key][:, 1:])
    assert torch.equal(picture(flux, less, expert="control"), picture(flux, bank, expert="control"))


def test_a_renamed_expert_is_the_same(flux, bank, tmp_path):
    named = saved(rename(bank, {"control": "edges"}), tmp_path)
    assert list(named.info.experts) == ["inpaint", "ground", "edges"] and "edges" in named.info.routers
    assert torch.equal(picture(flux, named), picture(flux, bank))
    swapped = rename(bank, {"inpaint": "ground", "ground": "inpaint"})
    assert torch.equal(picture(flux, swapped, router="inpaint"), picture(flux, bank, router="ground"))
    again = rename(named, {"edges": "control"})
    assert again.info == bank.info and all(torch.equal(again.tensors[key], bank.tensors[key]) for key in bank.tensors)


def test_merge_after_rename_holds_both(flux, bank):
    other = rename(tiny_bank(flux, seed=8), {name: f"my_{name}" for name in bank.info.experts})
    both = merge([bank, other])
    assert torch.equal(picture(flux, both, router="my_control"), picture(flux, other, router="my_control"))
    assert torch.equal(picture(flux, split(both, "control"), expert="control"), picture(flux, bank, expert="control"))


def without_experts(bank, *gone):
    """As `split` leaves a bank: routers that choose among experts which are elsewhere."""
    experts = {name: expert for name, expert in bank.info.experts.items() if name not in gone}
    return Bank(replace(bank.info, experts=experts), bank.tensors)


@pytest.mark.parametrize(
    "work, sentence",
    [
        (lambda bank: drop(bank, ["nobody"]), "no expert nobody, expected one of inpaint, ground, control"),
        (lambda bank: drop(bank, list(bank.info.experts)), "No expert would be left"),
        (lambda bank: rename(bank, {"ground": "control"}), "Two would have one name"),
        (lambda bank: rename(bank, {"nobody": "x"}), "no expert nobody"),
        (lambda bank: rename(bank, {"ground": "a/b"}), "is not made of 1 to 64 letters"),
        (lambda bank: rename(bank, {"ground": "x", "control": "x"}), "Two would have one name"),
        (lambda bank: rename(without_experts(bank, "control"), {"ground": "control"}), "Two would have one name"),
        (lambda bank: rename(without_experts(bank, "inpaint"), {"ground": "inpaint"}), "Two would have one name"),
    ],
)
def test_impossible_work_is_a_sentence(bank, work, sentence):
    with pytest.raises((BankError, ValueError), match=sentence):
        work(bank)
