"""What a stage begins with."""

import pytest
import torch
from cologen.prw.reshape import cast, sharing
from cologen.training.curriculum import Settings, Stage
from cologen.training.growing import grown
from tiny import tiny_bank, tiny_flux

STORED = {
    "plain": lambda bank: bank,
    "fp8": lambda bank: cast(bank, torch.float8_e4m3fn)[0],
    "shared": lambda bank: sharing(bank, 8)[0],
}


def product(bank, name, block, target):
    pair = bank.expert(name, block)[target]
    return (pair.up.float() * pair.scale) @ pair.down.float()


@pytest.mark.parametrize("alpha", [8.0, 32.0])
@pytest.mark.parametrize("stored", STORED)
def test_an_expert_that_starts_as_another_adds_what_that_adds(stored, alpha):
    bank = STORED[stored](tiny_bank(tiny_flux(), rank=8))
    older = next(iter(bank.info.experts))
    found = grown(bank, Stage(name="mine", task="edit", start=older), Settings(rank=8, alpha=alpha), 0)
    for block in bank.info.base.blocks():
        for target in ("k", "v"):
            wanted = product(bank, older, block, target)
            assert wanted.any() and torch.allclose(product(found, "mine", block, target), wanted, rtol=1e-5, atol=1e-7)
