"""The templates as the real frontend draws them, classic and new: no node covers another, what is given stands left, before a run and after it.

Screenshots are left in out/frontend/ to be looked at.
"""

import json
from itertools import combinations

import pytest
from make_workflows import BUILT_IN, FOLDER, WORKFLOWS, drawn
from pack import SCREENSHOTS
from page import open_page, open_template, post

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.slow]

RECTANGLES = """() => Object.fromEntries(app.graph._nodes.map((node) => {
    const [x, y] = node.pos, [wide, high] = node.size;
    if (!LiteGraph.vueNodesMode) return [node.id, [x, y - LiteGraph.NODE_TITLE_HEIGHT, x + wide, y + high]];
    const { scale, offset } = app.canvas.ds, canvas = app.canvas.canvas.getBoundingClientRect();
    const parts = [...document.querySelectorAll(`[data-node-id="${node.id}"], [data-node-id="${node.id}"] *`)];
    const boxes = parts.map((part) => part.getBoundingClientRect()).filter((box) => box.width && box.height);
    const there = (value, start, i) => (value - start) / scale - offset[i];
    return [node.id, [
        there(Math.min(...boxes.map((box) => box.left)), canvas.left, 0), there(Math.min(...boxes.map((box) => box.top)), canvas.top, 1),
        there(Math.max(...boxes.map((box) => box.right)), canvas.left, 0), there(Math.max(...boxes.map((box) => box.bottom)), canvas.top, 1),
    ]];
}))"""
SHOW = """(outputs) => Object.entries(outputs).forEach(([node, output]) =>
    app.api.dispatchCustomEvent('executed', { node, display_node: node, output, prompt_id: 'shown' }))"""
"""What the host tells the page when a node is done."""
FIT = "() => app.extensionManager.command.execute('Comfy.Canvas.FitView')"
DRAWINGS = {"classic": False, "new": True}
RUN = [name for name in BUILT_IN if "train" not in name]
FEWEST = 15
"""Nodes on a canvas that can be taken in at once are fewer, notes aside."""


@pytest.fixture(scope="module")
def outputs():
    """By template, what its nodes showed when it ran: once for both drawings."""
    return {}


@pytest.fixture(scope="module", params=DRAWINGS)
def page(request, browser, server):
    page = open_page(browser, server, **{"Comfy.VueNodes.Enabled": DRAWINGS[request.param]})
    assert page.evaluate("() => LiteGraph.vueNodesMode") == DRAWINGS[request.param]
    page.drawing = request.param
    yield page
    page.close()
    post(server, "/api/settings", {"Comfy.VueNodes.Enabled": False})


def open_graph(page, name: str) -> dict:
    return open_template(page, FOLDER, name)


def measure(page, name: str) -> dict[str, tuple]:
    """Node -> left, top, right, bottom on the canvas."""
    page.wait_for_timeout(400)
    page.evaluate(FIT)
    page.wait_for_timeout(500)
    page.screenshot(path=SCREENSHOTS / f"{name}_{page.drawing}.png")
    return page.evaluate(RECTANGLES)


def covering(rectangles: dict[str, tuple]) -> list[tuple[str, str]]:
    return [
        (one, other)
        for (one, a), (other, b) in combinations(rectangles.items(), 2)
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    ]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_node_covers_another_and_what_is_given_stands_left(page, name):
    saved = open_graph(page, name)
    places = measure(page, name)
    assert len(places) == len(saved["nodes"]) and covering(places) == []
    back = [link for link in saved["links"] if places[str(link[1])][2] > places[str(link[3])][0]]
    assert back == [], "links that lead to the left"


@pytest.mark.long
@pytest.mark.parametrize("name", RUN)
def test_no_node_covers_another_after_a_run(page, server, info, outputs, name):
    if name not in outputs:
        outputs[name] = server.run(drawn(name, info).prompt())["outputs"]
    open_graph(page, name)
    page.evaluate(SHOW, outputs[name])
    page.wait_for_timeout(600)
    assert covering(measure(page, f"{name}_done")) == []
    shown = page.evaluate("() => app.graph._nodes.filter((node) => node.imgs?.length).length")
    assert shown or page.drawing == "new"


def test_rare_knobs_of_training_are_folded_until_they_are_asked_for(page):
    open_graph(page, "toy_train_stage")
    stage = "app.graph._nodes.find((node) => node.type === 'CoLoGenTrainStage')"
    widgets = f"{stage}.widgets.map((widget) => [widget.name, Boolean(widget.options.advanced), {stage}.isWidgetVisible(widget)])"
    folded = {name: (rare, seen) for name, rare, seen in page.evaluate(f"() => {widgets}")}
    assert folded["rank"] == (False, True) and folded["ema"] == (True, False)
    assert sum(seen for _, seen in folded.values()) == sum(not rare for rare, _ in folded.values()) < len(folded) / 3
    before = page.evaluate(f"() => [...{stage}.size]")
    page.evaluate(f"() => {stage}.toggleAdvanced()")
    assert all(seen for _, _, seen in page.evaluate(f"() => {widgets}"))
    assert page.evaluate(f"() => {stage}.size[1]") > before[1]


STAGE = "app.graph._nodes.find((node) => node.type === 'CoLoGenTrainStage')"
LINK = f"""() => {{
    const number = LiteGraph.createNode('PrimitiveFloat'), stage = {STAGE}
    app.graph.add(number)
    number.pos = [stage.pos[0] - 400, stage.pos[1] + 600]
    number.connect(0, stage, stage.inputs.findIndex((input) => input.name === 'ema'))
}}"""
SEEN = f"() => {STAGE}.widgets.filter((widget) => {STAGE}.isWidgetVisible(widget)).map((widget) => widget.name)"


def test_what_a_link_reaches_is_seen_in_a_folded_node_and_opening_changes_nothing(page):
    open_graph(page, "toy_train_stage")
    folded = page.evaluate(SEEN)
    page.evaluate(LINK)
    assert set(page.evaluate(SEEN)) == {*folded, "ema"}
    page.evaluate(f"() => {STAGE}.expandToFitContent()")
    saved = page.evaluate("() => app.graph.serialize().nodes")
    page.evaluate("() => app.loadGraphData(app.graph.serialize())")
    page.wait_for_timeout(400)
    assert page.evaluate("() => app.graph.serialize().nodes") == saved
    assert set(page.evaluate(SEEN)) == {*folded, "ema"}


def test_the_mark_in_the_title_unfolds_and_folds_again(page):
    if page.drawing == "new":
        pytest.skip("the new drawing has a button of its own")
    open_graph(page, "toy_train_stage")
    page.evaluate(f"() => app.canvas.centerOnNode({STAGE})")
    page.wait_for_timeout(500)
    seen, size = page.evaluate(SEEN), page.evaluate(f"() => [...{STAGE}.size]")
    for is_unfolded in (True, False):
        x, y = page.evaluate(f"""() => {{
            const {{ pos, size }} = {STAGE}, canvas = app.canvas.canvas.getBoundingClientRect()
            const [x, y] = app.canvas.ds.convertOffsetToCanvas([pos[0] + size[0] - 18, pos[1] - 15])
            return [canvas.left + x, canvas.top + y]
        }}""")
        page.mouse.click(x, y)
        page.wait_for_function(f"() => Boolean({STAGE}.showAdvanced) === {str(is_unfolded).lower()}")
        assert (len(page.evaluate(SEEN)) > 2 * len(seen)) == is_unfolded
    assert page.evaluate(SEEN) == seen and page.evaluate(f"() => [...{STAGE}.size]") == size


def test_the_edit_s_prompt_is_typed_on_its_node(page):
    open_graph(page, "toy_edit")
    prompt = "app.graph._nodes.find((node) => node.title.startsWith('Prompt'))"
    assert page.evaluate(f"() => {prompt}.inputs.filter((input) => input.widget && input.link != null)") == []
    page.evaluate(f"() => {{ {prompt}.widgets[0].value = 'make the background black' }}")
    sent = page.evaluate("async () => (await app.graphToPrompt()).output")
    assert "make the background black" in [node["inputs"].get("text") for node in sent.values()]


def test_no_template_has_a_node_that_the_host_calls_deprecated(info):
    saved = {name: json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in WORKFLOWS}
    kinds = {node["type"] for graph in saved.values() for node in list_nodes(graph)}
    assert [kind for kind in kinds if info.get(kind, {}).get("deprecated")] == []
    assert len([node for node in saved["toy_routing"]["nodes"] if node["type"] != "MarkdownNote"]) < FEWEST


def test_every_node_of_the_pack_is_in_a_template(info):
    used = {node["class_type"] for name in WORKFLOWS for node in drawn(name, info).prompt().values()}
    ours = {name for name, node in info.items() if node["python_module"].endswith("CoLoGen")}
    assert ours - used == set()


def list_nodes(graph: dict) -> list[dict]:
    inside = [node for part in graph.get("definitions", {}).get("subgraphs", []) for node in part["nodes"]]
    return graph["nodes"] + inside
