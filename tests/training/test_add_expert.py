"""What a stage begins with."""

from dataclasses import replace

import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.prw.bank.compress import convert, share_down
from cologen.training.add_expert import add_expert, check_stages, list_trained, make_empty_bank
from cologen.training.recipes.curriculum import Settings, Stage
from tiny import tiny_bank, tiny_flux
from tiny_run import tiny_curriculum, tiny_run

STORED = {
    "plain": lambda bank: bank,
    "fp8": lambda bank: convert(bank, torch.float8_e4m3fn)[0],
    "shared": lambda bank: share_down(bank, 8)[0],
}


def product(bank, name, block, target):
    pair = bank.expert(name, block)[target]
    return (pair.up.float() * pair.scale) @ pair.down.float()


@pytest.mark.parametrize("alpha", [8.0, 32.0])
@pytest.mark.parametrize("stored", STORED)
def test_an_expert_that_starts_as_another_adds_what_that_adds(stored, alpha):
    bank = STORED[stored](tiny_bank(tiny_flux(), rank=8))
    older = next(iter(bank.info.experts))
    found = add_expert(bank, Stage(name="mine", task="edit", start=older), Settings(rank=8, alpha=alpha), 0)
    for block in bank.info.base.blocks():
        for target in ("k", "v"):
            wanted = product(bank, older, block, target)
            assert wanted.any() and torch.allclose(product(found, "mine", block, target), wanted, rtol=1e-5, atol=1e-7)


def test_a_shared_down_matrix_is_its_first_experts_and_stays(tmp_path):
    curriculum = tiny_curriculum(2)
    stages = tuple(replace(stage, shared="all") for stage in curriculum.stages)
    tiny_run(tmp_path, replace(curriculum, stages=stages)).train()
    first, second, third = (Bank.open(path) for path in sorted((tmp_path / "stages").glob("*.safetensors")))
    started = add_expert(make_empty_bank(first.info.base, curriculum.settings), stages[0], curriculum.settings, 7)
    down = [name for name in first.tensors if name.startswith("shared.all.")]
    assert len(down) == 2 * first.info.base.count() and not any(
        name.endswith(".down") for name in third.tensors.keys() - set(down)
    )
    for name in down:
        assert not torch.equal(first.tensors[name], started.tensors[name])
        assert torch.equal(third.tensors[name], first.tensors[name])
    for name in second.tensors:
        if name.startswith("experts."):
            assert second.tensors[name].any() and torch.equal(third.tensors[name], second.tensors[name])


@pytest.mark.parametrize("per", ["sample", "token"])
@pytest.mark.parametrize("route", ["", "sample", "token"])
def test_a_router_routes_as_the_last_one_unless_its_stage_says_how(per, route):
    bank = add_expert(tiny_bank(tiny_flux(), per=per), Stage(name="mine", task="edit", route=route), Settings(), 0)
    assert bank.info.routers["mine"].per == (route or per)


def test_what_does_not_go_with_the_bank_s_routes_and_time_is_refused_before_the_first_stage():
    info = tiny_bank(tiny_flux(), per="token").info
    with pytest.raises(ValueError, match="source_time is shared, but the bank's sources have the time zero"):
        check_stages(info, [Stage(name="mine", task="edit")], Settings(source_time="shared"))
    check_stages(info, [Stage(name="mine", task="edit")], Settings(source_time="zero"))
    stages = [Stage(name="mine", task="edit"), Stage(name="next", task="edit", features="self")]
    with pytest.raises(ValueError, match="next learns features and routes each token, expected one of the two"):
        check_stages(info, stages, Settings())
    check_stages(info, [stages[0], replace(stages[1], route="sample")], Settings())


def test_experts_trained_along_train_what_only_they_share():
    bank = tiny_bank(tiny_flux(), rank=8)
    older = list(bank.info.experts)
    shared = share_down(bank, 8)[0]
    stage = Stage(name="mine", task="edit", shared=next(iter(shared.info.experts.values())).shared)
    for along in (older, older[:1]):
        mine = replace(stage, along=tuple(along))
        trained = list_trained(add_expert(shared, mine, Settings(rank=8), 0), mine)
        assert any(name.startswith("shared.") for name in trained) == (along == older)


def test_a_start_that_does_not_share_the_matrix_is_refused():
    bank = tiny_bank(tiny_flux(), rank=8)
    mine = add_expert(bank, Stage(name="mine", task="edit", shared="all"), Settings(rank=8), 0)
    stage = Stage(name="next", task="edit", shared="all", start=next(iter(bank.info.experts)))
    with pytest.raises(ValueError, match="does not share the down matrix of all"):
        add_expert(mine, stage, Settings(rank=8), 0)
    found = add_expert(mine, replace(stage, start="mine"), Settings(rank=8), 0)
    block = bank.info.base.blocks()[0]
    assert torch.equal(product(found, "next", block, "k"), product(mine, "mine", block, "k"))
