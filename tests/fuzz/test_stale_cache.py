"""Random changes, one after the other, on one attachment: every picture is what a fresh attachment makes."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.embedded_host import velocity
from cologen.prw.flux.inputs import FluxInputs
from cologen.prw.source import PLACEMENTS, POSITIONS, Routing, Source
from mutate import pick
from tiny import inputs, tiny_bank, tiny_flux
from tiny_flux2 import flux2_inputs, tiny_flux2

STEPS = 6
SMALL = dict(hidden_size=128, num_heads=1, depth=1, depth_single_blocks=1)
FAMILIES = {
    "FLUX.1": (tiny_flux, lambda height, width, batch: FluxInputs(*inputs(batch, height, width)), 16),
    "FLUX.2": (tiny_flux2, lambda height, width, batch: flux2_inputs(batch, height // 2, width // 2), 128),
}
EXPERTS = ("", "", "ground", "inpaint")


@dataclass(frozen=True)
class Scene:
    """All that a picture depends on, but bank and base."""

    routing: Routing = field(default_factory=lambda: Routing(task="control"))
    knobs: dict[str, Any] = field(default_factory=dict)
    pixels: int = 0
    size: tuple[int, int] = (4, 4)
    target: tuple[int, int, int] = (8, 8, 1)
    prompt: float = 1.0
    pooled: float = 1.0
    count: int = 1
    """Sources."""


def change_scene(rng, scene: Scene) -> Scene:
    """One thing is another."""
    routing, knobs = scene.routing, scene.knobs
    changes = (
        lambda: replace(scene, pixels=int(rng.integers(3))),
        lambda: replace(scene, size=pick(rng, ((4, 4), (6, 4), (4, 6)))),
        lambda: replace(scene, target=pick(rng, ((8, 8, 1), (8, 8, 2), (12, 8, 1)))),
        lambda: replace(scene, prompt=pick(rng, (1.0, 0.5))),
        lambda: replace(scene, pooled=pick(rng, (1.0, 0.5))),
        lambda: replace(scene, count=int(rng.integers(1, 3))),
        lambda: replace(scene, routing=replace(routing, expert=pick(rng, EXPERTS))),
        lambda: replace(scene, routing=replace(routing, router=pick(rng, ("", "inpaint", "ground", "final")))),
        lambda: replace(scene, routing=replace(routing, strength=pick(rng, (0.0, 0.5, 1.0)))),
        lambda: replace(scene, routing=replace(routing, lean=pick(rng, (-1.0, 0.0, 0.7)))),
        lambda: replace(scene, routing=replace(routing, position=pick(rng, POSITIONS))),
        lambda: replace(scene, routing=replace(routing, shift=pick(rng, ((0.0, 1.0), (1.0, 0.0))))),
        lambda: replace(scene, routing=replace(routing, curve=pick(rng, ((), (1.0, 0.2))))),
        lambda: replace(scene, routing=replace(routing, older=pick(rng, ("", "newest", "none")))),
        lambda: replace(scene, knobs={**knobs, "strength": pick(rng, (0.3, 1.0))}),
        lambda: replace(scene, knobs={**knobs, "region": pick(rng, (None, torch.eye(2)))}),
        lambda: replace(scene, knobs={**knobs, "placement": pick(rng, PLACEMENTS)}),
        lambda: replace(scene, knobs={**knobs, "keep": bool(rng.integers(2))}),
    )
    return pick(rng, changes)()


def make_sources(scene: Scene, channels: int) -> list[Source]:
    sources = []
    for number in range(scene.count):
        g = torch.Generator().manual_seed(scene.pixels + number)
        latent = torch.randn(1, channels, *scene.size, generator=g)
        sources.append(Source(latent=latent, routing=scene.routing, number=number + 1, **scene.knobs))
    return sources


def change_weights(rng, flux, bank) -> None:
    """Tensors of the bank or the base change in place."""
    if rng.random() < 0.6:
        tensor = bank.tensors[pick(rng, sorted(bank.tensors))]
    else:
        rng.random()
        tensor = pick(rng, list(flux.parameters()))
    with torch.no_grad():
        tensor.mul_(-1 if rng.random() < 0.5 else 0.5)


@pytest.mark.parametrize("family", FAMILIES)
def test_sequences_of_changes(fuzz, family):
    make, make_inputs, channels = FAMILIES[family]
    flux = make(**SMALL)
    clean = {name: tensor.clone() for name, tensor in flux.state_dict().items()}

    def predict(attachment, scene):
        given = make_inputs(*scene.target)
        pooled = given.pooled if given.pooled is None else given.pooled * scene.pooled
        parts = (given.x, given.times, given.context * scene.prompt, pooled, given.guidance)
        return velocity(flux, *parts, attachment, make_sources(scene, channels))

    def attempt(rng):
        with torch.no_grad():
            for name, tensor in flux.state_dict().items():
                tensor.copy_(clean[name])
        bank, scene = tiny_bank(flux), Scene()
        used = Attachment(bank)
        for _ in range(STEPS):
            if rng.random() < 0.2:
                change_weights(rng, flux, bank)
            else:
                scene = change_scene(rng, scene)
            if rng.random() < 0.3:
                used.cleanup()
            found = predict(used, scene)
            assert torch.equal(found, predict(Attachment(bank), scene)), scene
            assert torch.equal(found, predict(Attachment(bank, cached=False), scene)), scene

    fuzz.run(8, attempt, 0.1)
