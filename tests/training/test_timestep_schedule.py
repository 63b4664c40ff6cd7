"""Timesteps from easy to hard: what is open is the noisiest share, and it opens when the loss stands still."""

import pytest
import torch
from cologen.training.monitor.log import Log
from cologen.training.objective import draw_times
from cologen.training.timestep_schedule import OPEN_BY, TimestepSchedule
from stopped_run import StopAt, logged_iterations, saved_files
from tiny_run import tiny_curriculum, tiny_host, tiny_run, tiny_trainer


def drawn(count=50_000, **knobs):
    return draw_times(count, torch.Generator().manual_seed(0), **knobs)


def test_an_open_share_is_the_noisiest_of_what_is_drawn_anyway():
    for shift in (1.0, 4.0):
        whole = drawn(shift=shift)
        for share in (0.1, 0.5):
            least = whole.quantile(1 - share)
            inside, found = whole[whole >= least].sort().values, drawn(shift=shift, noisiest_share=share).sort().values
            assert found.min() >= least - 0.01 and found.max() < 1
            places = torch.linspace(0, 1, 21)
            assert torch.allclose(found.quantile(places)[1:-1], inside.quantile(places)[1:-1], atol=0.01)


def test_an_open_share_keeps_the_order_of_what_is_drawn():
    whole, found = drawn(200), drawn(200, noisiest_share=0.3)
    assert torch.equal(whole.argsort(), found.argsort()) and torch.equal(drawn(200, noisiest_share=1.0), whole)


def phases(pacing, losses):
    found = []
    for loss in losses:
        found.append(round(pacing.compute_open_share(0.0) * pacing.phases))
        pacing.update(loss)
    return found


def test_the_next_phase_begins_when_the_loss_stands_still_and_only_then():
    falling = [1.0 - 0.01 * i for i in range(50)]
    assert phases(TimestepSchedule(4, 5), falling) == [1] * 50
    # the first loss is a low, then five that are none; a phase begins with a low of its own
    assert phases(TimestepSchedule(3, 5), [1.0] * 20) == [1] * 6 + [2] * 6 + [3] * 8


def test_all_is_open_by_a_part_of_the_stage_whatever_the_loss_does():
    pacing = TimestepSchedule(5, 10**6)
    assert [pacing.compute_open_share(done * OPEN_BY) for done in (0.0, 0.25, 0.5, 0.75, 1.0)] == [
        0.2,
        0.4,
        0.6,
        0.8,
        1.0,
    ]
    assert pacing.compute_open_share(1.0) == 1.0 and TimestepSchedule(1, 1).compute_open_share(0.0) == 1.0


def test_a_phase_that_time_opened_is_over_when_the_loss_stands_still_in_it():
    pacing = TimestepSchedule(4, 5)
    for i in range(20):
        assert pacing.compute_open_share(0.0) == 0.25
        pacing.update(1.0 - 0.01 * i)
    assert pacing.compute_open_share(OPEN_BY / 3) == 0.5
    for _ in range(6):  # higher than ever before, but a low of its own at first
        assert pacing.compute_open_share(OPEN_BY / 3) == 0.5
        pacing.update(2.0)
    assert pacing.compute_open_share(OPEN_BY / 3) == 0.75


def test_a_stage_begins_with_noise_and_ends_with_everything():
    trainer = tiny_trainer(tiny_host(), batch=64, iterations=20, time_phases=4, patience=10**6)

    def times():
        return torch.cat([batch.times for batch in trainer.draw_batches()])

    plain = draw_times(50_000, torch.Generator().manual_seed(0))
    assert times().min() >= plain.quantile(0.75) - 0.01
    trainer.iteration = 10
    assert times().min() < plain.quantile(0.25)


def test_a_stopped_stage_goes_on_in_the_phase_where_it_was(tmp_path):
    recipe = tiny_curriculum(24, stages=("inpaint",), time_phases=4, patience=1)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tiny_run(whole, recipe, listeners=[Log(whole)]).train()
    with pytest.raises(KeyboardInterrupt):
        tiny_run(parts, recipe, listeners=[Log(parts), StopAt("inpaint", 3, KeyboardInterrupt())]).train()
    tiny_run(parts, recipe, listeners=[Log(parts)]).train()
    assert saved_files(parts) == saved_files(whole) and logged_iterations(parts) == logged_iterations(whole)
