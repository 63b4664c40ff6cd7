"""Boxes of the host: where a source is read, and where Ground looks."""

import numpy as np
import pytest
import torch
from cologen.training.data.tasks.ground import COLOURS, outline_boxes, paint
from pictures import draw_two_things

pytestmark = pytest.mark.usefixtures("comfy")

WINDOW = dict(x=4, y=6, width=60, height=44)
"""Round the first of the two things, and not the second."""


def make_box(x=0, y=0, width=8, height=8, **rest):
    return dict(x=x, y=y, width=width, height=height, **rest)


def read(*given):
    from cologen.prw.comfyui.boxes import read_boxes

    return [tuple(box) for box in read_boxes(*given)]


def test_every_form_in_which_nodes_of_the_host_give_boxes_is_read():
    one, two = make_box(1, 2, 3, 4), make_box(5, 6, 7, 8, label="dog", score=0.5)
    assert read(one) == read([one]) == read([[one]]) == [(1, 2, 3, 4)]
    assert read([one, two]) == read([[one, two]]) == [(1, 2, 3, 4), (5, 6, 7, 8)]
    assert read([[one, two]], 2) == [(5, 6, 7, 8)]
    assert read(make_box(1.4, 1.6, 2.5, 9.0)) == [(1, 2, 2, 9)]


@pytest.mark.parametrize(
    "given, sentence",
    [
        (([],), "There are no boxes"),
        (([[]],), "There are no boxes"),
        (([[make_box()], [make_box()]],), "those of 2 pictures"),
        (([make_box(), make_box()], 3), "Box number is 3, expected at most 2"),
        ((make_box(width=0),), "is empty"),
        ((make_box(width=float("nan")),), "without x, y, width and height"),
        ((make_box(x=float("inf")),), "without x, y, width and height"),
        ((make_box(x="left"),), "without x, y, width and height"),
        (([{"bbox": [0, 0, 1, 1]}],), "without x, y, width and height"),
        ((["left"],), "without x, y, width and height"),
        (("left",), "without x, y, width and height"),
    ],
)
def test_boxes_that_are_none_are_a_sentence(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(*given)


@pytest.mark.parametrize("box", [(8, 24, 40, 16), (-8, -8, 20, 30), (50, 3, 1000, 7), (0, 0, 96, 64)])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_box_weighs_as_the_mask_of_its_pixels(box, strength):
    """Also where it cuts through tokens, and where it goes beyond the picture."""
    from cologen.prw.boxes import Rectangle
    from cologen.prw.positions import Grid
    from cologen.prw.source import Source, read_bias

    grid, (x, y, width, height) = Grid(0, 0, 1, 1, 4, 6), box
    mask = torch.zeros(64, 96)
    for row in range(64):
        for column in range(96):
            mask[row, column] = x <= column < x + width and y <= row < y + height
    latent = torch.zeros(1, 16, 8, 12)
    given = [dict(boxes=(Rectangle(*box),)), dict(region=mask)]
    biases = [read_bias(Source(latent=latent, strength=strength, **where), 5, grid, 29) for where in given]
    assert torch.equal(*biases)


def test_a_source_s_identity_knows_its_boxes():
    from cologen.prw.boxes import Rectangle
    from cologen.prw.source import Source

    kinds = [(), (Rectangle(0, 0, 8, 8),), (Rectangle(0, 0, 8, 9),)]
    sources = [Source(latent=torch.zeros(1, 16, 8, 8), boxes=boxes) for boxes in kinds]
    assert len({source.identity for source in sources}) == 3 and len({source.digest for source in sources}) == 1


def test_a_box_outside_of_the_picture_is_a_sentence():
    from cologen.prw.boxes import Rectangle

    with pytest.raises(
        ValueError, match="8 x 9 pixels at 96, 0 lies outside of the picture, expected it within 96 x 64"
    ):
        Rectangle(96, 0, 8, 9).clip(64, 96)


class Clip:
    """Ground writes its prompt into a text encoder; here any will do."""

    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, tokens):
        return [[torch.zeros(1, len(tokens), 32), {}]]


class Vae:
    """Its latents are the picture's own pixels, coarse: what was encoded can be seen."""

    def encode(self, image):
        small = torch.nn.functional.avg_pool2d(image.movedim(-1, 1), 8)
        return torch.cat([small, small.new_zeros(len(small), 13, *small.shape[2:])], 1)


def run(node, **inputs):
    return node.execute(**inputs).args


def test_ground_looks_at_the_rectangle_round_all_boxes():
    from cologen.nodes import CoLoGenGround
    from cologen.prw.comfyui.conditioning import list_sources

    image = torch.rand(1, 120, 140, 3, generator=torch.Generator().manual_seed(0))
    knobs = dict(clip=Clip(), vae=Vae(), phrase="dog", form="box", colour="red")
    seen = [run(CoLoGenGround, image=image, boxes=[[make_box(4, 6, 20, 44), make_box(30, 7, 34, 5)]], **knobs)]
    seen.append(run(CoLoGenGround, image=image[:, 6:50, 4:64], **knobs))
    (one,), (other,) = (list_sources(positive[0][1]) for positive, *_ in seen)
    assert torch.equal(one.latent, other.latent)
    assert seen[0][2]["samples"].shape == seen[1][2]["samples"].shape


@pytest.mark.parametrize("form", ["box", "mask", "instance", "detect"])
def test_an_answer_in_a_window_is_read_in_the_original_s_pixels(form):
    """As if the whole picture had been drawn; an answer outside is none."""
    from cologen.nodes import CoLoGenReadGrounding

    base, things = draw_two_things()
    area, opacity = (outline_boxes(things[:1], base.shape[:2]), 1.0) if form != "mask" else (things[0].mask, 0.5)
    answer = paint(base, area, COLOURS["red"], opacity)
    original, drawn = (torch.from_numpy(part.astype(np.float32) / 255)[None] for part in (base, answer))
    knobs = dict(original=original, form=form, colour="red")
    whole = run(CoLoGenReadGrounding, drawn=drawn, **knobs)
    part = run(CoLoGenReadGrounding, drawn=drawn[:, 6:50, 4:64], boxes=WINDOW, **knobs)
    assert whole[0].any() and torch.equal(part[0], whole[0]) and torch.equal(part[2], whole[2])
    assert (part[1], part[3], part[4]) == (whole[1], whole[3], whole[4])
    assert part[4] == [[part[1]]]


@pytest.mark.parametrize(
    "drawn, size, same",
    [
        ((64, 48), (640, 480), True),
        ((1024, 688), (1000, 667), True),
        ((1024, 1024), (1000, 667), False),
        ((64, 48), (48, 64), False),
    ],
)
def test_a_picture_of_another_shape_is_told(drawn, size, same):
    """Ground looked at a piece, and Read Grounding is given the whole picture."""
    from cologen.nodes import CoLoGenReadGrounding

    knobs = dict(original=torch.zeros(1, *size, 3), form="box", colour="red")
    text = run(CoLoGenReadGrounding, drawn=torch.zeros(1, *drawn, 3), **knobs)[3]
    assert text.startswith("Nothing was found") and ("another shape" in text) == (not same)
