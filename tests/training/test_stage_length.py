"""A stage of length "auto" ends when it stands still, and not before; what it decides survives a stop."""

import json

import pytest
from cologen.prw.bank.bank import Bank
from cologen.training.checkpoint.run_record import fingerprint
from cologen.training.errors import RunStopped
from cologen.training.monitor.log import Log, read_log
from cologen.training.monitor.report import write_report
from cologen.training.recipes.curriculum import parse_curriculum, scale_curriculum
from cologen.training.recipes.open_lengths import open_lengths
from cologen.training.recipes.stage import Stage
from cologen.training.recipes.subject import make_subject_recipe
from cologen.training.schedules import FLOOR
from cologen.training.stage_length import GOES_ON, LIMIT, STILL, WAITS, StageLength
from cologen.training.trainer import Trainer
from cologen.training.validate import validate
from stopped_run import StopAt, logged_iterations, saved_files
from tiny_run import tiny_curriculum, tiny_host, tiny_run, tiny_trainer


class Cancelled(BaseException):
    """What a host raises to stop."""


FROZEN = dict(rate=0.0, router_rate=0.0, weight_decay=0.0)


def auto_curriculum(iterations=40, ahead=False, **settings):
    settings = dict(check_every=2, standstill=2, tolerance=0.005, usage_band=1.0) | settings
    return open_lengths(tiny_curriculum(iterations, **settings), ahead)


def make_length(iterations=100, spare=0, ahead=False, **settings):
    recipe = auto_curriculum(iterations, ahead, **settings)
    return StageLength(recipe.stages[1], recipe.settings, spare)


def check(length, losses, usage=0.8, experts=2, every=2):
    """Verdicts of these losses, one a check."""
    return [length.check(every * (i + 1), loss, usage, experts).verdict for i, loss in enumerate(losses)]


def test_a_new_low_is_lower_by_the_tolerance():
    falls = [1.0, 0.9, 0.8, 0.7]
    assert check(make_length(), falls) == [GOES_ON] * 4
    assert check(make_length(tolerance=0.2), [1.0, 0.9, 0.81]) == [GOES_ON, GOES_ON, STILL]
    # small gains add up: 0.96 and 0.93 are no lows, 0.89 is one
    assert check(make_length(tolerance=0.1), [1.0, 0.96, 0.89, 0.85, 0.84]) == [GOES_ON] * 4 + [STILL]


def test_a_stage_waits_for_the_usage_only_where_something_moves_it():
    still = [1.0, 1.0, 1.0, 1.0]
    assert check(make_length(usage_band=0.1), still, usage=0.69) == [GOES_ON, GOES_ON, WAITS, WAITS]
    assert check(make_length(usage_band=0.1), still, usage=0.91) == [GOES_ON, GOES_ON, WAITS, WAITS]
    assert check(make_length(usage_band=0.1), still, usage=0.71)[2] == STILL
    assert check(make_length(usage_band=0.1), still, usage=1.0, experts=1)[2] == STILL
    assert check(make_length(usage_band=0.1, veteran=0.0), still, usage=0.0)[2] == STILL


def test_rates_stay_up_and_fall_over_the_tail():
    length = make_length(schedule="linear", noise_end=0.5)
    check(length, [1.0, 1.0, 1.0], every=8)
    assert (length.tail_start, length.end) == (24, 30)
    rates = [length.compute_rate_factor(i) for i in range(30)]
    assert rates == pytest.approx([1.0] * 25 + [5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    noise = [length.compute_noise_scale(i) for i in range(30)]
    assert noise == pytest.approx(rates) and FLOOR < rates[-1]
    never = make_length(schedule="linear")
    assert never.close(79) is None and (never.tail_start, never.end) == (80, 100)
    assert [never.compute_rate_factor(i) for i in (0, 80, 90)] == [1.0, 1.0, 0.5]
    assert never.close(80).verdict == LIMIT and never.close(80) is None and not never.needs_check(82)
    plain = make_length()
    check(plain, [1.0, 1.0, 1.0])
    assert plain.end == plain.tail_start == 6 and plain.compute_noise_scale(5) == 1


def test_a_stage_of_fixed_length_has_the_rates_and_noise_that_it_had():
    recipe = tiny_curriculum(10, schedule="cosine", warmup=2, noise_end=0.6)
    length = StageLength(recipe.stages[1], recipe.settings, 50)
    from cologen.training.schedules import compute_rate_factor

    for i in range(10):
        assert length.compute_rate_factor(i) == compute_rate_factor("cosine", i, 10, 2)
        assert length.compute_noise_scale(i) == (1.0 if i <= 6 else (1 - i / 10) / (1 - 0.6))
    assert length.end == 10 and not length.needs_check(2) and length.close(10) is None


def test_iterations_that_others_left_are_for_gains_alone():
    length = make_length(10, spare=6, ahead=True, usage_band=0.0)
    assert length.limit == length.end == 16
    assert check(length, [1.0, 1.0, 1.0, 1.0, 1.0], usage=0.5) == [GOES_ON, GOES_ON, WAITS, WAITS, STILL]
    assert length.end == 10
    gains = make_length(10, spare=6, ahead=True)
    assert check(gains, [1.0 * 0.9**i for i in range(7)]) == [GOES_ON] * 7 and gains.close(16).end == 16
    assert make_length(10, spare=6).limit == 10


def decisions(out):
    return [
        (line["stage"], line["iteration"], line["length"]) for line in read_log(out / "log.jsonl") if "length" in line
    ]


@pytest.mark.slow
def test_a_run_ends_stages_that_stand_still_and_trains_others_to_their_ceiling(tmp_path):
    still, gains = tmp_path / "still", tmp_path / "gains"
    bank = tiny_run(still, auto_curriculum(**FROZEN), listeners=[Log(still)]).train()
    assert {name: expert.iterations for name, expert in bank.info.experts.items()} == dict.fromkeys(
        bank.info.experts, 6
    )
    (_, *rest, last) = [line for stage, _, line in decisions(still) if stage == "ground"]
    assert last["verdict"] == STILL and last["waited"] == 2 and last["end"] == 6 and len(rest) == 1
    recipe = auto_curriculum(8, standstill=4)
    bank = tiny_run(gains, recipe, listeners=[Log(gains)]).train()
    assert {expert.iterations for expert in bank.info.experts.values()} == {8}
    assert [line[2]["verdict"] for line in decisions(gains)] == [GOES_ON, GOES_ON, GOES_ON, LIMIT] * 3
    write_report(gains / "report.html", recipe, 7, "r")
    assert "8, ceiling 8: reached its limit at 8, over at 8" in (gains / "report.html").read_text()


def test_what_is_checked_is_what_validation_finds(tmp_path):
    seen = []

    class Recorder(Log):
        def on_length_check(self, trainer, found):
            own = validate(trainer)[trainer.stage.task]
            seen.append((found.loss, found.usage) == (own.loss, own.usage[-1]))

    recipe = auto_curriculum(6, standstill=9, stages=("inpaint", "ground"))
    tiny_run(tmp_path, recipe, listeners=[Recorder(tmp_path)]).train()
    assert seen == [True, True, False] * 2, "two checks, and the ceiling, which measures nothing"


@pytest.mark.slow
def test_a_stage_without_its_usage_goes_to_its_ceiling(tmp_path):
    recipe = auto_curriculum(10, usage_band=0.0, rho=0.37, **FROZEN)
    bank = tiny_run(tmp_path, recipe, listeners=[Log(tmp_path)]).train()
    assert [expert.iterations for expert in bank.info.experts.values()] == [6, 10, 10]
    assert WAITS in [line["verdict"] for stage, _, line in decisions(tmp_path) if stage == "ground"]


def test_what_stages_leave_lengthens_a_later_one(tmp_path):
    recipe = auto_curriculum(10, ahead=True, standstill=2, tolerance=1.0)
    lengths = []

    class Lengths(Log):
        def on_stage_begin(self, trainer):
            lengths.append(trainer.length.limit)

    tiny_run(tmp_path, recipe, listeners=[Lengths(tmp_path)]).train()
    # nothing is lower by 100 %: all end after three checks, and leave four each
    assert lengths == [10, 14, 18]


@pytest.mark.slow
@pytest.mark.parametrize("crash", [None, KeyboardInterrupt(), Cancelled()], ids=["stopped", "killed", "cancelled"])
def test_what_goes_on_decides_the_same_to_the_bit(tmp_path, crash):
    recipe = auto_curriculum(
        20,
        ahead=True,
        tolerance=0.02,
        ema=0.9,
        schedule="cosine",
        warmup=2,
        noise_end=0.6,
        replay=0.3,
        validate_every=3,
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tiny_run(whole, recipe, listeners=[Log(whole)]).train()
    lengths = {stage: line["end"] for stage, _, line in decisions(whole)}
    (at,) = [i for stage, i, line in decisions(whole) if stage == "ground" and line["verdict"] in (STILL, LIMIT)]
    assert min(lengths.values()) < 20, "or nothing has ended early"
    for stage, iteration in (("inpaint", 4), ("ground", 3), ("ground", at), ("ground", at + 1), ("edit", 5)):
        run = tiny_run(parts, recipe, listeners=[Log(parts), StopAt(stage, iteration, crash)])
        run.interrupts = (Cancelled,)
        with pytest.raises(type(crash or RunStopped())):
            run.train()
    tiny_run(parts, recipe, listeners=[Log(parts)]).train()
    assert saved_files(parts) == saved_files(whole)
    assert logged_iterations(parts) == logged_iterations(whole)


@pytest.mark.slow
def test_a_stage_does_not_end_before_all_timesteps_are_open(tmp_path):
    recipe = auto_curriculum(16, time_phases=2, patience=1000, **FROZEN)
    tiny_run(tmp_path, recipe, listeners=[Log(tmp_path)]).train()
    # the second phase opens at half the stage
    assert [i for stage, i, _ in decisions(tmp_path) if stage == "inpaint"] == [10, 12, 14]


RECIPE = 'check_every = 20\n[[stages]]\nname = "a"\niterations = "auto"\nceiling = 300\n'


def test_a_recipe_says_auto_and_a_ceiling():
    recipe = parse_curriculum(RECIPE, "r")
    assert (recipe.stages[0].iterations, recipe.stages[0].ceiling) == (300, 300)
    fixed = parse_curriculum(RECIPE, "r", ["a.iterations=50"])
    assert (fixed.stages[0].iterations, fixed.stages[0].ceiling) == (50, 0)
    tenth = scale_curriculum(recipe, 0.1)
    assert (tenth.stages[0].ceiling, tenth.settings.check_every) == (30, 2)
    assert scale_curriculum(fixed, 0.1).settings.check_every == 20
    plain = tiny_curriculum()
    assert fingerprint(open_lengths(plain), 7) != fingerprint(plain, 7) == fingerprint(tiny_curriculum(), 7)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (["a.ceiling=0"], "stage 1.ceiling is 0, expected 1 to 1e\\+09"),
        (["a.ceiling=many"], "stage 1.ceiling is 'many', expected a whole number"),
        (["standstill=0"], "standstill is 0, expected 1"),
        (["check_every=0"], "check_every is 0, expected 1"),
        (["tolerance=2.0"], "tolerance is 2.0, expected 0 to 1"),
        (["usage_band=nan"], "usage_band is nan, expected 0 to 1"),
        (["ahead=true", "a.iterations=4"], 'ahead is true, but no stage has iterations = "auto"'),
    ],
)
def test_a_broken_length_is_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=f"r cannot be used: {sentence}"):
        parse_curriculum(RECIPE, "r", changes)


def test_auto_without_a_ceiling_and_a_ceiling_without_iterations_are_refused():
    with pytest.raises(ValueError, match='iterations is "auto" without an end, expected ceiling'):
        parse_curriculum(RECIPE.replace("ceiling = 300\n", ""), "r")
    with pytest.raises(ValueError, match='has a ceiling, but no iterations: add iterations = "auto"'):
        parse_curriculum(RECIPE.replace('iterations = "auto"\n', ""), "r")
    with pytest.raises(ValueError, match="a.ceiling is 3 and iterations 4, expected the same"):
        Stage(name="a", iterations=4, ceiling=3)
    stage = {"name": "dog", "iterations": "auto", "ceiling": 9}
    with pytest.raises(ValueError, match='dog.iterations is "auto", expected a number'):
        make_subject_recipe({"stages": [stage], "subject": {"noun": "dog"}})


def test_a_checkpoint_that_says_nothing_of_its_length_is_not_believed():
    trainer = tiny_trainer(tiny_host(), iterations=9)
    assert "length" not in trainer.state()[1] and isinstance(trainer, Trainer)
    length = make_length(10)
    state = json.loads(json.dumps(length.state()))
    make_length(10).load(state)
    with pytest.raises(ValueError, match="length.end is 99"):
        make_length(10).load({**state, "end": 99})


def test_spare_iterations_are_those_of_stages_that_this_run_trained(tmp_path):
    recipe = auto_curriculum(10, ahead=True, tolerance=1.0, stages=("inpaint", "ground"))
    first = tiny_run(tmp_path / "a", recipe)
    bank = first.train(only="inpaint")
    assert first.spare == 4
    other = tiny_run(tmp_path / "b", recipe)
    other.train(Bank(bank.info, bank.tensors))
    assert other.spare == 4, "its own second stage's alone"
