"""Makes a world's models from nothing: text encoder, components, decoder, FLUX.

Each is saved as soon as it is done, and what was stopped goes on where it was.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..checkpoint.folder_guard import claim_folder
from .learner import SAVE_MINUTES, Progress, Timer, learn
from .pretrain import Pretraining
from .recipe import ScratchRecipe, list_deciding
from .sheet import write_sheet
from .store import FLUX, TEXT, VAE, WorldModels, find_parts, open_encoders, open_models, save_module, save_weights
from .text import TextTraining
from .vae import PATCH, Components, DecoderTraining, SmallVAE, make_principal_encoder, to_tensor
from .world import World


@dataclass(frozen=True)
class WorldTraining:
    """Where and of what a world's models are made."""

    world: World
    recipe: ScratchRecipe
    folder: Path
    seed: int = 0
    device: str = "cpu"
    progress: Progress = lambda *_: None
    save_minutes: float = SAVE_MINUTES

    def make_models(self) -> WorldModels:
        """Makes everything that is not in the folder yet, and opens it."""
        if self.recipe.flux_references and self.world.draw_referenced is None:
            raise ValueError(
                f"flux_references is {self.recipe.flux_references:g}, but the {self.world.name} world draws no references, "
                f"expected 0: leave it out."
            )
        about = {**list_deciding(self.recipe), "seed": self.seed}
        advice = "choose another folder, or delete this one"
        claim_folder(self.folder / "base.json", about, "a base of another recipe or seed", advice)
        for name, make in ((TEXT, self.make_text), (VAE, self.make_vae), (FLUX, self.make_flux)):
            if not find_parts(self.folder / name):
                make()
        return open_models(self.world, self.folder, self.device)

    def make_text(self) -> None:
        training = TextTraining(self.world.language, self.recipe.plan("text"), self.seed, self.device)
        checkpoints = learn(training, self.folder, self.progress, self.save_minutes)
        save_module(training.encoder, self.folder / TEXT)
        checkpoints.clear()

    def make_vae(self) -> None:
        rng = np.random.default_rng((self.seed, 1))
        torch.manual_seed(self.seed)
        components, vae = Components.fit(to_tensor(self.world.draw_typical(rng))), SmallVAE()
        draw, plan = partial(draw_crops, self.world), self.recipe.plan("decoder")
        decoder = vae.taesd_decoder.to(self.device)
        training = DecoderTraining(decoder, components, draw, rng, plan, self.recipe.decoder_precision)
        checkpoints = learn(training, self.folder, self.progress, self.save_minutes)
        vae.taesd_encoder = make_principal_encoder(
            training.components
        )  # those of the checkpoint, if it went on from one
        save_module(vae, self.folder / VAE)
        checkpoints.clear()

    def make_flux(self) -> None:
        encoders, minutes = open_encoders(self.world, self.folder, self.device), self.recipe.sheet_minutes
        run = Pretraining(self.world, encoders, self.recipe, self.seed)
        timer = Timer(minutes)

        def write_due_sheet() -> None:
            if minutes and timer.restart_if_due():
                write_sheet(run, self.folder)

        checkpoints = learn(run, self.folder, self.progress, self.save_minutes, write_due_sheet)
        save_weights(run.average, self.folder / FLUX, self.world.dtype, self.world.shard)
        checkpoints.clear()


def draw_crops(world: World, rng: np.random.Generator, count: int) -> Tensor:
    """Draws quarters of scenes: more iterations in the same time."""
    side = world.side // 2
    y, x = rng.integers(0, side // PATCH + 1, 2) * PATCH
    return to_tensor(world.draw_scenes(rng, count)[:, y : y + side, x : x + side])
