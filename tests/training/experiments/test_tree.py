"""Experts in a tree as an experiment: equal iterations in every row, and what is counted and judged."""

import json

import pack  # noqa: F401
import pytest
from cologen.prw.bank.bank import Bank
from cologen.training.cli.main import main
from cologen.training.experiments.tree import KINDS, format_rows, make_kind_questions, make_rows
from cologen.training.recipes.curriculum import load_curriculum

ROWS = make_rows(load_curriculum("toy"))


def test_every_row_trains_as_long_and_ends_with_an_expert_a_kind():
    for curriculum in ROWS.values():
        assert sum(stage.iterations for stage in curriculum.stages) == 2000
        assert [stage.name for stage in curriculum.stages][-2:] == list(KINDS)
        assert {stage.task for stage in curriculum.stages} == {"control"}
    children, copies, alone, small = ROWS.values()
    assert [(stage.parent, stage.rank) for stage in children.stages] == [("", 0), ("control", 8), ("control", 8)]
    assert [(stage.start, stage.rank) for stage in copies.stages] == [("", 0), ("control", 0), ("control", 0)]
    assert children.stages[0] == copies.stages[0] and {stage.rank for stage in small.stages} == {8}
    assert not any(stage.parent or stage.start for stage in (*alone.stages, *small.stages))


def test_questions_are_of_their_kind():
    assert {question.example.kind for question in make_kind_questions("depth", 5, 0)} == {"depth"}
    assert len({question.example.kind for question in make_kind_questions("control", 20, 0)}) > 2


def test_a_table_says_sizes_beside_the_largest_and_intervals():
    rows = {name: [dict(numbers=size, iterations=3, canny=[0.5], depth=[1.0])] for name, size in (("a", 48), ("b", 96))}
    assert "| a | 0.50 | 3 | 0.500 (0.500 to 0.500) | 1.000 (1.000 to 1.000) |" in format_rows(rows)


@pytest.mark.long
@pytest.mark.slow
def test_rows_are_trained_judged_and_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("cologen.training.experiments.tree.BUDGETS", {"tiny": 0.001})
    out = tmp_path / "out"
    for _ in range(2):  # the second time it is read
        assert not main(
            ["reproduce", "tree", "--budget", "tiny", "--seeds", "1", "--n", "1", "--out", str(out), "--json"]
        )
    reports = json.loads(capsys.readouterr().out.splitlines()[-1])
    sizes = {row: seeds[0]["numbers"] for row, seeds in reports.items()}
    ranks = {"children of rank 8": 48, "copies of rank 32": 96, "experts of rank 32": 64, "experts of rank 8": 16}
    assert {row: size / sizes["experts of rank 8"] * 16 for row, size in sizes.items()} == pytest.approx(ranks)
    assert all(len(seeds[0][kind]) == 1 for seeds in reports.values() for kind in KINDS)
    trees = [
        bank for path in out.glob("*/tree-*/bank.safetensors") if (bank := Bank.open(path)).info.experts["depth"].parent
    ]
    assert [list(bank.info.routers["depth"].experts) for bank in trees] == [["canny", "depth"]]
