"""The nodes in a real ComfyUI server, over its API."""

import numpy as np
from cologen.prw.bank.bank import Bank
from tiny_server import make_tiny_prompt, read_pixels


def test_the_pack_loads_with_all_nodes(server):
    nodes = server.get("/object_info")
    from cologen.nodes import NODES

    for cls in NODES:
        found = nodes[cls.define_schema().node_id]
        assert found["display_name"] and found["description"]
        inputs = {**found["input"].get("required", {}), **found["input"].get("optional", {})}
        assert all(options.get("tooltip") for _, options in inputs.values()), f"{found['name']} lacks a tooltip"
        assert len(found["output_tooltips"]) == len(found["output"])
    assert "IMPORT FAILED" not in server.log.read_text()


def test_a_graph_runs_from_loader_to_picture(server, base):
    graph = make_tiny_prompt()
    graph["keep"]["inputs"]["name"] = "copies/kept"  # every graph of the shared server saves again.safetensors
    woven = server.run(graph)
    found = read_pixels(base, woven)
    assert found.shape == (128, 128, 3)
    off = read_pixels(base, server.run(make_tiny_prompt(strength=0.0)))
    assert np.abs(found - off).mean() > 1, "the source should change the picture"
    assert np.array_equal(read_pixels(base, server.run(make_tiny_prompt(loader="UNETLoader"))), found)

    assert read_pixels(base, woven, "map").std() > 5
    saved = Bank.open(base / "models/cologen/copies/kept.safetensors")
    assert saved.info == Bank.open(base / "models/cologen/tiny.safetensors").info


def test_a_missing_apply_is_a_sentence(server):
    graph = make_tiny_prompt()
    graph["sample"]["inputs"]["model"] = ["flux", 0]
    status = server.run(graph)["status"]
    assert status["status_str"] == "error"
    assert "put CoLoGen Apply between" in str(status["messages"])


def test_a_name_that_leads_outside_is_a_sentence(server, base):
    graph = make_tiny_prompt()
    graph["keep"]["inputs"]["name"] = "../../escaped"
    status = server.run(graph)["status"]
    assert "cannot be used, expected a name" in str(status["messages"])
    assert not list(base.rglob("escaped*"))
