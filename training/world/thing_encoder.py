"""A vision model that knows the world's things, for features to be learned of: what DINOv2 is to photographs.

It is a small DINOv2 that learns to say of every patch which sticker covers it, or which ground, and lies in a folder as those of
transformers do. What says it in the end is thrown away.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...prw.files.atomic_write import atomic_write
from ...prw.files.safetensors_writer import write_safetensors
from ..data.model_folder import IMAGENET_MEAN_STD
from ..from_scratch.evaluate import HELD_OUT_SEED
from ..from_scratch.learner import Learner, LearnerPlan, Progress, learn
from ..from_scratch.vae import to_tensor
from .drawings import draw_any_scene, list_pool
from .grounds import GROUNDS, SIDE
from .render import find_visible_masks, render
from .scene import Scene
from .stickers import NAMED

WEIGHTS, ACCURACY = "model.safetensors", "accuracy.json"
TESTED = 256
"""Scenes on which its accuracy is measured."""
PATCH = 16
"""Pixels of a patch's side: of a token of FLUX."""
COVERED = 0.25
"""The share of a patch from which on it is a thing's, not the ground's."""
PLAN = LearnerPlan(3000, 64, 1e-3)
SHAPE = dict(hidden_size=128, num_hidden_layers=4, num_attention_heads=4, image_size=SIDE, patch_size=PATCH)


@lru_cache(maxsize=1)
def list_labels() -> dict[str, int]:
    """Numbers what a patch can be of: grounds, and the things of training."""
    return {name: number for number, name in enumerate((*GROUNDS, *NAMED, *list_pool()))}


def label_patches(scene: Scene) -> np.ndarray:
    """Says which label each patch has (SIDE / PATCH, SIDE / PATCH): the thing that covers most of it, else the ground."""
    labels = list_labels()
    masks = [np.full((SIDE, SIDE), COVERED), *(mask.astype(float) for mask in find_visible_masks(scene))]
    shares = rearrange(np.stack(masks), "n (h p) (w q) -> n h w (p q)", p=PATCH, q=PATCH).mean(-1)
    numbers = np.array([labels[scene.ground], *(labels[thing.sticker] for thing in scene.things)])
    return numbers[shares.argmax(0)]


class ThingTraining(Learner):
    """Trains the model from nothing."""

    def __init__(self, plan: LearnerPlan, seed: int = 0):
        from transformers import Dinov2Config, Dinov2Model

        torch.manual_seed(seed)
        self.network: Any = Dinov2Model(Dinov2Config(**SHAPE))
        self.head = nn.Linear(SHAPE["hidden_size"], len(list_labels()))
        modules = {"network": self.network, "head": self.head}
        super().__init__("things", modules, plan, plan.iterations // 20, weight_decay=0.05)
        self.rng = np.random.default_rng(seed)

    def step(self) -> float:
        assert self.rng is not None
        scenes = [draw_any_scene(self.rng) for _ in range(self.plan.batch)]
        labels = torch.from_numpy(np.stack([label_patches(scene) for scene in scenes]))
        scores = self.predict(np.stack([render(scene) for scene in scenes]))
        return self.update(F.cross_entropy(scores.flatten(0, 1), labels.flatten()))

    def predict(self, pictures: np.ndarray) -> Tensor:
        """Scores every label for every patch (batch, patches, labels)."""
        mean, std = (torch.tensor(part).view(3, 1, 1) for part in IMAGENET_MEAN_STD)
        tokens = self.network(pixel_values=(to_tensor(pictures) - mean) / std).last_hidden_state
        return self.head(tokens[:, 1:])  # the first is the class token


@torch.no_grad()
def measure_accuracy(training: ThingTraining, count: int) -> dict[str, float]:
    """Measures on scenes that were not trained on which share of patches it labels right: of grounds, named things and unnamed ones."""
    rng, labels = np.random.default_rng(HELD_OUT_SEED), list_labels()
    kinds = np.array([0 if name in GROUNDS else 1 if name in NAMED else 2 for name in labels])
    right: tuple[list[bool], ...] = ([], [], [])
    for _ in range(count):
        scene = draw_any_scene(rng)
        truth = label_patches(scene).ravel()
        found = training.predict(render(scene)[None]).argmax(-1)[0].numpy()
        for kind, values in enumerate(right):
            values += (found == truth)[kinds[truth] == kind].tolist()
    return {name: float(np.mean(values)) for name, values in zip(("grounds", "named", "unnamed"), right) if values}


def make_thing_encoder(folder: Path, plan: LearnerPlan, progress: Progress) -> None:
    """Trains one into a folder, if none is there yet, and writes beside it how often it is right."""
    if (folder / WEIGHTS).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    training = ThingTraining(plan)
    checkpoints = learn(training, folder, progress)
    training.network.config.architectures = ["Dinov2Model"]
    with atomic_write(folder / "config.json") as partial:
        partial.write_text(training.network.config.to_json_string(), encoding="utf-8")
    with atomic_write(folder / ACCURACY) as partial:
        partial.write_text(json.dumps(measure_accuracy(training, TESTED)), encoding="utf-8")
    write_safetensors(folder / WEIGHTS, training.network.state_dict(), {"format": "pt"})
    checkpoints.clear()
