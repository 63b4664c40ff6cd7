"""A run that is stopped, killed or refused its disk goes on as if nothing had been."""

import errno
import json
import os
import struct
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.prw.files.errors import FileError
from cologen.training.checkpoint import checkpoints
from cologen.training.checkpoint.checkpoints import CheckpointFolder, TrainingError, read_checkpoint, write_checkpoint
from cologen.training.checkpoint.run_record import fingerprint
from cologen.training.curriculum_run import CurriculumRun
from cologen.training.errors import NonFiniteLoss, RunStopped
from cologen.training.listener import Listener
from cologen.training.monitor.log import Log, read_log
from pack import ROOT
from stopped_run import StopAt, logged_iterations, saved_files
from tiny_run import TASKS, tiny_curriculum, tiny_dataset, tiny_host, tiny_run

LONG = 5
"""Iterations of a stage; every second one is saved."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer, rate, crash", [("adamw", 3e-3, None), ("prodigy", 1.0, KeyboardInterrupt())], ids=["stopped", "crashed"]
)
def test_what_goes_on_ends_with_the_same_file_to_the_bit(tmp_path, optimizer, rate, crash):
    recipe = tiny_curriculum(
        LONG, optimizer=optimizer, rate=rate, ema=0.9, schedule="cosine", warmup=2, replay=0.3, validate_every=2
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tiny_run(whole, recipe, listeners=[Log(whole)]).train()
    for stage, iteration in (("inpaint", 2), ("ground", 3), ("ground", 4)):
        with pytest.raises(type(crash or RunStopped())):
            tiny_run(parts, recipe, listeners=[Log(parts), StopAt(stage, iteration, crash)]).train()
    assert (parts / "checkpoints").is_dir() and not (parts / "stages/2-ground.safetensors").exists()
    bank = tiny_run(parts, recipe, listeners=[Log(parts)]).train()
    assert saved_files(parts) == saved_files(whole) and len(saved_files(whole)) == 4
    assert logged_iterations(parts) == logged_iterations(whole) and len(logged_iterations(whole)) == 3 * (LONG + 3)
    left = Bank.open(whole / "bank.safetensors")
    assert bank.info == left.info and all(torch.equal(bank.tensors[name], left.tensors[name]) for name in left.tensors)


@pytest.mark.slow
def test_kills_at_random_moments_leave_no_trace():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests/tools/kills.py"), "5", "ema=0.9"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kills"] == 5


@pytest.mark.slow
def test_faults_of_every_kind_leave_no_trace_or_a_sentence():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests/tools/chaos.py"), "8", "3"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["faults"] >= 8 and not report["failures"]


def test_settings_that_a_recipe_does_not_use_leave_its_run_what_it_was():
    recipe = tiny_curriculum()
    assert fingerprint(recipe, 7) == "4b7f9f0b25dc018428ff542d78e3556c"  # as written by 0.1.0
    mixed = replace(recipe.stages[2], replay=0.5)
    one, other = (
        replace(recipe, stages=(*recipe.stages[:2], replace(mixed, replay_from=tasks)))
        for tasks in ({}, {"ground": 1.0})
    )
    assert fingerprint(one, 7) != fingerprint(other, 7)
    for change in (dict(route="token"), dict(source_time="shared")):
        assert fingerprint(tiny_curriculum(**change), 7) != fingerprint(recipe, 7)


def stopped_run(out, stage="ground", iteration=3, **settings):
    recipe = tiny_curriculum(LONG, **settings)
    with pytest.raises(RunStopped):
        tiny_run(out, recipe, listeners=[StopAt(stage, iteration)]).train()
    return recipe


def test_a_half_written_checkpoint_is_never_chosen(tmp_path):
    recipe = stopped_run(tmp_path)
    (good,) = list((tmp_path / "checkpoints").glob("2-ground-*3.safetensors"))
    stray = tmp_path / "checkpoints/.2-ground-000000004.safetensors.part"
    stray.write_bytes(good.read_bytes()[:1000])
    folder = CheckpointFolder(tmp_path / "checkpoints", "2-ground", 2)
    assert folder.latest() == good and not stray.exists()
    for older in folder.list()[:-1]:
        older.unlink()
    good.write_bytes(good.read_bytes()[:-1000])
    with pytest.raises(TrainingError, match="2-ground-000000003.safetensors is no checkpoint that can be read") as said:
        tiny_run(tmp_path, recipe).train()
    assert "delete it" in str(said.value)
    good.unlink()
    tiny_run(tmp_path, recipe).train()
    tiny_run(tmp_path / "whole", recipe).train()
    assert (tmp_path / "bank.safetensors").read_bytes() == (tmp_path / "whole/bank.safetensors").read_bytes()


def flip_a_bit(path):
    """In the middle of the last tensor."""
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def change_a_shape(path):
    """The bytes stay what they were."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    name = next(name for name in header if name != "__metadata__" and len(header[name]["shape"]) == 2)
    header[name]["shape"].reverse()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def change_state(**changes):
    """What writes a checkpoint with another state; None leaves an entry out."""

    def change(path):
        tensors, state = read_checkpoint(path)
        write_checkpoint(
            path, tensors, {name: value for name, value in {**state, **changes}.items() if value is not None}
        )

    return change


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "is no checkpoint that can be read"),
        (lambda path: path.write_bytes(b"garbage" * 1000), "is no checkpoint that can be read"),
        (flip_a_bit, "is not as it was written, a bit or more has changed"),
        (change_a_shape, "is not as it was written, a bit or more has changed"),
        (change_state(optimizer=None), "does not hold what this stage needs (KeyError: 'optimizer')"),
        (change_state(iteration="two"), "does not hold what this stage needs (ValueError: "),
        (change_state(iteration=10**6), "does not hold what this stage needs (ValueError: iteration is 1000000"),
        (change_state(optimizer=[]), "does not hold what this stage needs (TypeError: "),
    ],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog, damage, said):
    recipe = stopped_run(tmp_path, iteration=4, save_every=2)
    before, last = sorted((tmp_path / "checkpoints").glob("2-ground-*"))
    damage(last)
    tiny_run(tmp_path, recipe).train()
    (warning,) = [record.getMessage() for record in caplog.records if last.name in record.getMessage()]
    assert warning.startswith(f"{last.name} {said}") and warning.endswith(
        f"training goes on from {before.name}, the one before."
    )
    assert (tmp_path / "checkpoints" / f"{last.stem}.damaged").exists()
    tiny_run(tmp_path / "whole", recipe).train()
    assert (tmp_path / "bank.safetensors").read_bytes() == (tmp_path / "whole/bank.safetensors").read_bytes()


def test_the_first_checkpoint_that_fails_promises_no_other(tmp_path):
    with full_disk(), pytest.raises(TrainingError, match="the disk is full; there is none before it: make room"):
        CheckpointFolder(tmp_path, "one", 2).save(1, {"a": torch.zeros(1)}, {})


@contextmanager
def small_files():
    """The kernel refuses files of more than a few kilobytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def full_disk():
    def fsync(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


@pytest.mark.parametrize("trouble, said", [(small_files, "could not be written"), (full_disk, "the disk is full")])
def test_a_disk_that_takes_no_more_ends_in_a_sentence_and_keeps_the_last_good_checkpoint(tmp_path, trouble, said):
    recipe = stopped_run(tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    with trouble(), pytest.raises(TrainingError, match=said) as caught:
        tiny_run(tmp_path, recipe).train()
    assert "the last good one is intact: make room there, then resume" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()} == before
    tiny_run(tmp_path, recipe).train()
    tiny_run(tmp_path / "whole", recipe).train()
    assert (tmp_path / "bank.safetensors").read_bytes() == (tmp_path / "whole/bank.safetensors").read_bytes()


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="run.json cannot be written into .*: make room or choose another folder"):
        tiny_run(tmp_path / "file/out", tiny_curriculum(1)).train()
    recipe = stopped_run(tmp_path / "run", "inpaint", 2)
    (tmp_path / "run/stages").write_text("in the way")
    with pytest.raises(FileError, match="1-inpaint.safetensors could not be written"):
        tiny_run(tmp_path / "run", recipe).train()
    (tmp_path / "run/stages").unlink()
    assert tiny_run(tmp_path / "run", recipe).train().info.experts.keys() == set(TASKS)


def test_a_kill_between_a_stages_two_files_loses_nothing(tmp_path, monkeypatch):
    recipe, save = tiny_curriculum(LONG), Bank.save

    def killed(bank, path):
        if path.name == "3-edit.safetensors":
            raise KeyboardInterrupt
        return save(bank, path)

    monkeypatch.setattr(Bank, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        tiny_run(tmp_path, recipe).train()
    before = (tmp_path / "bank.safetensors").read_bytes()
    assert "edit" in Bank.open(tmp_path / "bank.safetensors").info.experts
    monkeypatch.setattr(Bank, "save", save)
    for folder in ("stages", "lessons", "features"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / ".0123.part").write_bytes(b"half a file")
    tiny_run(tmp_path, recipe).train()
    assert (tmp_path / "bank.safetensors").read_bytes() == before
    assert (tmp_path / "stages/3-edit.safetensors").read_bytes() == before
    assert not list(tmp_path.rglob(".*"))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3-edit-000000005.safetensors"]


def test_another_recipe_seed_or_base_is_refused_and_what_changes_no_result_is_not(tmp_path):
    recipe = stopped_run(tmp_path)
    other = replace(recipe, stages=(*recipe.stages[:2], replace(recipe.stages[2], rho=0.7)))
    deep = tiny_host(dict(num_heads=2, hidden_size=32, axes_dim=(4, 6, 6), depth=2))
    runs = {
        r"other settings \(edit.rho was 0.8, is 0.7\): set them back, or choose": tiny_run(tmp_path, other),
        r"\(rank was 2, is 3, rate was 0.003, is 1e-05\)": tiny_run(
            tmp_path, replace(recipe, settings=replace(recipe.settings, rate=1e-5, rank=3))
        ),
        r"\(seed was 7, is 8\)": tiny_run(tmp_path, recipe, seed=8),
        "holds a run on another base": tiny_run(tmp_path, recipe, deep),
    }
    for said, run in runs.items():
        with pytest.raises(TrainingError, match=said):
            run.train()
    text = (tmp_path / "run.json").read_text()
    old = {name: value for name, value in json.loads(text).items() if name != "settings"}
    (tmp_path / "run.json").write_text(json.dumps(old))  # as runs of 0.1.0 have it
    for run in runs.values():
        with pytest.raises(TrainingError, match="holds a run of another recipe, seed, base or other pictures: choose"):
            run.train()
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(TrainingError, match="holds a run of another"):
        tiny_run(tmp_path, recipe).train()
    (tmp_path / "run.json").unlink()
    with pytest.raises(
        TrainingError, match="holds bank.safetensors, but no run.json that says what it was trained on: move"
    ):
        tiny_run(tmp_path, recipe).train()
    (tmp_path / "run.json").write_text(json.dumps(old))
    free = replace(recipe, settings=replace(recipe.settings, checkpointing=True, save_every=1, keep=1))
    tiny_run(tmp_path, free).train()
    tiny_run(tmp_path / "whole", recipe).train()
    assert (tmp_path / "bank.safetensors").read_bytes() == (tmp_path / "whole/bank.safetensors").read_bytes()


def test_a_run_that_began_with_a_bank_goes_on_without_being_told_again(tmp_path):
    recipe, host = tiny_curriculum(LONG), tiny_host()
    first = tiny_run(tmp_path / "first", recipe, host).train(only="inpaint")
    whole = tiny_run(tmp_path / "whole", recipe, host).train(first)
    with pytest.raises(RunStopped):
        tiny_run(tmp_path / "parts", recipe, host, [StopAt("ground", 3)]).train(first)
    other = Bank(first.info, {name: tensor + 1 for name, tensor in first.tensors.items()})
    with pytest.raises(TrainingError, match="did not begin with this bank"):
        tiny_run(tmp_path / "parts", recipe, host).train(other)
    tiny_run(tmp_path / "parts", recipe, host).train()
    assert saved_files(tmp_path / "parts") == saved_files(tmp_path / "whole")
    assert list(whole.info.experts) == list(TASKS)
    assert all(torch.equal(whole.tensors[name], tensor) for name, tensor in first.tensors.items())
    with pytest.raises(TrainingError, match="the bank was made for 1"):
        larger = tiny_host(dict(num_heads=2, hidden_size=32, axes_dim=(4, 6, 6), depth=2, depth_single_blocks=2))
        tiny_run(tmp_path / "larger", recipe, larger).train(first)


def test_a_stage_that_was_trained_before_an_earlier_one_is_not_put_behind_it(tmp_path):
    recipe = tiny_curriculum(1)
    tiny_run(tmp_path, recipe).train(only="ground")
    with pytest.raises(TrainingError, match="2-ground.safetensors was trained without inpaint as it is now: delete it"):
        tiny_run(tmp_path, recipe).train()
    (tmp_path / "stages/2-ground.safetensors").unlink()
    assert list(tiny_run(tmp_path, recipe).train().info.experts) == list(TASKS)


def test_a_stage_that_was_trained_anew_does_not_leave_the_rest_as_they_were(tmp_path):
    recipe = tiny_curriculum(1)
    tiny_run(tmp_path, recipe).train()
    bank, path = (tmp_path / "bank.safetensors").read_bytes(), tmp_path / "stages/2-ground.safetensors"
    path.unlink()
    tiny_run(tmp_path, recipe).train()
    assert (tmp_path / "bank.safetensors").read_bytes() == bank, "the same again, and all of it"
    assert list(tiny_run(tmp_path, recipe).train(only="ground").info.experts) == ["inpaint", "ground"]
    assert (tmp_path / "bank.safetensors").read_bytes() == bank, "asked for a part, the whole is left alone"
    ground = Bank.open(path)
    other = {name: tensor + ("ground" in name) for name, tensor in ground.tensors.items()}
    path.unlink()
    Bank(ground.info, other).save(path)
    with pytest.raises(TrainingError, match="3-edit.safetensors was trained without ground as it is now: delete it"):
        tiny_run(tmp_path, recipe).train()


def test_a_place_called_workspace_is_not_a_full_disk(tmp_path, monkeypatch):
    def forbidden(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "workspace"))

    monkeypatch.setattr(checkpoints, "save_file", forbidden)
    with pytest.raises(TrainingError, match="could not be written to .*: .*Permission denied") as caught:
        CheckpointFolder(tmp_path / "workspace", "one", 2).save(1, {"a": torch.zeros(1)}, {})
    assert "full" not in str(caught.value)


class Seen(Listener):
    def __init__(self):
        self.at = []

    def on_samples(self, trainer, sheet):
        self.at.append(("sampled", trainer.iteration))

    def on_validation(self, trainer, found):
        self.at.append(("validated", trainer.iteration))


@pytest.mark.parametrize("at", [2, 4])
def test_what_was_due_when_a_run_was_cancelled_is_shown_when_it_goes_on(tmp_path, monkeypatch, at):
    recipe, whole, before, after = (
        tiny_curriculum(4, ("inpaint",), sample_every=2, validate_every=2),
        Seen(),
        Seen(),
        Seen(),
    )
    tiny_run(tmp_path / "whole", recipe, listeners=[whole]).train()
    sheet = CurriculumRun.make_sample_sheet

    def cancelled(run, trainer):
        if trainer.iteration == at:
            raise KeyboardInterrupt
        return sheet(run, trainer)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CurriculumRun, "make_sample_sheet", cancelled)
        run = tiny_run(tmp_path / "parts", recipe, listeners=[before])
        run.interrupts = (KeyboardInterrupt,)
        run.train()
    tiny_run(tmp_path / "parts", recipe, listeners=[after]).train()
    assert before.at + after.at == [*whole.at[: at - 1], *whole.at[at - 2 :]], "the validation before it comes again"
    assert saved_files(tmp_path / "parts") == saved_files(tmp_path / "whole")


def test_no_memory_for_a_sample_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    recipe, seen = tiny_curriculum(4, ("inpaint",), sample_every=2, validate_every=2), Seen()

    def too_large(run, trainer):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(CurriculumRun, "make_sample_sheet", too_large)
    assert list(tiny_run(tmp_path, recipe, listeners=[seen]).train().info.experts) == ["inpaint"]
    assert seen.at == [("validated", 2), ("validated", 4)]
    assert "Memory ran out while iteration 2 was sampled: training goes on without it" in caplog.text


@pytest.mark.parametrize("change", [dict(start="nobody"), dict(along=("nobody",))])
def test_what_a_later_stage_lacks_is_said_before_the_first(tmp_path, change):
    recipe = tiny_curriculum(1)
    recipe = replace(recipe, stages=(*recipe.stages[:2], replace(recipe.stages[2], **change)))
    with pytest.raises(ValueError, match="The stage edit (starts as|trains) nobody"):
        tiny_run(tmp_path, recipe).train()
    assert not (tmp_path / "stages").exists()


def test_a_task_without_data_is_a_sentence(tmp_path):
    lessons = {"inpaint": tiny_dataset("inpaint")}
    with pytest.raises(TrainingError, match="There is no data for ground .there is for inpaint.: add some, or leave"):
        tiny_run(tmp_path, tiny_curriculum(1), datasets=lessons).train()


def test_what_is_not_finite_leaves_its_ids_and_a_checkpoint_to_go_on_from(tmp_path):
    lessons = {task: tiny_dataset(task) for task in TASKS}
    recipe, bad = tiny_curriculum(8, batch=1, save_every=0), 6
    whole = tiny_run(tmp_path / "whole", recipe).train(only="inpaint")
    good = lessons["inpaint"].samples.target[bad].clone()
    lessons["inpaint"].samples.target[bad] = torch.inf
    with pytest.raises(NonFiniteLoss):
        tiny_run(tmp_path, recipe, datasets=lessons).train(only="inpaint")
    found = json.loads((tmp_path / "not-finite-inpaint.json").read_text())
    assert found["ids"] == [f"inpaint-{bad}"] and found["iteration"] > 0
    _, state = read_checkpoint(CheckpointFolder(tmp_path / "checkpoints", "1-inpaint", 1).latest())
    assert state["iteration"] == found["iteration"]
    lessons["inpaint"].samples.target[bad] = good
    again = tiny_run(tmp_path, recipe, datasets=lessons).train(only="inpaint")
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in whole.tensors.items())


def test_a_run_that_runs_out_of_memory_goes_on_in_smaller_pieces(tmp_path, monkeypatch):
    host, recipe = tiny_host(), tiny_curriculum(LONG, save_every=0)
    forward = host.flux.forward

    def small(x, *args, **kwargs):
        if len(x) > 2 and room[0]:
            room[0] -= 1
            return forward(x, *args, **kwargs)
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(x, *args, **kwargs)

    room = [2]
    monkeypatch.setattr(host.flux, "forward", small)
    with pytest.raises(TrainingError, match="Memory ran out 3 times in a row"):
        tiny_run(tmp_path, recipe, host).train(only="inpaint")
    _, state = read_checkpoint(CheckpointFolder(tmp_path / "checkpoints", "1-inpaint", 1).latest())
    assert (state["iteration"], state["missed"]) == (4, 3)
    smaller = replace(recipe, settings=replace(recipe.settings, micro=2))
    listener = StopAt("inpaint", LONG)
    bank = tiny_run(tmp_path, smaller, host, [listener]).train(only="inpaint")
    assert listener.reached and bank.info.experts["inpaint"].iterations == LONG


def test_only_the_last_checkpoints_are_kept_and_one_of_the_last_finished_stage(tmp_path):
    def names():
        return sorted(path.name.partition(".")[0] for path in (tmp_path / "checkpoints").iterdir())

    recipe = stopped_run(tmp_path, "ground", 4, save_every=1, keep=2)
    assert names() == ["1-inpaint-000000005", "2-ground-000000003", "2-ground-000000004"]
    tiny_run(tmp_path, recipe).train()
    assert names() == ["3-edit-000000005"]


def test_the_log_loses_what_will_be_done_again_and_half_a_line(tmp_path):
    recipe = stopped_run(tmp_path, "ground", 3)
    lines = [{"stage": s, "iteration": i, "task": 1.0} for s, n in (("inpaint", 5), ("ground", 5)) for i in range(n)]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + '\n["no line"]\n{"stage": "ground", "iteration": 2, "ta')
    assert list(read_log(path)) == lines
    with pytest.raises(RunStopped):
        tiny_run(tmp_path, recipe, listeners=[Log(tmp_path), StopAt("ground", 4)]).train()
    found = list(read_log(path))
    assert found[:-1] == [line for line in lines if line["stage"] == "inpaint" or line["iteration"] <= 3]
    assert found[-1]["iteration"] == 4 and found[-1]["usage"].keys() == {"inpaint", "ground"}
    assert path.read_text().endswith("\n") and len(path.read_text().splitlines()) == len(found)
