"""A world's FLUX, trained from nothing: pictures from words, as FLUX.1 was, before any expert exists.

A part of its pictures are diptychs: one thing on both sides, and words for the left side only, which say little of its
looks. FLUX.1 has seen such pictures, and its Fill version such with one side given; without them a model this small
never looks from one part of a picture to another for what a thing is like.

A world can also show references, in a stream of their own at timestep 0, as FLUX.2 klein 9B-KV has seen them: without them one this
small never learns to find in one picture what the words of another name. No expert is involved.

Data is drawn as it is needed and depends only on seed and iteration, so that a stopped run goes on as if nothing
had happened.
"""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...prw.base_model import Base
from ...prw.base_weights import BaseWeights
from ...prw.embedded_host import EmbeddedHost
from ...prw.flux.flux1 import Flux, FluxParams
from ...prw.flux.inputs import FluxInputs
from ...prw.source import Routing
from ..forward import ReadSource, SourceContext, predict_velocity, run_source, skip_source
from ..objective import add_noise, draw_times, task_loss
from .encoders import SmallEncoders
from .learner import Learner
from .recipe import ScratchRecipe
from .world import Referenced, World

RIGHT_CLEAN_SHARE = 0.7
"""Share of iterations with diptychs that have no noise on the right half."""
AHEAD = 3
"""Batches that each drawing process is ahead."""


class Batch(NamedTuple):
    pictures: np.ndarray
    texts: list[str]
    seed: int
    """Of times and noise."""
    is_right_clean: bool = False
    """Whether they are diptychs whose right half has no noise."""
    referenced: Referenced | None = None
    """Holds the references that the pictures come after, if they do."""


def draw_batch(world: World, recipe: ScratchRecipe, seed: int, iteration: int) -> Batch:
    """Draws what an iteration sees."""
    count = recipe.flux_batch
    rng = np.random.default_rng((seed, iteration))
    noise_seed = int(rng.integers(2**62))
    kind = rng.random()
    if kind >= 1 - recipe.flux_references:
        assert world.draw_referenced is not None
        referenced = world.draw_referenced(rng, count)
        return Batch(referenced.pictures, referenced.texts, noise_seed, referenced=referenced)
    are_diptychs = kind < recipe.flux_diptychs
    is_right_clean = are_diptychs and rng.random() < RIGHT_CLEAN_SHARE
    pictures, texts = (world.draw_diptychs if are_diptychs else world.draw_captioned)(rng, count)
    return Batch(pictures, texts, noise_seed, is_right_clean)


def draw_batches(draw: Callable[[int], Batch], iterations: range, workers: int = 0) -> Iterator[Batch]:
    """Draws what each iteration sees, ahead of time in `workers` processes of their own, if there are any."""
    if not workers:
        yield from map(draw, iterations)
        return
    context, on_ctrl_c = multiprocessing.get_context("spawn"), (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(workers, context, signal.signal, on_ctrl_c) as pool:  # it stops them, after it has saved
        coming = deque()
        for iteration in iterations:
            coming.append(pool.submit(draw, iteration))
            if len(coming) > workers * AHEAD:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def init_flux(seed: int, shape: FluxParams) -> Flux:
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


class Pretraining(Learner):
    """The training of a FLUX from nothing."""

    def __init__(self, world: World, encoders: SmallEncoders, recipe: ScratchRecipe, seed: int = 0):
        self.world, self.encoders, self.recipe, self.seed = world, encoders, recipe, seed
        self.device, plan = encoders.bias.device, recipe.plan("flux")
        self.flux = init_flux(seed, recipe.shape(world)).to(self.device)
        self.average = {name: parameter.detach().clone() for name, parameter in self.flux.named_parameters()}
        self.host, self.weights = EmbeddedHost(self.flux, torch.float32), BaseWeights(Base.of(self.flux))
        self.draw_batch = partial(draw_batch, world, recipe, seed)
        self.batches: Iterator[Batch] | None = None
        warmup = min(300, plan.iterations // 10)
        super().__init__("flux", {"flux": self.flux}, plan, warmup, betas=(0.9, 0.98), weight_decay=0.01)

    def step(self) -> float:
        if self.batches is None:
            coming = range(self.done, self.plan.iterations)
            self.batches = draw_batches(self.draw_batch, coming, self.recipe.drawers)
        batch = next(self.batches)
        generator = torch.Generator().manual_seed(batch.seed)
        words = self.encoders.encode_prompts(batch.texts)
        read = None if batch.referenced is None else partial(self.read_reference, batch.referenced)
        loss = self.update(self.loss(self.encode(batch.pictures), *words, generator, batch.is_right_clean, read))
        self._update_average()
        return loss

    def encode(self, pictures: np.ndarray) -> Tensor:
        """Gives latents as FLUX sees them."""
        return self.host.scale_latent(self.encoders.encode(list(pictures)))

    def read_reference(self, referenced: Referenced, inputs: FluxInputs) -> SourceContext:
        """Runs references through FLUX for the pictures that come after them."""
        latents = self.encoders.encode(list(referenced.references))
        return run_source(self.host, self.weights, Routing(task=referenced.task), latents, inputs)

    def predict(
        self, x: Tensor, times: Tensor, context: Tensor, pooled: Tensor, read: ReadSource | None = None
    ) -> Tensor:
        precision = torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.flux_precision == "bf16")
        inputs = FluxInputs(x, times, context, pooled)
        with precision:
            source = skip_source(self.host, x) if read is None else read(inputs)
            return predict_velocity(self.host, source, inputs).float()

    def loss(
        self,
        latents: Tensor,
        context: Tensor,
        pooled: Tensor,
        generator: torch.Generator,
        is_right_clean: bool = False,
        read: ReadSource | None = None,
    ) -> Tensor:
        """Gives the mean velocity error; with `is_right_clean` the right half has no noise and only the left half counts."""
        times = draw_times(len(latents), generator, shift=self.recipe.flux_shift).to(self.device)
        noise = torch.randn(latents.shape, generator=generator).to(self.device)
        x, half = add_noise(latents, noise, times), latents.shape[-1] // 2
        if is_right_clean:
            x[..., half:] = latents[..., half:]
        velocity = self.predict(x, times, context, pooled, read)
        if is_right_clean:
            velocity, latents, noise = (part[..., :half] for part in (velocity, latents, noise))
        return task_loss(velocity, latents, noise).mean()

    @torch.no_grad()
    def _update_average(self) -> None:
        """Moves the weights' running average, which is what is saved in the end."""
        decay = min(0.999, (1 + self.done) / (10 + self.done))
        for name, parameter in self.flux.named_parameters():
            self.average[name].lerp_(parameter, 1 - decay)

    def list_groups(self) -> dict[str, Mapping[str, Tensor]]:
        return super().list_groups() | {"average": self.average}

    def load_groups(self, groups: dict[str, dict[str, Tensor]]) -> None:
        super().load_groups(groups)
        self.average = {name: tensor.to(self.device) for name, tensor in groups["average"].items()}
