"""The vision model that knows things: what it learns to say, and its folder as recipes' encoders are opened."""

from functools import partial

import numpy as np
import pytest
import torch
from cologen.training.coredi.encoder_features import FeatureEncoder
from cologen.training.data.model_folder import IMAGENET_MEAN_STD
from cologen.training.from_scratch.learner import LearnerPlan, learn
from cologen.training.world import thing_encoder
from cologen.training.world.drawings import draw_any_scene
from cologen.training.world.grounds import SIDE
from cologen.training.world.render import draw_thing_mask, render
from cologen.training.world.thing_encoder import (
    PATCH,
    WEIGHTS,
    ThingTraining,
    label_patches,
    list_labels,
    make_thing_encoder,
)


def test_a_patch_is_of_the_thing_that_covers_most_of_it_or_of_the_ground():
    names = list(list_labels())
    rng = np.random.default_rng(0)
    for scene in (draw_any_scene(rng) for _ in range(6)):
        shown = np.zeros((SIDE, SIDE), int)  # 0 is ground, else a thing's number from behind
        for number, thing in enumerate(scene.things, 1):
            shown[draw_thing_mask(thing)] = number
        found = label_patches(scene)
        for row in range(SIDE // PATCH):
            for column in range(SIDE // PATCH):
                patch = shown[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
                counts = [(patch == number).sum() for number in range(1, len(scene.things) + 1)]
                most = max(counts)
                expected = scene.things[counts.index(most)].sticker if most > PATCH**2 / 4 else scene.ground
                assert names[found[row, column]] == expected


@pytest.mark.slow
def test_its_folder_is_one_of_a_recipe_s_encoders(tmp_path):
    plan, progress = LearnerPlan(3, 2, 1e-3), lambda *_: None
    make_thing_encoder(tmp_path / "things", plan, progress)
    assert {path.name for path in (tmp_path / "things").iterdir()} >= {"config.json", "model.safetensors"}
    training = ThingTraining(plan)
    for _ in range(3):
        training.step()
    pictures = np.stack([render(draw_any_scene(np.random.default_rng(seed))) for seed in range(2)])
    tokens = FeatureEncoder(tmp_path / "things")(torch.from_numpy(pictures), SIDE // PATCH, SIDE // PATCH)
    mean, size = (torch.tensor(part).view(3, 1, 1) for part in IMAGENET_MEAN_STD)
    normal = (torch.from_numpy(pictures).movedim(-1, 1) / 255 - mean) / size
    with torch.no_grad():
        expected = training.network.eval()(pixel_values=normal).last_hidden_state[:, 1:]
    assert (tokens - expected).abs().max() <= 1e-4 and tokens.shape == (2, 64, 128)
    before = (tmp_path / "things/model.safetensors").stat().st_mtime_ns
    make_thing_encoder(tmp_path / "things", plan, progress)
    assert (tmp_path / "things/model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_what_was_stopped_goes_on_as_if_nothing_had_happened(tmp_path, monkeypatch):
    plan, whole, cut = LearnerPlan(4, 2, 1e-3), tmp_path / "whole", tmp_path / "cut"
    make_thing_encoder(whole, plan, lambda *_: None)
    monkeypatch.setattr(thing_encoder, "learn", partial(learn, save_minutes=0.0))

    def stop(name: str, done: int, total: int) -> None:
        if done == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        make_thing_encoder(cut, plan, stop)
    assert [path.name for path in cut.iterdir()] == ["things-training-000000002.safetensors"]
    make_thing_encoder(cut, plan, lambda *_: None)
    assert (cut / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_it_learns():
    training = ThingTraining(LearnerPlan(40, 8, 1e-3))
    losses = [training.step() for _ in range(20)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])
