"""Training on the host's FLUX at its smallest: two stages, tiny encoders, random data."""

from dataclasses import replace

import numpy as np
import torch
from cologen.prw.bank.bank import Bank
from cologen.training.comfyui.training_data import HostEncoders, TrainingData
from cologen.training.data.encoded.dataset import MemoryDataset
from cologen.training.data.encoded.samples import EncodedSamples
from cologen.training.recipes.curriculum import Curriculum, Settings, Stage
from PIL import Image

TEXT, POOLED = 32, 16
BLOCKS = dict(depth=1, depth_single_blocks=1)
SETTINGS = Settings(
    rank=4, alpha=8.0, rate=1e-3, router_rate=1e-2, sample_every=0, validate_every=0, save_every=0, micro=2
)
STAGES = tuple(Stage(name=n, iterations=3, batch=3, rho=0.5, replay=0.3) for n in ("inpaint", "ground"))
TWO_STAGES = Curriculum(SETTINGS, STAGES)


class TinyClip:
    def tokenize(self, text):
        return text

    def encode_from_tokens(self, tokens, return_pooled=False):
        g = torch.Generator().manual_seed(sum(map(ord, tokens)))
        return torch.randn(1, 5, TEXT, generator=g), torch.randn(1, POOLED, generator=g)


class TinyVae:
    def encode(self, pixels):
        small = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)
        return small.repeat(1, 6, 1, 1)[:, :16] * 2 - 1

    def decode(self, latents):
        return torch.nn.functional.interpolate(latents[:, :3], scale_factor=8).movedim(1, -1).add(1).div(2)


def random_dataset(task: str, count=5) -> MemoryDataset:
    g = torch.Generator().manual_seed(len(task))
    target, source_ = (torch.randn(count, 16, 8, 8, generator=g) for _ in range(2))
    context, pooled = torch.randn(count, 5, TEXT, generator=g), torch.randn(count, POOLED, generator=g)
    ids = tuple(map(str, range(count)))
    return MemoryDataset(task, EncodedSamples(ids, ("a",) * count, target, source_, context, pooled))


def with_samples(dataset: MemoryDataset, **changes) -> MemoryDataset:
    return replace(dataset, samples=replace(dataset.samples, **changes))


def training_data(*tasks: str) -> TrainingData:
    encoders = HostEncoders(TinyVae(), TinyClip())
    encoders = replace(encoders, empty=encoders.encode_prompts([""]))
    return TrainingData(encoders, {task: random_dataset(task) for task in tasks or ("inpaint", "ground")})


def train_on_host(model, out, curriculum=TWO_STAGES, given=None, listeners=(), **options) -> Bank:
    from cologen.training.comfyui.run import NodeRun, train_curriculum

    with torch.inference_mode():
        return train_curriculum(model, given or training_data(), curriculum, NodeRun(out, 7, listeners), **options)


def largest_difference(one: Bank, other: Bank) -> float:
    assert one.info.experts == other.info.experts and one.tensors.keys() == other.tensors.keys()
    return max((one.tensors[name] - other.tensors[name]).abs().max().item() for name in one.tensors)


def default_inputs(cls, **changes) -> dict:
    inputs = [one for one in cls.define_schema().inputs if getattr(one, "default", None) is not None]
    return {**{one.id: one.default for one in inputs}, "optimizer": "adamw", "schedule": "constant", **changes}


def save_pairs(folder, count=3, beside="source"):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for i in range(count):
        for ending in ("", f".{beside}"):
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / f"p{i}{ending}.png")
        (folder / f"p{i}.txt").write_text(f"picture {i}")
