"""ComfyUI's view of the pack: the one list of its nodes."""

from comfy_api.latest import ComfyExtension, io

from .experts import CoLoGenApply, CoLoGenLoadExperts, CoLoGenSaveExperts
from .flux import CoLoGenLoadFlux
from .folders import register_folder
from .library import CoLoGenImportExperts, CoLoGenInspectExperts, CoLoGenMergeExperts
from .route_map import CoLoGenRouteMap
from .source import CoLoGenSource
from .toy_question import CoLoGenToyQuestion
from .training import CoLoGenTrainCurriculum, CoLoGenTrainStage
from .training_data import CoLoGenTrainingData
from .usage_plot import CoLoGenUsagePlot

NODES: list[type[io.ComfyNode]] = [
    CoLoGenLoadFlux,
    CoLoGenLoadExperts,
    CoLoGenApply,
    CoLoGenSource,
    CoLoGenSaveExperts,
    CoLoGenRouteMap,
    CoLoGenTrainingData,
    CoLoGenTrainStage,
    CoLoGenTrainCurriculum,
    CoLoGenUsagePlot,
    CoLoGenImportExperts,
    CoLoGenMergeExperts,
    CoLoGenInspectExperts,
    CoLoGenToyQuestion,
]


class CoLoGenExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_folder()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
