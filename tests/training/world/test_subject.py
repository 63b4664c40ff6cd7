"""The sticker world's own subject: its photos, what is asked about it, and the experiment on it."""

from dataclasses import replace
from itertools import product

import pytest
from cologen.training.cli.main import main
from cologen.training.experiments import subject as experiment
from cologen.training.experiments.subject import ROWS, SubjectExperiment
from cologen.training.from_scratch.make import WorldTraining
from cologen.training.from_scratch.recipe import ScratchRecipe
from cologen.training.recipes.curriculum import SUBJECT
from cologen.training.recipes.subject import OWN, PRIOR, SubjectRecipe, load_recipe
from cologen.training.subject.dataset import open_subject_datasets
from cologen.training.world.oracle import read_scene
from cologen.training.world.render import render
from cologen.training.world.scene import CENTRES, are_apart
from cologen.training.world.stickers import NAMED, list_stickers
from cologen.training.world.store import STICKERS
from cologen.training.world.subject import (
    NOUN,
    QUESTION_GROUNDS,
    STICKER,
    draw_photos,
    draw_prior,
    make_questions,
    score_answer,
)

SMALL = ScratchRecipe(
    text_iterations=2,
    text_batch=2,
    decoder_iterations=2,
    decoder_batch=2,
    flux_iterations=2,
    flux_batch=2,
    flux_width=128,
    flux_single=1,
)


def test_no_training_has_the_subject_and_photos_have_it_on_the_left():
    assert STICKER in list_stickers()["held out"] and NOUN in NAMED
    photos = draw_photos(3)
    assert len(photos) == 4
    for picture in photos.values():
        read = read_scene(picture, (*NAMED, STICKER))
        (found,) = read.find(STICKER)
        assert "left" in found.place and read.scene.ground not in QUESTION_GROUNDS


def test_a_second_thing_may_stand_anywhere_in_its_place():
    """The prompt says no more of it."""
    moved = []
    for question in make_questions(80, 2):
        if question.size == 2:
            subject, other = question.scene.things
            elsewhere = [replace(other, x=x, y=y) for x, y in product(CENTRES, CENTRES)]
            free = [
                each for each in elsewhere if each != other and each.place == other.place and are_apart(each, subject)
            ]
            moved += [(question, replace(question.scene, things=(subject, each))) for each in free[:1]]
    for question, scene in moved[:3]:
        assert score_answer(question, render(scene))["editability"] == 1, question.prompt
    assert len(moved) >= 3


@pytest.mark.slow
def test_true_answers_are_right_and_another_dog_is_not_the_subject():
    for question in make_questions(16, 1):
        assert score_answer(question, render(question.scene)) == {"fidelity": 1, "editability": 1}, question.prompt
        subject, *others = question.scene.things
        usual = replace(question.scene, things=(replace(subject, sticker=NOUN), *others))
        assert score_answer(question, render(usual)) == {"fidelity": 0, "editability": 1}, question.prompt
        none = replace(question.scene, things=tuple(others))
        scores = score_answer(question, render(none))
        assert scores["fidelity"] == 0 and scores["editability"] == (1 + len(others)) / (2 + len(others))
        assert question.prompt.startswith(f"a [{NOUN}] ") and question.size == len(question.scene.things)


def test_the_class_is_the_dog_that_has_the_name():
    prior = draw_prior(12)
    assert len(prior) == 12 and all(NOUN in prompt for _, prompt in prior.values())
    for picture, _ in prior.values():
        read = read_scene(picture, (*NAMED, STICKER))
        assert len(read.find(NOUN)) == 1 and not read.find(STICKER)


@pytest.mark.slow
def test_the_experiment_runs_on_it(tmp_path, monkeypatch):
    monkeypatch.setitem(experiment.BUDGETS, "tiny", 2 / 400)
    monkeypatch.setattr(experiment, "STEPS", 2)
    world = replace(STICKERS, draw_typical=lambda rng: STICKERS.draw_typical(rng, 20))
    models = WorldTraining(world, SMALL, tmp_path / "base").make_models()
    recipe = load_recipe(SUBJECT)
    assert isinstance(recipe, SubjectRecipe)
    datasets = open_subject_datasets(recipe, models.encoders, 0, STICKERS)
    assert datasets[OWN].samples.target.shape == (4, 16, 16, 16) and len(datasets[PRIOR]) == 64
    reports = SubjectExperiment(STICKERS, models, tmp_path / "out", "tiny", 2, lambda _: None).run(1)
    assert reports.keys() == ROWS.keys()
    for curves in (report[0] for report in reports.values()):
        assert all(0 <= value <= 1 for scores in curves.values() for value in scores.values())


def test_experiments_on_the_toy_set_take_no_other_world(capsys):
    assert main(["reproduce", "rho", "--world", "world"]) == 1
    assert "rho is an experiment on the toy set, expected no --world and no --base." in capsys.readouterr().err
