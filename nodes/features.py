"""Features that an expert learned beside its task, read by the pictures that it draws."""

from comfy_api.latest import io

from ..prw.comfyui.feature_sampling import FeatureReader
from ..prw.coredi.features import Features
from ..training.comfyui.folders import CONNECTED, feature_path, list_features, read_stamp
from .inputs.schema import SAMPLING, FeaturesType, make_schema, slider


class CoLoGenFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenFeatures",
            display_name="CoLoGen Features",
            category=SAMPLING,
            description="Lets pictures read what their expert learned besides, with features self or coredi in CoLoGen Train "
            "Stage. For any sampler. On the toy world experts of self drew better with it than without, and no better "
            "than experts without features.",
            search_aliases=["coredi", "redi", "representation guidance", "self conditioning", "dino"],
            inputs=[
                io.Model.Input("model", tooltip="After CoLoGen Apply, with the experts of the same training."),
                io.Combo.Input(
                    "file",
                    options=[CONNECTED, *list_features()],
                    tooltip="What a stage left beside its experts, in models/cologen or a run; not asked where features are "
                    "connected.",
                ),
                slider(
                    "weight",
                    1.0,
                    0,
                    4,
                    "1 reads them. More leads away from the picture that does not, for twice the time. 0 leaves them out.",
                ),
                FeaturesType.Input("features", optional=True, tooltip="From CoLoGen Train Stage."),
            ],
            outputs=[io.Model.Output(tooltip="For the sampler.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str = CONNECTED, **_):
        return file if file == CONNECTED else read_stamp(feature_path(file))

    @classmethod
    def execute(cls, model, file: str, weight: float, features: Features | None = None) -> io.NodeOutput:
        if features is None and file == CONNECTED:
            raise ValueError(
                "There are no features, expected some: connect those of CoLoGen Train Stage, trained with features self or "
                "coredi, or choose a file of its; runs that were finished before this node existed left none."
            )
        return io.NodeOutput(FeatureReader(features or Features.open(feature_path(file)), weight).attach(model))
