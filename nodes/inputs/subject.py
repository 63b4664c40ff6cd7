"""Knobs of CoLoGen Train Subject, and the recipe that they make."""

from typing import Any

from comfy_api.latest import io

from ...prw.personalization.concept import BLOCK_KINDS
from ...training.comfyui.folders import SUBJECT
from ...training.recipes.curriculum import Curriculum, Settings, Stage
from ...training.recipes.settings import OPTIMIZERS
from ...training.recipes.subject import OWN, Subject, SubjectRecipe
from ...training.schedules import SCHEDULES
from .recipe import sample_at_end, select_fields
from .schema import advanced, float_knob, int_knob


def subject_knobs() -> list:
    """Lists what most people set."""
    return [
        io.Boolean.Input(
            "ico",
            default=True,
            tooltip="Each photo gets vectors of its own for its place, pose and light, so that these do not become part of "
            "the subject. They are thrown away in the end. On the toy world it is kept better so, and prompts are "
            "followed less, unless CoLoGen Personal Guider shares the steps.",
        ),
        int_knob(
            "iterations", 800, 1, 10**6, "How long to train. 600 to 900 as a rule; longer is truer and less free."
        ),
        int_knob("batch", 1, 1, 4096, "Photos that each update looks at."),
        int_knob("rank", 16, 1, 1024, "Size of the LoRA."),
        float_knob("alpha", 16.0, 0, 4096, 1.0, "How strongly the LoRA acts while it learns: alpha / rank scales it."),
        float_knob("rate", 1e-4, 0, 10, 1e-6, "How far each update of the LoRA goes; vectors go faster by the factors below."),
        int_knob("resolution", 512, 64, 2048, "Photos are cut to squares of this side. Twice takes four times the time."),
        io.String.Input(
            "prompts",
            default="photo of a dog on the beach",
            multiline=True,
            tooltip="A line each: what samples are drawn of on the way.",
        ),
    ]  # fmt: skip


def rare_subject_knobs() -> list:
    """Lists what few people set."""
    return [
        io.String.Input(
            "caption", default="photo of a {}", tooltip="What the photos show; the noun comes where the braces are.", **advanced()
        ),
        int_knob("tokens", 2, 1, 256, "Vectors that the subject gets in the text.", **advanced()),
        int_knob("contexts", 4, 1, 256, "Vectors that each photo gets while training.", **advanced()),
        float_knob("token_rate", 1.0, 0, 1000, 0.1, "How much faster the subject's vectors learn than the LoRA.", **advanced()),
        float_knob("context_rate", 10.0, 0, 1000, 0.1, "How much faster the photos' own vectors learn.", **advanced()),
        io.Combo.Input(
            "where",
            options=list(BLOCK_KINDS)[::-1],
            tooltip="all bends keys and values of text, and in later blocks of the picture, too; text is gentler.",
            **advanced(),
        ),
        float_knob("class_share", 0.3, 0, 1, 0.01, "Share of updates with class_photos, where some are connected.", **advanced()),
        io.Combo.Input("optimizer", options=list(OPTIMIZERS), tooltip="adamw is steady; prodigy finds its own rate (set rate to 1) and must be installed: prodigyopt.", **advanced()),
        io.Combo.Input("schedule", options=list(SCHEDULES), tooltip="How the rate falls towards the end.", **advanced()),
        float_knob("guidance", 1.0, 0, 100, 0.1, "What a dev model is told while it trains; schnell and klein ignore it.", **advanced()),
        float_knob("time_shift", 1.0, 0.01, 100, 0.1, "Above 1 it trains more on near noise.", **advanced()),
    ]  # fmt: skip


def make_subject_recipe(knobs: dict[str, Any], has_class_photos: bool) -> SubjectRecipe:
    """Makes the recipe of a graph: an input that is named like a field of Stage,
    Settings or Subject becomes that field."""
    settings = Settings(text_drop=0.0, **select_fields(Settings, knobs))
    share = knobs["class_share"] if has_class_photos else 0.0
    stage = Stage(name=SUBJECT, task=OWN, replay=share, **select_fields(Stage, knobs))
    prompts = tuple(line.strip() for line in knobs["prompts"].splitlines() if line.strip())
    fields: dict[str, Any] = {**select_fields(Subject, knobs), "noun": knobs["noun"].strip(), "prompts": prompts}
    return SubjectRecipe(Curriculum(sample_at_end(settings, stage.iterations), (stage,)), Subject(**fields))
