"""The example workflows in the real frontend: opened in a browser, kept through a save, and queued from the page.

Screenshots are left in out/frontend/ to be looked at.
"""

import json
import shutil
import urllib.request
from pathlib import Path

import pytest
from make_workflows import FOLDER, WORKFLOWS, drawn
from naive_easycontrol import random_file
from pack import ROOT, SCREENSHOTS
from page import open_page, open_template, post, problems, visited, wait_for_run
from PIL import Image
from safetensors.torch import save_file
from tiny_server import draw_scene, make_tiny_base
from workflows_flux import FILES, OWN

pytestmark = pytest.mark.usefixtures("comfy")


def with_files(base: Path) -> Path:
    """Files of the names that FLUX's workflows ask for, so that nothing is missing on the canvas; the picture comes with ComfyUI."""
    for name, (folder, _) in FILES.items():
        (base / "models" / folder).mkdir(parents=True, exist_ok=True)
        path = base / "models" / folder / name
        save_file(random_file() if folder == "loras" else {}, path)
    shutil.copy(base / "models/cologen/tiny.safetensors", base / "models/cologen" / OWN)
    return base


@pytest.fixture(scope="module")
def server(start_server, tmp_path_factory):
    return start_server(with_files(make_tiny_base(tmp_path_factory.mktemp("comfy"), {"example": draw_scene()})))


@pytest.fixture(scope="module")
def page(browser, server):
    return open_page(browser, server)


def opened(page, name: str) -> dict:
    """The workflow on the canvas; gives what the page would send to the host."""
    open_template(page, FOLDER, name)
    page.wait_for_timeout(700)
    return read_prompt(page)


def read_prompt(page) -> dict:
    return page.evaluate("async () => (await app.graphToPrompt()).output")


def renumber(sent: dict) -> dict:
    """Counts a subgraph's nodes from 1, as its definition does; the page gives them numbers that no other node has."""
    hosts = {number.split(":")[0] for number in sent if ":" in number}
    inner = {
        host: sorted((n for n in sent if n.startswith(f"{host}:")), key=lambda n: int(n.split(":")[1]))
        for host in hosts
    }
    names = {n: f"{host}:{i}" for host, numbers in inner.items() for i, n in enumerate(numbers, 1)}

    def rename(value):
        return [names.get(value[0], value[0]), value[1]] if isinstance(value, list) and len(value) == 2 else value

    return {
        names.get(number, number): {**node, "inputs": {name: rename(value) for name, value in node["inputs"].items()}}
        for number, node in sent.items()
    }


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_opens_whole_and_keeps_its_values(page, info, name):
    sent = renumber(opened(page, name))
    page.evaluate("() => app.canvas.ds && app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.wait_for_timeout(600)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
    assert all(node["class_type"] for node in sent.values()), "a node is missing"
    expected = drawn(name, info).prompt()
    assert sent.keys() == expected.keys()
    for number, node in expected.items():
        assert sent[number]["class_type"] == node["class_type"]
        assert sent[number]["inputs"] == node["inputs"], node["class_type"]
    before = page.evaluate("() => app.graph.serialize().nodes.map((n) => [n.id, n.type, n.widgets_values])")
    page.evaluate("() => app.loadGraphData(app.graph.serialize(), true, true, 'again')")
    page.wait_for_timeout(500)
    after = page.evaluate("() => app.graph.serialize().nodes.map((n) => [n.id, n.type, n.widgets_values])")
    assert before == after
    assert not problems(page)
    assert not page.locator(".p-toast-message-error").count()


def test_a_workflow_is_queued_from_the_page_and_shows_its_picture(page, server):
    opened(page, "toy_edit")
    before = set(server.get("/history"))
    page.evaluate("() => app.queuePrompt(0, 1)")
    assert wait_for_run(page, server, before)["status"]["status_str"] == "success"
    page.wait_for_timeout(1500)
    page.screenshot(path=SCREENSHOTS / "toy_edit_done.png")
    assert page.evaluate("() => app.graph._nodes.filter((n) => n.imgs?.length).length") == 3, "drawn, given and route"


def test_a_workflow_is_an_app_with_what_it_is_given_and_its_result(page, server):
    opened(page, "toy_edit")
    before = set(server.get("/history"))
    page.evaluate("() => app.extensionManager.command.execute('Comfy.ToggleLinear')")
    try:
        page.get_by_text("question_seed").first.wait_for()
        page.get_by_role("button", name="Skip").click()  # the page's own tour
        page.get_by_test_id("linear-run-button").get_by_role("button", name="Run").click()
        assert wait_for_run(page, server, before)["status"]["status_str"] == "success"
        page.wait_for_timeout(1500)
        page.screenshot(path=SCREENSHOTS / "toy_edit_app.png")
        assert not problems(page)
    finally:
        page.evaluate("() => app.extensionManager.command.execute('Comfy.ToggleLinear')")


def test_the_templates_dialog_shows_them_all_and_one_of_them_runs(page, server):
    (listed,) = [names for pack, names in server.get("/api/workflow_templates").items() if pack == "CoLoGen"]
    assert set(listed) == set(WORKFLOWS)
    page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text("CoLoGen", exact=True).first.click()
    page.wait_for_timeout(2000)
    page.screenshot(path=SCREENSHOTS / "templates.png")
    page.mouse.move(1100, 800)
    for _ in range(6):  # the dialog adds the rest while it is scrolled
        page.mouse.wheel(0, 3000)
        page.wait_for_timeout(400)
    for name in WORKFLOWS:
        page.get_by_role("dialog").get_by_text(name, exact=True).first.wait_for(state="attached")
        address = f"http://127.0.0.1:{server.port}/api/workflow_templates/CoLoGen/{name}.jpg"
        with urllib.request.urlopen(address, timeout=300) as thumbnail:
            assert Image.open(thumbnail).width > 100
    widths = page.evaluate("() => [...document.querySelectorAll('[role=dialog] img')].map((i) => i.naturalWidth)")
    assert sum(width > 0 for width in widths) >= 8, "those in view show their thumbnails"
    page.get_by_role("dialog").get_by_text("toy_edit", exact=True).first.scroll_into_view_if_needed()
    page.get_by_role("dialog").get_by_text("toy_edit", exact=True).first.click()
    page.wait_for_function("() => app.graph._nodes.some((node) => node.type === 'CoLoGenEdit')")
    before = set(server.get("/history"))
    page.get_by_role("button", name="Run", exact=True).first.click()
    assert wait_for_run(page, server, before)["status"]["status_str"] == "success"


def open_help(page, title: str) -> None:
    """By the button above a selected node, as the README says; with its picture."""
    page.evaluate("() => app.canvas.selectNode(app.graph._nodes.find((node) => node.type === 'CoLoGenEdit'))")
    page.get_by_test_id("info-button").click()
    shown = page.locator(".node-help-content")
    shown.get_by_role("heading", name=title).wait_for()
    page.wait_for_function("document.querySelector('.node-help-content img')?.complete")
    picture = page.evaluate(
        "(({src, naturalWidth}) => [src, naturalWidth])(document.querySelector('.node-help-content img'))"
    )
    assert picture[0].endswith("/extensions/CoLoGen/docs/pictures/CoLoGenEdit.png") and picture[1] > 0
    assert shown.locator("td", has_text="positive").count()


def test_the_help_page_of_a_node_opens_with_its_picture(page):
    opened(page, "toy_edit")
    open_help(page, "CoLoGen Edit")
    label = page.get_by_test_id("info-button").get_attribute("aria-label")
    assert f"*{label}*" in (ROOT / "README.md").read_text(encoding="utf-8")
    page.screenshot(path=SCREENSHOTS / "help.png")
    assert not problems(page)


def test_places_of_two_subjects_are_drawn_on_one_canvas(page, server):
    """In the drawing of nodes that has the host's canvas for boxes; a box that is dragged there is a box of the prompt."""
    post(server, "/api/settings", {"Comfy.VueNodes.Enabled": True})
    try:
        modern = visited(page.context.browser, server)
    finally:
        post(server, "/api/settings", {"Comfy.VueNodes.Enabled": False})

    def sent() -> list[dict]:
        (node,) = [node for node in read_prompt(modern).values() if node["class_type"] == "CreateBoundingBoxes"]
        return node["inputs"]["editor_state"]["__value__"]

    opened(modern, "flux2_klein_two_references")
    before = sent()
    assert [box["x"] for box in before] == [0, 512]
    node = "app.graph._nodes.find((node) => node.type === 'CreateBoundingBoxes')"
    modern.evaluate(f"() => {{ app.canvas.centerOnNode({node}); app.canvas.selectNode({node}) }}")
    modern.wait_for_timeout(1500)
    place = modern.locator("canvas.outline-none").bounding_box()
    middle = place["y"] + place["height"] / 2
    modern.mouse.move(place["x"] + place["width"] / 4, middle)
    modern.mouse.down()
    modern.mouse.move(place["x"] + place["width"] * 0.3, middle, steps=3)
    modern.mouse.move(place["x"] + place["width"] * 0.35, middle, steps=3)
    modern.mouse.up()
    modern.wait_for_timeout(500)
    modern.screenshot(path=SCREENSHOTS / "boxes.png")
    moved, other = sent()
    assert abs(moved["x"] - 102) <= 24 and moved["width"] == 512 and other == before[1]
    assert not problems(modern)
    modern.close()


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_nodes_speak_the_language_that_is_set(page, server, language):
    said = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))["CoLoGenEdit"]
    post(server, "/api/settings", {"Comfy.Locale": language})
    try:
        foreign = visited(page.context.browser, server)
    finally:
        post(server, "/api/settings", {"Comfy.Locale": "en"})
    opened(foreign, "toy_edit")
    foreign.screenshot(path=SCREENSHOTS / f"{language}.png")
    node = "app.graph._nodes.find((node) => node.type === 'CoLoGenEdit')"
    assert foreign.evaluate(f"() => {node}.title") == said["display_name"]
    for sockets in ("inputs", "outputs"):
        names = foreign.evaluate(f"() => {node}.{sockets}.map((socket) => socket.localized_name)")
        assert names == [socket["name"] for socket in said[sockets].values()]
    assert not problems(foreign)
    open_help(foreign, said["display_name"])
    foreign.screenshot(path=SCREENSHOTS / f"help_{language}.png")
    foreign.close()
