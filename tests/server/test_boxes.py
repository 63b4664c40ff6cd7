"""Boxes of the host's own nodes in a real server: they say where a source is read as masks do."""

import numpy as np
import pytest
from cologen.training.comfyui.server import make_node
from cologen.training.data.tasks.ground import COLOURS
from PIL import ImageDraw
from tiny_server import SIDE, draw_scene, make_tiny_prompt, read_pixels

LEFT, RIGHT = dict(x=0, y=8, width=56, height=112), dict(x=72, y=20, width=56, height=90)
FOUND = dict(x=16, y=32, width=64, height=48)
KNOBS = dict(
    strength=2.0, expert_strength=1.0, start=0.0, end=1.0, size=0, position="auto", shift_right=1.0, shift_down=0.0
)
OPTIONS = dict(**KNOBS, keep_on="gpu", keep_between_runs=False)


@pytest.fixture(scope="module", autouse=True)
def files(base):
    answer = draw_scene()
    x, y, width, height = FOUND.values()
    ImageDraw.Draw(answer).rectangle((x, y, x + width - 1, y + height - 1), outline=COLOURS["red"], width=4)
    answer.save(base / "input/found.png")


def draw_mask(name: str, x: int, y: int, width: int, height: int) -> dict:
    """A white rectangle as people make it of core nodes."""
    return {
        f"{name}_black": make_node("SolidMask", value=0.0, width=SIDE, height=SIDE),
        f"{name}_white": make_node("SolidMask", value=1.0, width=width, height=height),
        name: make_node(
            "MaskComposite", destination=[f"{name}_black", 0], source=[f"{name}_white", 0], x=x, y=y, operation="add"
        ),
    }


def make_canvas(*boxes: dict, **more) -> dict:
    """With the boxes that were drawn on it, as the frontend sends what a widget holds."""
    return make_node("CreateBoundingBoxes", width=SIDE, height=SIDE, editor_state={"__value__": list(boxes)}, **more)


def place_subjects(*places: dict, **more: dict) -> dict:
    """The tiny graph with a subject for each place, given as inputs of its Source Options."""
    graph = {name: node for name, node in make_tiny_prompt().items() if name not in ("map", "keep", "source")} | more
    before = dict(positive=["text", 0])
    for i, (place, picture) in enumerate(zip(places, ("subject", "edit"))):
        graph[f"picture_{i}"] = make_node("LoadImage", image=f"{picture}.png")
        graph[f"options_{i}"] = make_node("CoLoGenSourceOptions", **OPTIONS, **place)
        task = make_node(
            "CoLoGenSubject", vae=["vae", 0], image=[f"picture_{i}", 0], options=[f"options_{i}", 0], **before
        )
        graph[f"task_{i}"] = task
        before = dict(positive=[f"task_{i}", 0], negative=[f"task_{i}", 1])
    graph["sample"]["inputs"].update(positive=before["positive"])
    return graph


def test_a_box_is_the_mask_of_its_rectangle(server, base):
    number = make_node("PrimitiveBoundingBox", **LEFT)
    ways = {
        "mask": place_subjects(dict(region=["mask", 0]), **draw_mask("mask", **LEFT)),
        "four numbers": place_subjects(dict(boxes=["box", 0]), box=number),
        "a canvas": place_subjects(dict(boxes=["box", 1]), box=make_canvas(LEFT)),
    }
    pictures = {way: read_pixels(base, server.run(graph)) for way, graph in ways.items()}
    assert all(np.array_equal(picture, pictures["mask"]) for picture in pictures.values())
    assert not np.array_equal(read_pixels(base, server.run(place_subjects({}))), pictures["mask"])


def test_two_subjects_get_their_places_by_two_rectangles_of_one_canvas(server, base):
    canvas = place_subjects(*(dict(boxes=["box", 1], box_number=i) for i in (1, 2)), box=make_canvas(LEFT, RIGHT))
    masks = draw_mask("left", **LEFT) | draw_mask("right", **RIGHT)
    by_masks = place_subjects(dict(region=["left", 0]), dict(region=["right", 0]), **masks)
    swapped = place_subjects(*(dict(boxes=["box", 1], box_number=i) for i in (2, 1)), box=make_canvas(LEFT, RIGHT))
    one, other, third = (read_pixels(base, server.run(graph)) for graph in (canvas, by_masks, swapped))
    assert np.array_equal(one, other) and not np.array_equal(one, third)


def test_what_was_found_is_a_place_and_a_box_of_the_host(server, base):
    """Read Grounding -> boxes -> region; the same boxes go through the host's canvas and its drawing of boxes."""
    answer = dict(drawn=["answer", 0], original=["scene", 0], form="box", colour="red")
    read = dict(
        answer=make_node("LoadImage", image="found.png"),
        scene=make_node("LoadImage", image="edit.png"),
        read=make_node("CoLoGenReadGrounding", **answer),
        canvas=make_canvas(bboxes=["read", 4]),
        frame=make_node("DrawBBoxes", image=["scene", 0], bboxes=["read", 4]),
        shown=make_node("PreviewImage", images=["frame", 0]),
    )
    places = [dict(region=["read", 0]), dict(boxes=["read", 1]), dict(boxes=["read", 4]), dict(boxes=["canvas", 1])]
    runs = [server.run(place_subjects(place, **read)) for place in places]
    pictures = [read_pixels(base, run) for run in runs]
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures[1:])
    by_hand = place_subjects(dict(boxes=["box", 0]), box=make_node("PrimitiveBoundingBox", **FOUND))
    assert np.array_equal(read_pixels(base, server.run(by_hand)), pictures[0])
    changed = (read_pixels(base, runs[0], "shown") != np.asarray(draw_scene(), int)).any(-1)
    rows, columns = (np.nonzero(changed.any(axis))[0] for axis in (1, 0))
    assert abs(rows[0] - FOUND["y"]) <= 3 and abs(columns[0] - FOUND["x"]) <= 3
