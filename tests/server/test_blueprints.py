"""Blueprints: as they are written and served, and in the real frontend: found, opened, and run from the page on tiny models.

Screenshots of the nodes and of what is in them are left in out/frontend/ to be looked at.
"""

from pathlib import Path

import numpy as np
import pytest
from cologen.training.base.random_models import TINY
from cologen.training.comfyui.server import open_picture
from graph_files import text_of
from make_blueprints import BLUEPRINTS, FOLDER, build
from naive_easycontrol import random_file
from pack import SCREENSHOTS
from page import open_page, open_template, problems, wait_for_run
from safetensors.torch import save_file
from tiny_flux2 import tiny_flux2
from tiny_server import SIDE, draw_scene
from tiny_template import template_weights

SMALL, STEPS = 64, 3
TEMPLATE, OWN = "tiny_second.safetensors", "tiny.safetensors"
EASY = {
    "Inpaint": "tiny_inpainting.safetensors",
    "Control": "tiny_canny.safetensors",
    "Subject": "tiny_subject.safetensors",
}
"""Imported files, whose names say what they are for."""
OWN_BANK = [name for name in BLUEPRINTS if "FLUX.1" in name and ("Edit" in name or "Find" in name)]
SHORT = ("CoLoGen Inpaint (FLUX.1 dev)", "CoLoGen Control (FLUX.2 klein base-4B)", "CoLoGen Edit (FLUX.2 klein 9B-KV)")
"""Those that are looked for by their names, and always run: one of each way to read a source."""
LONGEST = 30
"""The frontend finds nothing by longer words."""
EMPTY = dict(nodes=[], links=[], version=0.4, last_node_id=0, last_link_id=0)
HOST = "app.graph._nodes.find((node) => node.subgraph)"


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_the_file_is_what_the_graph_says(info, name):
    """After a change to nodes: `python tests/tools/make_blueprints.py`."""
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == text_of(build(name, info))


def test_the_host_serves_every_one_and_no_other(server):
    served = {key: row for key, row in server.get("/global_subgraphs").items() if row["source"] == "custom_node"}
    assert {row["name"] for row in served.values()} == {path.stem for path in FOLDER.iterdir()} == BLUEPRINTS.keys()
    for key, row in served.items():
        text = (FOLDER / f"{row['name']}.json").read_text(encoding="utf-8")
        assert server.get(f"/global_subgraphs/{key}")["data"] == text


@pytest.fixture(scope="module")
def page(browser, server):
    page = open_page(browser, server)
    assert not [line for line in page.said if "blueprint" in line], "one that cannot be read is said at every start"
    return page


def find_by_name(page, name: str) -> None:
    """As a user adds a node: a double click on an empty canvas, its name, its row."""
    page.said.clear()
    page.evaluate("(empty) => app.loadGraphData(empty)", EMPTY)
    search = page.get_by_role("dialog").get_by_role("combobox").first
    for _ in range(10):  # a page that is busy may miss a double click
        page.mouse.dblclick(1000, 800)
        page.wait_for_timeout(1000)
        if search.is_visible():
            break
    search.fill(name[:LONGEST])
    page.get_by_role("dialog").get_by_role("option").filter(has_text=name).first.click()
    page.wait_for_function(f"() => {HOST}")
    for i in range(20):  # where the node is put down, as soon as it hangs on the mouse
        page.mouse.move(500, 700)
        page.mouse.click(300 + 40 * i, 1000)
        page.wait_for_timeout(250)
        if not page.evaluate(f"() => {HOST}.flags.ghost"):
            return
    pytest.fail("the node still hangs on the mouse")


def open_file(page, name: str) -> None:
    open_template(page, FOLDER, name)
    page.wait_for_function(f"() => {HOST}")


def look(page, name: str) -> None:
    page.evaluate("() => app.canvas.deselectAll()")
    page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.wait_for_timeout(700)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def strip_hosts(sent: dict) -> dict:
    """Nodes by their numbers within the blueprint: the host's own depends on what else is on the canvas."""

    def strip(value):
        return [value[0].split(":")[-1], value[1]] if isinstance(value, list) else value

    return {
        number.split(":")[-1]: (node["class_type"], {name: strip(value) for name, value in node["inputs"].items()})
        for number, node in sent.items()
    }


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_blueprint_opens_as_the_graph_that_was_built(page, info, name):
    (find_by_name if name in SHORT else open_file)(page, name)
    look(page, name)
    expected = build(name, info)
    shown = page.evaluate(f"() => {HOST}.widgets.map((widget) => [widget.name, widget.value])")
    assert shown == [[label, node.kept[key]] for label, node, key in expected.shown if node.is_widget(key)]
    sent = page.evaluate("async () => (await app.graphToPrompt()).output")
    assert strip_hosts(sent) == strip_hosts(expected.prompt())
    page.evaluate("() => app.loadGraphData(app.graph.serialize(), true, true, 'again')")
    page.wait_for_timeout(500)
    assert page.evaluate("async () => (await app.graphToPrompt()).output") == sent
    page.evaluate(f"() => app.canvas.setGraph({HOST}.subgraph)")
    look(page, f"{name}, inside")
    page.evaluate("() => app.canvas.setGraph(app.rootGraph)")
    assert not problems(page)
    assert not page.locator(".p-toast-message-error").count()


@pytest.fixture(scope="module")
def files(base, klein):
    """Experts and a template of the tiny models."""
    (base / "models/loras").mkdir(exist_ok=True)
    for name in EASY.values():
        save_file(random_file(), base / "models/loras" / name)
    second = tiny_flux2(52, context_in_dim=TINY["context_in_dim"]).state_dict()
    save_file(template_weights(second), base / "models/cologen" / TEMPLATE)


def fill_face(name: str, info: dict, **more) -> dict:
    """What is chosen on the node: the tiny files, and few steps."""
    first = "FLUX.1" in name
    values = dict(
        vae_name="tiny_vae.safetensors" if first else "taef2", template=TEMPLATE, width=SMALL, height=SMALL, steps=STEPS
    )
    own = next((file for task, file in EASY.items() if task in name and name not in OWN_BANK), OWN)
    values |= {"experts": own} | ({"unet_name": "tiny_flux.safetensors"} if first else {})
    labels = [label for label, *_ in build(name, info).shown]
    return {label: value for label, value in (values | more).items() if label in labels}


ADD = """([values, mask]) => {
    const host = app.graph._nodes.find((node) => node.subgraph)
    for (const [name, value] of Object.entries(values)) host.widgets.find((widget) => widget.name === name).value = value
    const given = LiteGraph.createNode("LoadImage"), kept = LiteGraph.createNode("SaveImage")
    app.graph.add(given)
    app.graph.add(kept)
    given.pos = [host.pos[0] - 400, host.pos[1]]
    kept.pos = [host.pos[0] + 500, host.pos[1]]
    given.widgets[0].value = "example.png"
    given.connect(0, host, host.inputs.findIndex((input) => input.name === "image"))
    if (mask) given.connect(1, host, host.inputs.findIndex((input) => input.name === "mask"))
    host.connect(0, kept, 0)
}"""


def shrink(sent: dict) -> dict:
    """What the page sends, with crops that a test can wait for, and with what stands for text encoders."""
    for node in sent.values():
        inputs, kind = node["inputs"], node["class_type"]
        if kind in ("CLIPLoader", "DualCLIPLoader"):
            node |= {"class_type": "TinyKleinClip", "inputs": {}}
        if kind == "CoLoGenCropForInpaint":
            inputs["size"] = SMALL
        if kind == "ImageScaleToTotalPixels":
            inputs["megapixels"] = 0.01
        if kind == "Flux2Scheduler":
            inputs["steps"] = STEPS
    return sent


def run_from_page(page, server, base: Path) -> np.ndarray:
    """Sends the graph on the canvas as the page does, and gives the saved picture."""
    sent = shrink(page.evaluate("async () => (await app.graphToPrompt()).output"))
    before = set(server.get("/history"))
    page.evaluate("(output) => app.api.queuePrompt(0, {output, workflow: app.graph.serialize()})", sent)
    entry = wait_for_run(page, server, before)
    assert entry["status"]["status_str"] == "success", entry["status"]
    (save,) = [number for number, node in sent.items() if node["class_type"] == "SaveImage"]
    return np.asarray(open_picture(base, entry, save), dtype=int)


@pytest.mark.slow
@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SHORT else pytest.mark.long) for name in BLUEPRINTS]
)
def test_it_runs_from_the_page_and_its_strength_changes_the_picture(page, server, base, info, name):
    open_file(page, name)
    page.evaluate(ADD, [fill_face(name, info), "Inpaint" in name and "Find" not in name])
    drawn = run_from_page(page, server, base)
    look(page, f"{name}, done")
    page.evaluate(f"() => {{ {HOST}.widgets.find((widget) => widget.name === 'strength').value = 0 }}")
    none = run_from_page(page, server, base)
    assert drawn.std() > 1 and (drawn != none).any()
    if "Inpaint" in name and "Find" not in name:
        scene, edge = np.array(draw_scene(), dtype=int), SIDE // 2 - 10
        assert np.array_equal(drawn[:, :edge], scene[:, :edge])
        assert np.abs(drawn - scene)[:, SIDE // 2 :].mean() > 1


@pytest.mark.parametrize("name", [name for name in BLUEPRINTS if "FLUX.1" in name])
def test_without_its_files_the_page_names_them(page, info, name):
    open_file(page, name)
    page.evaluate(ADD, [{}, "Inpaint" in name])
    page.evaluate("() => app.queuePrompt(0, 1)")
    page.wait_for_function("() => app.lastNodeErrors && JSON.stringify(app.lastNodeErrors).includes('safetensors')")
    page.screenshot(path=SCREENSHOTS / f"{name}, missing.png")
    errors = page.evaluate("() => JSON.stringify(app.lastNodeErrors)")
    assert "flux1-dev.safetensors" in errors and "ae.safetensors" in errors
