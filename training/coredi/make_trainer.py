"""Which trainer a stage gets."""

from pathlib import Path

from ...prw.bank.bank import Bank
from ..checkpoint.checkpoints import TrainingError
from ..data.encoded.dataset import MemoryDataset
from ..distributed import ranks
from ..encoders.protocol import Encoders
from ..stage_context import StageContext
from ..stage_trainer import StageTrainer
from .encoder_features import load_features
from .trainer import FeatureTrainer


def make_stage_trainer(context: StageContext, bank: Bank, encoders: Encoders, path: Path) -> StageTrainer:
    """Makes the trainer that a stage asks for: with features or, where they are off, without."""
    stage, dataset = context.stage, context.datasets[context.stage.task]
    if stage.features == "off":
        return StageTrainer(context, bank)
    if not isinstance(dataset, MemoryDataset):
        raise TrainingError(
            f"{stage.name} learns features of pictures that lie in a cache, expected them in memory: leave cache out "
            f'of its data, or set features = "off".'
        )
    with ranks.main_process_first():
        features = load_features(context.host, dataset, encoders, context.settings.encoder, path / "features")
    return FeatureTrainer(context, bank, features)
