"""Every template run from the page: the built-in set's to its picture, the training ones shortened on their nodes, the others to the names of the files that they miss.

Screenshots are left in out/frontend/ to be looked at.
"""

import numpy as np
import pytest
from cologen.training.comfyui.server import open_picture
from make_workflows import BUILT_IN, FOLDER, WORKFLOWS
from pack import SCREENSHOTS
from page import open_page, open_template, problems, wait_for_run
from tiny_server import draw_scene, make_tiny_base
from workflows_flux import FILES

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.slow, pytest.mark.long]

TRAINING = {
    "CoLoGenTrainStage": dict(iterations=3, batch=4, sample_every=3),
    "CoLoGenTrainCurriculum": dict(sample_every=20),
    "CoLoGenTrainSubject": dict(iterations=3, batch=4, sample_every=3),
    "CoLoGenTrainingData": dict(count=24),
}
"""What a user would set on the nodes to see that it works."""
SET = """(knobs) => {
    for (const node of app.graph._nodes)
        for (const [name, value] of Object.entries(knobs[node.type] ?? {})) {
            const widget = node.widgets.find((widget) => widget.name === name)
            if (widget) widget.value = value
        }
}"""
SHOWING = "() => app.graph._nodes.filter((node) => node.imgs?.length).map((node) => node.type)"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A ComfyUI that has the pack, an example picture and no model."""
    return make_tiny_base(tmp_path_factory.mktemp("comfy"), {"example": draw_scene()})


@pytest.fixture(scope="module")
def server(start_server, base):
    return start_server(base)


@pytest.fixture(scope="module")
def page(browser, server):
    return open_page(browser, server)


def open_graph(page, name: str) -> dict:
    saved = open_template(page, FOLDER, name)
    page.wait_for_timeout(700)
    return saved


def look(page, name: str) -> None:
    page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.wait_for_timeout(1500)
    page.screenshot(path=SCREENSHOTS / f"{name}_run.png")


@pytest.mark.parametrize("name", BUILT_IN)
def test_it_runs_to_its_picture(page, server, base, name):
    open_graph(page, name)
    page.evaluate(SET, TRAINING)
    sent = page.evaluate("async () => (await app.graphToPrompt()).output")
    before = set(server.get("/history"))
    page.evaluate("() => app.queuePrompt(0, 1)")
    entry = wait_for_run(page, server, before)
    assert entry["status"]["status_str"] == "success", entry["status"]
    look(page, name)
    (save,) = [number for number, node in sent.items() if node["class_type"] == "SaveImage"]
    assert np.asarray(open_picture(base, entry, save), dtype=float).std() > 5
    assert "SaveImage" in page.evaluate(SHOWING)
    assert not problems(page) and not page.locator(".p-toast-message-error").count()


@pytest.mark.parametrize("name", [name for name in WORKFLOWS if name not in BUILT_IN])
def test_files_that_are_missing_are_named(page, name):
    saved = open_graph(page, name)
    wanted = {model["name"] for node in saved["nodes"] for model in node["properties"].get("models", [])}
    page.evaluate("() => { app.lastNodeErrors = null }")
    page.evaluate("() => app.queuePrompt(0, 1)")
    page.wait_for_function("() => app.lastNodeErrors && Object.keys(app.lastNodeErrors).length")
    look(page, name)
    errors = page.evaluate("() => JSON.stringify(app.lastNodeErrors)")
    assert wanted and [file for file in wanted if file not in errors] == [] and wanted <= FILES.keys()
