"""What a stage is said to take, against what it takes: to the byte where tensors can be counted, else within a share."""

import json
from functools import partial

import pytest
import torch
from cologen.prw.embedded_host import EmbeddedHost
from cologen.training.base.placement import check_base_size
from cologen.training.bench.shapes import Shapes
from cologen.training.bench.training import make_trainer
from cologen.training.checkpoint.checkpoints import TrainingError
from cologen.training.memory_estimate import MemoryReport, check_memory, estimate_memory
from cologen.training.recipes.curriculum import Settings
from tiny_flux2 import tiny_flux2
from tiny_run import tiny_dataset, tiny_host, tiny_trainer
from torch.profiler import ProfilerActivity, profile

TOLERANCE = 0.15
MIB = 2**20


def peak(step, folder) -> int:
    """The most that torch's allocator had given out at once, beyond what it had before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    seen.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    told = [event["args"] for event in events if event.get("name") == "[memory]"]
    return max(one["Total Allocated"] for one in told) - (told[0]["Total Allocated"] - told[0]["Bytes"])


@pytest.mark.parametrize("optimizer", ["adamw", "prodigy"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_weights_gradients_and_optimizer_are_counted_to_the_byte(optimizer, ema):
    host = tiny_host()
    trainer = tiny_trainer(host, optimizer=optimizer, ema=ema)
    found, kept = estimate_memory(trainer), {}
    usual = trainer.weights.optimizer.step

    def watched():
        kept["gradients"] = sum(tensor.grad.nbytes for tensor in trainer.trained.values())
        usual()

    trainer.weights.optimizer.step = watched
    trainer.train_iteration()
    assert found.base == {"float32": sum(4 * parameter.numel() for parameter in host.flux.parameters())}
    assert found.trained == sum(
        tensor.nbytes for tensor in (*trainer.trained.values(), *trainer.weights.average.values())
    )
    assert found.gradients == kept["gradients"]
    states = [value for entries in trainer.weights.optimizer.state.values() for value in entries.values()]
    assert found.optimizer == sum(value.nbytes for value in states if isinstance(value, torch.Tensor) and value.ndim)


@pytest.mark.slow
@pytest.mark.parametrize("sparing", [False, True])
@pytest.mark.parametrize(
    "shape", [(256, 1, 2, 128, 2), (512, 2, 4, 192, 2), (256, 2, 14, 192, 2)], ids=["tiny", "mid", "deep"]
)
def test_an_iterations_peak_is_as_told(shape, sparing, tmp_path):
    width, double, single, side, batch = shape
    shapes = Shapes(width, double, single, side, side, 64)
    trainer = make_trainer(
        shapes, EmbeddedHost(shapes.make_flux(torch.float32, "cpu"), torch.float32), batch, checkpointing=sparing
    )
    trainer.train_iteration()  # the optimizer's state is there from then on
    found = estimate_memory(trainer)
    told = found.activations + found.gradients
    assert peak(trainer.train_iteration, tmp_path) == pytest.approx(told, rel=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("sparing", [False, True])
@pytest.mark.parametrize("shape", [(512, 2, 4), (256, 2, 14)], ids=["mid", "deep"])
def test_an_iterations_peak_on_flux_2_is_as_told(shape, sparing, tmp_path, monkeypatch):
    width, double, single = shape
    flux = tiny_flux2(hidden_size=width, num_heads=width // 128, depth=double, depth_single_blocks=single)
    monkeypatch.setattr("tiny_run.tiny_dataset", partial(tiny_dataset, count=4, side=12))
    trainer = tiny_trainer(EmbeddedHost(flux, torch.float32), batch=2, checkpointing=sparing)
    trainer.train_iteration()
    found = estimate_memory(trainer)
    told = found.activations + found.gradients
    assert peak(trainer.train_iteration, tmp_path) == pytest.approx(told, rel=TOLERANCE)


class Lines:
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


@pytest.mark.parametrize(
    "share, advice",
    [
        (0.9, 'set checkpointing = true, or set micro = 3, which changes no result, or set precision = "bf16".'),
        (0.3, 'set micro = 1, which changes no result, or set precision = "bf16".'),
    ],
)
def test_what_cannot_fit_is_refused_with_what_would(share, advice):
    trainer = tiny_trainer(tiny_host())
    found, lines = estimate_memory(trainer), Lines()
    MemoryReport(lines.say, lambda device: found.additional).on_stage_begin(trainer)
    assert lines.said[0].splitlines()[0] == "ground takes, on cpu:" and "in all" in lines.said[0]
    resting = found.additional - found.activations
    with pytest.raises(TrainingError) as refused:
        MemoryReport(lines.say, lambda device: resting + int(share * found.activations)).on_stage_begin(trainer)
    assert str(refused.value).endswith(advice)
    with pytest.raises(TrainingError, match="set a smaller rank or resolution|precision"):
        MemoryReport(lines.say, lambda device: resting // 2).on_stage_begin(trainer)


@pytest.mark.parametrize(
    "processes, share, settings, advice",
    [
        (1, 0.7, {}, 'set base_weights = "fp8", or set offload = true, which takes longer.'),
        (2, 0.7, {}, 'set shard = true: 2 processes then share it, or set base_weights = "fp8", or set offload = true'),
        (2, 0.2, {"shard": True}, 'set base_weights = "fp8".'),
        (1, 0.2, {}, 'set base_weights = "nf4", or set offload = true'),
        (1, 0.0, {"base_weights": "nf4"}, "set offload = true"),
        (1, 0.0, {"offload": True}, "start more processes, with shard = true, or take a larger device."),
    ],
)
def test_a_base_that_cannot_fit_is_refused_with_where_it_would(monkeypatch, processes, share, settings, advice):
    monkeypatch.setattr("cologen.training.distributed.ranks.world_size", lambda: processes)
    flux = tiny_host().flux
    size = sum(parameter.nbytes for parameter in flux.parameters())
    with pytest.raises(TrainingError, match=advice.replace(".", r"\.")):
        check_base_size(flux, Settings(**settings), "cuda", int(share * size))
    check_base_size(flux, Settings(**settings), "cuda", size)
    check_base_size(flux, Settings(**settings), "cpu", None)


def test_a_stage_that_would_fit_beside_a_shared_base_is_told_to_share_it(monkeypatch):
    trainer = tiny_trainer(tiny_host())
    found = estimate_memory(trainer)
    monkeypatch.setattr("cologen.training.distributed.ranks.world_size", lambda: 2)
    monkeypatch.setattr("cologen.training.distributed.ranks.rank", lambda: 0)
    with pytest.raises(TrainingError, match="set shard = true: 2 processes then share the base"):
        check_memory(trainer, found, found.additional - sum(found.base.values()) // 2)
    with pytest.raises(TrainingError) as refused:
        check_memory(trainer, found, found.additional - sum(found.base.values()))
    assert "shard" not in str(refused.value)
