"""What a source costs: seconds a step, as ratios in one run.

`plain` is FLUX without a source. `cached` is a step that reads a source's K/V, `source_pass` makes them,
`uncached` does both. `concat` is what others do: the source's tokens join the picture's as queries (in
ComfyUI the host's own ReferenceLatent path; on the embedded FLUX a picture of that many more tokens).
All of them use torch's attention, which is what the host takes on GPUs.

The floor is arithmetic. With N text and image tokens, S source tokens and width d a block needs
12 N d^2 multiplications for its layers and 2 N^2 d for attention; longer keys add 2 N S d. So
floor = 1 + 2 S / (12 d + 2 N). Runs are interleaved and medians taken, so that a machine's moods cancel.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...prw.attachment import Attachment
from ...prw.bank.edit import random_bank
from ...prw.base_model import Base
from ...prw.embedded_host import EmbeddedHost, velocity
from ...prw.source import Routing, Source
from ..base.random_models import FLUX1, bank_info, random_flux

PIXELS_A_TOKEN = 16


@dataclass(frozen=True)
class Shapes:
    width: int = 1024
    double: int = 2
    single: int = 4
    target: int = 512
    """Side of the picture in pixels."""
    source: int = 512
    text: int = 512
    rank: int = 0
    """0: the paper's 128 at width 3072, in proportion."""

    @classmethod
    def flux1(cls, target: int, source: int) -> "Shapes":
        return cls(FLUX1["hidden_size"], FLUX1["depth"], FLUX1["depth_single_blocks"], target, source)

    def tokens(self, pixels: int) -> int:
        return (pixels // PIXELS_A_TOKEN) ** 2

    def floor(self) -> float:
        n = self.text + self.tokens(self.target)
        return 1 + 2 * self.tokens(self.source) / (12 * self.width + 2 * n)

    def kv_bytes(self, dtype: torch.dtype) -> int:
        return 2 * self.tokens(self.source) * self.width * (self.double + self.single) * dtype.itemsize

    def flux(self, dtype: torch.dtype, device: str):
        shape = dict(hidden_size=self.width, num_heads=self.width // 128, depth=self.double)
        return random_flux(dtype=dtype, device=device, depth_single_blocks=self.single, gain=0.5, **shape)

    def bank(self, flux, names=("inpaint", "ground", "control", "subject", "edit")):
        rank = self.rank or max(1, 128 * self.width // 3072)
        return random_bank(bank_info(Base.of(flux), names, rank), up=0.02)


def inference(shapes: Shapes, dtype: torch.dtype, device: str, host: str, repeats: int) -> dict:
    """Times the variants; returns seconds, ratios and what they were measured on."""
    steps = (_embedded if host == "embedded" else _comfyui)(shapes, dtype, device)
    with torch.inference_mode():
        seconds, memory = interleaved(steps, repeats, device), peaks(steps, device)
    return {
        **seconds,
        "floor": shapes.floor(),
        "cached_over_plain": seconds["cached"] / seconds["plain"],
        "cached_over_floor": seconds["cached"] / seconds["plain"] / shapes.floor(),
        "concat_over_cached": seconds["concat"] / seconds["cached"],
        "source_pass_over_plain": seconds["source_pass"] / seconds["plain"],
        "kv_mib": shapes.kv_bytes(dtype) / 2**20,
        "peak_mib": memory,
        "device": device_name(device),
        "host": host,
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "shapes": vars(shapes),
    }


def interleaved(steps: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, float]:
    """Median seconds of each step; all steps in turn, so that a slow minute hits them alike."""
    times = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            _wait(device)
            start = time.perf_counter()
            step()
            _wait(device)
            if turn:  # the first is for warming up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def peaks(steps: dict[str, Callable[[], object]], device: str) -> dict[str, float]:
    """Peak memory of each step beyond what was allocated before it; on CUDA only."""
    if not device.startswith("cuda"):
        return {}
    found = {}
    for name, step in steps.items():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        found[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return found


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else f"cpu, {torch.get_num_threads()} threads"


def inputs(shapes: Shapes, flux, dtype: torch.dtype, device: str, extra: int = 0) -> tuple:
    """x, timestep, context, pooled, guidance; `extra` more pixels of height."""
    generator = torch.Generator(device).manual_seed(1)

    def normal(*shape):
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)

    x = normal(1, 16, (shapes.target + extra) // 8, shapes.target // 8)
    time_, guidance = torch.full((1,), 0.7, device=device), torch.full((1,), 3.5, device=device)
    return x, time_, normal(1, shapes.text, flux.params.context_in_dim), normal(1, flux.params.vec_in_dim), guidance


def a_source(shapes: Shapes) -> Source:
    side = shapes.source // 8
    return Source(torch.randn(1, 16, side, side, generator=torch.Generator().manual_seed(2)), Routing(task="edit"))


def _embedded(shapes: Shapes, dtype: torch.dtype, device: str) -> dict[str, Callable[[], object]]:
    flux = shapes.flux(dtype, device)
    bank, source = shapes.bank(flux), a_source(shapes)
    args = inputs(shapes, flux, dtype, device)
    longer = inputs(shapes, flux, dtype, device, extra=shapes.source**2 // shapes.target)
    cached, uncached, alone = Attachment(bank), Attachment(bank, cached=False), Attachment(bank, cached=False)
    x, timestep, _, pooled, _ = args
    return {
        "plain": lambda: velocity(flux, *args),
        "concat": lambda: velocity(flux, *longer),
        "uncached": lambda: velocity(flux, *args, uncached, [source]),
        "cached": lambda: velocity(flux, *args, cached, [source]),
        "source_pass": lambda: alone.prepare(EmbeddedHost(flux, dtype), [source], x, timestep, pooled),
    }


def _comfyui(shapes: Shapes, dtype: torch.dtype, device: str) -> dict[str, Callable[[], object]]:
    from ..comfyui.find_host import bench_steps

    flux = shapes.flux(dtype, "cpu")
    bank, args = shapes.bank(flux), inputs(shapes, flux, dtype, "cpu")
    return bench_steps(flux.state_dict(), dtype, device, bank, a_source(shapes), args)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
