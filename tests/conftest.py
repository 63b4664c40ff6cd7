"""The host, if there is one on this machine, what most tests begin with, and which tests need what."""

import shutil

import pytest
import torch
from pack import FRONTEND, HOST
from tiny import tiny_bank, tiny_flux

torch.set_num_threads(1)  # tensors are small, and sums keep their order

MARKERS = {"comfy": "host", "start_server": "server", "server": "server", "browser": "browser"}
"""Fixture -> marker of the tests that ask for it."""
NO_HOST = "no ComfyUI found"
GET_A_HOST = (
    "git clone https://github.com/comfyanonymous/ComfyUI ~/comfy/ComfyUI && make test"
    " (one that lies elsewhere is named by COMFYUI_PATH)"
)


def pytest_report_header(config):
    return f"ComfyUI: {HOST or 'none'}"


def pytest_itemcollected(item):
    for fixture, marker in MARKERS.items():
        if fixture in item.fixturenames:
            item.add_marker(marker)


def pytest_terminal_summary(terminalreporter):
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum(NO_HOST in str(report.longrepr) for report in skipped)
    if count:
        terminalreporter.write_line(f"{count} tests need a ComfyUI and were skipped. To run them: {GET_A_HOST}")


@pytest.fixture(scope="session")
def comfy():
    """The real host, or a skipped test."""
    if HOST is None:
        pytest.skip(NO_HOST)
    import comfy.sample
    import comfy.sd

    return comfy


@pytest.fixture
def folders(comfy, tmp_path, monkeypatch):
    """The host's input, output and temp as empty folders of this test."""
    import folder_paths

    for kind in ("input", "output", "temp"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    return tmp_path


@pytest.fixture(scope="module")
def start_server(comfy):
    """A function that starts a real ComfyUI server on a base directory; those it started stop with the module."""
    from cologen.training.comfyui.server import Server

    servers = []

    def start(base):
        servers.append(Server(HOST, base, FRONTEND))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def browser():
    """A chromium without a window, or a skipped test."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no chromium found")
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def flux():
    return tiny_flux()


@pytest.fixture(scope="module")
def bank(flux):
    return tiny_bank(flux)
