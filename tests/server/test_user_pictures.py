"""What people feed to nodes, through a real server with the set that ships: a right picture, or one sentence."""

import numpy as np
import pytest
import torch
from canvas import Canvas
from cologen.training.comfyui.server import make_node, open_picture
from cologen.training.toy.render import render
from cologen.training.toy.scene import Item, Scene
from PIL import Image
from workflows_toy import ENLARGED, Toy

pytestmark = pytest.mark.usefixtures("comfy")
SCENE = Scene(
    "white",
    (Item("circle", "red", "plain", "big", "top left"), Item("square", "green", "plain", "small", "bottom right")),
)


def picture(mode: str, width: int, height: int) -> Image.Image:
    return Image.fromarray(render(SCENE)).resize((width, height)).convert(mode)


PICTURES = {
    "colour": picture("RGB", 64, 64),
    "rgba": picture("RGBA", 64, 48),
    "grey": picture("L", 48, 64),
    "dot": picture("RGB", 1, 1),
    "ribbon": picture("RGB", 8000, 300),
    "odd": picture("RGB", 1023, 777),
    "other_size": Image.fromarray(np.pad(np.full((30, 30), 255, np.uint8), (5, 45))),
    "empty": Image.new("L", (64, 64), 0),
    "full": Image.new("L", (64, 64), 255),
}


NEAR = 40
"""Of 255 a pixel, on the mean: what an edit keeps, even on shapes that the toy world does not have."""


@pytest.fixture(scope="module", autouse=True)
def files(base):
    for name, picture in PICTURES.items():
        picture.save(base / f"input/{name}.png")


def picture_of(base, entry: dict) -> np.ndarray:
    """The last one that was saved, one pixel of each that is many."""
    (number,) = [number for number, shown_by in entry["outputs"].items() if shown_by["images"][0]["type"] == "output"]
    return np.asarray(open_picture(base, entry, number), dtype=float)[::ENLARGED, ::ENLARGED]


def said(entry: dict) -> str:
    (error,) = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
    return error["exception_message"].strip()


def edited(
    info, image: str, text: str = "make the circle at the top left blue", batch: int = 1, size: int = 64
) -> Canvas:
    canvas = Canvas(info)
    toy = Toy(canvas)
    picture = canvas.add("LoadImage", image=f"{image}.png")["IMAGE"]
    if batch > 1:
        picture = canvas.add("RepeatImageBatch", image=picture, amount=batch)[0]
    options = canvas.add("CoLoGenSourceOptions", size=size)
    told = toy.task("CoLoGenEdit", toy.words(text)[0], image=picture, options=options[0])
    toy.save_image(toy.sample(told)[0], "edited")
    return canvas


@pytest.mark.parametrize(
    "image, shape",
    [("rgba", (48, 64)), ("grey", (64, 48)), ("dot", (16, 16)), ("ribbon", (16, 64)), ("odd", (48, 64))],
)
def test_any_picture(server, base, info, image, shape):
    found = picture_of(base, server.run(edited(info, image).prompt()))
    assert found.shape == (*shape, 3)
    given = PICTURES[image].convert("RGB").resize(shape[::-1])
    assert np.abs(found - np.asarray(given, dtype=float)).mean() < NEAR


@pytest.mark.parametrize(
    "text", ["把左上角的圆变成蓝色", "make the red circle blue " * 160, ""], ids=["zh", "long", "none"]
)
def test_any_words(server, base, info, text):
    assert picture_of(base, server.run(edited(info, "colour", text).prompt())).std() > 1


def test_a_batch_gives_as_many_pictures(server, base, info):
    entry = server.run(edited(info, "colour", batch=4).prompt())
    (saved,) = [
        shown_by["images"] for shown_by in entry["outputs"].values() if shown_by["images"][0]["type"] == "output"
    ]
    assert len(saved) == 4


def filled(info, mask: str, batch: int = 1, grow: int = 2) -> Canvas:
    canvas = Canvas(info)
    toy = Toy(canvas)
    picture = canvas.add("LoadImage", image="colour.png")["IMAGE"]
    if batch > 1:
        picture = canvas.add("RepeatImageBatch", image=picture, amount=batch)[0]
    hole = dict(mask=canvas.add("LoadImageMask", image=f"{mask}.png", channel="red")[0], grow=grow)
    told = toy.task("CoLoGenInpaint", toy.words("a big plain blue square in the top left")[0], image=picture, **hole)
    drawn = toy.sample(told)[0]
    whole = canvas.add("CoLoGenPasteBack", drawn=drawn, original=picture, feather=0, **hole)
    toy.save_image(whole[0], "filled")
    return canvas


@pytest.mark.parametrize("mask, kept", [("other_size", slice(34, 64)), ("full", slice(0, 0))])
@pytest.mark.parametrize("batch", [1, 4])
def test_any_mask(server, base, info, mask, kept, batch):
    """The mask of another size is white where the circle is, from 4 to 28 of 64 pixels."""
    found = picture_of(base, server.run(filled(info, mask, batch).prompt()))
    given = np.asarray(PICTURES["colour"], dtype=float)
    assert np.array_equal(found[kept], given[kept]) and np.abs(found - given)[8:24, 8:24].mean() > 10


def test_an_empty_mask_is_a_sentence(server, info):
    assert said(server.run(filled(info, "empty", grow=0).prompt())).startswith("The mask is empty")


def test_a_negative_without_a_source_is_the_plain_model_s(server, base, info):
    """With cfg, and the source on one side only: a picture, and another one than with both."""
    both = edited(info, "colour").prompt()
    alone = edited(info, "colour").prompt()
    (sampler,) = [entry["inputs"] for entry in alone.values() if entry["class_type"] == "KSampler"]
    (task,) = [entry["inputs"] for entry in alone.values() if entry["class_type"] == "CoLoGenEdit"]
    sampler["negative"] = task["negative"]
    one, other = (picture_of(base, server.run(graph)) for graph in (both, alone))
    assert other.std() > 1 and np.abs(one - other).mean() > 1


def test_two_banks_on_one_model_are_a_sentence(server, info):
    graph = edited(info, "colour").prompt()
    (number,) = [number for number, entry in graph.items() if entry["class_type"] == "CoLoGenExperts"]
    graph["again"] = make_node("CoLoGenExperts", **{**graph[number]["inputs"], "model": [number, 0]})
    (sampler,) = [entry["inputs"] for entry in graph.values() if entry["class_type"] == "KSampler"]
    sampler["model"] = ["again", 0]
    assert said(server.run(graph)).startswith("This MODEL already has a CoLoGen bank")


def test_another_family_is_a_sentence(comfy):
    import comfy.model_patcher
    import comfy.supported_models
    from cologen.nodes import CoLoGenApply
    from cologen.prw.bank.bank import Bank
    from cologen.training.from_scratch.store import BANK
    from cologen.training.toy.store import TOY

    shape = dict(
        comfy.supported_models.SDXL.unet_config, in_channels=4, out_channels=4, model_channels=64, num_res_blocks=[1, 1, 1],
        transformer_depth_output=[0] * 6, transformer_depth=[0, 0, 1], channel_mult=[1, 1, 1],
        use_spatial_transformer=True, transformer_depth_middle=1, context_dim=16, adm_in_channels=2816, image_size=32, dtype=torch.float32,
    )  # fmt: skip
    model = comfy.supported_models.SDXL(shape).get_model({}, device="cpu")
    patcher = comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
    with pytest.raises(ValueError, match="The model is a UNetModel, expected ComfyUI's own FLUX"):
        CoLoGenApply.execute(patcher, Bank.open(TOY.folder / BANK))
