"""Finding a ComfyUI on this machine, and building models on it."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]


def find_host() -> Path | None:
    """COMFYUI_PATH, else the ComfyUI this pack is installed in, else comfy-cli's default folder."""
    named = os.environ.get("COMFYUI_PATH")
    places = [Path(named)] if named else [ROOT.parents[1], Path.home() / "comfy" / "ComfyUI"]
    return next((place for place in places if (place / "comfy" / "ldm" / "flux").is_dir()), None)


def needed_host() -> Path:
    found = find_host()
    if found is None:
        named = os.environ.get("COMFYUI_PATH")
        where = f" in {named}, which COMFYUI_PATH names" if named else ""
        raise FileNotFoundError(f"No ComfyUI was found{where}, expected one for this: set COMFYUI_PATH to its folder.")
    return found


def enter_host(path: Path, cpu: bool = True, torch_attention: bool = False) -> None:
    """Makes `import comfy` work outside ComfyUI's own main.py.

    `torch_attention` asks for torch's attention, the host's choice on GPUs; on a CPU it takes a slower one.
    """
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))
    import comfy.cli_args

    comfy.cli_args.args.cpu = cpu
    comfy.cli_args.args.use_pytorch_cross_attention = torch_attention


def load_model(weights: dict[str, Tensor], dtype: torch.dtype):
    """A MODEL from weights in the public layout, by the host's own detection and loader."""
    import comfy.sd

    return comfy.sd.load_diffusion_model_state_dict(dict(weights), model_options={"dtype": dtype})


def open_files(flux: Path, vae: Path, clips: Sequence[Path]):
    """MODEL, VAE and CLIP from FLUX.1's public files, by the host's own loaders."""
    import comfy.sd
    import comfy.utils

    model = comfy.sd.load_diffusion_model(str(flux))
    decoder = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(vae), safe_load=True))
    decoder.throw_exception_if_invalid()
    return model, decoder, comfy.sd.load_clip([str(path) for path in clips], clip_type=comfy.sd.CLIPType.FLUX)


def random_vae() -> dict[str, Tensor]:
    """Seeded weights for the host's small autoencoder, as a file that its VAE loader takes."""
    from comfy.taesd.taesd import TAESD

    module = TAESD(latent_channels=16)
    g = torch.Generator().manual_seed(5)
    weights = {}
    for name, value in module.state_dict().items():
        fan_in = value[0].numel() if value.ndim > 1 else 0
        noise = torch.randn(value.shape, generator=g) * (1.0 / fan_in) ** 0.5 if fan_in else torch.zeros_like(value)
        weights[name] = torch.ones_like(value) if name == "vae_scale" else noise
    return weights


def bench_steps(weights: dict[str, Tensor], dtype: torch.dtype, device: str, bank, source, args) -> dict:
    """The variants of bench/inference.py on the host's FLUX, through its own apply_model and wrappers."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.sampler_helpers

    from ...prw.comfyui.conditioning import COND, Sources
    from ...prw.comfyui.patch import apply_bank, find_attachment
    from ...prw.flux.inputs import FluxInputs

    model = load_model(weights, dtype)
    patched, uncached = apply_bank(model, bank), apply_bank(model, bank)
    find_attachment(uncached).cached = False
    comfy.model_management.load_models_gpu([model])
    x, sigma, context, pooled, guidance = (a.to(device) for a in args)
    model.model.current_patcher = model
    reference = model.model.process_latent_in(source.latent).to(device)

    def step(patcher, **conds):
        options = comfy.model_patcher.create_model_options_clone(patcher.model_options)
        comfy.sampler_helpers.prepare_model_patcher(patcher, {}, options)
        options = {**options["transformer_options"], "cond_or_uncond": [0], "sigmas": sigma}
        conds = {"y": pooled, "guidance": guidance, "transformer_options": options, **conds}
        return lambda: model.model.apply_model(x, sigma, c_crossattn=context, **conds)

    def source_pass():
        find_attachment(uncached).make_appended_kv(model.model, [source], FluxInputs(x, sigma, context, pooled), {})

    return {
        "plain": step(model),
        "concat": step(model, ref_latents=[reference]),
        "uncached": step(uncached, **{COND: Sources([source])}),
        "cached": step(patched, **{COND: Sources([source])}),
        "source_pass": source_pass,
    }
