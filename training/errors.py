"""What can end a run, each in a sentence for the person who trains."""

from ..prw.files.errors import show_as_ours
from .checkpoint.checkpoints import TrainingError

MAX_SKIPPED = 3
"""Iterations in a row that may run out of memory."""


@show_as_ours
class NonFiniteLoss(TrainingError):
    """Carries the ids of the samples that it happened with, and the name of the file for them."""

    def __init__(self, stage: str, iteration: int, ids: tuple[str, ...]):
        self.ids, self.file = ids, f"not-finite-{stage}.json"
        super().__init__(
            f"The loss of {stage} or its gradient is not finite at iteration {iteration}: look at the samples named in "
            f"{self.file}, or start anew in another folder with a lower rate or in fp32."
        )


@show_as_ours
class OutOfMemory(TrainingError):
    def __init__(self, misses: int, micro: int):
        super().__init__(
            f"Memory ran out {misses} times in a row (micro is {micro or 'the whole batch'}): set micro smaller or "
            f"checkpointing = true and resume, or start anew with a smaller resolution."
        )


@show_as_ours
class RunStopped(Exception):
    """A listener asked to stop, perhaps because of a signal; everything is saved."""

    def __init__(self, sentence: str = "", signal: int = 0):
        self.signal = signal
        super().__init__(sentence)
