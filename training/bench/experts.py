"""What routing and experts cost within the source pass, and that fifty experts cost no more than five.

`routing_share` compares the source pass with one whose blocks route nothing and add nothing.
Memory is the peak of a process of its own, because experts are memory-mapped: what counts is what is read.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ...prw.attachment import Attachment
from ...prw.bank.bank import Bank
from ...prw.bank.shapes import list_shapes
from ...prw.embedded_host import EmbeddedHost
from ...prw.experts import BlockExperts
from ...prw.flux.families import Flux
from ...prw.router import Route
from ...prw.source import Routing
from ...prw.weaving import Selector
from .shapes import Shapes
from .timing import describe_run, time_in_turn

MANY, FEW = 50, 5


def bench_experts(shapes: Shapes, dtype: torch.dtype, device: str, repeats: int) -> dict:
    """Measures time and memory of a source pass with fifty experts and with five, and what routing takes of it."""
    flux = shapes.make_flux(dtype, device)
    with tempfile.TemporaryDirectory() as folder:
        paths = {count: _save_bank(shapes, flux, count, dtype, Path(folder)) for count in (FEW, MANY)}
        steps = {
            f"experts_{count}": _make_source_pass(shapes, flux, path, dtype, device) for count, path in paths.items()
        }
        steps["bare"] = _make_source_pass(shapes, flux, paths[FEW], dtype, device, BareAttachment)
        with torch.inference_mode():
            seconds = time_in_turn(steps, repeats, device)
        memory = {count: _measure_process(shapes, path, dtype, device) for count, path in paths.items()}
    return {
        **seconds,
        "time_ratio_50_5": seconds[f"experts_{MANY}"] / seconds[f"experts_{FEW}"],
        "memory_ratio_50_5": memory[MANY] / memory[FEW],
        "memory_mib": {str(count): value / 2**20 for count, value in memory.items()},
        "routing_share": 1 - seconds["bare"] / seconds[f"experts_{FEW}"],
        **describe_run(shapes, device, dtype),
    }


class BareAttachment(Attachment):
    """An attachment whose blocks route nothing and add nothing."""

    def make_selector(self, routing: Routing) -> Selector:
        return _choose_nothing


def _choose_nothing(block: str, h: torch.Tensor) -> BlockExperts:
    zero = torch.zeros(len(h), dtype=torch.long, device=h.device)
    return BlockExperts(Route(zero, zero.float(), zero.float()[:, None]), {})


def _save_bank(shapes: Shapes, flux: Flux, count: int, dtype: torch.dtype, folder: Path) -> Path:
    """Saves a bank with only the last stage's router, which chooses among all."""
    bank = shapes.make_bank(flux, tuple(f"e{i}" for i in range(count)))
    last = f"e{count - 1}"
    info = replace(bank.info, routers={last: bank.info.routers[last]})
    tensors = {name: bank.tensors[name].to(dtype) for name in list_shapes(info)}
    return Bank(info, tensors).save(folder / f"{count}.safetensors")


def _make_source_pass(
    shapes: Shapes, flux: Flux, path: Path, dtype: torch.dtype, device: str, kind: type[Attachment] = Attachment
) -> Callable[[], object]:
    attachment = kind(Bank.open(path), cached=False)
    source, inputs = shapes.make_source(Routing(router="final")), shapes.make_inputs(flux, dtype, device)
    host = EmbeddedHost(flux, dtype)
    return lambda: attachment.prepare(host, [source], inputs)


def _measure_process(shapes: Shapes, path: Path, dtype: torch.dtype, device: str) -> int:
    request = json.dumps({"shapes": vars(shapes), "path": str(path), "dtype": str(dtype)[6:], "device": device})
    command = [sys.executable, "-m", "cologen.training.bench.experts", request]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _main(request: str) -> None:
    job = json.loads(request)
    shapes, dtype, device = Shapes(**job["shapes"]), getattr(torch, job["dtype"]), job["device"]
    flux = shapes.make_flux(dtype, device)
    step = _make_source_pass(shapes, flux, Path(job["path"]), dtype, device)
    _reset_peak(device)
    with torch.inference_mode():
        step()
        step()
    sys.stdout.write(str(_read_peak(device)))


def _reset_peak(device: str) -> None:
    """Forgets the peak so far: building the model needs more than running it, and only the run is of interest."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    elif (refs := Path("/proc/self/clear_refs")).exists():
        refs.write_text("5")


def _read_peak(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    if (status := Path("/proc/self/status")).exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource  # which Windows lacks

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    _main(sys.argv[1])
