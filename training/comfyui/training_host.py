"""ComfyUI's FLUX under training: its own weights, wherever it keeps them, with gradients to the experts alone.

MODEL stays as it is: nothing is copied or reloaded, and no hook outlasts the training. Of what other nodes put on it,
LoRAs count; wrappers and attention overrides do not, for training calls FLUX itself.
"""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from traceback import clear_frames
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_management
import comfy.ops
import torch
from torch import Tensor, nn

from ...prw.comfyui.check_host import check_flux, check_host, check_prompt_width
from ...prw.comfyui.host import ComfyHost
from ...prw.flux.blocks import RUN_BLOCK
from ...prw.flux.families import FAMILIES, check_latent_channels, find_model_family
from ...prw.positions import token_grid
from ...prw.weaving import named_blocks
from ..base.input_gradients import pass_input_gradients
from ..data.encoded.samples import EncodedSamples
from ..forward import run_checkpointed
from ..memory_estimate import estimate_activations

INTERRUPTS = (comfy.model_management.InterruptProcessingException,)
"""How the host breaks off what runs, in the middle of any layer."""
ATTENTION = "optimized_attention_override"


class TrainingHost(ComfyHost):
    """The host's FLUX as training calls it: outside its samplers, with attention that has a gradient."""

    def __init__(self, model):
        check_host()
        flux = model.get_model_object("diffusion_model")
        check_flux(flux)
        super().__init__(model.model, {ATTENTION: compute_attention})
        self.module = getattr(flux, "_orig_mod", flux)
        self.family = find_model_family(self.module)
        self.flux = FluxWithOptions(self.module, self.options, self.family.text_rows)
        self.model, self.reserved, self.is_pushed_out = model, 0.0, False
        self._check_trainable()

    @property
    def device(self) -> torch.device:
        return self.model.load_device

    def tokenize(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Tokenizes, where every pass begins: what another model has pushed out comes back first."""
        if self.is_pushed_out:
            self.load()
        return super().tokenize(latent)

    def _check_trainable(self) -> None:
        family = self.family
        if family.embedded is None:
            trainable = " or ".join(known.label for known in FAMILIES.values() if known.embedded)
            raise ValueError(
                f"The model is a {family.label}, expected {trainable}: {family.label} reads sources, experts are not "
                f"trained on it."
            )
        if self.model.injections:
            raise ValueError(
                "The MODEL carries adapters in bypass mode, which hide layers from training: load them with the stock "
                "LoRA loader, or train without them."
            )

    @contextmanager
    def training(self, memory: float) -> Generator[None]:
        """Keeps the model loaded, within; the host has made so much room beside it as it can, and gradients pass."""
        self.reserved = memory
        self.load()
        was_training = comfy.model_management.in_training
        with torch.inference_mode(False), torch.enable_grad(), pass_input_gradients(self.module, open_weight):
            comfy.model_management.in_training = True
            try:
                yield
            except BaseException as error:
                clear_frames(error.__traceback__)  # or the error would hold what training held on the card
                raise
            finally:
                comfy.model_management.in_training = was_training
                comfy.model_management.soft_empty_cache()

    def load(self) -> None:
        """Loads the model onto its device, as a sampler does it."""
        with torch.inference_mode():
            comfy.model_management.load_models_gpu([self.model], memory_required=self.reserved)
        self.is_pushed_out = False

    def mark_pushed_out(self) -> None:
        """Notes that another model was loaded, maybe in this one's place."""
        self.is_pushed_out = True

    def check_samples(self, samples: EncodedSamples) -> None:
        """Raises if another VAE or other text encoders made them."""
        for latent in (samples.target, samples.source):
            check_latent_channels(latent, self.family)
        check_prompt_width(self.module, samples.context)
        pooled, params = samples.pooled.shape[-1], self.module.params
        if self.family.reads_prompt and pooled < params.vec_in_dim:
            raise ValueError(
                f"The data's pooled text is {pooled} numbers wide, the model reads {params.vec_in_dim}: connect this FLUX's "
                f"own CLIP."
            )

    def count_tokens(self, samples: EncodedSamples, pictures: Sequence[Tensor]) -> int:
        """Counts tokens of one sample: of its text, and of these latents."""
        grids = (token_grid(latent, self.module.patch_size) for latent in pictures)
        return max(samples.context.shape[1], self.family.text_rows) + sum(map(math.prod, grids))

    def estimate_memory(self, tokens: int, samples: int, rank: int, checkpointing: bool) -> float:
        """Estimates bytes that training takes beside the model,
        for `samples` of so many tokens (source and text among them)."""
        # k and v, down and up: weight, gradient and the optimizer's two, in fp32
        experts = sum(1 for _ in named_blocks(self.module)) * 4 * self.module.hidden_size * rank * 4 * 4
        return estimate_activations(self.module, samples * tokens, self.dtype, checkpointing) + experts


class FluxWithOptions:
    """A FLUX whose every forward gets the same options besides its own, and the text filled up as the host does it."""

    def __init__(self, module: nn.Module, options: dict[str, Any], text_rows: int):
        self.module, self.options, self.text_rows = module, options, text_rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def __call__(self, x: Tensor, times: Tensor, context: Tensor, *rest, transformer_options: dict[str, Any]) -> Tensor:
        missing = max(0, self.text_rows - context.shape[1])
        context = nn.functional.pad(context, (0, 0, missing, 0))
        return self.module(x, times, context, *rest, transformer_options={**self.options, **transformer_options})


def compute_attention(chosen: Callable, *args, **kwargs) -> Tensor:
    """Computes attention under training: the override chosen at the start may be made for inference only."""
    return comfy.ldm.modules.attention.attention_pytorch(*args, **kwargs)


@contextmanager
def open_weight(module: nn.Module, like: Tensor) -> Generator[Tensor]:
    """Gives a layer's weight as the host would compute with it now: loaded, cast, with its LoRAs."""
    cast: Any = getattr(module, "cast_bias_weight", None)  # GGUF's layers bring their own
    if cast is not None:
        yield cast(like)[0]
        return
    weight, bias, stream = comfy.ops.cast_bias_weight(module, like, offloadable=True)
    try:
        # quantised weights may say that they are of the type asked for
        usable = weight.dequantize() if hasattr(weight, "_layout_cls") else weight
        scale = getattr(module, "pre_quant_scale", None)
        yield usable if scale is None else usable * scale.to(usable)
    finally:
        comfy.ops.uncast_bias_weight(module, weight, bias, stream)


def make_checkpointing_options(flux: nn.Module) -> dict[str, Any]:
    """Makes transformer options that have every block computed twice instead of remembered (forward.py: run_source)."""
    table = {}
    for name, block in named_blocks(flux):
        kind, index = name.split("_blocks.")
        table[f"{kind}_block", int(index)] = partial(CHECKPOINTED_BLOCKS[kind], block)
    return {RUN_BLOCK: run_checkpointed, "patches_replace": {"dit": table}}


def checkpoint_double(block: nn.Module, args: dict[str, Any], _) -> dict[str, Tensor]:
    rest = copy_block_options(args)

    def step(img, txt, vec):
        return block(img.clone(), txt.clone(), vec, **rest)  # it adds to them in place

    img, txt = run_checkpointed(step, args["img"], args["txt"], args["vec"])
    return {"img": img, "txt": txt}


def checkpoint_single(block: nn.Module, args: dict[str, Any], _) -> dict[str, Tensor]:
    rest = copy_block_options(args)
    return {"img": run_checkpointed(lambda img, vec: block(img.clone(), vec, **rest), args["img"], args["vec"])}


CHECKPOINTED_BLOCKS = {"double": checkpoint_double, "single": checkpoint_single}


def copy_block_options(args: dict[str, Any]) -> dict[str, Any]:
    """Gives a block's other arguments, the options as a copy,
    for the host counts its blocks in one and the same dict."""
    options = dict(args["transformer_options"])
    return {"pe": args["pe"], "attn_mask": args.get("attn_mask"), "transformer_options": options}
