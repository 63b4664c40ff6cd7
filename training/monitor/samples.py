"""samples/: the pictures that a stage draws on its way, one PNG each time."""

from pathlib import Path

import numpy as np
from PIL import Image

from ...prw.files.atomic_write import atomic_write
from ..listener import Listener
from ..trainer import Trainer

FOLDER = "samples"


class Samples(Listener):
    def __init__(self, out: Path):
        self.folder = out / FOLDER

    def sampled(self, trainer: Trainer, grid: np.ndarray) -> None:
        path = self.folder / f"{trainer.number + 1}-{trainer.stage.name}-{trainer.iteration:09}.png"
        with atomic_write(path) as partial:
            Image.fromarray(grid).save(partial, format="PNG")


def latest(out: Path, stage: str) -> Path | None:
    """The last picture of a stage."""
    numbered = (out / FOLDER).glob(f"*-{stage}-*.png")
    ours = [path for path in numbered if path.stem.partition("-")[2].rpartition("-")[0] == stage]
    return max(ours, key=lambda path: path.stem.rpartition("-")[2], default=None)
