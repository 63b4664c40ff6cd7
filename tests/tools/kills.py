"""Kills a training run at random moments, lets it go on, and compares what it leaves with an uninterrupted run.

`python tests/tools/kills.py 100 'optimizer="prodigy"' ema=0.9` kills a hundred times, with these settings.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import support_path  # noqa: F401
import torch
from cologen.training.monitor.log import Log, read_log
from cologen.training.recipes.read_recipe import parse_toml
from stopped_run import saved_files
from tiny_run import tiny_curriculum, tiny_host, tiny_run


def train(out: Path, settings: dict) -> int:
    """In a process of its own, which nothing but imports has run in before: forking is safe."""
    child = os.fork()
    if not child:
        status = 1
        try:
            torch.set_num_threads(1)
            tiny_run(out, tiny_curriculum(iterations=8, **settings), tiny_host(), [Log(out)]).train()
            status = 0
        except Exception as error:
            sys.stderr.write(f"{error}\n")
        finally:
            os._exit(status)
    return child


def left(out: Path) -> dict:
    """All that must not depend on kills."""
    files = saved_files(out)
    log = [{key: value for key, value in line.items() if key != "seconds"} for line in read_log(out / "log.jsonl")]
    return {**files, "log": log, "strays": sorted(out.rglob(".*"))}


def killed(out: Path, settings: dict, wanted: int, longest: float, rng: random.Random) -> int:
    """Runs until it is done, and kills it up to so many times on the way; gives how often it did."""
    kills = 0
    while True:
        child = train(out, settings)
        if kills < wanted:
            time.sleep(rng.uniform(0, longest))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "a run that went on failed"
            return kills
        kills += 1


def main(kills: int, settings: dict, seed: int = 0) -> dict:
    rng, done, runs, folder = random.Random(seed), 0, 0, Path(tempfile.mkdtemp())
    try:
        began = time.monotonic()
        os.waitpid(train(folder / "whole", settings), 0)
        whole, longest = left(folder / "whole"), time.monotonic() - began
        assert len(whole["log"]) == 24 and not whole["strays"]
        while done < kills:
            out = folder / str(runs)
            done += killed(out, settings, kills - done, longest / 2, rng)
            found = left(out)
            for name in whole:
                assert found[name] == whole[name], f"{name} differs after kills"
            assert found.keys() == whole.keys()
            shutil.rmtree(out)
            runs += 1
        return {"kills": done, "runs": runs, "seconds": round(time.monotonic() - began, 1)}
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    given = parse_toml("\n".join(sys.argv[2:]))
    sys.stdout.write(json.dumps(main(int(sys.argv[1]), given)) + "\n")
