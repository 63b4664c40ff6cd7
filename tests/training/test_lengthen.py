"""A run gets more iterations, or fewer, than it began with; and a folder that is no longer what the run began in."""

import json
import logging
import shutil
from dataclasses import replace

import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.training.checkpoint.checkpoints import TrainingError, read_checkpoint
from cologen.training.errors import RunStopped
from cologen.training.listener import Listener
from cologen.training.monitor.log import Log
from cologen.training.schedules import compute_rate_factor
from stopped_run import StopAt, logged_iterations, saved_files
from tiny_run import TASKS, tiny_curriculum, tiny_host, tiny_run
from tiny_subject import recipe as subject_recipe
from tiny_subject import tiny_subject


def lengthened(curriculum, *iterations):
    stages = [replace(stage, iterations=count) for stage, count in zip(curriculum.stages, iterations)]
    return replace(curriculum, stages=(*stages, *curriculum.stages[len(stages) :]))


def checkpoint_tensors(out, label):
    (path,) = (out / "checkpoints").glob(f"{label}-*.safetensors")
    return read_checkpoint(path)[0]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer, stop", [("adamw", None), ("adamw", 2), ("prodigy", None)])
def test_a_lengthened_run_is_an_uninterrupted_one_to_the_bit(tmp_path, caplog, optimizer, stop):
    recipe = tiny_curriculum(
        3, TASKS[:2], ema=0.9, replay=0.3, validate_every=3, optimizer=optimizer, rate=1.0 if stop is None else 3e-3
    )
    whole, parts, longer = tmp_path / "whole", tmp_path / "parts", lengthened(recipe, 3, 7)
    tiny_run(whole, longer, listeners=[Log(whole)]).train()
    if stop:
        with pytest.raises(RunStopped):
            tiny_run(parts, recipe, listeners=[Log(parts), StopAt("ground", stop)]).train()
    else:
        tiny_run(parts, recipe, listeners=[Log(parts)]).train()
    with caplog.at_level(logging.INFO):
        bank = tiny_run(parts, longer, listeners=[Log(parts)]).train()
    assert "ground.iterations was 3, is 7: what is done stays, rates" in caplog.text
    assert bank.info.experts["ground"].iterations == 7
    assert saved_files(parts) == saved_files(whole)
    one, other = checkpoint_tensors(parts, "2-ground"), checkpoint_tensors(whole, "2-ground")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    trained = [[line for line in logged_iterations(out) if "norm" in line] for out in (parts, whole)]
    assert trained[0] == trained[1] and len(trained[0]) == 10
    assert json.loads((parts / "run.json").read_text()) == json.loads((whole / "run.json").read_text())


class Rates(Listener):
    def __init__(self):
        self.rates = []

    def on_iteration(self, trainer, result):
        self.rates.append([group["lr"] for group in trainer.weights.optimizer.param_groups])


def test_what_follows_a_stages_course_is_spread_over_its_new_length(tmp_path):
    recipe, rates = tiny_curriculum(4, TASKS[:1], schedule="cosine", warmup=2, rate=2e-3, router_rate=5e-3), Rates()
    tiny_run(tmp_path, recipe, listeners=[rates]).train()
    tiny_run(tmp_path, lengthened(recipe, 9), listeners=[rates]).train()
    factors = [compute_rate_factor("cosine", i, 4 if i < 4 else 9, 2) for i in range(9)]
    assert rates.rates == [[2e-3 * factor, 5e-3 * factor] for factor in factors]
    assert factors[3] < factors[4] > factors[8], "it falls anew, and does not rise over a warmup again"


def test_a_stage_can_be_made_shorter_down_to_what_it_has_done(tmp_path):
    recipe = tiny_curriculum(6, TASKS[:1])
    with pytest.raises(RunStopped):
        tiny_run(tmp_path, recipe, listeners=[StopAt("inpaint", 4)]).train()
    with pytest.raises(TrainingError, match="inpaint has 4 iterations behind it, iterations is 3: set it to 4 or more"):
        tiny_run(tmp_path, lengthened(recipe, 3)).train()
    short = tiny_run(tmp_path, lengthened(recipe, 4)).train()
    whole = tiny_run(tmp_path / "whole", tiny_curriculum(4, TASKS[:1])).train()
    assert short.info == whole.info and all(torch.equal(short.tensors[n], whole.tensors[n]) for n in whole.tensors)
    with pytest.raises(TrainingError, match="inpaint has 4 iterations behind it, iterations is 3"):
        tiny_run(tmp_path, lengthened(recipe, 3)).train()


def test_a_stage_that_ended_by_itself_is_over_and_goes_on_by_a_number(tmp_path):
    recipe = tiny_curriculum(8, TASKS[:1], check_every=2, standstill=1, tolerance=1.0)
    auto = replace(recipe, stages=(replace(recipe.stages[0], ceiling=8),))
    assert tiny_run(tmp_path, auto).train().info.experts["inpaint"].iterations == 4
    before = saved_files(tmp_path)
    tiny_run(tmp_path, auto).train()
    assert saved_files(tmp_path) == before
    more = replace(recipe, stages=(replace(recipe.stages[0], iterations=9, ceiling=9),))
    with pytest.raises(TrainingError, match=r"other settings \(inpaint.ceiling was 8, is 9\)"):
        tiny_run(tmp_path, more).train()
    tiny_run(tmp_path, lengthened(recipe, 6)).train()
    tiny_run(tmp_path / "whole", lengthened(recipe, 6)).train()
    assert (tmp_path / "bank.safetensors").read_bytes() == (tmp_path / "whole/bank.safetensors").read_bytes()
    with pytest.raises(TrainingError, match=r"other settings \(inpaint.ceiling was not set, is 8\)"):
        tiny_run(tmp_path, auto).train()


def test_a_stage_that_others_were_trained_on_keeps_its_length(tmp_path):
    recipe = tiny_curriculum(2)
    with pytest.raises(RunStopped):
        tiny_run(tmp_path, recipe, listeners=[StopAt("ground", 1)]).train()
    said = (
        "inpaint cannot go on from 2 to 3 iterations, because ground was trained on what it left: set .* back to 2, or"
    )
    with pytest.raises(TrainingError, match=said):
        tiny_run(tmp_path, lengthened(recipe, 3)).train()
    assert list(tiny_run(tmp_path, lengthened(recipe, 2, 3)).train().info.experts) == list(TASKS), "ground may"
    for only in ("", "inpaint"):
        with pytest.raises(TrainingError, match="because ground, edit was trained on what it left"):
            tiny_run(tmp_path, lengthened(recipe, 3, 3)).train(only=only)
    assert tiny_run(tmp_path, lengthened(recipe, 2, 3, 3)).train().info.experts["edit"].iterations == 3


def test_a_stage_without_a_checkpoint_is_not_begun_anew(tmp_path):
    recipe = tiny_curriculum(2, TASKS[:1], save_every=0)
    tiny_run(tmp_path, recipe).train()
    before = saved_files(tmp_path)
    with pytest.raises(TrainingError, match="because no checkpoint of it is left .*: set its iterations back to 2, or"):
        tiny_run(tmp_path, lengthened(recipe, 3)).train()
    assert saved_files(tmp_path) == before
    assert tiny_run(tmp_path, recipe).train().info.experts["inpaint"].iterations == 2


def test_a_lengthened_subject_is_an_uninterrupted_one_to_the_bit(tmp_path):
    for iterations in (3, 6):
        tiny_subject(tmp_path / "parts", subject_recipe(iterations, ema=0.9)).train()
    made = tiny_subject(tmp_path / "whole", subject_recipe(6, ema=0.9)).train()
    assert made.info.iterations == 6 and saved_files(tmp_path / "parts") == saved_files(tmp_path / "whole")
    with pytest.raises(TrainingError, match="mine has 6 iterations behind it, iterations is 5"):
        tiny_subject(tmp_path / "parts", subject_recipe(5, ema=0.9)).train()
    with pytest.raises(TrainingError, match=r"other settings \(rank was 2, is 3\)"):
        tiny_subject(tmp_path / "parts", subject_recipe(7, ema=0.9, rank=3)).train()


class Spoil(Listener):
    """Does something to the run's folder after so many iterations."""

    def __init__(self, iteration, spoil):
        self.iteration, self.spoil = iteration, spoil

    def on_iteration(self, trainer, result):
        if trainer.iteration == self.iteration:
            self.spoil()


@pytest.mark.parametrize("iteration", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["deleted", "emptied", "another"])
def test_a_folder_that_is_gone_ends_its_run(tmp_path, kind, iteration):
    out, recipe = tmp_path / "run", tiny_curriculum(4, TASKS[:1])

    def spoil():
        shutil.rmtree(out)
        if kind != "deleted":
            out.mkdir()
        if kind == "another":
            (out / "run.json").write_text("{}")

    with pytest.raises(
        TrainingError, match="was deleted, emptied or begun anew while its run trained: the run has ended"
    ):
        tiny_run(out, recipe, listeners=[Spoil(iteration, spoil)]).train()
    assert not list(out.rglob("*.safetensors")), "nothing is left there that no run.json tells of"
    with pytest.raises(TrainingError, match="was deleted, emptied or begun anew"):
        tiny_subject(tmp_path / "subject", subject_recipe(4), listeners=[
            Spoil(iteration, lambda: shutil.rmtree(tmp_path / "subject"))
        ]).train()  # fmt: skip


def test_a_bank_of_which_nothing_is_known_is_never_adopted(tmp_path):
    recipe, other = tiny_curriculum(2, TASKS[:1]), tiny_curriculum(2, TASKS[:1], rate=1.0)
    tiny_run(tmp_path, other).train()
    (tmp_path / "run.json").unlink()
    for found in ("bank.safetensors", "checkpoints/1-inpaint-000000002.safetensors", "stages/1-inpaint.safetensors"):
        said = (
            f"holds {found}, but no run.json that says what it was trained on: move it away, or choose another folder"
        )
        with pytest.raises(TrainingError, match=said):
            tiny_run(tmp_path, recipe).train()
        (tmp_path / found).unlink()
    tiny_run(tmp_path, recipe).train()
    tiny_run(tmp_path / "whole", recipe).train()
    assert Bank.open(tmp_path / "bank.safetensors").info == Bank.open(tmp_path / "whole/bank.safetensors").info
    tiny_subject(tmp_path / "subject", subject_recipe(1)).train()
    (tmp_path / "subject/run.json").unlink()
    with pytest.raises(TrainingError, match="holds .*mine.*, but no run.json"):
        tiny_subject(tmp_path / "subject", subject_recipe(1)).train()


def test_the_bank_of_a_run_that_never_began_is_not_that_of_the_next(tmp_path):
    first = tiny_run(tmp_path / "first", tiny_curriculum(1, TASKS[:1]), tiny_host()).train()
    (tmp_path / "run/stages").mkdir(parents=True)
    first.save(tmp_path / "run/stages/start.safetensors")  # killed before run.json was there
    tiny_run(tmp_path / "run", tiny_curriculum(1, TASKS[:1])).train()
    assert not (tmp_path / "run/stages/start.safetensors").exists()
