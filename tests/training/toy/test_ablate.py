"""Ablation on the built-in world: scores are those of a bank without older experts, differences are paired."""

import json

import numpy as np
import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.prw.embedded_host import EmbeddedHost
from cologen.training.cli.eval_worlds import format_table
from cologen.training.cli.main import main
from cologen.training.from_scratch import evaluate as evaluation
from cologen.training.from_scratch.ablate import ablate, compare_scores
from cologen.training.from_scratch.evaluate import Evaluation, evaluate
from cologen.training.from_scratch.store import BANK, open_models
from cologen.training.toy.store import TOY


def test_differences_are_of_the_same_question():
    routed = [{"hit": 1.0, "outside": 0.1}, {"outside": 0.2}, {"hit": 0.0, "outside": 0.4}]
    ablated = [{"hit": 0.0, "outside": 0.3}, {"outside": 0.2}, {"hit": 0.0, "outside": 0.5}]
    found = compare_scores(routed, ablated)
    assert found["hit"] == -0.5 and found["outside"] == pytest.approx(0.1)
    low, high = found["hit_ci"]
    assert (low, high) == (-1.0, 0.0)


def test_the_table_says_whether_a_difference_is_one():
    found = {"rest": 0.02, "rest_ci": [0.01, 0.03], "done": -0.1, "done_ci": [-0.2, 0.0]}
    report = {"n": 4, "seed": 0, "ablation": {"edit": {"older": 0.25, "newest": found, "none": found}}}
    lines = format_table(report).splitlines()
    assert "edit: older experts take 25.0% of the blocks" in lines
    verdicts = (
        {line.split()[-1] for line in lines if " rest " in line},
        {line[-17:] for line in lines if "done" in line},
    )
    assert verdicts == ({"difference"}, {"these scenes show"})


@pytest.mark.slow
def test_without_older_experts_scores_are_those_of_a_bank_without_them(monkeypatch):
    monkeypatch.setattr(evaluation, "STEPS", 2)
    toy, bank = open_models(TOY), Bank.open(TOY.folder / BANK)
    host, asked = EmbeddedHost(toy.flux, torch.float32), Evaluation(TOY, 3, tasks=["inpaint", "edit"])
    found = ablate(host, toy.encoders, bank, asked, by_block=True)
    emptied = {
        key: torch.zeros_like(tensor) if key.endswith(".up") and not key.startswith("experts.edit.") else tensor
        for key, tensor in bank.tensors.items()
    }
    without = evaluate(host, toy.encoders, Bank(bank.info, emptied), Evaluation(TOY, 3, tasks=["edit"]))["edit"]
    assert list(found["ablation"]) == ["edit"], "inpaint's router has no older expert"
    edit = found["ablation"]["edit"]
    assert edit["none"]["rest"] == pytest.approx(without["rest"] - found["edit"]["rest"], abs=2e-4)
    shares = [alone["older"] for alone in edit["blocks"].values()]
    assert 0 < edit["older"] == pytest.approx(np.sum(shares) / 6, abs=1e-3) and len(shares) < 6


@pytest.mark.slow
def test_the_terminal_prints_it(capsys, monkeypatch):
    monkeypatch.setattr(evaluation, "STEPS", 1)
    assert main(["eval", "toy", "--n", "1", "--tasks", "edit", "--ablate", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"older", "newest", "none"} == report["ablation"]["edit"].keys() and report["edit"]["rest"] >= 0
