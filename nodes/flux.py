"""Loading FLUX from the host's own folders, in one node."""

from typing import NamedTuple

import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io

from ..prw.flux.families import Family, find_model_family
from ..training.comfyui.built_in import BUILT_IN, list_built_in, load_clip, load_model, load_vae
from .inputs.schema import CATEGORY, make_schema

DTYPES = {
    "default": {},
    "fp8_e4m3fn": {"dtype": torch.float8_e4m3fn},
    "fp8_e4m3fn_fast": {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True},
    "fp8_e5m2": {"dtype": torch.float8_e5m2},
}
NONE = "none"


class TextEncoders(NamedTuple):
    """What a family reads prompts with."""

    count: int
    names: str
    clip_type: str
    """Of the host's CLIPType, which an older host may lack: it shall load the pack and say what it needs."""


TEXT_ENCODERS = {
    "flux1": TextEncoders(2, "CLIP-L and T5-XXL", "FLUX"),
    "flux2": TextEncoders(1, "Qwen3 or Mistral", "FLUX2"),
    "chroma": TextEncoders(1, "T5-XXL", "CHROMA"),
}
"""Family -> its text encoders."""


class CoLoGenLoadFlux(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        encoders = folder_paths.get_filename_list("text_encoders")
        return make_schema(
            node_id="CoLoGenLoadFlux",
            display_name="Load FLUX (CoLoGen)",
            category=CATEGORY,
            description="Loads FLUX.1, FLUX.2 or Chroma with text encoders and VAE. The stock loaders do just as well.",
            search_aliases=["flux loader", "load checkpoint", "load diffusion model", "dual clip"],
            inputs=[
                io.Combo.Input(
                    "unet_name",
                    options=[*folder_paths.get_filename_list("diffusion_models"), *list_built_in()],
                    tooltip="The FLUX.1, FLUX.2 or Chroma weights, from models/diffusion_models. The worlds that are built in bring "
                    "their own text encoder and VAE, draw 128 x 128 (stickers) or 64 x 64 pixels (toy), and need no download.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(DTYPES),
                    tooltip="fp8 halves the memory of the weights; colours and fine detail shift a little.",
                ),
                io.Combo.Input(
                    "clip_name1",
                    options=[NONE, *encoders],
                    tooltip="From models/text_encoders. FLUX.1: CLIP-L (clip_l). FLUX.2 klein 4B: Qwen3-4B, 9B: Qwen3-8B, dev: "
                    "Mistral. Chroma: T5-XXL. none: load CLIP elsewhere.",
                ),
                io.Combo.Input(
                    "clip_name2",
                    options=[NONE, *encoders],
                    tooltip="FLUX.1: T5-XXL (t5xxl_fp16 or t5xxl_fp8_e4m3fn). FLUX.2 and Chroma have one text encoder alone: none.",
                ),
                io.Combo.Input(
                    "vae_name",
                    options=[*folder_paths.get_filename_list("vae"), *list_built_in()],
                    tooltip="From models/vae. FLUX.1 and Chroma: ae.safetensors. FLUX.2: flux2-vae.safetensors.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For CoLoGen Apply."),
                io.Clip.Output(tooltip="For the text encode node. Empty if an encoder is none."),
                io.Vae.Output(tooltip="For CoLoGen Source and for decoding."),
            ],
        )

    @classmethod
    def execute(cls, unet_name: str, weight_dtype: str, clip_name1: str, clip_name2: str, vae_name: str):
        if world := BUILT_IN.get(unet_name):
            return io.NodeOutput(load_model(world, dict(DTYPES[weight_dtype])), load_clip(world), load_vae(world))
        if vae_name in BUILT_IN:
            raise ValueError(
                f"The VAE is the {vae_name.removesuffix(' (built in)')}'s but the model is not, expected FLUX's: choose ae.safetensors for FLUX.1 and Chroma, "
                "flux2-vae.safetensors for FLUX.2."
            )
        clip_names = [name for name in (clip_name1, clip_name2) if name != NONE]
        if clip_name1 == NONE and clip_names:
            raise ValueError(
                "One of FLUX's two text encoders is none, expected CLIP-L and T5-XXL, or FLUX.2's or Chroma's one as clip_name1: choose "
                "these, or none twice."
            )
        unet = folder_paths.get_full_path_or_raise("diffusion_models", unet_name)
        model = comfy.sd.load_diffusion_model(unet, model_options=dict(DTYPES[weight_dtype]))
        family = find_model_family(model.model.diffusion_model)
        _check_encoders(family, len(clip_names))
        return io.NodeOutput(model, _load_clip(clip_names, family), _load_vae(vae_name))


def _check_encoders(family: Family, chosen: int) -> None:
    """Raises if a family's number of text encoders is another than what is chosen; none at all is a choice."""
    wanted = TEXT_ENCODERS[family.name]
    if chosen == 2 and wanted.count == 1:
        raise ValueError(
            f"The model is a {family.label} with two text encoders, expected one ({wanted.names}): choose none as clip_name2."
        )
    if chosen == 1 and wanted.count == 2:
        raise ValueError(
            f"The model is a {family.label} with one text encoder, expected {wanted.names}: choose both, or none twice."
        )


def _load_clip(names: list[str], family: Family):
    if not names:
        return None
    return comfy.sd.load_clip(
        ckpt_paths=[folder_paths.get_full_path_or_raise("text_encoders", name) for name in names],
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        clip_type=comfy.sd.CLIPType[TEXT_ENCODERS[family.name].clip_type],
    )


def _load_vae(name: str):
    weights = comfy.utils.load_torch_file(folder_paths.get_full_path_or_raise("vae", name))
    vae = comfy.sd.VAE(sd=weights)
    vae.throw_exception_if_invalid()
    return vae
