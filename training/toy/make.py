"""Makes the built-in world's models from nothing: text encoder, components, decoder, FLUX.

Each is saved as soon as it is done, and FLUX's training goes on where it was stopped.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...prw.files.validate import check_range
from ..checkpoint.checkpoints import CheckpointFolder
from ..checkpoint.folder_guard import claim_folder
from ..data.sample import Example
from ..data.tasks.canny import canny
from ..data.tasks.inpaint import GREY
from .pretrain import Pretraining
from .render import depth_map, render, seg_map
from .scene import add_mark, draw_scene
from .store import FLUX, TEXT, VAE, ToyModels, open_toy_encoders, open_toy_models, save_module, save_weights
from .tasks import make_questions
from .text import train_text
from .vae import Components, ToyVAE, make_principal_encoder, to_tensor, train_decoder

Progress = Callable[[str, int, int], None]
"""Is told what is made, how much is done, and of how much (0: nobody knows)."""


@dataclass(frozen=True)
class ToyRecipe:
    """The numbers of the set; stages and experts are the curriculum's."""

    rebuild: bool = False
    """Train the base from nothing; else the one that ships is used."""
    examples: int = 6000
    """Samples of each task."""
    text_iterations: int = 1500
    text_batch: int = 128
    text_rate: float = 2e-3
    decoder_iterations: int = 3000
    decoder_batch: int = 16
    decoder_rate: float = 1e-3
    flux_iterations: int = 3000
    flux_batch: int = 64
    flux_rate: float = 1e-3
    flux_shift: float = 1.0
    """Above 1: more training near pure noise."""

    def __post_init__(self):
        for name in ("examples", "text_iterations", "decoder_iterations", "flux_iterations"):
            check_range(name, getattr(self, name), 2, 10**7)


def shorten_recipe(recipe: ToyRecipe, share: float) -> ToyRecipe:
    """Leaves a budget's share of everything, examples included."""

    def shorten(count: int) -> int:
        return max(2, round(count * share))

    return replace(
        recipe,
        examples=shorten(recipe.examples),
        text_iterations=shorten(recipe.text_iterations),
        decoder_iterations=shorten(recipe.decoder_iterations),
        flux_iterations=shorten(recipe.flux_iterations),
    )


def make_toy_models(recipe: ToyRecipe, folder: Path, seed: int, progress: Progress) -> ToyModels:
    """Makes everything the recipe asks for that is not in the folder yet, and opens it."""
    about = {**asdict(recipe), "seed": seed}
    claim_folder(
        folder / "base.json", about, "a base of another recipe or seed", "choose another folder, or delete this one"
    )
    if not (folder / TEXT).exists():
        report = partial(report_iteration, progress, "text", recipe.text_iterations)
        encoder = train_text(recipe.text_iterations, recipe.text_batch, seed, recipe.text_rate, report)
        save_module(encoder, folder / TEXT)
    if not (folder / VAE).exists():
        save_module(make_vae(recipe, seed, progress), folder / VAE)
    if not (folder / FLUX).exists():
        make_flux(recipe, folder, seed, progress)
    return open_toy_models(folder)


def make_vae(recipe: ToyRecipe, seed: int, progress: Progress) -> ToyVAE:
    rng = np.random.default_rng((seed, 1))
    torch.manual_seed(seed)
    components, vae = Components.fit(to_tensor(draw_typical(rng))), ToyVAE()
    vae.taesd_encoder = make_principal_encoder(components)

    def draw_crops(count: int) -> Tensor:
        """Draws quarters of scenes: more iterations in the same time."""
        y, x = rng.integers(0, 5, 2) * 8
        pictures = np.stack([render(add_mark(rng, draw_scene(rng), 0.3)) for _ in range(count)])
        return to_tensor(pictures[:, y : y + 32, x : x + 32])

    train_decoder(
        vae.taesd_decoder,
        components,
        draw_crops,
        recipe.decoder_iterations,
        recipe.decoder_batch,
        recipe.decoder_rate,
        partial(report_iteration, progress, "decoder", recipe.decoder_iterations),
    )
    return vae


def draw_typical(rng: np.random.Generator, count: int = 3000) -> np.ndarray:
    """Draws what the VAE must be able to say: scenes, now and then a control map or a hole."""
    pictures = []
    for i in range(count):
        scene = add_mark(rng, draw_scene(rng), 0.4)
        picture = render(scene)
        pictures.append(picture)
        if i % 8 == 0:
            pictures += [depth_map(scene), seg_map(scene), canny(picture)]
        if i % 8 == 1:
            y, x = rng.integers(0, 40, 2)
            pictures.append(picture.copy())
            pictures[-1][y : y + 24, x : x + 24] = GREY
    return np.stack(pictures)


def make_flux(recipe: ToyRecipe, folder: Path, seed: int, progress: Progress, every: int = 200) -> None:
    """Trains FLUX from its last checkpoint on, and saves one every so many iterations."""
    run = Pretraining(
        open_toy_encoders(folder), recipe.flux_iterations, recipe.flux_batch, recipe.flux_rate, seed, recipe.flux_shift
    )
    checkpoints = CheckpointFolder(folder, "flux-training", keep=1)
    checkpoints.resume(run.load)
    while run.done < run.iterations:
        run.step()
        progress("flux", run.done, run.iterations)
        if run.done % every == 0:
            checkpoints.save(run.done, *run.state())
    save_weights(run.average, folder / FLUX)


def make_toy_examples(task: str, count: int, seed: int) -> list[Example]:
    """Makes what stages are trained on; held-out questions have seeds of their own (evaluate.py)."""
    return [question.example for question in make_questions(task, count, seed)]


def report_iteration(progress: Progress, name: str, total: int, iteration: int) -> None:
    progress(name, iteration, total)
