"""Makes the pack importable as `cologen`, and keeps our nodes/ from shadowing the host's nodes.py."""

import os
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "out" / "frontend"
FRONTEND = ("--front-end-root", os.environ["COMFYUI_FRONTEND"]) if "COMFYUI_FRONTEND" in os.environ else ()
"""ComfyUI's options for another frontend than it asks for: the folder `static` of comfyui-frontend-package."""

sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]
package = ModuleType("cologen")
package.__path__ = [str(ROOT)]
sys.modules["cologen"] = package

from cologen.training.comfyui.enter_host import enter_host  # noqa: E402
from cologen.training.find_host import find_host  # noqa: E402

HOST = find_host()
if HOST is not None:
    enter_host(HOST)
