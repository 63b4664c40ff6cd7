"""Smaller banks: what re-ranking, sharing and casting keep, against dense matrices; dropped and renamed experts."""

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.bank import Bank
from cologen.prw.bank_info import BankError
from cologen.prw.bank_work import drop, merge, random_bank, rename, split
from cologen.prw.embedded import velocity
from cologen.prw.reshape import cast, reranked, sharing
from tiny import inputs, source, tiny_bank, tiny_flux, tiny_info

PLACE = "double_blocks.1.k"


@pytest.fixture(scope="module")
def flux():
    return tiny_flux()


@pytest.fixture(scope="module")
def bank(flux):
    return tiny_bank(flux, rank=8)


def picture(flux, bank, task="control", **knobs):
    return velocity(flux, *inputs(), Attachment(bank), [source(task, **knobs)])


def product(bank, name, place=PLACE):
    block, target = place.rsplit(".", 1)
    pair = bank.expert(name, block)[target]
    return pair.up.float() @ pair.down.float() * pair.scale


def saved(bank, folder):
    return Bank.open(bank.save(folder / "small.safetensors"))


def test_full_rank_is_the_same_expert(flux, bank, tmp_path):
    same, error = reranked(bank, 8)
    assert (picture(flux, saved(same, tmp_path)) - picture(flux, bank)).abs().max() < 1e-5
    assert error.whole < 1e-6


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_lower_rank_is_the_best_approximation_there_is(bank, tmp_path, rank):
    small, error = reranked(bank, rank)
    small = saved(small, tmp_path)
    assert small.info.experts["control"].rank == rank
    u, s, v = torch.linalg.svd(product(bank, "control"))  # of the dense matrix
    best = u[:, :rank] * s[:rank] @ v[:rank]
    assert torch.allclose(product(small, "control"), best, atol=1e-5)
    off, of = error.off[f"control {PLACE}"]
    assert (off / of) ** 0.5 == pytest.approx(float((product(bank, "control") - best).norm() / s.norm()), rel=1e-3)


def test_only_the_named_expert_is_re_ranked(bank, tmp_path):
    small = saved(reranked(bank, 2, ["ground"])[0], tmp_path)
    assert [expert.rank for expert in small.info.experts.values()] == [8, 2, 8]
    assert torch.equal(product(small, "inpaint"), product(bank, "inpaint"))


def test_shared_down_of_all_rows_is_the_same_experts(flux, bank, tmp_path):
    same, error = sharing(bank, 24)  # three experts of rank 8
    same = saved(same, tmp_path)
    assert sum(name.endswith(".down") for name in same.tensors) == 8 and error.whole < 1e-3
    for task in ("ground", "control"):
        assert (picture(flux, same, task) - picture(flux, bank, task)).abs().max() < 1e-4


def test_shared_down_of_few_rows_is_the_best_there_is(bank, tmp_path):
    small, error = sharing(bank, 5)
    small = saved(small, tmp_path)
    stacked = torch.cat([product(bank, name) for name in bank.info.experts])
    u, s, v = torch.linalg.svd(stacked, full_matrices=False)
    best = (u[:, :5] * s[:5] @ v[:5]).chunk(3)
    for name, expected in zip(bank.info.experts, best):
        assert torch.allclose(product(small, name), expected, atol=1e-4)
    off, of = error.off[PLACE]
    assert (off / of) ** 0.5 == pytest.approx(float(s[5:].norm() / s.norm()), rel=1e-3)


@pytest.mark.parametrize("dtype, most", [(torch.bfloat16, 5e-3), (torch.float16, 1e-3), (torch.float8_e4m3fn, 0.05)])
def test_other_precisions_err_as_they_say(flux, bank, tmp_path, dtype, most):
    small, error = cast(bank, dtype)
    small = saved(small, tmp_path)
    assert small.tensors[f"experts.ground.{PLACE}.up"].dtype == dtype
    found, expected = product(small, "ground"), product(bank, "ground")
    off, of = error.off[f"ground {PLACE}"]
    assert (off / of) ** 0.5 == pytest.approx(float((found - expected).norm() / expected.norm()), rel=0.02)
    assert 0 < error.whole < most
    assert (picture(flux, small) - picture(flux, bank)).abs().max() < 20 * most * picture(flux, bank).abs().max()


def test_fp8_of_tiny_and_huge_weights_keeps_their_digits(flux, tmp_path):
    wild = random_bank(tiny_info(flux), up=0.3)
    wild.tensors[f"experts.ground.{PLACE}.up"].mul_(1e-6)
    wild.tensors[f"experts.ground.{PLACE}.down"].mul_(1e5)
    small, error = cast(wild, torch.float8_e4m3fn)
    found = product(saved(small, tmp_path), "ground")
    assert (found - product(wild, "ground")).norm() / product(wild, "ground").norm() < 0.06 and error.whole < 0.06


def test_smaller_banks_can_be_made_smaller_again(flux, bank, tmp_path):
    fp8 = saved(cast(bank, torch.float8_e4m3fn)[0], tmp_path)
    for again in (reranked(fp8, 8)[0], sharing(fp8, 24)[0], cast(fp8, torch.float32)[0]):
        for name in bank.info.experts:
            found, expected = product(again, name), product(fp8, name)
            assert (found - expected).norm() / expected.norm() < 0.01


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
    again = rename(named, {"edges": "control"})
    assert again.info == bank.info and all(torch.equal(again.tensors[key], bank.tensors[key]) for key in bank.tensors)


def test_merge_after_rename_holds_both(flux, bank):
    other = rename(tiny_bank(flux, seed=8), {name: f"my_{name}" for name in bank.info.experts})
    both = merge([bank, other])
    assert torch.equal(picture(flux, both, router="my_control"), picture(flux, other, router="my_control"))
    assert torch.equal(picture(flux, split(both, "control"), expert="control"), picture(flux, bank, expert="control"))


@pytest.mark.parametrize(
    "work, sentence",
    [
        (lambda bank: drop(bank, ["nobody"]), "no expert nobody, expected one of inpaint, ground, control"),
        (lambda bank: drop(bank, list(bank.info.experts)), "No expert would be left"),
        (lambda bank: rename(bank, {"ground": "control"}), "Two would have one name"),
        (lambda bank: rename(bank, {"nobody": "x"}), "no expert nobody"),
        (lambda bank: rename(bank, {"ground": "a/b"}), "is not made of 1 to 64 letters"),
        (lambda bank: reranked(bank, 9), "The rank is 9, expected 1 to 8"),
        (lambda bank: reranked(bank, 2, ["nobody"]), "no expert nobody"),
        (lambda bank: sharing(bank, 25), "The shared rank is 25, expected 1 to 24"),
    ],
)
def test_impossible_work_is_a_sentence(bank, work, sentence):
    with pytest.raises((BankError, ValueError), match=sentence):
        work(bank)
