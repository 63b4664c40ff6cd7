"""`cologen train world` and `cologen eval world`, end to end: from nothing to figures."""

import json
import os
import subprocess
import sys

import pytest
from cologen.training.cli.main import main
from cologen.training.from_scratch.learner import LearnerPlan
from cologen.training.from_scratch.store import FLUX, find_parts
from cologen.training.recipes.curriculum import load_curriculum
from cologen.training.recipes.subject import load_recipe
from cologen.training.world.tasks import QUESTION_MAKERS
from PIL import Image

pytestmark = pytest.mark.slow
WORLD = dict(examples=4, flux_width=128, flux_double=1, flux_single=1)
WORLD |= {f"{part}_{what}": 2 for part in ("text", "decoder", "flux") for what in ("iterations", "batch")}
CHANGES = [f"world.{name}={value}" for name, value in WORLD.items()]
CHANGES += [f"{task}.{what}={number}" for task in QUESTION_MAKERS for what, number in (("iterations", 1), ("batch", 2))]
CHANGES += ["rank=2", "validate_every=0", "sample_every=0"]


def run(capsys, *words):
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def test_from_nothing_to_figures(tmp_path, capsys, monkeypatch):
    from cologen.training.from_scratch import evaluate
    from cologen.training.world import thing_encoder

    monkeypatch.setattr(evaluate, "STEPS", 2)
    monkeypatch.setattr(thing_encoder, "PLAN", LearnerPlan(2, 2, 1e-3))
    out = tmp_path / "run"
    run(capsys, "train", "world", *CHANGES, "--budget", "cpu", "--out", out)
    bank = out / "bank.safetensors"
    before = bank.read_bytes()
    run(capsys, "train", "world", *CHANGES, "--budget", "cpu", "--out", out, "--resume")
    assert bank.read_bytes() == before and find_parts(out / "base" / FLUX)
    words = ["eval", "world", "--base", out / "base", "--bank", bank, "--n", 2, "--json", "--seed"]
    one, other, both = (json.loads(run(capsys, *words, *seeds)) for seeds in ((3,), (4,), (3, 4)))
    assert set(QUESTION_MAKERS) < set(one) and both["seeds"] == [3, 4]
    for measure in ("done", "rest"):
        mean = (one["edit"][measure] + other["edit"][measure]) / 2
        assert both["edit"][measure] == pytest.approx(mean, abs=1e-4)
    assert {"right", "kept"} < set(json.loads(run(capsys, *words, 3, "--seen", "--tasks", "subject"))["subject"])
    demo = ("demo", "--world", "world", "--base", out / "base", "--bank", bank, "--out", tmp_path)
    assert Image.open(run(capsys, *demo).strip()).width > 1500
    plan = ("plan", "features", "--seeds", 1, "--share", 0.001, "--base", out / "base", "--out", tmp_path / "plan")
    told = run(capsys, *plan, "--n", 2, "--losses", 3, "--examples", 8)
    assert "| CoReDi, of things | 1 |" in told and "| auxiliary | 0.5 |" in told


def test_two_processes_make_a_base_once_and_train_on_it(tmp_path):
    base = tmp_path / "run" / "base"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "cologen.training", "train", "world", *CHANGES, "--out", tmp_path / "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stderr
    assert (base / "base.json").exists() and (tmp_path / "run" / "bank.safetensors").exists()


def test_a_plan_without_seeds_is_only_said(capsys):
    told = run(capsys, "plan", "table5", "--share", 0.5)
    assert "| concept | inpaint 800, then subject 850 or edit 850 (rho 0.8, alpha 0.5) |" in told


def test_budgets_differ_in_batches_and_not_in_what_is_made():
    assert load_recipe("world", budget="cpu") == load_curriculum("world")
    cpu, gpu = load_recipe("world", budget="cpu").world, load_recipe("world", budget="gpu").world
    assert gpu["flux_batch"] > cpu["flux_batch"]
    for name in ("flux_width", "flux_double", "flux_single"):
        assert gpu[name] == cpu[name]
