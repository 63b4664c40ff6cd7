"""Faults in training runs, on one process and on two: afterwards the run goes on to what an undisturbed one leaves.

`python tests/tools/chaos.py 200 7` makes two hundred faults, drawn from seed 7, and prints how often each was made,
how many runs ended in a sentence, and failures (none).
"""

import errno
import json
import os
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from cologen.training.distributed import ranks
from cologen.training.monitor.log import Log
from kills import left  # also puts tests/support on the path
from tiny_run import tiny_curriculum, tiny_host, tiny_run

SENTENCE, GONE = 3, 77
"""Exit codes: an error in one line, an end at a file operation."""
ITERATIONS, PATIENCE = 6, 120
OPERATIONS = ("replace", "fsync", "unlink")
"""Of the module os: what a file is made by, and cleared away."""
Prepare = Callable[[random.Random], None]
"""Makes a fault ready within the process that shall have it."""


def at_call(number: int, do: Callable[[], None], after: bool = False, always: bool = False) -> None:
    """Does something at the so manieth file operation (from then on: always), before it or after it."""
    count = 0

    def wrap(call):
        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            due = count >= number if always else count == number
            if due and not after:
                do()
            result = call(*args, **kwargs)
            if due and after:
                do()
            return result

        return wrapped

    for name in OPERATIONS:
        setattr(os, name, wrap(getattr(os, name)))


def fail(code: int) -> None:
    raise OSError(code, os.strerror(code))


def end_at_file_operation(rng: random.Random) -> None:
    at_call(rng.randint(1, 90), lambda: os._exit(GONE), after=rng.random() < 0.5)


def fill_disk(rng: random.Random) -> None:
    """No file may grow beyond a size, or nothing more reaches the disk."""
    if rng.random() < 0.5:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = rng.choice((0, 100, 4096, 20_000, 60_000))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    else:
        at_call(rng.randint(1, 60), lambda: fail(errno.ENOSPC), always=True)


def make_read_only(rng: random.Random) -> None:
    at_call(rng.randint(1, 60), lambda: fail(errno.EROFS), always=True)


def jump_in_time(rng: random.Random) -> None:
    """The clock goes to and fro by years, and the run ends at a file operation."""
    clock = time.time
    time.time = lambda: clock() + rng.uniform(-1e9, 1e9)
    end_at_file_operation(rng)


FAULTS: dict[str, tuple[Prepare, int]] = {
    "kill": (lambda rng: None, 3),
    "file operation": (end_at_file_operation, 3),
    "full disk": (fill_disk, 2),
    "read-only disk": (make_read_only, 1),
    "clock": (jump_in_time, 1),
    "torn checkpoint": (end_at_file_operation, 2),
    "two runs": (lambda rng: None, 1),
}
"""How a fault is made ready, and how often it is drawn."""


def start(out: Path, world: int, prepare: Prepare | None = None, seed: int = 0) -> list[int]:
    """Starts a run's processes; the first of them gets the fault."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start_process(out, world, rank, port, prepare if rank == 0 else None, seed) for rank in range(world)]


def start_process(out: Path, world: int, rank: int, port: int, prepare: Prepare | None, seed: int) -> int:
    child = os.fork()
    if not child:
        code = 1
        try:
            torch.set_num_threads(1)
            if world > 1:
                names = {"TORCHELASTIC_RUN_ID": "chaos", "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world}
                address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                os.environ.update({key: str(value) for key, value in {**names, **address}.items()})
            if prepare:
                prepare(random.Random(seed))
            with ranks.join("cpu"):
                curriculum = tiny_curriculum(iterations=ITERATIONS, ema=0.9)
                tiny_run(out, curriculum, tiny_host(), [Log(out)]).train()
            code = 0
        except (ValueError, OSError, RuntimeError) as error:  # what the terminal prints
            code = SENTENCE if len(str(error).splitlines()) == 1 or world > 1 else 1
            if code == 1:
                sys.stderr.write(f"no sentence: {error}\n")
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(code)
    return child


def wait(children: list[int], deadline: float) -> list[int]:
    """Their exit codes; when one is lost the others are ended, as torchrun does."""
    codes: dict[int, int] = {}
    while len(codes) < len(children):
        for child in [child for child in children if child not in codes]:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                codes[child] = os.waitstatus_to_exitcode(status)
                if codes[child]:
                    end([other for other in children if other not in codes])
        if time.monotonic() > deadline:
            end([child for child in children if child not in codes])
            raise AssertionError("a run hangs")
        time.sleep(0.002)
    return [codes[child] for child in children]


def end(children: list[int]) -> None:
    for child in children:
        os.kill(child, signal.SIGKILL)


def tear(out: Path, rng: random.Random) -> None:
    """Damages the newest checkpoint, as a disk does that lost power."""
    files = sorted((out / "checkpoints").glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    if not files:
        return
    data = bytearray(files[-1].read_bytes())
    at, way = rng.randrange(len(data)), rng.randrange(4)
    if way == 0:
        data = data[:at]
    elif way == 1:
        data[at] ^= 1 << rng.randrange(8)
    elif way == 2:
        data[at:] = bytes(len(data) - at)
    else:
        data = bytearray(rng.randbytes(300))
    files[-1].write_bytes(data)


def disturb(fault: str, out: Path, world: int, rng: random.Random, longest: float) -> int:
    """One fault; returns how many of its runs ended in a sentence."""
    prepare, deadline = FAULTS[fault][0], time.monotonic() + PATIENCE
    runs = [start(out, world, prepare, rng.randrange(1 << 30)) for _ in range(2 if fault == "two runs" else 1)]
    if fault == "kill":
        time.sleep(rng.uniform(0, longest))
        os.kill(rng.choice(runs[0]), signal.SIGKILL)
    codes = [code for children in runs for code in wait(children, deadline)]
    if wrong := [code for code in codes if code not in (0, SENTENCE, GONE, -signal.SIGKILL)]:
        raise AssertionError(f"exit codes {wrong}")
    if fault == "torn checkpoint":
        tear(out, rng)
    if fault == "clock":
        for path in out.rglob("*"):
            os.utime(path, (rng.uniform(0, 4e9),) * 2)
    return codes.count(SENTENCE)


def go_on(out: Path, world: int) -> int:
    """Without faults to the end; a checkpoint that cannot be read is deleted, as its sentence says. Returns sentences."""
    for sentences in range(4):
        codes = wait(start(out, world), time.monotonic() + PATIENCE)
        if not any(codes):
            return sentences
        if SENTENCE not in codes:
            raise AssertionError(f"a run that goes on ends with {codes}")
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
    raise AssertionError("a run does not go on")


def compare(found: dict, whole: dict, with_log: bool) -> None:
    for name in whole.keys() - (set() if with_log else {"log"}):
        if found.get(name) != whole[name]:
            raise AssertionError(f"{name} differs")


def main(wanted: int, seed: int = 0) -> dict:
    rng, folder, began = random.Random(seed), Path(tempfile.mkdtemp()), time.monotonic()
    made, sentences, failures, whole, longest, runs = Counter(), 0, [], {}, {}, 0
    try:
        for world in (1, 2):
            before = time.monotonic()
            go_on(folder / f"whole-{world}", world)
            longest[world], whole[world] = time.monotonic() - before, left(folder / f"whole-{world}")
            assert len(whole[world]["log"]) == 3 * ITERATIONS
        while sum(made.values()) < wanted:
            world, out, faults = rng.choice((1, 1, 1, 2)), folder / str(runs), []
            runs += 1
            try:
                for _ in range(rng.randint(1, 4)):
                    names = [name for name in FAULTS if world == 1 or name != "two runs"]
                    faults += rng.choices(names, [FAULTS[name][1] for name in names])
                    made[f"{faults[-1]}, {world}"] += 1
                    sentences += disturb(faults[-1], out, world, rng, longest[world] / 2)
                sentences += go_on(out, world)
                # what two runs and a full disk did to the log is told, not mended
                compare(left(out), whole[world], not {"two runs", "full disk", "read-only disk"} & set(faults))
            except AssertionError as error:
                failures.append(f"run {runs - 1} on {world} after {', '.join(faults)}: {error}")
            shutil.rmtree(out, ignore_errors=True)
        counts = {
            "faults": sum(made.values()),
            "runs": runs,
            "sentences": sentences,
            "made": dict(sorted(made.items())),
        }
        return {**counts, "failures": failures, "seconds": round(time.monotonic() - began, 1)}
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    report = main(*map(int, sys.argv[1:]))
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    sys.exit(bool(report["failures"]))
