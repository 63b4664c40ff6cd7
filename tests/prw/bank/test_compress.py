"""Smaller banks: what re-ranking, sharing and casting keep, against dense matrices."""

from dataclasses import replace

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.bank.bank import Bank
from cologen.prw.bank.compress import convert, rerank, share_down
from cologen.prw.bank.edit import make_random_bank, split
from cologen.prw.base_model import Base
from cologen.prw.config import BankInfo, ExpertInfo
from cologen.prw.embedded_host import velocity
from cologen.prw.files.errors import BankError, FileError
from tiny import inputs, products, source, tiny_bank, tiny_info

PLACE = "double_blocks.1.k"


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
    same, error = rerank(bank, 8)
    assert (picture(flux, saved(same, tmp_path)) - picture(flux, bank)).abs().max() < 1e-5
    assert error.total < 1e-6


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_lower_rank_is_the_best_approximation_there_is(bank, tmp_path, rank):
    small, error = rerank(bank, rank)
    small = saved(small, tmp_path)
    assert small.info.experts["control"].rank == rank
    u, s, v = torch.linalg.svd(product(bank, "control"))  # of the dense matrix
    best = u[:, :rank] * s[:rank] @ v[:rank]
    assert torch.allclose(product(small, "control"), best, atol=1e-5)
    off, of = error.squares[f"control {PLACE}"]
    assert (off / of) ** 0.5 == pytest.approx(float((product(bank, "control") - best).norm() / s.norm()), rel=1e-3)


def test_only_the_named_expert_is_re_ranked(bank, tmp_path):
    small = saved(rerank(bank, 2, ["ground"])[0], tmp_path)
    assert [expert.rank for expert in small.info.experts.values()] == [8, 2, 8]
    assert torch.equal(product(small, "inpaint"), product(bank, "inpaint"))


def test_shared_down_of_all_rows_is_the_same_experts(flux, bank, tmp_path):
    same, error = share_down(bank, 24)  # three experts of rank 8
    same = saved(same, tmp_path)
    assert sum(name.endswith(".down") for name in same.tensors) == 8 and error.total < 1e-3
    for task in ("ground", "control"):
        assert (picture(flux, same, task) - picture(flux, bank, task)).abs().max() < 1e-4


def test_shared_down_of_few_rows_is_the_best_there_is(bank, tmp_path):
    small, error = share_down(bank, 5)
    small = saved(small, tmp_path)
    stacked = torch.cat([product(bank, name) for name in bank.info.experts])
    u, s, v = torch.linalg.svd(stacked, full_matrices=False)
    best = (u[:, :5] * s[:5] @ v[:5]).chunk(3)
    for name, expected in zip(bank.info.experts, best):
        assert torch.allclose(product(small, name), expected, atol=1e-4)
    off, of = error.squares[PLACE]
    assert (off / of) ** 0.5 == pytest.approx(float(s[5:].norm() / s.norm()), rel=1e-3)


@pytest.mark.parametrize(
    "work",
    [lambda bank: rerank(bank, 3), lambda bank: share_down(bank, 9), lambda bank: convert(bank, torch.float8_e5m2)],
)
def test_the_error_is_that_of_all_products_together(bank, work):
    """Each weighs what it adds: every other pair is kept exactly (signs, rank 3), and has a scale and an alpha of its own."""
    alphas = {"inpaint": 0.5, "ground": 16.0, "control": 100.0}
    experts = {name: replace(expert, alpha=alphas[name]) for name, expert in bank.info.experts.items()}
    tensors = dict(bank.tensors)
    for key in [key for key in tensors if key.startswith("experts.") and key.split(".")[4] == "v"]:
        tensors[key] = tensors[key].sign() * (torch.arange(8) < 3 if key.endswith(".up") else 1)
    uneven = convert(Bank(replace(bank.info, experts=experts), tensors), torch.float8_e4m3fn)[0]
    uneven = Bank(uneven.info, dict(uneven.tensors))
    for key in [key for key in uneven.tensors if key.endswith(".k.scale")]:
        uneven.tensors[key] = uneven.tensors[key] * 30
    small, error = work(uneven)
    exact = Bank(small.info, {key: small.tensors[key].float() for key in small.tensors})
    off = (products(exact) - products(uneven)).norm() / products(uneven).norm()
    assert error.total == pytest.approx(float(off), rel=0.02)


@pytest.mark.parametrize("dtype, most", [(torch.bfloat16, 3e-3), (torch.float16, 4e-4), (torch.float8_e4m3fn, 0.04)])
def test_other_precisions_err_as_they_say(flux, bank, tmp_path, dtype, most):
    small, error = convert(bank, dtype)
    small = saved(small, tmp_path)
    assert small.tensors[f"experts.ground.{PLACE}.up"].dtype == dtype
    found, expected = product(small, "ground"), product(bank, "ground")
    off, of = error.squares[f"ground {PLACE}"]
    assert (off / of) ** 0.5 == pytest.approx(float((found - expected).norm() / expected.norm()), rel=0.02)
    assert most / 3 < error.total < most
    full, plain = picture(flux, bank), picture(flux, bank, strength=0.0)
    assert (picture(flux, small) - full).norm() < 2 * most * (full - plain).norm()


def test_fp8_of_tiny_and_huge_weights_keeps_their_digits(flux, tmp_path):
    wild = make_random_bank(tiny_info(flux), up=0.3)
    wild.tensors[f"experts.ground.{PLACE}.up"].mul_(1e-6)
    wild.tensors[f"experts.ground.{PLACE}.down"].mul_(1e5)
    small, error = convert(wild, torch.float8_e4m3fn)
    found = product(saved(small, tmp_path), "ground")
    assert (found - product(wild, "ground")).norm() / product(wild, "ground").norm() < 0.06 and error.total < 0.06


def test_smaller_banks_can_be_made_smaller_again(flux, bank, tmp_path):
    fp8 = saved(convert(bank, torch.float8_e4m3fn)[0], tmp_path)
    for again in (rerank(fp8, 8)[0], share_down(fp8, 24)[0], convert(fp8, torch.float32)[0]):
        for name in bank.info.experts:
            found, expected = product(again, name), product(fp8, name)
            assert (found - expected).norm() / expected.norm() < 0.01
    assert rerank(fp8, 8)[0].tensors[f"experts.ground.{PLACE}.up"].dtype == torch.bfloat16


def test_a_second_group_leaves_the_first_one_s_experts_alone(bank, tmp_path):
    first = share_down(bank, 8, "a", ["inpaint", "ground"])[0]
    with pytest.raises(BankError, match="The group a is used by inpaint, ground, too: choose another name"):
        share_down(first, 8, "a", ["control"])
    second = saved(share_down(first, 8, "b", ["control"])[0], tmp_path)
    for name in ("inpaint", "ground"):
        assert torch.equal(product(second, name), product(first, name))
    assert torch.allclose(product(second, "control"), product(bank, "control"), atol=1e-4)


@pytest.mark.parametrize("group", ["", "a b", "../x", "a" * 65])
def test_a_group_needs_a_name(bank, group):
    with pytest.raises(
        BankError, match="The group is called .*, expected 1 to 64 letters, digits, _ and -: name another"
    ):
        share_down(bank, 2, group)


def test_a_file_written_over_is_noticed_while_it_is_worked_on(bank, tmp_path):
    path = bank.save(tmp_path / "bank.safetensors")
    works = [Bank.open(path), rerank(Bank.open(path), 2)[0], split(Bank.open(path), "ground")]
    with path.open("r+b") as file:
        file.truncate(1000)
    for work in works:
        with pytest.raises(FileError, match="has changed since it was loaded"):
            work.save(tmp_path / "other.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["bank.safetensors"]


def wider_than_the_base():
    base = Base(hidden_size=16, double_blocks=1, single_blocks=0)
    return make_random_bank(BankInfo(base, {"a": ExpertInfo(rank=20)}), up=0.3)


def louder(bank, by=1e6):
    return Bank(
        bank.info, {key: tensor * by if key.endswith(".up") else tensor for key, tensor in bank.tensors.items()}
    )


def first(work):
    """Of the tensors that the work has still to do."""
    small, _ = work
    return [small.tensors[key] for key in small.tensors]


@pytest.mark.parametrize(
    "work, sentence",
    [
        (lambda bank: rerank(bank, 9), "The rank is 9, expected 1 to 8"),
        (lambda bank: rerank(wider_than_the_base(), 17), "The rank is 17, expected 1 to 16"),
        (
            lambda bank: first(convert(louder(bank), torch.float16)),
            "Expert inpaint has numbers that float16 cannot hold",
        ),
        (lambda bank: first(share_down(convert(louder(bank, 4e4), torch.float16)[0], 8)), "that float16 cannot hold"),
        (lambda bank: rerank(bank, 2, ["nobody"]), "no expert nobody"),
        (lambda bank: share_down(bank, 25), "The shared rank is 25, expected 1 to 24"),
    ],
)
def test_impossible_work_is_a_sentence(bank, work, sentence):
    with pytest.raises((BankError, ValueError), match=sentence):
        work(bank)
