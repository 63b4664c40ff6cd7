"""Finding a ComfyUI on this machine and building models on it, for tests and benchmarks.

The only file of training/ that imports the host.
"""

import os
import sys
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]


def find_host() -> Path | None:
    """COMFYUI_PATH, else the ComfyUI this pack is installed in, else comfy-cli's default folder."""
    named = os.environ.get("COMFYUI_PATH")
    places = [Path(named)] if named else [ROOT.parents[1], Path.home() / "comfy" / "ComfyUI"]
    return next((place for place in places if (place / "comfy" / "ldm" / "flux").is_dir()), None)


def enter_host(path: Path, cpu: bool = True) -> None:
    """Makes `import comfy` work outside ComfyUI's own main.py."""
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))
    import comfy.cli_args

    comfy.cli_args.args.cpu = cpu


def load_model(weights: dict[str, Tensor], dtype: torch.dtype):
    """A MODEL from weights in the public layout, by the host's own detection and loader."""
    import comfy.sd

    return comfy.sd.load_diffusion_model_state_dict(dict(weights), model_options={"dtype": dtype})
