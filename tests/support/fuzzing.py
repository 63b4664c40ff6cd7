"""Attempts by the thousand: each ends right, or in one sentence of ours, within a second and 256 MiB; else it failed.

FUZZ is how many attempts a test makes (else the few of CI), FUZZ_FIRST the first one's number, which decides all it does.
"""

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cologen.training.errors import TrainingError
from pack import ROOT

SECONDS, MEBIBYTES = 1.0, 256
SENTENCE = 2000
"""Characters of the longest sentence."""
SHOWN = 20
"""Failures that are shown."""
OURS = tuple(str(ROOT / room) for room in ("prw", "training", "nodes"))


class Fuzz:
    """Counts attempts, sentences and failures."""

    def __init__(self, record: Callable[[str, str], None]):
        self.record = record
        """Takes a name and the counts, for the end of the tests' run."""
        self.attempts, self.refused, self.failures = 0, 0, []

    def run(self, few: int, attempt: Callable[[np.random.Generator], None], share: float = 1.0) -> None:
        """Makes the attempts, each with numbers of its own; `share` of FUZZ."""
        first = int(os.environ.get("FUZZ_FIRST", "0"))
        count = round(int(os.environ["FUZZ"]) * share) if "FUZZ" in os.environ else few
        for number in range(first, first + count):
            problem = self.judge(attempt, number)
            if problem and "took" in problem:  # by another's fault, or again
                problem = self.judge(attempt, number)
            self.attempts += 1
            if problem:
                self.failures.append(f"attempt {number}: {problem}")
        self.record("fuzz", f"{self.attempts} attempts, {self.refused} refused, {len(self.failures)} failures")
        assert not self.failures, f"{len(self.failures)} of {self.attempts}:\n" + "\n".join(self.failures[:SHOWN])

    def judge(self, attempt: Callable[[np.random.Generator], None], number: int) -> str:
        """What is wrong with an attempt's outcome, "" if nothing is."""
        problem, refused, before = "", False, reset_peak()
        began = time.process_time()
        try:
            attempt(np.random.default_rng(number))
        except AssertionError as error:
            problem = f"a wrong result: {error}\n{last_frames(error)}"
        except (ValueError, TrainingError, OSError) as error:
            refused, problem = True, describe(error)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}\n{last_frames(error)}"
        seconds, grown = time.process_time() - began, (read_memory("VmHWM") - before) / 1024
        self.refused += refused
        if not problem and seconds > SECONDS:
            problem = f"it took {seconds:.1f} s of the processor"
        if not problem and grown > MEBIBYTES:
            problem = f"it took {grown:.0f} MiB"
        return problem


def describe(error: Exception) -> str:
    """What is wrong with a sentence: not ours, not one line, or not to be shown on a terminal."""
    text, raised = str(error), traceback.extract_tb(error.__traceback__)[-1].filename
    own = type(error).__module__.lower().startswith("cologen") or type(error) in (ValueError, FileNotFoundError)
    if not own or not raised.startswith(OURS):
        return f"not an error of ours, {type(error).__name__}: {text[:200]}\n{last_frames(error)}"
    if "\n" in text or not text.isprintable() or not 10 < len(text) < SENTENCE:
        return f"no sentence: {text[:300]!r}\n{last_frames(error)}"
    return ""


def last_frames(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-5:]
    return "\n".join(f"    {Path(frame.filename).name}:{frame.lineno} {frame.line}" for frame in frames)


def read_memory(key: str) -> int:
    """KiB of this process, where the system tells (else 0)."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(key)), 0)


def reset_peak() -> int:
    """Forgets the largest size so far; returns the size now, in KiB."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return read_memory("VmHWM")
    return read_memory("VmRSS")
