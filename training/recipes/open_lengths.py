"""From stages of fixed length to stages that end by themselves (stage_length.py)."""

from dataclasses import replace

from .curriculum import Curriculum


def open_lengths(curriculum: Curriculum, ahead: bool = False) -> Curriculum:
    """Lets every stage end by itself, with its iterations as the ceiling."""
    stages = tuple(replace(stage, ceiling=stage.iterations) for stage in curriculum.stages)
    return replace(
        curriculum, stages=stages, settings=replace(curriculum.settings, ahead=ahead or curriculum.settings.ahead)
    )
