"""Training on the FLUX that is loaded: one expert, or a whole curriculum."""

from dataclasses import replace

from comfy_api.latest import io, ui

from ..prw.bank.bank import Bank
from ..prw.tasks import TASKS
from ..training.comfyui.feature_encoders import VAE, encoder_path
from ..training.comfyui.folders import run_folder
from ..training.comfyui.progress import RunProgress
from ..training.comfyui.run import NodeRun, extend_curriculum, list_stages_to_train, train_curriculum
from ..training.comfyui.run_outputs import read_features, read_loss_map, read_samples
from ..training.comfyui.training_data import TrainingData
from ..training.recipes.curriculum import (
    BUDGETS,
    Curriculum,
    Settings,
    Stage,
    list_recipes,
    scale_curriculum,
)
from ..training.recipes.open_lengths import open_lengths
from .inputs.recipe import read_recipe, sample_at_end, select_fields
from .inputs.schema import TRAINING, FeaturesType, make_schema
from .inputs.stage import (
    AHEAD,
    AS_EXPERTS,
    AS_RECIPE,
    AUTO,
    FIXED,
    curriculum_length_knob,
    feature_knobs,
    length_knobs,
    parent_knob,
    rare_stage_knobs,
    source_knobs,
    stage_knobs,
)
from .inputs.training import DATA, MODEL, RUN, bank_input, run_knobs, seed_knob, training_outputs


class CoLoGenTrainStage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenTrainStage",
            display_name="CoLoGen Train Stage",
            category=TRAINING,
            description="Trains one more expert and its router on the loaded FLUX. Cancel saves; queue again to go on.",
            search_aliases=["train lora", "fine-tune", "train expert", "trainer"],
            is_output_node=True,
            inputs=[
                MODEL,
                DATA,
                bank_input("The experts so far; they stay as they are. Empty: this is the first one."),
                io.Combo.Input(
                    "task", options=list(TASKS), tooltip="What the new expert learns. The data must have it."
                ),
                RUN,
                *stage_knobs(),
                *rare_stage_knobs(),
                *run_knobs(),
                seed_knob(),
                *feature_knobs(),
                *source_knobs(),
                *length_knobs(),
                parent_knob(),
            ],
            outputs=[
                *training_outputs(),
                FeaturesType.Output(
                    display_name="features", tooltip="For CoLoGen Features. Nothing where none are to be read."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        data: TrainingData,
        task: str,
        run: str,
        run_seed: int,
        experts: Bank | None = None,
        encoder: str = VAE,
        length: str = FIXED,
        **knobs,
    ) -> io.NodeOutput:
        name = knobs.pop("name").strip() or task
        knobs |= {knob: knobs.get(knob, "").strip() for knob in ("start", "parent")}
        knobs["encoder"] = encoder_path(encoder)
        knobs |= {knob: "" for knob in ("route", "source_time") if knobs.get(knob) == AS_EXPERTS}
        settings = sample_at_end(Settings(**select_fields(Settings, knobs)), knobs["iterations"])
        knobs["ceiling"] = knobs["iterations"] if length == AUTO else 0
        stage = Stage(name=name, task=task, **select_fields(Stage, knobs))
        curriculum = extend_curriculum(experts, stage, settings)
        node_run = NodeRun(run_folder(run), run_seed)
        output = train_and_show(cls, model, data, curriculum, node_run, experts, only=name)
        return io.NodeOutput(*output.result, read_features(node_run.out, curriculum), ui=output.ui)


class CoLoGenTrainCurriculum(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenTrainCurriculum",
            display_name="CoLoGen Train Curriculum",
            category=TRAINING,
            description="Trains all stages of a recipe on the loaded FLUX, an expert each. Cancel saves; queue again to go on.",
            search_aliases=["train all", "trainer", "recipe", "progressive training"],
            is_output_node=True,
            inputs=[
                MODEL,
                DATA,
                bank_input("Experts to begin with; a stage whose expert is among them is passed over."),
                io.String.Input(
                    "recipe",
                    default="small",
                    multiline=True,
                    tooltip=f"The name of a built-in recipe ({', '.join(list_recipes())}), or a recipe's own text in TOML.",
                ),
                io.Combo.Input(
                    "budget",
                    options=list(BUDGETS),
                    tooltip="Share of the recipe's iterations: "
                    + ", ".join(f"{name} {share:.0%}" for name, share in BUDGETS.items()),
                ),
                RUN,
                *run_knobs(),
                seed_knob(),
                curriculum_length_knob(),
            ],
            outputs=training_outputs(),
        )

    @classmethod
    def execute(
        cls,
        model,
        data: TrainingData,
        recipe: str,
        budget: str,
        run: str,
        run_seed: int,
        experts=None,
        length: str = AS_RECIPE,
        **knobs,
    ) -> io.NodeOutput:
        curriculum = read_recipe(recipe)
        if length != AS_RECIPE:
            curriculum = open_lengths(curriculum, ahead=length == AHEAD)
        curriculum = scale_curriculum(curriculum, BUDGETS[budget])
        settings = replace(curriculum.settings, **select_fields(Settings, knobs))
        longest = max(stage.iterations for stage in curriculum.stages)
        curriculum = replace(curriculum, settings=sample_at_end(settings, longest))
        return train_and_show(cls, model, data, curriculum, NodeRun(run_folder(run), run_seed), experts)


def train_and_show(
    cls, model, data: TrainingData, curriculum: Curriculum, run: NodeRun, bank: Bank | None, only: str = ""
):
    """Trains, and makes the outputs and the preview that both nodes share."""
    stages = list_stages_to_train(curriculum, bank, only)
    run = run._replace(listeners=[RunProgress(stages, read_loss_map(run.out)["loss"])])
    bank = train_curriculum(model, data, curriculum, run, bank, only)
    samples = read_samples(run.out)
    return io.NodeOutput(bank, read_loss_map(run.out), samples, ui=ui.PreviewImage(samples, cls=cls))
