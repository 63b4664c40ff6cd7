"""A library of experts in the real host: imported by node, stacked, mixed, saved, and the same picture again."""

from functools import cache

import numpy as np
import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.prw.bank.edit import merge
from cologen.prw.bank.importers import open_experts
from cologen.prw.comfyui.conditioning import add_source
from cologen.training.comfyui.server import Server, base_directory, node, prompt, shown, sources
from naive_easycontrol import NaiveEasyControl, below, over, random_file
from pack import HOST
from safetensors.torch import save_file
from sampling import conditioning, naive_model, sample
from tiny import host_model, latent, source, tiny_bank, tiny_flux

pytestmark = pytest.mark.usefixtures("comfy")


@cache
def flux():
    return tiny_flux()


@pytest.fixture(scope="module")
def model(comfy):
    return host_model(flux())


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate(("canny", "depth", "subject")):
        save_file(random_file(seed), folder / f"{name}.safetensors")
    return folder


def applied(model, bank):
    from cologen.prw.comfyui.patch import apply_bank

    return apply_bank(model, bank)


def naive_source(name, weight=1.0, pixels=3, target=(8, 8)):
    positions = below(4, 4) if name == "subject" else over(4, 4, target[0] // 2, target[1] // 2)
    seed = ("canny", "depth", "subject").index(name)
    return dict(latent=latent(1, 8, 8, pixels), positions=positions, file=random_file(seed), weight=weight)


def test_the_host_samples_a_stack_as_the_peer_s_design_does(model, library):
    """With cfg, so that two prompts and two guidances meet in one batch; against the naive formula in FLUX's place."""
    bank = merge([open_experts(library / f"{name}.safetensors") for name in ("canny", "subject")])
    positive, negative = conditioning(4, guidance=3.5), conditioning(5, guidance=1.0)
    for one in (source("control", seed=3, strength=0.8), source("subject", seed=9)):
        positive, negative = add_source(positive, one), add_source(negative, one)
    how = dict(cfg=2.0, size=(12, 8))
    found = sample(applied(model, bank), positive, negative, **how)
    stack = [naive_source("canny", 0.8, 3, (12, 8)), naive_source("subject", 1.0, 9, (12, 8))]
    naive = naive_model(model, flux().state_dict(), bank, {4: stack, 5: stack}, formula=NaiveEasyControl)
    expected = sample(naive, conditioning(4, guidance=3.5), conditioning(5, guidance=1.0), **how)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert torch.equal(sample(applied(model, bank), conditioning(4)), sample(model, conditioning(4))), "none: plain"


def test_imported_and_routed_together_with_window_and_region(model, library):
    bank = merge([tiny_bank(flux()), open_experts(library / "depth.safetensors")])
    region = torch.zeros(8, 8)
    region[:, :4] = 1
    routed, imported = source("ground"), source("control", expert="depth", seed=9, end=0.5, region=region)
    both = sample(applied(model, bank), add_source(add_source(conditioning(4), routed), imported))
    alone = [sample(applied(model, bank), add_source(conditioning(4), one)) for one in (routed, imported)]
    assert all((both - one).abs().max() > 1e-2 for one in alone)


@pytest.fixture(scope="module")
def base(tmp_path_factory, library):
    root = base_directory(tmp_path_factory.mktemp("comfy"), sources())
    (root / "models/loras/easy").mkdir(parents=True)
    for file in library.iterdir():
        (root / "models/loras/easy" / file.name).write_bytes(file.read_bytes())
    save_file({"lora_unet_x.lora_up.weight": torch.ones(2, 2)}, root / "models/loras/plain.safetensors")
    return root


@pytest.fixture(scope="module")
def server(base):
    running = Server(HOST, base)
    yield running
    running.stop()


def pixels(base, entry, name="save"):
    return np.asarray(shown(base, entry, name), dtype=int)


STACK = (("canny", "control"), ("depth", "control"), ("subject", "subject"))


def stacked(bank_node, **loaders):
    """A picture of three imported sources; `loaders` end in the node that gives the bank."""
    graph = prompt("control") | loaders
    graph["apply"]["inputs"]["experts"] = [bank_node, 0]
    graph["keep"] = node("CoLoGenSaveExperts", experts=[bank_node, 0], name="stack")
    knobs = graph.pop("source")["inputs"] | {"experts": [bank_node, 0]}
    last = ["text", 0]
    for expert, task in STACK:
        graph[f"of_{expert}"] = node("CoLoGenSource", **(knobs | dict(conditioning=last, task=task, expert=expert)))
        last = [f"of_{expert}", 0]
    graph["sample"]["inputs"]["positive"] = last
    graph["look"] = node("CoLoGenInspectExperts", experts=[bank_node, 0])
    del graph["map"]
    return graph


def test_import_three_sample_save_reload_is_the_same_picture(server, base):
    def taking(name, **rest):
        return node("CoLoGenImportExperts", file=f"easy/{name}.safetensors", kind="auto", name="", **rest)

    chain = {
        "a": taking("canny"),
        "b": taking("depth", experts=["a", 0]),
        "c": taking("subject", experts=["b", 0]),
    }
    first = server.run(stacked("c", **chain))
    picture = pixels(base, first)
    table = "".join(first["outputs"]["look"]["text"])
    assert all(word in table for word in ("canny", "subject", "SKS", "512 x 512", "Apache-2.0"))
    saved = Bank.open(base / "models/cologen/stack.safetensors")
    assert [name for name, _ in STACK] == list(saved.info.experts)
    again = server.run(stacked("bank", bank=node("CoLoGenLoadExperts", bank_name="stack.safetensors")))
    assert np.array_equal(pixels(base, again), picture)
    plain = server.run(prompt(strength=0.0))
    assert np.abs(pixels(base, plain) - picture).mean() > 1
    assert "was trained on 512" not in server.log.read_text()


def test_easycontrol_files_among_the_loras_are_banks_at_once(server, base):
    options = server.get("/object_info/CoLoGenLoadExperts")["CoLoGenLoadExperts"]["input"]["required"]["bank_name"]
    listed = str(options)
    assert "loras/easy/canny.safetensors" in listed and "plain" not in listed
    graph = prompt()
    graph["bank"]["inputs"]["bank_name"] = "loras/easy/canny.safetensors"
    del graph["map"], graph["keep"]
    loose = pixels(base, server.run(graph))
    assert "a CoLoGen source is 128 x 128 pixels" in server.log.read_text().replace("A CoLoGen", "a CoLoGen")
    graph["source"]["inputs"]["experts"] = ["bank", 0]
    assert np.abs(pixels(base, server.run(graph)) - loose).mean() > 0.1, "fitted to 512 x 512"


@pytest.mark.parametrize(
    "file, kind, sentence",
    [
        ("plain.safetensors", "auto", "is neither a CoLoGen bank nor a file that can be imported"),
        ("easy/canny.safetensors", "partial", "kind is 'partial', expected one of 'auto', 'canny'"),
    ],
)
def test_what_cannot_be_imported_is_a_sentence(server, file, kind, sentence):
    graph = {
        "a": node("CoLoGenImportExperts", file=file, kind=kind, name=""),
        "b": node("CoLoGenInspectExperts", experts=["a", 0]),
    }
    status = server.run(graph)["status"]
    assert status["status_str"] == "error" and sentence in str(status["messages"])


def test_a_file_is_known_by_its_first_64_kib(tmp_path):
    """So that a list of many large files needs little of each."""
    from cologen.prw.bank.importers.easycontrol import LOOKED_AT, looks_like_easycontrol

    save_file(random_file(double=19, single=38), tmp_path / "whole.safetensors")
    beginning = (tmp_path / "whole.safetensors").read_bytes()[:LOOKED_AT]
    (tmp_path / "cut.safetensors").write_bytes(beginning)
    assert looks_like_easycontrol(tmp_path / "cut.safetensors")
    (tmp_path / "other.safetensors").write_bytes(beginning.replace(b"_loras", b"_words"))
    assert not looks_like_easycontrol(tmp_path / "other.safetensors")
    assert not looks_like_easycontrol(tmp_path / "missing.safetensors")
