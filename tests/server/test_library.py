"""A library of experts in a real server: imported by node, stacked, saved, and the same picture again."""

import numpy as np
import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.training.comfyui.server import make_node
from naive_easycontrol import save_library
from safetensors.torch import save_file
from tiny_server import make_tiny_prompt, read_pixels


@pytest.fixture(scope="module", autouse=True)
def files(base):
    (base / "models/loras/easy").mkdir(parents=True)
    save_library(base / "models/loras/easy")
    save_file({"lora_unet_x.lora_up.weight": torch.ones(2, 2)}, base / "models/loras/plain.safetensors")


STACK = (("canny", "control"), ("depth", "control"), ("subject", "subject"))


def stacked(bank_node, **loaders):
    """A picture of three imported sources; `loaders` end in the node that gives the bank."""
    graph = make_tiny_prompt("control") | loaders
    graph["apply"]["inputs"]["experts"] = [bank_node, 0]
    graph["keep"] = make_node("CoLoGenSaveExperts", experts=[bank_node, 0], name="stack")
    knobs = graph.pop("source")["inputs"] | {"experts": [bank_node, 0]}
    last = ["text", 0]
    for expert, task in STACK:
        graph[f"of_{expert}"] = make_node(
            "CoLoGenSource", **(knobs | dict(conditioning=last, task=task, expert=expert))
        )
        last = [f"of_{expert}", 0]
    graph["sample"]["inputs"]["positive"] = last
    graph["look"] = make_node("CoLoGenInspectExperts", experts=[bank_node, 0])
    del graph["map"]
    return graph


def test_import_three_sample_save_reload_is_the_same_picture(server, base):
    def taking(name, **rest):
        return make_node("CoLoGenImportExperts", file=f"easy/{name}.safetensors", kind="auto", name="", **rest)

    chain = {
        "a": taking("canny"),
        "b": taking("depth", experts=["a", 0]),
        "c": taking("subject", experts=["b", 0]),
    }
    others = len(server.log.read_text())  # what other tests left in the log
    first = server.run(stacked("c", **chain))
    picture = read_pixels(base, first)
    table = "".join(first["outputs"]["look"]["text"])
    assert all(word in table for word in ("canny", "subject", "SKS", "512 x 512", "Apache-2.0"))
    saved = Bank.open(base / "models/cologen/stack.safetensors")
    assert [name for name, _ in STACK] == list(saved.info.experts)
    again = server.run(stacked("bank", bank=make_node("CoLoGenLoadExperts", bank_name="stack.safetensors")))
    assert np.array_equal(read_pixels(base, again), picture)
    plain = server.run(make_tiny_prompt(strength=0.0))
    assert np.abs(read_pixels(base, plain) - picture).mean() > 1
    assert "was trained on 512" not in server.log.read_text()[others:]


def test_easycontrol_files_among_the_loras_are_banks_at_once(server, base):
    options = server.get("/object_info/CoLoGenLoadExperts")["CoLoGenLoadExperts"]["input"]["required"]["bank_name"]
    listed = str(options)
    assert "loras/easy/canny.safetensors" in listed and "plain" not in listed
    others = len(server.log.read_text())
    graph = make_tiny_prompt()
    graph["bank"]["inputs"]["bank_name"] = "loras/easy/canny.safetensors"
    del graph["map"], graph["keep"]
    left_open = read_pixels(base, server.run(graph))
    graph["source"]["inputs"]["experts"] = ["bank", 0]
    assert np.array_equal(read_pixels(base, server.run(graph)), left_open), "fitted to 512 x 512 either way"
    assert "was trained on 512" not in server.log.read_text()[others:]


@pytest.mark.parametrize(
    "file, kind, sentence",
    [
        ("plain.safetensors", "auto", "is neither a CoLoGen bank nor a file that can be imported"),
        ("easy/canny.safetensors", "partial", "kind is 'partial', expected one of 'auto', 'canny'"),
    ],
)
def test_what_cannot_be_imported_is_a_sentence(server, file, kind, sentence):
    graph = {
        "a": make_node("CoLoGenImportExperts", file=file, kind=kind, name=""),
        "b": make_node("CoLoGenInspectExperts", experts=["a", 0]),
    }
    status = server.run(graph)["status"]
    assert status["status_str"] == "error" and sentence in str(status["messages"])
