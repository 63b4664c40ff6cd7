"""The host, if there is one on this machine."""

import os

import pytest
import torch
from pack import HOST

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


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
