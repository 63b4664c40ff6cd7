"""ComfyUI's modules outside its own main.py: importing them, and loading models by them."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor


def enter_host(path: Path, cpu: bool = True, torch_attention: bool = False) -> None:
    """Makes `import comfy` work outside ComfyUI's own main.py.

    `torch_attention` asks for torch's attention, the host's choice on GPUs; on a CPU it takes a slower one.
    """
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))
    import comfy.cli_args

    comfy.cli_args.args.cpu = cpu
    comfy.cli_args.args.use_pytorch_cross_attention = torch_attention


def load_model(weights: Mapping[str, Tensor], dtype: torch.dtype):
    """Loads a MODEL from weights in the public layout, by the host's own detection and loader."""
    import comfy.sd

    return comfy.sd.load_diffusion_model_state_dict(dict(weights), model_options={"dtype": dtype})


def load_flux_files(flux: Path, vae: Path, clips: Sequence[Path]):
    """Loads MODEL, VAE and CLIP from FLUX.1's public files, by the host's own loaders."""
    import comfy.sd
    import comfy.utils

    model = comfy.sd.load_diffusion_model(str(flux))
    decoder = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(vae), safe_load=True))
    decoder.throw_exception_if_invalid()
    return model, decoder, comfy.sd.load_clip([str(path) for path in clips], clip_type=comfy.sd.CLIPType.FLUX)
