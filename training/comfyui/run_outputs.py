"""What a training run has written to its folder, as nodes show it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...prw.coredi.features import SUFFIX, Features
from ..checkpoint.run_folder import RunFolder, format_label
from ..monitor.log import LOG_FILE, read_log
from ..monitor.samples import SAMPLES_FOLDER
from ..recipes.curriculum import Curriculum

SHOWN = 16
"""Sample sheets that a node shows: the last ones."""


def read_loss_map(out: Path) -> dict[str, list]:
    """Reads a LOSS_MAP of the host, with the whole log beside it."""
    lines = list(read_log(out / LOG_FILE))
    return {"loss": [line["task"] for line in lines if "task" in line], "log": lines}


def read_samples(out: Path) -> Tensor:
    """Reads the last sample sheets as an IMAGE batch, oldest first; black where others are larger."""
    files = (out / SAMPLES_FOLDER).glob("[0-9]*.png")  # NUMBER-STAGE-ITERATION.png
    paths = sorted(files, key=lambda path: (int(path.name.split("-")[0]), path.name))[-SHOWN:]
    sheets = [np.array(Image.open(path).convert("RGB")) for path in paths]
    sheets = sheets or [np.zeros((16, 16, 3), dtype=np.uint8)]
    height, width = (max(sheet.shape[side] for sheet in sheets) for side in (0, 1))
    padded = [np.pad(one, ((0, height - one.shape[0]), (0, width - one.shape[1]), (0, 0))) for one in sheets]
    return torch.from_numpy(np.stack(padded)).float() / 255


def read_features(out: Path, curriculum: Curriculum) -> Features | None:
    """Reads the features file of the last stage, if that learned any to be read."""
    number = len(curriculum.stages) - 1
    path = RunFolder(out).stage_path(format_label(curriculum.stages[number], number) + SUFFIX)
    return Features.open(path) if path.exists() else None
