"""Fine-tuning on the FLUX that is loaded: one's own subject from a few photos."""

import torch
from comfy_api.latest import io, ui

from ..training.comfyui.folders import run_folder
from ..training.comfyui.progress import RunProgress
from ..training.comfyui.run import NodeRun
from ..training.comfyui.run_outputs import read_loss_map, read_samples
from ..training.comfyui.subject import make_subject_datasets, train_concept, train_subject_expert
from ..training.comfyui.training_data import open_encoders
from ..training.recipes.subject import OWN
from ..training.subject.expert import make_expert_stage, make_photo_pairs
from .inputs.images import split_images
from .inputs.recipe import check_connected
from .inputs.schema import TRAINING, BankType, ConceptType, LossType, make_schema
from .inputs.subject import make_subject_recipe, rare_subject_knobs, subject_knobs
from .inputs.training import MODEL, RUN, bank_input, run_knobs, seed_knob


class CoLoGenTrainSubject(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
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
                io.Vae.Input("vae", tooltip="The VAE of the FLUX that you will train."),
                io.Clip.Input(
                    "clip",
                    tooltip="Its text encoders (CLIP-L and T5-XXL for FLUX.1, Qwen3 for FLUX.2 klein). They are not trained.",
                ),
                io.Image.Input(
                    "photos", tooltip="3 to 10 photos of it, in different places and poses. Each is cut to a square."
                ),
                io.String.Input("noun", default="dog", tooltip="What kind of thing it is, as prompts will say it."),
                RUN,
                *subject_knobs(),
                *rare_subject_knobs(),
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
        check_connected(vae[0], clip[0])
        others = split_images(class_photos or [])
        out = run_folder(knobs["run"])
        recipe = make_subject_recipe(knobs, bool(others))
        extra = make_expert_stage(recipe, experts[0], knobs["run"]) if experts else None
        stages = [recipe.stage, *([extra[0]] if extra else [])]
        progress = RunProgress(stages, read_loss_map(out)["loss"])
        with torch.inference_mode(False):  # training takes ordinary tensors
            encoders = open_encoders(vae[0], clip[0])
            datasets = make_subject_datasets(encoders, split_images(photos), others, recipe)
            pairs = make_photo_pairs(encoders, datasets[OWN].samples, recipe.subject) if extra else None
        run, bank = NodeRun(out, knobs["run_seed"], [progress]), None
        concept = train_concept(model[0], encoders, datasets, recipe, run)
        if experts and extra and pairs is not None:
            bank = train_subject_expert(model[0], encoders, pairs, experts[0], *extra, run)
        samples = read_samples(out)
        return io.NodeOutput(concept, read_loss_map(out), samples, bank, ui=ui.PreviewImage(samples, cls=cls))
