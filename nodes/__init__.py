"""ComfyUI's view of the pack: the one list of its nodes."""

from comfy_api.latest import ComfyExtension, io

from ..training.comfyui.folders import register_folder
from .attention_map import CoLoGenAttentionMap
from .best_of import CoLoGenBestOf
from .concept import CoLoGenConceptTokens
from .control_map import CoLoGenControlMap
from .crop_stitch import CoLoGenCropForInpaint, CoLoGenStitch
from .dual_branch import CoLoGenBranchMap, CoLoGenDualBranch
from .evaluate import CoLoGenEvaluate
from .experts import CoLoGenApply, CoLoGenExperts, CoLoGenLoadExperts, CoLoGenSaveExperts
from .features import CoLoGenFeatures
from .flux import CoLoGenLoadFlux
from .grounding import CoLoGenGround, CoLoGenReadGrounding
from .inpaint import CoLoGenInpaint, CoLoGenPasteBack
from .learned_keys import CoLoGenLearnedKeys
from .library import CoLoGenImportExperts, CoLoGenInspectExperts, CoLoGenMergeExperts
from .marked_prompt import CoLoGenMarkedPrompt
from .options import CoLoGenExpertSchedule, CoLoGenRouting, CoLoGenSourceOptions
from .personal_guider import CoLoGenPersonalGuider
from .route_map import CoLoGenRouteMap
from .source import CoLoGenSource
from .tasks import CoLoGenControl, CoLoGenEdit, CoLoGenSubject
from .toy_question import CoLoGenToyQuestion
from .train_subject import CoLoGenTrainSubject
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
    CoLoGenInpaint,
    CoLoGenPasteBack,
    CoLoGenControl,
    CoLoGenSubject,
    CoLoGenEdit,
    CoLoGenGround,
    CoLoGenReadGrounding,
    CoLoGenSourceOptions,
    CoLoGenRouting,
    CoLoGenExpertSchedule,
    CoLoGenControlMap,
    CoLoGenMarkedPrompt,
    CoLoGenDualBranch,
    CoLoGenBranchMap,
    CoLoGenPersonalGuider,
    CoLoGenEvaluate,
    CoLoGenBestOf,
    CoLoGenTrainSubject,
    CoLoGenConceptTokens,
    CoLoGenFeatures,
    CoLoGenLearnedKeys,
    CoLoGenExperts,
    CoLoGenCropForInpaint,
    CoLoGenStitch,
    CoLoGenAttentionMap,
]


class CoLoGenExtension(ComfyExtension):
    async def on_load(self) -> None:
        register_folder()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
