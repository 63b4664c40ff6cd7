"""Experts that add to a parent: what they add, in a forward and in every way a bank is changed."""

import json
from dataclasses import replace

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.bank.bank import Bank
from cologen.prw.bank.compress import convert, rerank, share_down
from cologen.prw.bank.edit import drop, merge, rename, split
from cologen.prw.bank.importers import open_experts
from cologen.prw.bank.importers.peft import export_adapters
from cologen.prw.bank.info import encode_info
from cologen.prw.bank.summary import describe_bank
from cologen.prw.bank.tree import flatten
from cologen.prw.embedded_host import velocity
from cologen.prw.files.errors import BankError
from tiny import inputs, source, tiny_bank, tiny_flux
from tiny_tree import LEAVES, NaiveTree, naive_leaf, tree_bank

PLACES = [("double_blocks.1", "k"), ("single_blocks.0", "v")]


@pytest.fixture(scope="module")
def bank(flux):
    return tree_bank(flux)


def picture(flux, bank, task="depth", **knobs):
    return velocity(flux, *inputs(), Attachment(bank), [source(task, **knobs)])


def saved(bank, folder):
    return Bank.open(bank.save(folder / "tree.safetensors"))


def dense(bank, name, block, target):
    """Of an expert's own matrices, from its tensors."""
    down, up = (bank.tensors[f"experts.{name}.{block}.{target}.{part}"].float() for part in ("down", "up"))
    return up @ down * bank.info.experts[name].alpha / bank.info.experts[name].rank


@pytest.mark.parametrize("stage", LEAVES)
def test_a_forward_is_the_naive_one_with_both_differences(flux, bank, tmp_path, stage):
    naive = NaiveTree(flux.state_dict())
    expected = naive(*inputs(), [naive_leaf(stage)], bank)
    assert {int(column) for column in naive.routes.values()} == set(range(len(LEAVES[stage])))
    for one in (bank, saved(bank, tmp_path)):
        assert (picture(flux, one, stage) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("alpha", [4.0, 3.0], ids=["its parent's scale", "a scale of its own"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_a_child_adds_what_the_two_add_however_they_are_stored(flux, alpha, dtype):
    bank = tree_bank(flux, alpha=alpha)
    bank = bank if dtype == torch.float32 else convert(bank, dtype)[0]
    for block, target in PLACES:
        own, parent = (bank.own_pairs(name, block)[target] for name in ("canny", "control"))
        x = torch.randn(3, 5, len(own.up), generator=torch.Generator().manual_seed(1))
        expected = own(x) + parent(x)
        assert (bank.expert("canny", block)[target](x) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_child_without_a_difference_is_its_parent(flux):
    bank = tree_bank(flux)
    for name, tensor in bank.tensors.items():
        if name.startswith("experts.canny.") and name.endswith(".up"):
            tensor.zero_()
    child, parent = (picture(flux, bank, "control", expert=name) for name in ("canny", "control"))
    assert (child - parent).abs().max() < 1e-6 * parent.abs().max()
    assert (parent - picture(flux, bank, "depth", expert="depth")).abs().max() > 1e-2


@pytest.mark.parametrize("parents", [0.0, 8.0])
def test_a_child_of_alpha_0_is_flattened_to_what_its_parent_adds(flux, parents):
    bank = tree_bank(flux, alpha=0.0)
    experts = bank.info.experts | {"control": replace(bank.info.experts["control"], alpha=parents)}
    bank = Bank(replace(bank.info, experts=experts), bank.tensors)
    expected = picture(flux, bank, "depth")
    assert (picture(flux, flatten(bank), "depth") - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_tree_of_three_generations_adds_all_of_them(flux, bank, tmp_path):
    experts = dict(bank.info.experts)
    experts["depth"] = replace(experts["depth"], parent="canny")
    deep = saved(Bank(replace(bank.info, experts=experts), bank.tensors), tmp_path)
    expected = NaiveTree(flux.state_dict())(*inputs(), [naive_leaf()], deep)
    assert (picture(flux, deep) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (picture(flux, deep) - picture(flux, bank)).abs().max() > 1e-2


def test_a_bank_without_parents_is_written_as_before(flux, bank, tmp_path):
    plain, tree = (json.loads(encode_info(one.info)) for one in (tiny_bank(flux), bank))
    assert plain["version"] == 2 and "parent" not in json.dumps(plain)
    assert tree["version"] == 4 and tree["experts"]["canny"]["parent"] == "control"
    assert "parent" not in tree["experts"]["control"] and saved(bank, tmp_path).info == bank.info


def test_the_last_router_is_the_one_that_knows_most_experts_parents_among_them(bank):
    assert bank.info.last_router == "depth" and bank.info.list_known("depth") == [
        "inpaint",
        "control",
        "canny",
        "depth",
    ]
    first = replace(bank.info, routers={stage: bank.info.routers[stage] for stage in ("control", "canny")})
    assert first.last_router == "canny"


def test_parts_meet_again_and_a_part_alone_says_what_it_lacks(flux, bank, tmp_path):
    parts = [Bank.open(split(bank, name).save(tmp_path / f"{name}.safetensors")) for name in bank.info.experts]
    again = merge(reversed(parts))
    assert set(again.info.experts) == set(bank.info.experts) and torch.equal(picture(flux, again), picture(flux, bank))
    child = next(part for part in parts if "canny" in part.info.experts)
    for work in (
        lambda: picture(flux, child, expert="canny"),
        lambda: flatten(child),
        lambda: export_adapters(child, tmp_path),
    ):
        with pytest.raises(
            BankError, match="Expert canny adds to control, which the bank lacks: merge it with the bank"
        ):
            work()
    assert "canny: adds to control, which is in another file" in describe_bank(child, "part")


def test_a_renamed_parent_is_found(flux, bank, tmp_path):
    named = saved(rename(bank, {"control": "maps", "depth": "far"}), tmp_path)
    assert named.info.experts["far"].parent == named.info.experts["canny"].parent == "maps"
    assert torch.equal(picture(flux, named, router="far"), picture(flux, bank))
    with pytest.raises(BankError, match="Two would have one name"):
        rename(split(bank, "canny"), {"canny": "control"})


def test_a_child_of_a_dropped_parent_keeps_what_that_gave_it(flux, bank, tmp_path):
    less = saved(drop(bank, ["control"]), tmp_path)
    assert less.info.experts["canny"].rank == 6 and not less.info.experts["canny"].parent
    for block, target in PLACES:
        expected = dense(bank, "canny", block, target) + dense(bank, "control", block, target)
        assert torch.allclose(dense(less, "canny", block, target), expected, atol=1e-5)
    assert (picture(flux, less) - picture(flux, bank)).abs().max() < 1e-4
    without = saved(drop(bank, ["depth"]), tmp_path)
    assert without.info.experts["canny"].parent == "control" and list(without.info.routers) == ["control", "canny"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e4m3fn])
def test_a_flat_bank_draws_the_same(flux, bank, tmp_path, dtype):
    stored = bank if dtype == torch.float32 else convert(bank, dtype)[0]
    flat = saved(flatten(stored, ["depth"]), tmp_path)
    assert [expert.parent for expert in flat.info.experts.values()] == ["", "", "control", ""]
    most = 1e-4 if dtype == torch.float32 else 3e-2
    assert (picture(flux, flat) - picture(flux, stored)).abs().max() < most
    assert flatten(tiny_bank(flux)).info == tiny_bank(flux).info


WORKS = {
    "rerank": lambda bank: rerank(bank, 2)[0],
    "share": lambda bank: share_down(bank, 12)[0],
    "bfloat16": lambda bank: convert(bank, torch.bfloat16)[0],
}


@pytest.mark.parametrize("work", WORKS)
def test_a_smaller_bank_is_still_a_tree_of_nearly_the_same(flux, bank, tmp_path, work):
    bank = rerank(bank, 2)[0] if work == "rerank" else bank
    small = saved(WORKS[work](bank), tmp_path)
    assert small.info.experts["depth"].parent == "control"
    assert (picture(flux, small) - picture(flux, bank)).abs().max() < (2e-2 if work == "bfloat16" else 1e-4)


def test_an_adapter_holds_what_its_parents_add(flux, bank, tmp_path):
    pytest.importorskip("peft")
    folders = export_adapters(bank, tmp_path)
    assert [folder.name for folder in folders] == list(bank.info.experts)
    back = open_experts(tmp_path / "canny")
    assert not back.info.experts["canny"].parent
    for block, target in PLACES:
        expected = dense(bank, "canny", block, target) + dense(bank, "control", block, target)
        assert torch.allclose(dense(back, "canny", block, target), expected, atol=1e-5)


def test_a_summary_shows_the_tree(bank):
    experts = dict(bank.info.experts)
    mixed = {name: experts[name] for name in ("depth", "inpaint", "control", "canny")}
    lines = describe_bank(Bank(replace(bank.info, experts=mixed), bank.tensors), "bank").splitlines()
    shown = [line.split("  -")[0].rstrip() for line in lines if "k (all)" in line]
    assert [line[:9].rstrip() for line in shown] == ["inpaint", "control", "  depth", "  canny"]
    assert "canny: adds to control, rank 6 together" in lines


def test_another_shape_of_tree_is_refused(flux):
    with pytest.raises(ValueError, match="expert canny changes .*, expected .* as control, which it adds to"):
        tree_bank(tiny_flux(), targets={"k": "double"})
