"""samples/: the pictures that a stage generates while it trains, one PNG each time."""

from pathlib import Path

import numpy as np
from PIL import Image

from ...prw.files.atomic_write import atomic_write
from ..listener import Listener
from ..trainer import Trainer

SAMPLES_FOLDER = "samples"


class Samples(Listener):
    """Writes them into a run's folder."""

    def __init__(self, out: Path):
        self.folder = out / SAMPLES_FOLDER

    def on_samples(self, trainer: Trainer, sheet: np.ndarray) -> None:
        path = self.folder / f"{trainer.stage_number + 1}-{trainer.stage.name}-{trainer.iteration:09}.png"
        with atomic_write(path) as partial:
            Image.fromarray(sheet).save(partial, format="PNG")


def find_latest(out: Path, stage: str) -> Path | None:
    """Finds the newest picture of a stage."""
    numbered = (out / SAMPLES_FOLDER).glob(f"*-{stage}-*.png")
    stage_paths = [path for path in numbered if path.stem.partition("-")[2].rpartition("-")[0] == stage]
    return max(stage_paths, key=lambda path: path.stem.rpartition("-")[2], default=None)
