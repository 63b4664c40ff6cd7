"""Names of experts and routers in the menu of a node, as the real frontend shows it.

A screenshot is left in out/frontend/ to be looked at.
"""

import json

import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.training.from_scratch.store import BANK
from cologen.training.toy.store import TOY
from pack import SCREENSHOTS
from page import open_page, problems
from safetensors.torch import save_file

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.slow]

EMPTY = dict(nodes=[], links=[], version=0.4, last_node_id=0, last_link_id=0)
ADD = """(kind) => {
    const node = LiteGraph.createNode(kind)
    app.graph.add(node)
    node.pos = [500 * app.graph._nodes.length, 300]
}"""
CHOOSE_BANK = """(name) => {
    const bank = app.graph._nodes.flatMap((node) => node.widgets ?? []).find((widget) => widget.name === 'bank_name')
    bank.value = name
    bank.callback?.(name)
}"""
MENU = """(kind) => {
    const node = app.graph._nodes.find((node) => node.type === kind), options = []
    node.getExtraMenuOptions(app.canvas, options)
    const ours = options.filter((option) => option?.submenu && /^(expert|router|start|parent): /.test(option.content))
    return ours.map((option) => [option.content, option.submenu.options.map((each) => each.content)])
}"""


@pytest.fixture(scope="module")
def page(browser, server, base):
    strange = {"format": "cologen-bank", "experts": {"<img src=x onerror='window.hacked=1'>": {}, "fine": {}}}
    save_file({"x": torch.zeros(1)}, base / "models/cologen/strange.safetensors", {"cologen": json.dumps(strange)})
    page = open_page(browser, server)
    page.said.clear()
    page.evaluate("(empty) => app.loadGraphData(empty)", EMPTY)
    for kind in ("CoLoGenRouting", "CoLoGenTrainStage", "CoLoGenSource"):
        page.evaluate(ADD, kind)
    return page


def wait_for_names(page, names: list[str]) -> None:
    """Waits until Routing offers these experts and no others."""
    shown = f"([kind, names]) => JSON.stringify(({MENU})(kind)[0]?.[1] ?? []) === JSON.stringify(names)"
    page.wait_for_function(shown, arg=["CoLoGenRouting", names])


def list_menu(page, kind: str) -> dict[str, list[str]]:
    return dict(page.evaluate(MENU, kind))


def test_names_are_those_of_the_bank_that_the_graph_loads(page, base):
    assert list_menu(page, "CoLoGenRouting") == {}, "no bank, no names"
    page.evaluate(ADD, "CoLoGenLoadExperts")
    page.evaluate(CHOOSE_BANK, "tiny.safetensors")
    info = Bank.open(base / "models/cologen/tiny.safetensors").info
    experts, routers = list(info.experts), [*info.routers, "final"]
    wait_for_names(page, experts)
    assert list_menu(page, "CoLoGenRouting") == {"expert: –": experts, "router: –": routers}
    assert list_menu(page, "CoLoGenTrainStage") == {"start: –": experts, "parent: –": experts}
    assert list_menu(page, "CoLoGenSource").keys() == {"expert: –", "router: –"}, "its start is a number"
    page.evaluate(CHOOSE_BANK, "toy world (built in)")
    wait_for_names(page, list(Bank.open(TOY.folder / BANK).info.experts))
    page.evaluate(CHOOSE_BANK, "strange.safetensors")
    wait_for_names(page, ["fine"])  # what is no name could be anything


def test_a_name_is_chosen_by_the_mouse_and_sent(page, base):
    page.evaluate(CHOOSE_BANK, "tiny.safetensors")
    wait_for_names(page, list(Bank.open(base / "models/cologen/tiny.safetensors").info.experts))
    node = "app.graph._nodes.find((node) => node.type === 'CoLoGenRouting')"
    page.evaluate(f"() => app.canvas.centerOnNode({node})")
    page.wait_for_timeout(300)
    x, y = page.evaluate(f"""() => {{
        const [x, y] = app.canvas.ds.convertOffsetToCanvas([{node}.pos[0] + 60, {node}.pos[1] - 12])
        const box = app.canvas.canvas.getBoundingClientRect()
        return [box.left + x, box.top + y]
    }}""")
    page.mouse.click(x, y, button="right")
    page.get_by_text("expert: –").first.click()
    (_, second, *_) = Bank.open(base / "models/cologen/tiny.safetensors").info.experts
    page.get_by_text(second, exact=True).last.wait_for()
    page.screenshot(path=SCREENSHOTS / "names.png")
    page.get_by_text(second, exact=True).last.click()
    widget = f"{node}.widgets.find((widget) => widget.name === 'expert').value"
    page.wait_for_function(f"() => {widget} === '{second}'")
    sent = page.evaluate("async () => (await app.graphToPrompt()).output")
    (routing,) = [node["inputs"] for node in sent.values() if node["class_type"] == "CoLoGenRouting"]
    assert routing["expert"] == second
    assert list(list_menu(page, "CoLoGenRouting"))[0] == f"expert: {second}"
    assert not problems(page)
