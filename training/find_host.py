"""Where this machine has a ComfyUI, and where this pack lies."""

import os
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]


def find_host() -> Path | None:
    """Finds COMFYUI_PATH, else the ComfyUI this pack is installed in, else comfy-cli's default folder."""
    named = os.environ.get("COMFYUI_PATH")
    places = [Path(named)] if named else [PACK.parents[1], Path.home() / "comfy" / "ComfyUI"]
    return next((place for place in places if (place / "comfy" / "ldm" / "flux").is_dir()), None)


def require_host() -> Path:
    """Gives the same, or raises."""
    host = find_host()
    if host is None:
        named = os.environ.get("COMFYUI_PATH")
        where = f" in {named}, which COMFYUI_PATH names" if named else ""
        raise FileNotFoundError(f"No ComfyUI was found{where}, expected one for this: set COMFYUI_PATH to its folder.")
    return host
