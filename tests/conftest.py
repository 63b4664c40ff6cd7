"""The host, if there is one on this machine, and what most tests begin with."""

import pytest
import torch
from pack import HOST
from tiny import tiny_bank, tiny_flux

torch.set_num_threads(1)  # tensors are small, and sums keep their order


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


@pytest.fixture(scope="module")
def flux():
    return tiny_flux()


@pytest.fixture(scope="module")
def bank(flux):
    return tiny_bank(flux)
