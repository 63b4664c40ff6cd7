"""The built-in world's FLUX, trained from nothing: pictures from words, as FLUX.1 was, before any expert exists.

A part of its pictures are diptychs: one thing on both sides, and words for the left side only, which say little of its
looks. FLUX.1 has seen such pictures, and its Fill version such with one side given; without them a model this small
never looks from one part of a picture to another for what a thing is like. No expert is involved.

Data is drawn as it is needed and depends only on seed and iteration, so that a stopped run goes on as if nothing
had happened.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...prw.flux.flux1 import LATENT_SCALE, LATENT_SHIFT, Flux, FluxParams
from ..objective import add_noise, draw_times, task_loss
from ..optimizers import load_state, split_state
from ..schedules import compute_rate_factor
from .encoders import ToyEncoders
from .render import render
from .scene import GROUNDS, PLACES, Scene, add_mark, draw_item, draw_scene, pick
from .text import POOLED, WIDTH
from .words import Fact, describe_facts, draw_facts, make_fact

TOY_SHAPE = FluxParams(
    hidden_size=256,
    num_heads=2,
    depth=2,
    depth_single_blocks=4,
    context_in_dim=WIDTH,
    vec_in_dim=POOLED,
    guidance_embed=False,
)
TEXT_DROP = 0.1
DIPTYCH_SHARE, GIVEN_SHARE, LOOKS_OPEN, SAME_PLACE = 0.25, 0.7, 0.9, 0.5
"""Share of iterations with diptychs, of these with the right half given; of diptychs whose words leave looks open, and
whose thing is at the same place on both sides, which is the easier thing to learn and leads to the other."""
MARKED_SHARE = 0.5
"""Share of pictures with a box or a painted thing: drawn answers must be as familiar as things are."""
KEPT_SHARES = (0.5, 0.9, 1.0)
"""How much of the truth captions tell: always all of it would leave nothing to imagine."""


def init_flux(seed: int, shape: FluxParams = TOY_SHAPE) -> Flux:
    """Makes a FLUX with the usual starting weights; modulations and the last layer start at zero, so that blocks begin as identities."""
    torch.manual_seed(seed)
    flux = Flux(shape)
    for name, parameter in flux.named_parameters():
        if parameter.ndim == 2:
            torch.nn.init.xavier_uniform_(parameter)
        if (
            name.endswith("bias")
            or "mod.lin" in name
            or "modulation.lin" in name
            or "adaLN" in name
            or name == "final_layer.linear.weight"
        ):
            torch.nn.init.zeros_(parameter)
    return flux


def draw_captioned(rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[str]]:
    """Draws scenes: pictures uint8 (count, SIDE, SIDE, 3) and their captions."""
    scenes = [add_mark(rng, draw_scene(rng), MARKED_SHARE) for _ in range(count)]
    return np.stack([render(scene) for scene in scenes]), [caption_scene(rng, scene) for scene in scenes]


def caption_scene(rng: np.random.Generator, scene: Scene) -> str:
    return "" if rng.random() < TEXT_DROP else describe_facts(rng, draw_facts(rng, scene, rng.choice(KEPT_SHARES)))


def draw_diptychs(rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[str]]:
    """Draws pairs of pictures side by side: what words leave open of the left one's first thing, the right one shows."""
    pictures, texts = [], []
    for _ in range(count):
        left = draw_scene(rng)
        thing = left.items[0]
        place = thing.place if rng.random() < SAME_PLACE else pick(rng, PLACES)
        right = Scene(
            pick(rng, GROUNDS),
            (replace(draw_item(rng, place), shape=thing.shape, colour=thing.colour, texture=thing.texture),),
        )
        pictures.append(np.concatenate((render(left), render(right)), axis=1))
        facts = [make_fact(item) for item in left.items]
        facts[0] = replace(facts[0], colour="", texture="") if rng.random() < LOOKS_OPEN else facts[0]
        texts.append(describe_facts(rng, [*facts, Fact("ground", colour=left.ground)]))
    return np.stack(pictures), texts


class Pretraining:
    """The training of a FLUX from nothing; `state` and `load` make it resumable."""

    def __init__(
        self, encoders: ToyEncoders, iterations: int, batch: int, rate: float, seed: int = 0, shift: float = 1.0
    ):
        self.encoders = encoders
        self.iterations, self.batch, self.rate, self.seed, self.shift = iterations, batch, rate, seed, shift
        self.flux = init_flux(seed)
        self.average = {name: parameter.detach().clone() for name, parameter in self.flux.named_parameters()}
        self.optimizer = torch.optim.AdamW(self.flux.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
        self.done = 0

    def step(self) -> float:
        """Does an iteration and gives its loss."""
        rng = np.random.default_rng((self.seed, self.done))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        are_diptychs = rng.random() < DIPTYCH_SHARE
        is_given = are_diptychs and rng.random() < GIVEN_SHARE
        pictures, texts = (draw_diptychs if are_diptychs else draw_captioned)(rng, self.batch)
        latents = (self.encoders.encode(list(pictures)) - LATENT_SHIFT) * LATENT_SCALE
        loss = self.loss(latents, *self.encoders.encode_prompts(texts), generator, is_given)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.flux.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * compute_rate_factor(
                "cosine", self.done, self.iterations, min(300, self.iterations // 10)
            )
        self.optimizer.step()
        self.done += 1
        self._update_average()
        return loss.item()

    def loss(
        self, latents: Tensor, context: Tensor, pooled: Tensor, generator: torch.Generator, is_given: bool = False
    ) -> Tensor:
        """Gives the mean velocity error; with `is_given` the right half has no noise and only the left half counts."""
        times = draw_times(len(latents), generator, shift=self.shift)
        noise = torch.randn(latents.shape, generator=generator)
        x, half = add_noise(latents, noise, times), latents.shape[-1] // 2
        if is_given:
            x[..., half:] = latents[..., half:]
        velocity = self.flux(x, times, context, pooled)
        if is_given:
            velocity, latents, noise = (part[..., :half] for part in (velocity, latents, noise))
        return task_loss(velocity, latents, noise).mean()

    @torch.no_grad()
    def _update_average(self) -> None:
        """Moves the weights' running average, which is what is saved in the end."""
        decay = min(0.999, (1 + self.done) / (10 + self.done))
        for name, parameter in self.flux.named_parameters():
            self.average[name].lerp_(parameter, 1 - decay)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        tensors, rest = split_state(self.optimizer)
        groups = {"flux": self.flux.state_dict(), "average": self.average, "optimizer": tensors}
        flat = {f"{kind}/{name}": tensor for kind, group in groups.items() for name, tensor in group.items()}
        return flat, {"done": self.done, "optimizer": rest}

    def load(self, tensors: dict[str, Tensor], state: dict) -> None:
        groups: dict[str, dict[str, Tensor]] = {"flux": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            kind, rest = name.split("/", 1)
            groups[kind][rest] = tensor
        self.flux.load_state_dict(groups["flux"])
        self.average = groups["average"]
        load_state(self.optimizer, groups["optimizer"], state["optimizer"])
        self.done = state["done"]
