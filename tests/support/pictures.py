"""Random pictures as the host hands them on, (batch, height, width, 3) from 0 to 1."""

import torch


def random_pictures(count, height=48, width=64, seed=0):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def to_bytes(pictures):
    return (pictures * 255).round().numpy()
