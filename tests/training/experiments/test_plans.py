"""Plans: rows branch off and share what they begin with, contrasts are what they say, and shuffled answers are."""

import shutil
from copy import deepcopy
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.prw.base_model import Base
from cologen.prw.embedded_host import EmbeddedHost
from cologen.prw.files.safe_file import SafeFile
from cologen.prw.flux.flux1 import LATENT_SCALE, LATENT_SHIFT
from cologen.prw.flux.inputs import FluxInputs
from cologen.prw.source import Routing
from cologen.training.add_expert import add_expert, make_empty_bank
from cologen.training.coredi.sampling import FeatureSampler
from cologen.training.experiments import run_plans
from cologen.training.experiments.contrasts import Contrast, correct_family, measure_contrasts
from cologen.training.experiments.curricula import HELD_OUT
from cologen.training.experiments.describe_plan import describe_plan
from cologen.training.experiments.plan_report import format_prefixes, format_report
from cologen.training.experiments.plans import (
    BOTH,
    EACH_ITS_OWN,
    PLANS,
    RECIPE_SHARE,
    SHARES,
    SHUFFLED,
    THINGS,
    Plan,
    begin_with,
    vary_prefixes,
)
from cologen.training.experiments.run_plans import (
    LOSS,
    PlanRunner,
    QuestionCounts,
    encode_held_out,
    list_beginnings,
    measure_losses,
    name_snapshot,
    shuffle_answers,
)
from cologen.training.forward import predict_velocity, run_source
from cologen.training.from_scratch.learner import LearnerPlan
from cologen.training.from_scratch.store import open_models
from cologen.training.recipes.curriculum import load_curriculum, scale_curriculum
from cologen.training.stage_context import StageContext
from cologen.training.toy.store import TOY
from cologen.training.world import thing_encoder
from pack import ROOT
from scipy import stats

WORLD = load_curriculum("world")


@pytest.mark.parametrize("name", list(PLANS))
def test_every_contrast_weighs_rows_that_there_are(name):
    rows = PLANS[name].make_rows(WORLD)
    for contrast, weights in PLANS[name].contrasts.items():
        assert set(weights) <= set(rows) and sum(weights.values()) == 0, contrast
    whole, tasks = {key: row for key, row in rows.items() if key != EACH_ITS_OWN}, set(PLANS[name].tasks)
    assert all(set(row) == tasks for row in whole.values())
    assert EACH_ITS_OWN not in rows or set(rows[EACH_ITS_OWN]) == tasks - {"edit"}
    assert describe_plan(PLANS[name], WORLD).startswith(PLANS[name].claim)


@pytest.mark.parametrize("name", list(PLANS))
def test_the_page_of_plans_says_what_would_be_run(name):
    page = (ROOT / "docs/plans.md").read_text(encoding="utf-8")
    assert describe_plan(PLANS[name], scale_curriculum(WORLD, RECIPE_SHARE)) in page


def test_table_5_is_two_by_two_with_target_stages_of_one_length():
    rows = vary_prefixes(WORLD)
    names = {row: [stage.name for stage in forks["edit"].stages] for row, forks in rows.items()}
    assert [names[row] for row in ("none", "concept", "localisation", BOTH)] == [
        ["edit"],
        ["inpaint", "edit"],
        ["ground", "edit"],
        ["inpaint", "ground", "edit"],
    ]
    lengths = {row: forks[task].stages[-1].iterations for row, forks in rows.items() for task in forks}
    inpaint, ground, _, subject, edit = (stage.iterations for stage in WORLD.stages)
    target = (subject + edit) // 2
    assert {lengths[row] for row in ("none", "concept", "localisation", BOTH, "shuffled answers")} == {target}
    assert lengths["none, as long"] == lengths["none, as long, five times the rank"] == target + inpaint + ground
    together = rows["co-training"]["edit"]
    assert sum(stage.iterations for stage in together.stages) == inpaint + ground + 2 * target
    last, whole = together.stages[-1], inpaint + ground + 2 * target
    shares = {task: last.replay * weight / sum(last.replay_from.values()) for task, weight in last.replay_from.items()}
    assert shares["ground"] == pytest.approx(ground / whole) and 1 - last.replay == pytest.approx(target / whole)


def test_rows_of_figure_4_differ_in_one_number_of_the_last_stage():
    rows = [row["edit"] for row in PLANS["figure4"].make_rows(WORLD).values()]
    assert all(row.stages[:-1] == rows[0].stages[:-1] for row in rows)
    for one, other in combinations(rows, 2):
        last, second = one.stages[-1], other.stages[-1]
        assert 1 <= sum(getattr(last, key) != getattr(second, key) for key in ("rho", "veteran", "rank")) <= 2


def test_rows_of_features_share_what_comes_before_the_encoder_is_needed():
    rows = PLANS["features"].make_rows(WORLD)
    plain, vae, things = (list(list_beginnings(rows[row]["edit"])) for row in ("plain", "CoReDi", "CoReDi, of things"))
    assert plain[:2] == vae[:2] == things[:2] and [len(beginning.stages) for beginning in things] == [1, 2, 3]
    assert [each[-1].settings.encoder for each in (plain, vae, things)] == ["", "", THINGS]
    assert vae[-1].stages == things[-1].stages != plain[-1].stages


def draw_rows(rng, effects, seeds=3, spread=0.03):
    """Rows that differ by `effects` and by chance, seeds that differ by more."""
    blocks = rng.normal(0, 0.5, seeds)
    return {
        name: [rng.normal(block + effect + rng.normal(0, spread), 0.2, 50) for block in blocks]
        for name, effect in effects.items()
    }


def test_a_contrast_of_two_rows_is_a_paired_t_test_of_the_seeds():
    rows = draw_rows(np.random.default_rng(0), {"a": 0.0, "b": 0.1}, seeds=6)
    found = measure_contrasts(rows, {"b, against a": {"b": 1, "a": -1}})["b, against a"]
    one, other = ([values.mean() for values in rows[row]] for row in "ab")
    expected = stats.ttest_rel(other, one)
    low, high = expected.confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((np.subtract(other, one).mean(), low, high))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.seeds == pytest.approx(np.subtract(other, one))


def test_its_error_is_what_least_squares_leave_of_its_rows():
    rows = draw_rows(np.random.default_rng(1), {"a": 0.0, "b": 0.1, "c": 0.3, "d": 0.2})
    weights = {"a": -0.5, "b": -0.5, "c": 1.0}
    found = measure_contrasts(rows, {"x": weights})["x"]
    y = np.array([values.mean() for seeds in rows.values() for values in seeds])
    design = np.array([[*np.eye(4)[row], *np.eye(3)[seed][1:]] for row in range(4) for seed in range(3)])
    left = (y - design @ np.linalg.lstsq(design, y)[0]).reshape(4, 3)
    each = 6 / 4  # of 12 means less 4 rows and 2 seeds, a row's share
    parts = [weights.get(row, 0) ** 2 * (left[i] ** 2).sum() / each / 3 for i, row in enumerate("abcd")]
    freedom = sum(parts) ** 2 / sum(part**2 / each for part in parts)  # Welch and Satterthwaite
    value = sum(weight * np.mean([values.mean() for values in rows[row]]) for row, weight in weights.items())
    assert found.value == pytest.approx(value)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(value) / np.sqrt(sum(parts)), freedom))
    assert found.high - found.low == pytest.approx(2 * np.sqrt(sum(parts)) * stats.t.ppf(0.975, freedom))


@pytest.mark.parametrize("still", [(), "cdef"], ids=["all vary alike", "four hardly vary"])
def test_where_nothing_is_at_most_one_contrast_in_twenty_says_otherwise(still):
    """Also where seeds differ by far more than questions do, and other rows vary less: shares near 0."""
    rng, found = np.random.default_rng(2), []
    for _ in range(400):
        rows = draw_rows(rng, dict.fromkeys("abcdefgh", 0.0), spread=0.3)
        rows |= {name: [0.01 * values for values in rows[name]] for name in still}
        found.append(measure_contrasts(rows, {"x": {"a": 1, "b": -1}})["x"].p <= 0.05)
    assert 0.005 <= np.mean(found) <= 0.07


def test_a_paired_contrast_is_student_s_test_of_its_value_of_every_seed():
    rows = draw_rows(np.random.default_rng(3), dict.fromkeys("abc", 0.1), seeds=4)
    weights = {"a": 0.5, "b": 0.5, "c": -1}
    contrast = measure_contrasts(rows, {"x": weights}, paired=["x"])["x"]
    expected = stats.ttest_1samp(contrast.seeds, 0)
    assert contrast.p == pytest.approx(expected.pvalue)
    assert (contrast.low, contrast.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


@pytest.mark.parametrize("name", list(PLANS))
def test_a_contrast_that_adds_rows_with_a_stage_of_their_own_in_common_is_paired(name):
    rows = PLANS[name].make_rows(WORLD)
    trained = {row: [each for fork in forks.values() for each in list_beginnings(fork)] for row, forks in rows.items()}
    for contrast, weights in PLANS[name].contrasts.items():
        for one, other in combinations(weights, 2):
            shared = [each for each in trained[one] if each in trained[other]]
            own = any(each not in trained[row] for each in shared for row in rows)
            if own and weights[one] * weights[other] > 0:
                assert contrast in PLANS[name].paired


def test_rows_that_share_a_stage_say_too_often_that_something_is_if_they_are_not_paired():
    rng, weights = np.random.default_rng(4), PLANS["table5"].contrasts["concept"]
    shares = {True: [], False: []}
    for _ in range(400):
        rows = draw_rows(rng, dict.fromkeys(PLANS["table5"].make_rows(WORLD), 0.0), seeds=5)
        stage = rng.normal(0, 0.3, 5)
        for row in ("concept", BOTH):
            rows[row] = [answers + shared for answers, shared in zip(rows[row], stage, strict=True)]
        for paired, ps in shares.items():
            ps.append(measure_contrasts(rows, {"x": weights}, ["x"] if paired else [])["x"].p <= 0.05)
    assert np.mean(shares[True]) <= 0.08 < np.mean(shares[False])


def test_rows_that_are_one_show_nothing():
    values = [np.zeros(4), np.ones(4)]
    found = measure_contrasts({"a": values, "b": values}, {"x": {"a": 1, "b": -1}})["x"]
    assert found == Contrast(0.0, 0.0, 0.0, 1.0, (0.0, 0.0)) and found.judge(found.p) == "cannot tell"


def test_a_family_is_corrected_as_holm_has_it():
    ps = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    corrected = correct_family({name: Contrast(1.0, 0.0, 2.0, p, (1.0,)) for name, p in ps.items()})
    assert corrected == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})  # Holm's own step-down by hand


@pytest.mark.parametrize(
    "seeds, p, verdict",
    [
        ((0.1, 0.2, 0.3), 0.05, "yes"),
        ((-0.1, -0.2, -0.3), 0.01, "no"),
        ((0.1, 0.2, 0.3), 0.06, "cannot tell"),
        ((0.5, 0.5, -0.01), 0.01, "cannot tell"),
        ((0.5, 0.5, 0.0), 0.01, "cannot tell"),
    ],
)
def test_a_verdict_takes_a_small_p_and_seeds_that_agree(seeds, p, verdict):
    assert Contrast(float(np.mean(seeds)), 0.0, 0.0, 0.0, seeds).judge(p) == verdict


@pytest.fixture(scope="module")
def models():
    return open_models(TOY)


def test_shuffled_answers_belong_to_other_questions(models):
    dataset = encode_held_out(TOY, models.encoders, "inpaint", 6, HELD_OUT)
    shuffled = shuffle_answers(dataset)
    assert torch.equal(shuffled.samples.source, dataset.samples.source)
    assert torch.equal(shuffled.samples.target[1:], dataset.samples.target[:-1])
    assert not any(torch.equal(a, b) for a, b in zip(shuffled.samples.target, dataset.samples.target))


@pytest.fixture
def make_runner(models, tmp_path):
    """The toy world with an iteration or four a stage."""
    recipe = load_curriculum("toy", [f"{name}.iterations=1" for name in ("inpaint", "ground")])
    tiny = replace(
        recipe, stages=tuple(replace(stage, iterations=min(stage.iterations, 4), batch=2) for stage in recipe.stages)
    )
    said = []

    def make(**settings):
        curriculum = replace(tiny, settings=replace(tiny.settings, **settings))
        own = models._replace(flux=deepcopy(models.flux))
        return PlanRunner(TOY, own, curriculum, 20, tmp_path, QuestionCounts(2, 9), said.append)

    return make, tmp_path


@pytest.mark.slow
def test_rows_share_what_they_begin_with_and_each_would_have_trained_the_same_alone(make_runner, monkeypatch):
    make, folder = make_runner

    def rows(whole):
        inpaint, ground, *_, edit = whole.stages
        alike = replace(inpaint, data=(SHUFFLED,))
        return {
            "a": {"edit": begin_with(whole, inpaint, ground, edit)},
            "b": {"edit": begin_with(whole, inpaint, ground, replace(edit, rho=0.5))},
            "c": {"edit": begin_with(whole, alike, edit)},
        }

    plan = Plan("", ("edit",), rows, {"a, against c": {"a": 1, "c": -1}})
    reports = make().run(plan, 2)
    stages = sorted(path.parent.name for path in folder.glob("*/stages/*/bank.safetensors"))
    assert len(stages) == 2 * 6, "of two seeds inpaint, ground, two edits, shuffled inpaint, its edit"
    assert {len(list(path.glob("after-*"))) for path in folder.glob("*/stages/*")} == {len(SHARES)}
    report = reports["a"]["edit"][0]
    assert set(report) == {str(share) for share in SHARES}
    assert [len(report[str(share)]["answers"]) for share in SHARES] == [1, 1, 2] and len(report["1.0"][LOSS]) == 9
    assert report["1.0"][LOSS] != reports["c"]["edit"][0]["1.0"][LOSS]
    text = format_report(plan, reports)
    assert "| edit | loss | a, against c |" in text and "| a | 0.25 |" in text
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert make().run(plan, 2) == reports
    assert make().measure_prefixes(plan, 2) == [], "its stages of one iteration"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before
    for trained in folder.glob("*/stages"):
        shutil.rmtree(trained)
    assert make().run(plan, 2) == reports and not list(folder.glob("*/stages")), "what was measured is not trained"


@pytest.mark.slow
def test_the_encoder_of_things_is_trained_where_a_stage_first_needs_it(make_runner, monkeypatch):
    make, folder = make_runner
    monkeypatch.setattr(thing_encoder, "PLAN", LearnerPlan(2, 2, 1e-3))
    runner = make(encoder=THINGS)
    inpaint, *_, edit = runner.curriculum.stages
    plain, knowing = (
        begin_with(runner.curriculum, inpaint, replace(edit, features=way)) for way in ("off", "auxiliary")
    )
    runner.train(plain, 0)
    assert not (runner.out / "encoder").exists()
    bank = Bank.open(name_snapshot(runner.train(knowing, 0), 1.0))
    assert list(bank.info.experts) == ["inpaint", "edit"] and (runner.out / "encoder/model.safetensors").exists()
    (features,) = runner.out.glob("features/edit-*.safetensors")
    assert SafeFile(features).shape("features")[-1] == thing_encoder.SHAPE["hidden_size"]
    runner.out = runner.out.rename(folder / "moved")
    again = runner.train(replace(knowing, stages=knowing.stages), 0)
    assert again.is_relative_to(folder / "moved") and Bank.open(name_snapshot(again, 1.0)).info == bank.info


@pytest.mark.slow
def test_what_was_learned_before_is_asked_and_coredi_with_its_features(make_runner, monkeypatch):
    runner, drawn = make_runner[0](), []

    def draw(features, seed):
        drawn.append(([each.info.way for each in features], seed))
        return FeatureSampler(features, seed=seed)

    monkeypatch.setattr(run_plans, "FeatureSampler", draw)
    inpaint, *_, edit = runner.curriculum.stages
    inpaint = replace(inpaint, iterations=2)
    rows = {
        way: {"edit": begin_with(runner.curriculum, inpaint, replace(edit, features=way))} for way in ("off", "coredi")
    }
    plan = Plan("", ("edit",), lambda whole: rows, {})
    runner.run(plan, 1)
    assert drawn == [(["coredi"], HELD_OUT)] * len(SHARES)
    ((beginning, reports),) = runner.measure_prefixes(plan, 1)
    assert [stage.name for stage in beginning.stages] == ["inpaint"] and len(reports) == 1
    assert "| inpaint 2 | hit " in format_prefixes([(beginning, reports)])


@pytest.mark.parametrize("name, count", [("table5", 5), ("figure4", 4), ("features", 2), ("forgetting", 10)])
def test_every_beginning_is_asked_its_own_task_once(make_runner, monkeypatch, name, count):
    """Shuffled ones, and those that differ in a knob alone, too."""
    runner = make_runner[0]()
    runner.curriculum = scale_curriculum(WORLD, RECIPE_SHARE)
    answers = {"hit": 0.5, "iou": 0.5, "seg": 0.5, "kept": 0.5, "right": 0.5}
    monkeypatch.setattr(runner, "measure_row", lambda *row: {"1.0": {"answers": [answers], LOSS: [1.0]}})
    table = format_prefixes(runner.measure_prefixes(PLANS[name], 2)).splitlines()[2:]
    assert len(table) == len(set(table)) == count and all("0.500" in line for line in table)


@pytest.mark.slow
def test_another_base_begins_anew(make_runner, models):
    make, folder = make_runner
    runner = make()
    curriculum = begin_with(runner.curriculum, runner.curriculum.stages[0])
    runner.train(curriculum, 0)
    other = models._replace(flux=deepcopy(models.flux))
    with torch.no_grad():
        next(other.flux.single_blocks.parameters())[0] += 1e-3
    again = PlanRunner(TOY, other, runner.curriculum, 20, folder, QuestionCounts(2, 9), lambda _: None)
    again.train(curriculum, 0)
    assert len(list(folder.glob("*/stages/*/bank.safetensors"))) == 2 and again.out != runner.out == make().out


def test_rows_compute_in_the_recipe_s_precision(make_runner):
    runner = make_runner[0](precision="bf16")
    assert runner.host.dtype == next(runner.host.flux.parameters()).dtype == torch.bfloat16


@pytest.mark.slow
def test_target_stages_begin_alike_and_see_the_same_wherever_they_stand(make_runner, models):
    """By their names: the experts' first weights and the samples of an iteration."""
    whole = replace(WORLD, settings=replace(WORLD.settings, rank=4))

    def set_apart(stage, number, settings=whole.settings):
        return StageContext(None, stage, number, settings, {}, None, seed=5)

    base, edit = Base.of(models.flux), whole.stages[-1]
    banks = []
    for stages in ((edit,), (whole.stages[0], edit)):
        curriculum = begin_with(whole, *stages)
        bank = make_empty_bank(base, whole.settings)
        for number, stage in enumerate(curriculum.stages):
            bank = add_expert(bank, stage, whole.settings, set_apart(stage, number).stage_seed)
        banks.append(bank)
    alone, later = ({name: t for name, t in bank.tensors.items() if name.startswith("experts.edit.")} for bank in banks)
    assert alone.keys() == later.keys() and all(torch.equal(alone[name], later[name]) for name in alone)
    assert set_apart(edit, 3).seed_number == set_apart(edit, 0).seed_number != set_apart(whole.stages[0], 0).seed_number
    assert set_apart(edit, 3, replace(whole.settings, stage_seeds="number")).stage_seed == 5 + 3


def test_losses_are_the_mean_squared_error_of_each_velocity(models):
    """Sample by sample."""
    host = EmbeddedHost(models.flux, torch.float32)
    bank = Bank.open(TOY.folder / "bank.safetensors")
    dataset = encode_held_out(TOY, models.encoders, "inpaint", 9, HELD_OUT)
    routing, samples = Routing(task="inpaint"), dataset.samples
    losses = measure_losses(host, bank, routing, dataset)
    noise = torch.randn(samples.target.shape, generator=torch.Generator().manual_seed(0))
    for i, loss in enumerate(losses):
        rows, t = slice(i, i + 1), torch.tensor([(i % 8 + 0.5) / 8])
        target = (samples.target[rows] - LATENT_SHIFT) * LATENT_SCALE
        inputs = FluxInputs((1 - t) * target + t * noise[rows], t, samples.context[rows], samples.pooled[rows])
        with torch.no_grad():
            velocity = predict_velocity(host, run_source(host, bank, routing, samples.source[rows], inputs), inputs)
        assert loss == pytest.approx(float(((velocity - (noise[rows] - target)) ** 2).mean()), rel=1e-4)
    assert len(losses) == 9
