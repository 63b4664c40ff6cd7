"""A seeded tiny FLUX, banks and inputs, on both hosts. Heads have 128 channels because the host insists."""

import torch
from cologen.prw.bank.bank import Bank
from cologen.prw.bank.edit import make_random_bank
from cologen.prw.base_model import Base
from cologen.prw.config import BankInfo, ExpertInfo, RouterInfo, SourceInfo
from cologen.prw.flux.flux1 import Flux
from cologen.prw.source import Routing, Source
from cologen.training.base.random_models import TINY, random_flux
from cologen.training.comfyui.enter_host import load_model

SHAPE = TINY


def tiny_flux(dtype=torch.float32, seed=0, **changes):
    return random_flux(seed, **changes).to(dtype)


def host_model(flux: Flux, dtype=torch.float32):
    return load_model(flux.state_dict(), dtype)


def tiny_info(flux: Flux, names=("inpaint", "ground", "control"), rank=4, per="sample", time="zero", **expert):
    roles = {"inpaint": "concept", "ground": "localisation"}
    return BankInfo(
        base=Base.of(flux),
        experts={n: ExpertInfo(rank=rank, alpha=2 * rank, task=n, role=roles.get(n, ""), **expert) for n in names},
        routers={n: RouterInfo(experts=names[: i + 1], task=n, per=per) for i, n in enumerate(names)},
        source=SourceInfo(time=time),
    )


def tiny_bank(flux: Flux, seed=1, up=0.3, **changes) -> Bank:
    return make_random_bank(tiny_info(flux, **changes), seed=seed, up=up, router=0.3)


def products(bank):
    """Every expert's dense matrix in every place, one after the other."""
    pairs = [
        pair
        for name in bank.info.experts
        for block in bank.info.base.blocks()
        for pair in bank.expert(name, block).values()
    ]
    return torch.cat([(pair.up.float() @ pair.down.float() * pair.scale).flatten() for pair in pairs])


def latent(batch=1, height=8, width=8, seed=2, channels=16):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


def source(task="control", batch=1, height=8, width=8, seed=3, latent_=None, **knobs):
    fields = Source.__dataclass_fields__.keys() - {"latent", "routing"}
    outer = {key: knobs.pop(key) for key in list(knobs) if key in fields and key != "strength"}
    if "source_strength" in knobs:
        outer["strength"] = knobs.pop("source_strength")
    pixels = latent(batch, height, width, seed) if latent_ is None else latent_
    return Source(pixels, Routing(task=task, **knobs), **outer)


def inputs(batch=1, height=8, width=8, text=5, seed=4, dtype=torch.float32):
    """x, timestep, context, pooled, guidance."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 16, height, width, generator=g)
    context = torch.randn(batch, text, SHAPE["context_in_dim"], generator=g)
    pooled = torch.randn(batch, SHAPE["vec_in_dim"], generator=g)
    t = torch.rand(batch, generator=g)
    return x.to(dtype), t, context.to(dtype), pooled.to(dtype), torch.full((batch,), 3.5)
