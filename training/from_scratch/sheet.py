"""What a FLUX draws while it is trained, to look at: a row of true pictures, below it what it makes of their words.

Then two rows in which the right half of diptychs is given, and the left one is drawn; where references are trained, one of these and one of
what comes after them.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...prw.files.atomic_write import atomic_write
from ...prw.flux.sampling import make_timesteps, sample_euler
from ..forward import ReadSource
from ..sampling import guide
from .evaluate import CFG, HELD_OUT_SEED, STEPS
from .pretrain import Pretraining

COLUMNS = 8
FOLDER = "sheets"


def write_sheet(run: Pretraining, folder: Path) -> Path:
    """Writes what the averaged weights draw."""
    weights = {name: tensor.clone() for name, tensor in run.flux.state_dict().items()}
    run.flux.load_state_dict(run.average)
    try:
        sheet = draw_sheet(run)
    finally:
        run.flux.load_state_dict(weights)
    path = folder / FOLDER / f"{run.done:07}.png"
    with atomic_write(path) as unfinished:
        Image.fromarray(sheet).save(unfinished, format="PNG")
    return path


@torch.no_grad()
def draw_sheet(run: Pretraining) -> np.ndarray:
    rng = np.random.default_rng((HELD_OUT_SEED, 0))
    pictures, texts = run.world.draw_captioned(rng, 2 * COLUMNS)
    diptychs, words = run.world.draw_diptychs(rng, COLUMNS // 2)
    drawn, halves = sample(run, pictures, texts), sample(run, diptychs, words, keep_right=True)
    rows = [pictures[:COLUMNS], drawn[:COLUMNS], pictures[COLUMNS:], drawn[COLUMNS:], diptychs, halves]
    if run.recipe.flux_references and run.world.draw_referenced is not None:
        referenced = run.world.draw_referenced(rng, COLUMNS)
        read = partial(run.read_reference, referenced)
        rows += [referenced.references, sample(run, referenced.pictures, referenced.texts, read=read)]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


def sample(
    run: Pretraining,
    like: np.ndarray,
    texts: list[str],
    keep_right: bool = False,
    read: ReadSource | None = None,
) -> np.ndarray:
    """Draws pictures of the size of others, or only the left half where the right one is kept."""
    context, pooled = run.encoders.encode_prompts(texts)
    no_context, no_pooled = run.encoders.encode_prompts([""] * len(texts))
    latents = run.encode(like)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents)
    half = latents.shape[-1] // 2

    def predict(x: Tensor, t: Tensor, progress: float) -> Tensor:
        if keep_right:
            x = torch.cat((x[..., :half], latents[..., half:]), dim=-1)
        negative = run.predict(x, t, no_context, no_pooled, read)
        return guide(run.predict(x, t, context, pooled, read), negative, CFG)

    found = sample_euler(predict, noise, make_timesteps(STEPS))
    if keep_right:
        found = torch.cat((found[..., :half], latents[..., half:]), dim=-1)
    return run.encoders.decode(run.host.unscale_latent(found))
