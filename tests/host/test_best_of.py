"""CoLoGen Best Of in the host: figures are the formulas, places are scipy's, the mask takes its part out."""

import json

import numpy as np
import pytest
import torch
from pictures import random_pictures, to_bytes
from scipy.stats import rankdata

pytestmark = pytest.mark.usefixtures("comfy")


def best(images, **more):
    from cologen.nodes.best_of import CoLoGenBestOf

    found, ranking, scores = CoLoGenBestOf.execute(images, **{"keep": 1, "by": "all", **more}).result
    return found, ranking, json.loads(scores)


def near(reference, count=5):
    """Some of them nearer in their values, others in their colours."""
    g = torch.Generator().manual_seed(3)
    noise = torch.randn(count, *reference.shape[1:], generator=g) * torch.rand(count, 1, 1, 1, generator=g)
    return (reference + 0.3 * noise + 0.2 * torch.rand(count, 1, 1, 3, generator=g)).clamp(0, 1)


def test_the_best_has_the_best_mean_place():
    reference = random_pictures(1)
    images = near(reference)
    found, ranking, scores = best(images, keep=3, reference=reference)
    errors = (to_bytes(images).astype(float) - to_bytes(reference)) ** 2
    assert scores["rmse"] == pytest.approx(errors.mean((1, 2, 3)) ** 0.5) and len(set(scores["colour"])) == 5
    order = np.argsort(rankdata(scores["rmse"]) + rankdata(scores["colour"]), kind="stable").tolist()
    assert scores["order"] == order != list(range(5)) and torch.equal(found, images[order[:3]])
    lines = ranking.splitlines()[:5]
    assert [line.split(":")[0] for line in lines] == [f"{i}. picture {at + 1}" for i, at in enumerate(order, 1)]
    first = order[0]
    assert f"RMSE to the reference {scores['rmse'][first]:.4g} ↓" in lines[0]
    for by, name in (("RMSE", "rmse"), ("colour", "colour")):
        assert best(images, by=by, reference=reference)[2]["order"] == np.argsort(scores[name]).tolist()


def test_equal_pictures_share_their_place_and_come_in_the_batch_s_order():
    images = random_pictures(1).repeat(3, 1, 1, 1)
    found, _, scores = best(images, keep=9, reference=random_pictures(1))
    assert scores["order"] == [0, 1, 2] and scores["colour"] == [0.0] * 3 and len(found) == 3


def test_only_what_is_outside_the_mask_counts():
    reference, mask = random_pictures(1), torch.zeros(1, 48, 64)
    mask[:, 10:30, 20:50] = 1
    images = near(reference)
    inside = torch.where(mask[..., None] > 0, random_pictures(5, seed=9), images)
    with_mask = best(images, reference=reference, mask=mask)[2]
    assert best(inside, reference=reference, mask=mask)[2] == with_mask
    assert best(inside, reference=reference)[2]["rmse"] != with_mask["rmse"]
    errors = (to_bytes(images).astype(float) - to_bytes(reference))[:, mask[0].numpy() == 0] ** 2
    assert with_mask["rmse"] == pytest.approx(errors.mean((1, 2)) ** 0.5)


def test_words_are_read_by_clip_and_more_is_better(tmp_path, monkeypatch):
    import folder_paths
    from cologen.training.evaluation.embeddings import Clip, cosine
    from tiny_networks import tiny_clip

    tiny_clip(tmp_path / "cologen_evaluation/clip-vit-base-patch32")
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    images = random_pictures(4)
    _, ranking, scores = best(images, prompt="a red dog")
    clip = Clip(tmp_path / "cologen_evaluation/clip-vit-base-patch32", "cpu")
    said = [cosine(clip.encode(picture), clip.embed_text("a red dog")) for picture in to_bytes(images).astype(np.uint8)]
    assert scores == {"order": np.argsort(said)[::-1].tolist(), "clip_out": pytest.approx(said)}
    _, ranking, scores = best(images, prompt="a red dog", reference=random_pictures(1))
    assert set(scores) == {"order", "rmse", "colour", "clip_i", "clip_out"}
    assert ranking.count("There is no dino-vits16 in") == 1


def test_all_leaves_out_what_would_look_inside_the_mask():
    from cologen.nodes.best_of import select_metrics

    given = {"reference": True, "prompt": True}
    assert select_metrics("all", given, has_mask=True) == ["rmse", "colour", "clip_out"]
    assert select_metrics("all", given) == ["rmse", "colour", "clip_i", "dino", "clip_out"]
    assert select_metrics("DINO", given, has_mask=True) == ["dino"], "whoever asks for it gets it"
