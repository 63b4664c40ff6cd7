"""CoLoGen Evaluate in the host: the same figures as the terminal's, for batches and lists."""

import json

import numpy as np
import pytest
from pictures import random_pictures, to_bytes

pytestmark = pytest.mark.usefixtures("comfy")


def evaluate(results, prompts="", **more):
    from cologen.nodes.evaluate import CoLoGenEvaluate

    table, scores = CoLoGenEvaluate.execute(results, [prompts], **more).result
    return table, json.loads(scores)


def test_figures_are_the_formulas():
    results, references, sources = random_pictures(2), random_pictures(2, seed=1), random_pictures(1, seed=2)
    table, scores = evaluate([results], references=[references], sources=[sources])
    wanted = np.abs(to_bytes(results) - to_bytes(references)).mean((1, 2, 3)) / 255
    assert scores["l1"] == pytest.approx(wanted)
    assert scores["l1_source"] == pytest.approx(np.abs(to_bytes(results) - to_bytes(sources)).mean((1, 2, 3)) / 255)
    lines = {line.rsplit("  ", 2)[0].strip(): line.split()[-2:] for line in table.splitlines()}
    assert lines["L1 to the reference"] == [f"{wanted.mean():.4g}", "↓"]
    assert lines["SSIM to the reference"][1] == "↑" and set(scores) == {"l1", "rmse", "ssim", "l1_source"}


def test_a_list_of_sizes_is_as_good_as_a_batch():
    few, more = random_pictures(1, 48, 64), random_pictures(2, 32, 32, 3)
    _, scores = evaluate([few, more], references=[more, few])
    assert len(scores["rmse"]) == 3 and all(value > 0 for value in scores["rmse"])
    assert evaluate([more], references=[more])[1]["l1"] == [0, 0]


def test_what_is_missing_is_said_once_and_where_to_put_it():
    import folder_paths

    table, scores = evaluate([random_pictures(1)], "a dog", references=[random_pictures(1)])
    assert table.count("There is no clip-vit-base-patch32 in") == table.count("There is no dino-vits16 in") == 1
    assert f"{folder_paths.models_dir}/cologen_evaluation" in table and "clip_out" not in scores


@pytest.mark.parametrize(
    "more, sentence",
    [
        ({}, "There is nothing to compare with, expected references, sources or prompts"),
        (
            {"references": [random_pictures(2)]},
            "There are 3 results and 2 references, expected as many, or one for all",
        ),
        ({"prompts": "a\nb"}, "There are 3 results and 2 prompts, expected as many"),
    ],
)
def test_mistakes_are_a_sentence(more, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluate([random_pictures(3)], **more)


def test_cancel_works_between_pictures():
    import comfy.model_management

    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        evaluate([random_pictures(2)], references=[random_pictures(2)])
