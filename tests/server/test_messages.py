"""Wrong wirings through a real server: which node the host outlines, under which name of the error, and the sentence it shows."""

import re

import numpy as np
import pytest
from canvas import Canvas
from cologen.prw.bank.edit import make_random_bank
from cologen.prw.base_model import Base
from cologen.training.base.random_models import bank_info, random_flux
from cologen.training.comfyui.server import make_node
from cologen.training.toy.store import TOY_NAME
from naive_easycontrol import save_library
from PIL import Image
from tiny_server import draw_scene, make_tiny_prompt, read_pixels

CANNY = "loras/canny.safetensors"
PROMPTS = dict(positive=["text", 0], vae=["vae", 0])
ROUTING = dict(lean=0.0, router="", curve="")


def draw_cut_out() -> Image.Image:
    """A picture whose alpha shows a disc in its middle."""
    picture, alpha = draw_scene().convert("RGBA"), Image.new("L", (128, 128), 0)
    alpha.paste(255, (32, 40, 96, 88))
    picture.putalpha(alpha)
    return picture


@pytest.fixture(scope="module", autouse=True)
def files(base):
    draw_cut_out().save(base / "input/cut_out.png")
    (base / "models/loras").mkdir(exist_ok=True)
    save_library(base / "models/loras")
    other = random_flux(hidden_size=128, num_heads=1)
    make_random_bank(bank_info(Base.of(other), rank=2)).save(base / "models/cologen/other_shape.safetensors")


def import_canny(**rest) -> dict:
    return make_node("CoLoGenImportExperts", file="canny.safetensors", kind="auto", name="", **rest)


def make_graph(bank: str = "tiny.safetensors", **more: dict) -> dict:
    """The tiny graph without its side branches, with other nodes beside or instead."""
    graph = make_tiny_prompt() | more
    graph["bank"]["inputs"]["bank_name"] = bank
    return {name: node for name, node in graph.items() if name not in ("map", "keep")}


def wire(graph: dict, name: str, **inputs) -> dict:
    return {**graph, name: {**graph[name], "inputs": {**graph[name]["inputs"], **inputs}}}


def ask_subject(bank: str = "tiny.safetensors", **inputs) -> dict:
    """With CoLoGen Subject before the sampler."""
    task = make_node("CoLoGenSubject", **PROMPTS, image=["image", 0], **inputs)
    return wire(make_graph(bank, task=task), "sample", positive=["task", 0])


def route(expert: str, **inputs) -> dict:
    routing = make_node("CoLoGenRouting", **ROUTING, expert=expert, **inputs)
    task = make_node("CoLoGenEdit", **PROMPTS, image=["image", 0], options=["routing", 0])
    return wire(make_graph(routing=routing, task=task), "sample", positive=["task", 0])


BOX = make_node("PrimitiveBoundingBox", x=500, y=0, width=64, height=64)
TWICE = dict(bank=import_canny(), more=import_canny(experts=["bank", 0]))
MISTAKES = {
    "no bank on the MODEL": (wire(make_graph(), "sample", model=["flux", 0]), "sample", "put CoLoGen Apply between"),
    "two banks on one MODEL": (
        wire(make_graph(again=make_node("CoLoGenApply", model=["apply", 0], experts=["bank", 0])), "sample", model=["again", 0]),
        "again", "join both banks by Merge CoLoGen Experts",
    ),
    "a canny expert for a subject": (ask_subject(CANNY, experts=["bank", 0]), "task", "use CoLoGen Control"),
    "the same, experts left open": (ask_subject(CANNY), "sample", "use CoLoGen Control"),
    "one file twice": (
        wire({**make_tiny_prompt(), **TWICE}, "apply", experts=["more", 0]), "more", "(name in Import Experts)",
    ),
    "a schedule without a source": (
        wire(make_graph(plan=make_node("CoLoGenExpertSchedule", conditioning=["text", 0], windows="0 to 1")), "sample", positive=["plan", 0]),
        "plan", "put a task, such as CoLoGen Edit, before this node",
    ),
    "a bank of another shape, without a name": (make_graph("other_shape.safetensors"), "apply", "load the FLUX that it was trained on"),
    "an expert that is not there": (wire(make_graph(), "source", expert="gone", model=["apply", 0]), "source", "expected one of inpaint"),
    "a router that is not there": (wire(make_graph(), "source", router="gone", model=["apply", 0]), "source", "or nothing to follow the task"),
    "an expert in Routing": (route("gone", model=["apply", 0]), "routing", "expected one of inpaint"),
    "an expert in Routing, MODEL left open": (route("gone"), "sample", "expected one of inpaint"),
    "an expert that the connected bank lacks": (wire(make_graph(), "source", expert="gone", experts=["bank", 0]), "source", "expected one of inpaint"),
    "the same, in Routing": (
        wire(route("gone"), "task", experts=["bank", 0]), "task", "expected one of inpaint",
    ),
    "a region and a box": (
        wire(make_graph(box=BOX, mask=make_node("SolidMask", value=1.0, width=8, height=8)), "source", boxes=["box", 0], region=["mask", 0]),
        "source", "disconnect the other",
    ),
    "a box that is not there": (wire(make_graph(box=BOX), "source", boxes=["box", 0], box_number=2), "source", "draw another box"),
    "a box outside of the picture": (wire(make_graph(box=BOX), "source", boxes=["box", 0]), "sample", "draw it on a canvas of that size"),
    "the box of an answer that was not found": (
        wire(make_graph(read=make_node("CoLoGenReadGrounding", drawn=["image", 0], original=["image", 0], form="box", colour="red")), "source", boxes=["read", 1]),
        "source", "if it found nothing",
    ),
    "a subject's mask of an opaque picture": (ask_subject(mask=["image", 1], mask_is="auto"), "task", "or disconnect the mask"),
}  # fmt: skip
"""Situation -> graph, the node that is outlined, and a part of the sentence."""


def read_error(entry: dict) -> dict:
    (error,) = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
    return error


@pytest.mark.parametrize("situation", MISTAKES)
def test_a_mistake_is_told_where_the_hand_is(server, situation):
    graph, outlined, remedy = MISTAKES[situation]
    error = read_error(server.run(graph))
    assert error["node_id"] == outlined and remedy in error["exception_message"]
    assert error["exception_type"] in ("ValueError", "CoLoGen.BankError", "CoLoGen.FileError")
    sentence = error["exception_message"].strip()
    assert re.fullmatch(
        r"[^\n]+, expected [^\n]+: [^\n]+\.|[^\n]+, but [^\n]+: [^\n]+\.|The model has [^\n]+\.", sentence
    )
    assert not re.search(r"cologen (bank|data|train)", sentence), "no command of a terminal"


@pytest.mark.parametrize("noun", ["", "[dog]"])
def test_a_noun_that_is_none_is_told_by_train_subject(server, noun):
    canvas = Canvas(server.get("/object_info"))
    flux = canvas.add("CoLoGenLoadFlux", unet_name=TOY_NAME, vae_name=TOY_NAME)
    photo = canvas.add("LoadImage", image="edit.png")["IMAGE"]
    node = canvas.add(
        "CoLoGenTrainSubject", model=flux["MODEL"], vae=flux["VAE"], clip=flux["CLIP"], photos=photo, noun=noun, run="noun"
    )  # fmt: skip
    error = read_error(server.run(canvas.prompt()))
    assert error["node_id"] == str(node.number)
    assert error["exception_message"].startswith(
        f"The subject's noun is '{noun}', expected a word without brackets: type"
    )


def test_a_picture_with_transparency_is_cut_out_and_shown(server, base):
    """Load Image gives its alpha apart, white where nothing is."""
    task = dict(mask=["image", 1])
    graphs = [wire(ask_subject(**task, mask_is=way), "image", image="cut_out.png") for way in ("auto", "background")]
    found = [read_pixels(base, server.run(graph), "task") for graph in graphs]
    given = np.asarray(draw_cut_out())
    expected = np.where(given[..., 3:] > 127, given[..., :3], 255)
    assert all(np.array_equal(one, expected) for one in found)


def test_a_graph_from_before_mask_is_draws_what_it_drew(server, base):
    """White was the subject, even along the border."""
    graph = wire(ask_subject(mask=["image", 1]), "image", image="cut_out.png")
    given = np.asarray(draw_cut_out())
    expected = np.where(given[..., 3:] > 127, 255, given[..., :3])
    found = read_pixels(base, server.run(graph), "task")
    assert np.array_equal(found[:32], expected[:32]) and np.array_equal(found[45:80, 40:90], expected[45:80, 40:90])


def test_experts_in_one_node_are_load_and_apply(server, base):
    def draw(**knobs):
        graph = wire(
            make_graph(), "source", expert=knobs.pop("expert", ""), expert_strength=knobs.pop("expert_strength", 1.0)
        )
        if knobs:
            node = make_node("CoLoGenExperts", model=["flux", 0], bank_name="tiny.safetensors", **knobs)
            graph = {name: one for name, one in {**graph, "apply": node}.items() if name != "bank"}
        return read_pixels(base, server.run(graph))

    assert np.array_equal(draw(strength=1.0), draw())
    assert np.array_equal(draw(strength=0.5), draw(expert_strength=0.5))
    assert np.array_equal(draw(strength=2.0, expert="CONTROL"), draw(expert="control", expert_strength=2.0))
    assert not np.array_equal(draw(strength=0.5), draw())
