"""Training on the FLUX that is loaded: one expert, or a whole curriculum."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor

from ..prw.bank.bank import Bank
from ..prw.coredi.features import SUFFIX, Features
from ..prw.tasks import TASKS
from ..training.checkpoint.run_folder import RunFolder, format_label
from ..training.comfyui.feature_encoders import VAE, encoder_path
from ..training.comfyui.folders import run_folder
from ..training.comfyui.progress import Watch
from ..training.comfyui.run import NodeRun, extend_curriculum, train_curriculum
from ..training.comfyui.training_data import TrainingData
from ..training.monitor.log import LOG_FILE, read_log
from ..training.monitor.samples import SAMPLES_FOLDER as SAMPLES
from ..training.recipes.curriculum import (
    BUDGETS,
    Curriculum,
    Settings,
    Stage,
    list_recipes,
    load_curriculum,
    parse_curriculum,
    scale_curriculum,
)
from .inputs.schema import TRAINING, FeaturesType, schema
from .inputs.training import (
    DATA,
    MODEL,
    RUN,
    bank_input,
    chosen,
    feature_knobs,
    outputs,
    rare_stage_knobs,
    run_knobs,
    seed_knob,
    stage_knobs,
)

SHOWN = 16
"""Samples that a run shows: the last ones."""


class CoLoGenTrainStage(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
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
            ],
            outputs=[
                *outputs(),
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
        **knobs,
    ) -> io.NodeOutput:
        name, knobs["start"] = knobs.pop("name").strip() or task, knobs["start"].strip()
        knobs["encoder"] = encoder_path(encoder)
        settings = with_last_sample(Settings(**chosen(Settings, knobs)), knobs["iterations"])
        stage = Stage(name=name, task=task, **chosen(Stage, knobs))
        curriculum = extend_curriculum(experts, stage, settings)
        shown = trained(cls, model, data, curriculum, run, run_seed, experts, only=name)
        return io.NodeOutput(*shown.result, left_features(run_folder(run), curriculum), ui=shown.ui)


class CoLoGenTrainCurriculum(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
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
            ],
            outputs=outputs(),
        )

    @classmethod
    def execute(
        cls, model, data: TrainingData, recipe: str, budget: str, run: str, run_seed: int, experts=None, **knobs
    ) -> io.NodeOutput:
        curriculum = scale_curriculum(recipe_of(recipe), BUDGETS[budget])
        settings = replace(curriculum.settings, **chosen(Settings, knobs))
        longest = max(stage.iterations for stage in curriculum.stages)
        curriculum = replace(curriculum, settings=with_last_sample(settings, longest))
        return trained(cls, model, data, curriculum, run, run_seed, experts)


def recipe_of(text: str) -> Curriculum:
    """Never a path, nor one within: a graph may come from anywhere."""
    name = text.strip()
    found = load_curriculum(name) if name in list_recipes() else parse_curriculum(text, "The recipe")
    settings = replace(found.settings, encoder=encoder_path(found.settings.encoder or VAE))
    return replace(found, settings=settings, encoders={})  # the graph's own encode


def with_last_sample(settings: Settings, iterations: int) -> Settings:
    """0 samples only at the end, which is due whenever anything is."""
    return settings if settings.sample_every else replace(settings, sample_every=iterations)


def trained(cls, model, data, curriculum: Curriculum, run: str, seed: int, bank: Bank | None, only: str = ""):
    out = run_folder(run)
    watch = Watch([stage for stage in curriculum.stages if only in ("", stage.name)], loss_map(out)["loss"])
    bank = train_curriculum(model, data, curriculum, NodeRun(out, seed, [watch]), bank, only)
    shown = sheet(samples(out))
    return io.NodeOutput(bank, loss_map(out), shown, ui=ui.PreviewImage(shown, cls=cls))


def left_features(out: Path, curriculum: Curriculum) -> Features | None:
    """What the last stage left beside its bank."""
    number = len(curriculum.stages) - 1
    path = RunFolder(out).stage_path(format_label(curriculum.stages[number], number) + SUFFIX)
    return Features.open(path) if path.exists() else None


def loss_map(out: Path) -> dict[str, list]:
    """The host's kind, with the whole log beside it."""
    lines = list(read_log(out / LOG_FILE))
    return {"loss": [line["task"] for line in lines if "task" in line], "log": lines}


def samples(out: Path) -> list[np.ndarray]:
    """The last ones, oldest first: NUMBER-STAGE-ITERATION.png."""
    paths = sorted((out / SAMPLES).glob("[0-9]*.png"), key=lambda path: (int(path.name.split("-")[0]), path.name))
    return [np.array(Image.open(path).convert("RGB")) for path in paths[-SHOWN:]]


def sheet(grids: list[np.ndarray]) -> Tensor:
    """A batch of grids; a later stage's has more rows, so that the others get black ones."""
    grids = grids or [np.zeros((16, 16, 3), dtype=np.uint8)]
    height, width = (max(grid.shape[side] for grid in grids) for side in (0, 1))
    full = [np.pad(grid, ((0, height - grid.shape[0]), (0, width - grid.shape[1]), (0, 0))) for grid in grids]
    return torch.from_numpy(np.stack(full)).float() / 255
