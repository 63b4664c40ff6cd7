"""What can go wrong in an iteration, each in a sentence for the person who trains."""

from .checkpoint.checkpoints import TrainingError

MOST_MISSES = 3
"""Iterations in a row that may run out of memory."""


class NotFinite(TrainingError):
    """Carries the ids of the batch that it happened with, and the name of the file that they belong into."""

    def __init__(self, stage: str, iteration: int, ids: tuple[str, ...]):
        self.ids, self.file = ids, f"not-finite-{stage}.json"
        super().__init__(
            f"The loss of {stage} or its gradient is not finite at iteration {iteration}: look at the samples named in "
            f"{self.file}, or start anew in another folder with a lower rate or in fp32."
        )


class OutOfMemory(TrainingError):
    def __init__(self, misses: int, micro: int):
        super().__init__(
            f"Memory ran out {misses} times in a row (micro is {micro or 'the whole batch'}): set micro smaller or "
            f"checkpointing = true and resume, or start anew with a smaller resolution."
        )


class Stopped(Exception):
    """Someone asked to stop, by a signal perhaps; everything is saved."""

    def __init__(self, sentence: str = "", signal: int = 0):
        self.signal = signal
        super().__init__(sentence)
