"""Numbers at their limits, in sources, knobs and banks: a picture of numbers, or a sentence."""

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.embedded_host import velocity
from cologen.prw.flux.inputs import FluxInputs
from cologen.prw.source import PLACEMENTS, POSITIONS, Routing, Source
from mutate import pick
from tiny import inputs, tiny_bank, tiny_flux
from tiny_flux2 import flux2_inputs, tiny_flux2

EDGES = (0.0, -0.0, 1e-45, 1e-38, 1e-8, 1.0, -1.0, 6e4, 7e4, 1e9, 1e20, 3e38, float("nan"), float("inf"), -float("inf"))
KNOBS = (0.0, 1e-30, 0.5, 1.0, 99.0, 100.0, 101.0, -1.0, -100.0, 1e6, 1e300, float("nan"), float("inf"))
FLUXES = {"FLUX.1": (tiny_flux, lambda: FluxInputs(*inputs()), 16), "FLUX.2": (tiny_flux2, flux2_inputs, 128)}


@pytest.mark.parametrize("family", FLUXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_numbers_at_their_limits(fuzz, family, dtype):
    make, make_inputs, channels = FLUXES[family]
    flux = make().to(dtype)
    bank, given = tiny_bank(flux), make_inputs()
    rest = [None if part is None else part.to(dtype) for part in given]

    def attempt(rng):
        source = make_source(rng, channels)
        with spoiled(rng, bank):
            out = velocity(flux, *rest, Attachment(bank), [source])
        assert out.isfinite().all()

    fuzz.run(25, attempt, 0.2)


def choose(rng, edges, usual):
    """One at its limit, or a usual one."""
    return pick(rng, edges if rng.random() < 0.3 else usual)


def make_source(rng, channels):
    height, width = (int(pick(rng, (2, 4, 6))) for _ in range(2))
    latent = torch.from_numpy(rng.standard_normal((int(pick(rng, (1, 1, 2))), channels, height, width))).float()
    if rng.random() < 0.5:
        where = rng.integers(3)
        part = latent if where == 0 else latent[:, :, :1] if where == 1 else latent.view(-1)[:1]
        value = choose(rng, EDGES, (0.0, 1e-38, 30.0, -1.0, 6e4))
        part.fill_(value) if rng.random() < 0.5 else part.mul_(value)
    knob = {key: choose(rng, KNOBS, (0.0, -1.0, 1.0, 1e-30)) for key in ("lean", "strength") if rng.random() < 0.3}
    if rng.random() < 0.3:
        knob["shift"] = tuple(choose(rng, KNOBS, (0.0, 1e-30, -1000.0, 99.0)) for _ in range(2))
    if rng.random() < 0.2:
        knob["curve"] = tuple(choose(rng, KNOBS, (0.0, 100.0, -100.0)) for _ in range(rng.integers(1, 4)))
    routing = Routing(task="control", expert=pick(rng, ("", "", "ground")), position=pick(rng, POSITIONS), **knob)
    more = {"strength": choose(rng, KNOBS, (1e-30, 100.0, 0.5))} if rng.random() < 0.4 else {}
    if rng.random() < 0.3:
        more["region"] = torch.full((int(rng.integers(0, 9)), 2), choose(rng, EDGES, (0.0, 1.0, 1e-45)))
    return Source(latent=latent, routing=routing, placement=pick(rng, PLACEMENTS), **more)


class spoiled:
    """A bank with a number at its limit in some tensor, in a third of the cases; afterwards it is as it was."""

    def __init__(self, rng, bank):
        self.tensor = bank.tensors[pick(rng, sorted(bank.tensors))] if rng.random() < 0.35 else None
        self.value, self.whole = pick(rng, EDGES), rng.random() < 0.3

    def __enter__(self):
        if self.tensor is not None:
            self.before = self.tensor.clone()
            (self.tensor if self.whole else self.tensor.view(-1)[:1]).fill_(self.value)

    def __exit__(self, *_):
        if self.tensor is not None:
            self.tensor.copy_(self.before)
