"""A training run that stops at a given iteration, and what it has left on the disk."""

from cologen.training.listener import Listener
from cologen.training.monitor.log import read_log


class StopAt(Listener):
    """Asks to stop after so many iterations, or breaks off there as a crash does."""

    def __init__(self, stage: str, iteration: int, crash: BaseException | None = None):
        self.where, self.crash, self.reached = (stage, iteration), crash, False

    def on_iteration(self, trainer, step):
        if (trainer.stage.name, trainer.iteration) == self.where:
            self.reached = True
            if self.crash:
                raise self.crash

    def wants_stop(self):
        return self.reached and self.crash is None


def saved_files(out):
    """All but checkpoints, whose metadata safetensors writes in any order."""
    paths = (path.relative_to(out) for path in out.rglob("*.safetensors"))
    return {path: (out / path).read_bytes() for path in paths if path.parts[0] != "checkpoints"}


def logged_iterations(out):
    return [{key: value for key, value in line.items() if key != "seconds"} for line in read_log(out / "log.jsonl")]
