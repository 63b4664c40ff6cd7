"""A bank whose experts canny and depth add to control, and the naive formula for it: every expert by itself, then added up."""

from dataclasses import replace

from cologen.prw.bank.bank import Bank
from cologen.prw.bank.edit import make_random_bank
from cologen.prw.config import RouterInfo
from naive import Naive
from tiny import latent, tiny_info

LEAVES = {"control": ("inpaint", "control"), "canny": ("inpaint", "canny"), "depth": ("inpaint", "canny", "depth")}
"""By stage: what its router chooses among."""


def tree_bank(flux, seed=10, up=0.3, rank=2, **child) -> Bank:
    """`rank` and more are of the children, whose parent has rank 4."""
    info = tiny_info(flux, names=("inpaint", "control", "canny", "depth"))
    experts = dict(info.experts)
    for name in ("canny", "depth"):
        experts[name] = replace(experts[name], **{"rank": rank, "alpha": 3.0, "parent": "control", **child})
    routers = {stage: RouterInfo(experts=names, task=stage) for stage, names in LEAVES.items()}
    return make_random_bank(replace(info, experts=experts, routers=routers), seed=seed, up=up, router=0.3)


def naive_leaf(stage="depth", seed=3, **rest):
    return dict(latent=latent(1, 8, 8, seed), stage=stage, names=LEAVES[stage], **rest)


class NaiveTree(Naive):
    """An expert adds what its own matrices say and what its parent adds."""

    def expert(self, bank, name, block, target, x):
        own, parent = super().expert(bank, name, block, target, x), bank.info.experts[name].parent
        return own + self.expert(bank, parent, block, target, x) if parent else own
