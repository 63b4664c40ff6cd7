"""The experiments: equal iterations in every row, the right stages, tables of the right means."""

from dataclasses import replace

import pack  # noqa: F401
import pytest
from cologen.training.cli.reproduce import draw_rows, format_forgetting, format_table, summarize_rows
from cologen.training.experiments import run_curricula
from cologen.training.experiments.curricula import EXPERIMENTS, LENGTH, Experiment, drop_stages, start_afresh
from cologen.training.experiments.run_curricula import ExperimentRunner, mean_and_sd
from cologen.training.recipes.curriculum import BUDGETS, load_curriculum, scale_curriculum
from cologen.training.recipes.open_lengths import open_lengths

CURRICULUM = start_afresh(load_curriculum("toy"))
TOTAL = sum(stage.iterations for stage in CURRICULUM.stages)


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_every_row_trains_as_long(name):
    for row, curriculum in EXPERIMENTS[name].rows(CURRICULUM).items():
        assert abs(sum(stage.iterations for stage in curriculum.stages) - TOTAL) <= len(curriculum.stages), row
        assert curriculum.stages[0].rho == 1 and curriculum.stages[0].veteran == 0
        assert not any(stage.start for stage in curriculum.stages)


def test_rows_differ_in_what_they_say():
    rows = EXPERIMENTS["table5"].rows(CURRICULUM)
    names = {row: [stage.name for stage in curriculum.stages] for row, curriculum in rows.items()}
    assert names["neither"] == ["control", "subject", "edit"]
    assert names["localisation only"] == ["ground", "control", "subject", "edit"]
    assert names["concept only"] == ["inpaint", "control", "subject", "edit"]
    assert names["curriculum"] == names["co-training"] == ["inpaint", "ground", "control", "subject", "edit"]
    *begun, mixed = rows["co-training"].stages
    assert {stage.iterations for stage in begun} == {1} and set(mixed.along) == {stage.name for stage in begun}
    assert mixed.replay == pytest.approx(4 / 5) and mixed.veteran == 0
    assert [c.stages[2].rho for c in EXPERIMENTS["rho"].rows(CURRICULUM).values()] == [0.5, 0.65, 0.8, 0.95]
    assert [c.stages[2].veteran for c in EXPERIMENTS["alpha"].rows(CURRICULUM).values()] == [0, 0.25, 0.5, 1, 2]
    assert {c.settings.alpha / c.settings.rank for c in EXPERIMENTS["rank"].rows(CURRICULUM).values()} == {2}


@pytest.mark.parametrize("share", BUDGETS.values(), ids=list(BUDGETS))
def test_stages_that_end_by_themselves_are_checked_as_often_at_every_budget(share):
    rows = EXPERIMENTS[LENGTH].rows(scale_curriculum(CURRICULUM, share))
    assert rows["auto"] == scale_curriculum(open_lengths(CURRICULUM), share)
    assert rows["auto, ahead"] == scale_curriculum(open_lengths(CURRICULUM, ahead=True), share)
    assert rows["fixed"] == scale_curriculum(CURRICULUM, share)


def test_coredis_rows_are_twins():
    experiment = EXPERIMENTS["coredi"]
    plain, *others = experiment.rows(CURRICULUM).values()
    assert plain == CURRICULUM
    for twin, way in zip(others, ("auxiliary", "self", "coredi", "self", "self", "coredi", "coredi"), strict=True):
        assert [stage.features for stage in twin.stages] == ["off", "off", "off", way, way]
        stages = tuple(replace(stage, features="off") for stage in twin.stages)
        assert replace(twin, stages=stages, settings=replace(twin.settings, feature_size=32)) == plain
        assert twin.stages[: experiment.shared_stages] == plain.stages[: experiment.shared_stages]


def a_report(value):
    return {"usage": {"inpaint": 1.0, "edit": value}, "subject": {"kept": value}, "edit": {"done": value, "rest": 0.0}}


def test_tables_show_means_over_seeds():
    rows = summarize_rows({"this": {0: a_report(0.2), 1: a_report(0.4), 2: a_report(0.9)}})
    assert rows["this"]["edit done"] == pytest.approx((0.5, 0.36055512754639896))
    assert rows["this"]["usage"][0] == pytest.approx(0.5)
    assert "| this | 0.500 ± 0.361 | 0.500 ± 0.361 | 0.000 ± 0.000 | 0.500 ± 0.361 |" in format_table(rows)
    assert draw_rows(rows).size[0] > 100
    assert mean_and_sd([3.0]) == (3.0, 0.0)


def test_forgetting_has_a_row_a_stage():
    inpaint, ground = {"inpaint": {"hit": 0.5}}, {"inpaint": {"hit": 0.5}, "ground": {"iou": 0.25}}
    after = {"inpaint": {"own": inpaint, "final": inpaint}, "ground": {"own": ground, "final": ground}}
    lines = format_forgetting({0: {"after": after}}).splitlines()
    assert len(lines) == 4
    assert lines[3].startswith("| ground | 0.500 ± 0.000 (0.500 ± 0.000) | 0.250 ± 0.000 (0.250 ± 0.000) |")


@pytest.fixture
def make_runner(tmp_path, monkeypatch):
    """Two stages of an iteration or two each."""
    tiny = start_afresh(load_curriculum("toy", [f"{stage.name}.iterations=1" for stage in CURRICULUM.stages]))
    tiny = drop_stages(tiny, "inpaint", "ground", "control")
    monkeypatch.setattr(run_curricula, "load_curriculum", lambda name: tiny)
    monkeypatch.setitem(run_curricula.BUDGETS, "tiny", 1.0)
    monkeypatch.setattr(run_curricula, "shorten_recipe", lambda recipe, share: replace(recipe, examples=66))
    monkeypatch.setitem(EXPERIMENTS, "alone", Experiment("", lambda whole: {"alone": whole}, ("edit",)))
    said = []
    return lambda count: ExperimentRunner(tmp_path, "tiny", count, said.append), said


@pytest.mark.slow
def test_a_report_answers_the_question_that_was_asked(make_runner, tmp_path):
    """What is kept is asked for again only as it was."""
    made, said = make_runner
    four, six = (made(count).run("alone", 1) for count in (4, 6))
    assert [found["alone"][0]["n"] for found in (four, six)] == [4, 6] and len(said) == 2
    assert made(4).run("alone", 1) == four and len(said) == 2
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.long
@pytest.mark.slow
def test_what_rows_have_in_common_is_trained_once_and_is_what_each_would_have_trained(
    make_runner, tmp_path, monkeypatch
):
    def rows(whole):
        *first, last = whole.stages
        return {"one": whole, "other": replace(whole, stages=(*first, replace(last, features="auxiliary")))}

    trained, train_stage = [], run_curricula.CurriculumRun.train_stage
    monkeypatch.setattr(
        run_curricula.CurriculumRun,
        "train_stage",
        lambda run, *given: trained.append(given[1].name) or train_stage(run, *given),
    )

    def performed(common):
        monkeypatch.setitem(EXPERIMENTS, "apart", Experiment("", rows, ("edit",), common))
        trained.clear()
        made = make_runner[0](4)
        made.out = tmp_path / f"{common}"
        found = made.run("apart", 1)
        return found, {path.parent.name: path.read_bytes() for path in made.out.rglob("bank.safetensors")}

    apart = performed(0)
    assert trained == ["subject", "edit", "subject", "edit"]
    assert performed(1) == apart and len(apart[1]) == 2
    assert trained == ["subject", "edit", "edit"]


@pytest.mark.long
@pytest.mark.slow
def test_forgetting_asks_every_task_after_every_stage(make_runner):
    found = make_runner[0](4).run("forgetting", 1)["curriculum"]
    after = found[0]["after"]
    assert {stage: {*reports["own"]} - {"n", "seed"} for stage, reports in after.items()} == {
        "subject": {"subject"},
        "edit": {"subject", "edit"},
    }
    assert after["subject"]["own"]["subject"] == after["edit"]["own"]["subject"], "a frozen expert and its own router"
    assert len(format_forgetting(found).splitlines()) == 4


@pytest.mark.long
@pytest.mark.slow
def test_stages_that_end_by_themselves_are_counted(make_runner, monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, LENGTH, replace(EXPERIMENTS[LENGTH], tasks=("edit",)))
    reports = make_runner[0](1).run(LENGTH, 1)
    assert list(reports) == ["fixed", "auto", "auto, ahead"]
    assert {seeds[0]["iterations"]["most"] for seeds in reports.values()} == {
        reports["fixed"][0]["iterations"]["trained"]
    }
    rows = summarize_rows(reports)
    assert list(rows["auto"]) == ["edit done", "edit rest", "iterations", "usage"]
    assert rows["fixed"]["iterations"] == (1.0, 0.0) and "| iterations |" in format_table(rows)
