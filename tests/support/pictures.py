"""Random pictures as the host hands them on, (batch, height, width, 3) from 0 to 1."""

import numpy as np
import torch
from cologen.training.data.sample import Thing


def random_pictures(count, height=48, width=64, seed=0):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def to_bytes(pictures):
    return (pictures * 255).round().numpy()


TWO_AREAS = ((slice(10, 30), slice(12, 50)), (slice(60, 90), slice(70, 95)))


def draw_two_things(noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.integers(60, 180, (12, 14, 3)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
    things = []
    for rows, columns in TWO_AREAS:
        mask = np.zeros(base.shape[:2], bool)
        mask[rows, columns] = True
        things.append(Thing("thing", "thing", mask))
    return base, things
