"""The example workflows: as they are written, and run in a real server to their picture."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from canvas import Canvas
from cologen.training.comfyui.server import open_picture
from cologen.training.data.tasks.ground import read_mask
from cologen.training.data.tasks.masks import compute_iou
from cologen.training.from_scratch.evaluate import HELD_OUT_SEED
from cologen.training.toy.render import draw_item_mask
from cologen.training.toy.scene import MARKERS
from cologen.training.toy.store import TOY
from cologen.training.world.grounds import SIDE
from cologen.training.world.oracle import read_scene
from cologen.training.world.render import find_visible_masks
from cologen.training.world.stickers import NAMED
from cologen.training.world.store import STICKER_NAME, STICKERS
from graph_files import text_of
from make_workflows import BUILT_IN, FOLDER, WORKFLOWS, drawn
from pack import ROOT
from workflows_flux import FILES, OWN
from workflows_stickers import Stickers
from workflows_toy import ENLARGED, Toy, sampled

GOOD, GOOD_MASK, FAR = 0.75, 0.6, 0.04
"""A score's least, a drawn mask's, and a difference's most."""


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_file_is_what_the_graph_says(info, name):
    """After a change to nodes: `python tests/tools/make_workflows.py`."""
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == text_of(drawn(name, info))


def test_every_file_has_its_graph():
    assert {path.stem for path in FOLDER.glob("*.json")} == WORKFLOWS.keys()


@pytest.mark.parametrize("name", [name for name in WORKFLOWS if name not in BUILT_IN])
def test_files_to_fetch_are_named_with_link_and_folder(name):
    saved = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    wanted = {model["name"]: model for node in saved["nodes"] for model in node["properties"].get("models", [])}
    chosen = {
        value
        for node in saved["nodes"]
        for value in node.get("widgets_values", [])
        if isinstance(value, str) and value.endswith(".safetensors")
    }
    assert wanted.keys() == chosen - {OWN}
    for model in wanted.values():
        assert (model["directory"], model["url"]) == FILES[model["name"]]


def draw_result(server, base, graph) -> np.ndarray:
    """Runs a graph; what is enlarged in it stays as it was drawn."""
    for node in graph.values():
        if node["class_type"] == "ImageScaleBy":
            node["inputs"] |= {"upscale_method": "nearest-exact", "scale_by": 1.0}
    (node,) = [number for number, node in graph.items() if node["class_type"] == "SaveImage"]
    return np.asarray(open_picture(base, server.run(graph), node), dtype=float)


def test_a_toy_picture_is_enlarged_and_not_blurred(server, base, info):
    graph = drawn("toy_edit", info).prompt()
    (node,) = [number for number, node in graph.items() if node["class_type"] == "SaveImage"]
    large = np.asarray(open_picture(base, server.run(graph), node), dtype=float)
    assert np.array_equal(large, draw_result(server, base, graph).repeat(ENLARGED, 0).repeat(ENLARGED, 1))


RUN = [name for name in BUILT_IN if "train" not in name]


@pytest.mark.parametrize("name", RUN)
def test_the_built_in_worlds_workflows_run_to_their_picture(server, base, info, name):
    side = 128 if name.startswith("sticker") else 64
    width = 2 * side if name == "toy_inpaint_full_resolution" else side
    picture = draw_result(server, base, drawn(name, info).prompt())
    assert picture.shape == (side, width, 3) and picture.std() > 5


WORLDS_BY_PREFIX = {"toy": TOY, "sticker": STICKERS}


def find_question(prefix: str, graph):
    (node,) = [node["inputs"] for node in graph.values() if node["class_type"] == "CoLoGenToyQuestion"]
    (question,) = WORLDS_BY_PREFIX[prefix].ask_held_out(node["task"], 1, HELD_OUT_SEED + node["question_seed"])
    return question


ASKED = [(world.prefix, task) for world in (Toy, Stickers) for task in world.notes if task != "ground"]


@pytest.mark.parametrize("prefix, task", ASKED)
def test_the_oracle_finds_each_task_s_answer_right(server, base, info, prefix, task):
    graph = drawn(f"{prefix}_{task}", info).prompt()
    question = find_question(prefix, graph)
    if task == "control":
        question = replace(question, example=replace(question.example, kind="canny"))  # whose edges the graph draws
    scores = WORLDS_BY_PREFIX[prefix].scorers[task](question, draw_result(server, base, graph))
    for name, value in scores.items():
        assert value <= FAR if name in ("outside", "rest", "wrong") else value >= GOOD, scores


def draw_answer(server, base, info, prefix: str):
    """Runs a workflow of ground; gives what was drawn, and its question."""
    canvas = drawn(f"{prefix}_ground", info)
    graph = canvas.prompt()
    (preview,) = [str(node.number) for node in canvas.nodes if node.title == "Drawn"]
    return np.asarray(open_picture(base, server.run(graph), preview)), find_question(prefix, graph)


def test_the_thing_that_is_asked_for_is_found(server, base, info):
    picture, question = draw_answer(server, base, info, "toy")
    thing = next(thing for thing in question.scene.items if thing.place in Toy.phrase)
    found = read_mask(picture, question.example.source, Toy.colour, colours=MARKERS)
    assert compute_iou(found, draw_item_mask(thing)) >= GOOD


def test_the_sticker_that_is_asked_for_is_found(server, base, info):
    picture, question = draw_answer(server, base, info, "sticker")
    things, masks = question.before.things, find_visible_masks(question.before)
    (mask,) = [mask for thing, mask in zip(things, masks) if f"the {NAMED[thing.sticker]}" == Stickers.phrase]
    assert compute_iou(read_mask(picture, question.example.source, Stickers.colour), mask) >= GOOD_MASK


def test_the_sticker_world_draws_the_example_of_load_flux_s_page(server, base, info):
    page = (ROOT / "web/docs/CoLoGenLoadFlux.md").read_text(encoding="utf-8")
    (words,) = re.findall(r"The sticker world.*\*(a fox .*)\*", page)
    canvas = Canvas(info)
    flux = canvas.add("CoLoGenLoadFlux", unet_name=STICKER_NAME, vae_name=STICKER_NAME)
    positive, negative = (canvas.add("CLIPTextEncode", clip=flux["CLIP"], text=text)[0] for text in (words, ""))
    latent = canvas.add("EmptySD3LatentImage", width=SIDE, height=SIDE)[0]
    drawn = sampled(canvas, flux["VAE"], flux["MODEL"], dict(positive=positive, negative=negative), latent)
    node = canvas.add("SaveImage", images=drawn[0], filename_prefix="sticker_words")
    picture = np.asarray(open_picture(base, server.run(canvas.prompt()), str(node.number)))
    reading = read_scene(picture)
    assert reading.scene.ground == "beach"
    assert [
        (thing.sticker, thing.place) for thing in sorted(reading.scene.things, key=lambda thing: thing.sticker)
    ] == [
        ("car", "bottom right"),
        ("fox", "top left"),
    ]


TRAINED = [("toy_train_stage", "toy_edit"), ("toy_train_own_expert", "toy_own"), ("toy_train_features", "toy_features")]


@pytest.mark.parametrize("name, run", TRAINED)
def test_the_training_workflows_train_and_draw_result(server, base, info, name, run):
    graph = drawn(name, info).prompt()
    (stage,) = [node["inputs"] for node in graph.values() if node["class_type"] == "CoLoGenTrainStage"]
    (data,) = [node["inputs"] for node in graph.values() if node["class_type"] == "CoLoGenTrainingData"]
    stage |= {"iterations": 3, "batch": 4, "sample_every": 3}
    data["count"] = 24
    assert draw_result(server, base, graph).std() > 5
    assert (base / f"output/cologen/{run}/bank.safetensors").is_file()


def test_features_come_from_the_stage_or_from_its_run(server, base, info):
    graph = drawn("toy_train_features", info).prompt()
    for kind, fewer in {
        "CoLoGenTrainStage": dict(iterations=2, batch=4, sample_every=0, run="two"),
        "CoLoGenTrainingData": dict(count=80),
    }.items():
        (inputs,) = [node["inputs"] for node in graph.values() if node["class_type"] == kind]
        inputs |= fewer
    (inputs,) = [node["inputs"] for node in graph.values() if node["class_type"] == "CoLoGenFeatures"]
    connected = draw_result(server, base, graph)
    file = "runs/two/stages/1-subject.features.safetensors"
    assert (
        file in server.get("/object_info/CoLoGenFeatures")["CoLoGenFeatures"]["input"]["required"]["file"][1]["options"]
    )
    assert (base / "output/cologen/two/stages/1-subject.features.safetensors").is_file()
    del inputs["features"]
    inputs["file"] = file
    assert np.array_equal(draw_result(server, base, graph), connected)
    inputs["weight"] = 0.0
    assert not np.array_equal(draw_result(server, base, graph), connected)


def test_the_subject_s_workflow_trains_and_draws(server, base, info):
    graph = drawn("toy_train_subject", info).prompt()
    (knobs,) = [node["inputs"] for node in graph.values() if node["class_type"] == "CoLoGenTrainSubject"]
    knobs |= {"iterations": 3, "batch": 4, "sample_every": 3}
    assert draw_result(server, base, graph).std() > 5
    assert (base / "output/cologen/toy_own_subject/subject.safetensors").is_file()
