"""Checks what of a stage several processes can share."""

from .checkpoint.checkpoints import TrainingError
from .distributed import ranks
from .recipes.curriculum import Settings, Stage


def check_batch_size(stage: Stage) -> None:
    if stage.batch % ranks.world_size():
        raise TrainingError(
            f"The batch of {stage.name} is {stage.batch}, which {ranks.world_size()} processes cannot share equally: set a "
            f"multiple."
        )


def check_sharded_features(stage: Stage, settings: Settings) -> None:
    if stage.features == "self" and ranks.is_sharded(settings):
        raise TrainingError(
            f'{stage.name} has features = "self", which runs the base more often for some samples than for others, '
            f"but blocks that processes share come for all at once: set shard = false, or features = "
            f'"coredi".'
        )
