"""The nodes in a real ComfyUI server, over its API."""

import numpy as np
import pytest
from cologen.prw.bank import Bank
from conftest import HOST
from live import Server, base_directory, prompt
from PIL import Image

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture(scope="module")
def base(tmp_path_factory, comfy):
    return base_directory(tmp_path_factory.mktemp("comfy"))


@pytest.fixture(scope="module")
def server(base):
    running = Server(HOST, base)
    yield running
    running.stop()


def picture(base, entry, name="save", folder="output"):
    assert entry["status"]["status_str"] == "success", entry["status"]
    shown = entry["outputs"][name]["images"][0]
    return np.asarray(Image.open(base / folder / shown["subfolder"] / shown["filename"]), dtype=int)


def test_the_pack_loads_with_all_nodes(server, base):
    nodes = server.get("/object_info")
    from cologen.nodes import NODES

    for cls in NODES:
        found = nodes[cls.define_schema().node_id]
        assert found["display_name"] and found["description"]
        shown = {**found["input"].get("required", {}), **found["input"].get("optional", {})}
        tips = [options.get("tooltip") for _, options in shown.values()]
        assert all(tips), f"{found['name']} has an input without a tooltip"
    assert "IMPORT FAILED" not in server.log.read_text()


def test_a_graph_runs_from_loader_to_picture(server, base):
    woven = server.run(prompt())
    pixels = picture(base, woven)
    assert pixels.shape == (64, 64, 3)
    off = picture(base, server.run(prompt(strength=0.0)))
    assert np.abs(pixels - off).mean() > 1, "the source should change the picture"
    stock = picture(base, server.run(prompt(loader="UNETLoader")))
    assert np.array_equal(stock, pixels)

    route_map = picture(base, woven, "map", "temp")
    assert route_map.std() > 5
    saved = Bank.open(base / "models/cologen/copies/again.safetensors")
    assert saved.info == Bank.open(base / "models/cologen/tiny.safetensors").info


def test_a_missing_apply_is_a_sentence(server):
    graph = prompt()
    graph["sample"]["inputs"]["model"] = ["flux", 0]
    status = server.run(graph)["status"]
    assert status["status_str"] == "error"
    assert "put CoLoGen Apply between" in str(status["messages"])
