"""Fine-tuning on the FLUX that is loaded: one's own subject from a few photos."""

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..prw.fit_image import to_bytes, to_rgb
from ..prw.personalization.concept import BLOCK_KINDS
from ..training.comfyui.folders import SUBJECT, run_folder
from ..training.comfyui.progress import Watch
from ..training.comfyui.run import NodeRun
from ..training.comfyui.subject import make_subject_datasets, train_concept, train_subject_expert
from ..training.recipes.curriculum import OPTIMIZERS, Curriculum, Settings, Stage
from ..training.recipes.subject import OWN, Subject, SubjectRecipe
from ..training.schedules import SCHEDULES
from ..training.subject.expert import make_expert_stage, make_photo_pairs
from .inputs.schema import TRAINING, BankType, ConceptType, LossType, advanced, schema
from .inputs.training import MODEL, RUN, bank_input, chosen, run_knobs, seed_knob
from .inputs.training import float_knob as number
from .inputs.training import int_knob as count
from .training import loss_map, samples, sheet, with_last_sample
from .training_data import make_host_encoders


class CoLoGenTrainSubject(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CoLoGenTrainSubject",
            display_name="CoLoGen Train Subject",
            category=TRAINING,
            description="Teaches the loaded FLUX one subject of your own from 3 to 10 photos. Cancel saves; queue again to go on.",
            search_aliases=[
                "dreambooth",
                "train lora",
                "textual inversion",
                "ico",
                "custom diffusion",
                "personalization",
            ],
            is_output_node=True,
            is_input_list=True,  # photos of different sizes come as a list
            inputs=[
                MODEL,
                io.Vae.Input("vae", tooltip="FLUX's VAE."),
                io.Clip.Input("clip", tooltip="FLUX's text encoders, CLIP-L and T5-XXL. They are not trained."),
                io.Image.Input(
                    "photos", tooltip="3 to 10 photos of it, in different places and poses. Each is cut to a square."
                ),
                io.String.Input("noun", default="dog", tooltip="What kind of thing it is, as prompts will say it."),
                RUN,
                *subject_knobs(),
                *rare_knobs(),
                *run_knobs(),
                seed_knob(),
                io.Image.Input(
                    "class_photos",
                    optional=True,
                    tooltip="Pictures of others of its kind, so that FLUX does not forget them (prior preservation).",
                ),
                bank_input(
                    "A bank that gets an expert of the subject as well, which reads a photo of it as a source. It takes as "
                    "long again, two photos at least, and more memory."
                ),
            ],
            outputs=[
                ConceptType.Output(
                    display_name="concept",
                    tooltip="For CoLoGen Concept Tokens, which also finds it by the run's name. On disk it is a LoRA with more.",
                ),
                LossType.Output(display_name="loss", tooltip="For Plot Loss Graph."),
                io.Image.Output(
                    display_name="samples", tooltip="What the run drew on the way: photos above, the prompts below."
                ),
                BankType.Output(
                    display_name="experts",
                    tooltip="The bank with one more expert, called like the run, for CoLoGen Apply; nothing, if none came in.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: list,
        vae: list,
        clip: list,
        photos: list,
        class_photos: list | None = None,
        experts: list | None = None,
        **lists: list,
    ) -> io.NodeOutput:
        knobs = {name: values[0] for name, values in lists.items()}
        encoders, others = make_host_encoders(vae[0], clip[0]), pictures(class_photos or [])
        out = run_folder(knobs["run"])
        recipe = recipe_of(knobs, bool(others))
        extra = make_expert_stage(recipe, experts[0], knobs["run"]) if experts else None
        watch = Watch([recipe.stage, *([extra[0]] if extra else [])], loss_map(out)["loss"])
        with torch.inference_mode(False):  # training takes ordinary tensors
            datasets = make_subject_datasets(encoders, pictures(photos), others, recipe)
            pairs = make_photo_pairs(encoders, datasets[OWN].samples, recipe.subject) if extra else None
        run, bank = NodeRun(out, knobs["run_seed"], [watch]), None
        concept = train_concept(model[0], encoders, datasets, recipe, run)
        if experts and extra and pairs:
            bank = train_subject_expert(model[0], encoders, pairs, experts[0], *extra, run)
        shown = sheet(samples(out))
        return io.NodeOutput(concept, loss_map(out), shown, bank, ui=ui.PreviewImage(shown, cls=cls))


def pictures(images: list) -> list[np.ndarray]:
    """Of IMAGE batches of any sizes."""
    return [picture for image in images for picture in to_bytes(to_rgb(image))]


def recipe_of(knobs: dict[str, Any], preserved: bool) -> SubjectRecipe:
    settings = Settings(text_drop=0.0, **chosen(Settings, knobs))
    share = knobs["class_share"] if preserved else 0.0
    stage = Stage(name=SUBJECT, task=OWN, replay=share, **chosen(Stage, knobs))
    prompts = tuple(line.strip() for line in knobs["prompts"].splitlines() if line.strip())
    subject = Subject(**{**chosen(Subject, knobs), "noun": knobs["noun"].strip(), "prompts": prompts})
    return SubjectRecipe(Curriculum(with_last_sample(settings, stage.iterations), (stage,)), subject)


def subject_knobs() -> list:
    return [
        io.Boolean.Input(
            "ico",
            default=True,
            tooltip="Each photo gets vectors of its own for its place, pose and light, so that these do not become part of "
            "the subject. They are thrown away in the end. On the built-in world it is kept better so, and prompts are "
            "followed less, unless CoLoGen Personal Guider shares the steps.",
        ),
        count(
            "iterations", 800, 1, 10**6, "How long to train. 600 to 900 as a rule; longer is truer and less free."
        ),
        count("batch", 1, 1, 4096, "Photos that each update looks at."),
        count("rank", 16, 1, 1024, "Size of the LoRA."),
        number("alpha", 16.0, 0, 4096, 1.0, "How strongly the LoRA acts while it learns: alpha / rank scales it."),
        number("rate", 1e-4, 0, 10, 1e-6, "How far each update of the LoRA goes; vectors go faster by the factors below."),
        count("resolution", 512, 64, 2048, "Photos are cut to squares of this side. Twice takes four times the time."),
        io.String.Input(
            "prompts",
            default="photo of a dog on the beach",
            multiline=True,
            tooltip="A line each: what samples are drawn of on the way.",
        ),
    ]  # fmt: skip


def rare_knobs() -> list:
    return [
        io.String.Input(
            "caption", default="photo of a {}", tooltip="What the photos show; the noun comes where the braces are.", **advanced()
        ),
        count("tokens", 2, 1, 256, "Vectors that the subject gets in the text.", **advanced()),
        count("contexts", 4, 1, 256, "Vectors that each photo gets while training.", **advanced()),
        number("token_rate", 1.0, 0, 1000, 0.1, "How much faster the subject's vectors learn than the LoRA.", **advanced()),
        number("context_rate", 10.0, 0, 1000, 0.1, "How much faster the photos' own vectors learn.", **advanced()),
        io.Combo.Input(
            "where",
            options=list(BLOCK_KINDS)[::-1],
            tooltip="all bends keys and values of text, and in later blocks of the picture, too; text is gentler.",
            **advanced(),
        ),
        number("class_share", 0.3, 0, 1, 0.01, "Share of updates with class_photos, where some are connected.", **advanced()),
        io.Combo.Input("optimizer", options=list(OPTIMIZERS), tooltip="adamw is steady; prodigy finds its own rate (set rate to 1) and must be installed: prodigyopt.", **advanced()),
        io.Combo.Input("schedule", options=list(SCHEDULES), tooltip="How the rate falls towards the end.", **advanced()),
        number("guidance", 1.0, 0, 100, 0.1, "What FLUX.1-dev is told while it trains; schnell ignores it.", **advanced()),
        number("time_shift", 1.0, 0.01, 100, 0.1, "Above 1 it trains more on near noise.", **advanced()),
    ]  # fmt: skip
