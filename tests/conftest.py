"""Makes the pack importable as `cologen`, and keeps our nodes/ from shadowing the host's nodes.py."""

import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]

sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]
pack = ModuleType("cologen")
pack.__path__ = [str(ROOT)]
sys.modules["cologen"] = pack

import pytest  # noqa: E402
import torch  # noqa: E402
from cologen.training.host import enter_host, find_host  # noqa: E402

HOST = find_host()
if HOST is not None:
    enter_host(HOST)

torch.set_num_threads(2)


def pytest_report_header(config):
    return f"ComfyUI: {HOST}" if HOST else "ComfyUI: none found (COMFYUI_PATH); tests of the host are skipped"


@pytest.fixture(scope="session")
def comfy():
    """The real host, or a skipped test."""
    if HOST is None:
        pytest.skip("no ComfyUI found")
    import comfy.sample
    import comfy.sd

    return comfy
