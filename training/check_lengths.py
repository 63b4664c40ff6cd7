"""Checks of a run that is made longer or shorter: which of its stages can go on."""

from .checkpoint.checkpoints import TrainingError
from .recipes.curriculum import Curriculum
from .run import Run


def check_lengths(run: Run, curriculum: Curriculum, only: str = "") -> None:
    """Refuses, before anything is trained, a length that a stage cannot get any more."""
    for number, stage in enumerate(curriculum.stages):
        if only in ("", stage.name) and not stage.ceiling:
            _check_length(run, curriculum, number)


def _check_length(run: Run, curriculum: Curriculum, number: int) -> None:
    stage, elsewhere = curriculum.stages[number], run.knobs.elsewhere
    finished, saved = _count_done(run, curriculum, number)
    if finished == stage.iterations:
        return
    if stage.iterations < (done := max(finished, saved)):
        raise TrainingError(
            f"The stage {stage.name} has {done} iterations behind it, iterations is {stage.iterations}: set it to "
            f"{done} or more, or {elsewhere}."
        )
    cannot = f"The stage {stage.name} cannot go on from {finished} to {stage.iterations} iterations, because"
    remedy = f"set its iterations back to {finished}, or {elsewhere}."
    numbers = range(number + 1, len(curriculum.stages))
    later = [curriculum.stages[i].name for i in numbers if any(_count_done(run, curriculum, i))]
    if finished and later:
        raise TrainingError(f"{cannot} {', '.join(later)} was trained on what it left: {remedy}")
    if finished and not saved:
        raise TrainingError(
            f"{cannot} no checkpoint of it is left (save_every was 0, or an older version made it): {remedy}"
        )


def _count_done(run: Run, curriculum: Curriculum, number: int) -> tuple[int, int]:
    """Counts a stage's iterations: of what it has left, and of its last checkpoint."""
    stage = curriculum.stages[number]
    checkpoints = run.open_checkpoints(stage, number, curriculum.settings)
    return run.count_finished(stage, number), checkpoints.count_iterations()
