"""`cologen` in the tiny world, under torchrun: every process writes down what it saw, and dies where it is told to.

SEEN is a folder. DIES is "RANK STAGE ITERATION SIGNAL": so it goes once, and not again after torchrun's restart. RANK
in a word of the command stands for the process's own.
"""

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path

import pack  # noqa: F401
import torch
from cologen.training.base import compile as compiling
from cologen.training.base import placement as resting
from cologen.training.cli.main import main
from cologen.training.distributed import gradient_reducer as gradient_reducer
from cologen.training.distributed import ranks
from cologen.training.setup import build_run
from cologen.training.stage_trainer import StageTrainer
from tiny_run import tiny_inputs

ATTEMPT = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


class RecordingTrainer(StageTrainer):
    def compute_gradients(self, batches):
        line = [self.stage.name, self.iteration, ranks.rank(), [id for batch in batches for id in batch.ids]]
        with open(Path(os.environ["SEEN"]) / f"{os.getpid()}.jsonl", "a") as file:
            file.write(json.dumps([f"{os.getppid()}-{ATTEMPT}", *line]) + "\n")
        rank, stage, iteration, number = os.environ.get("DIES", "-1 none 0 9").split()
        if (ranks.rank(), self.stage.name, self.iteration) == (int(rank), stage, int(iteration)) and ATTEMPT == "0":
            signal.raise_signal(int(number))
        return super().compute_gradients(batches)


if __name__ == "__main__":
    from cologen.training.coredi import make_trainer

    torch.set_num_threads(1)
    gradient_reducer.PIECE = 4096  # or all of a tiny expert's gradients would be one message
    build_run.open_run_inputs, make_trainer.StageTrainer = tiny_inputs, RecordingTrainer
    resting.compile_blocks = partial(compiling.compile_blocks, backend="eager")
    sys.exit(main([word.replace("RANK", os.environ.get("RANK", "0")) for word in sys.argv[1:]]))
