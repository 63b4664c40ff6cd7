"""The task nodes as people use them: any picture, any mask, any size, and back again."""

import numpy as np
import pytest
import torch
from cologen.prw.comfyui.conditioning import list_sources
from cologen.training.data.tasks.ground import COLOURS, outline_boxes, paint
from pictures import draw_two_things

pytestmark = pytest.mark.usefixtures("comfy")

PROMPT = [[torch.randn(1, 5, 32), {"pooled_output": torch.randn(1, 16), "guidance": 3.5}]]


class Vae:
    """Its latents are the picture's own pixels, coarse: what was encoded can be seen."""

    def encode(self, image):
        assert image.shape[1] % 16 == 0 and image.shape[2] % 16 == 0 and image.shape[-1] == 3
        small = torch.nn.functional.avg_pool2d(image.movedim(-1, 1), 8)
        return torch.cat([small, small.new_zeros(len(small), 13, *small.shape[2:])], 1)


def run(node, **inputs):
    return node.execute(**inputs).args


def nodes():
    import cologen.nodes

    return cologen.nodes


def picture(height=64, width=48, images=1, seed=0):
    return torch.rand(images, height, width, 3, generator=torch.Generator().manual_seed(seed))


def sources(conditioning):
    (found,) = [list_sources(options) for _, options in conditioning]
    return found


SIZES = [(64, 48), (1023, 777), (1, 1), (30, 800), (8000, 300)]


@pytest.mark.parametrize("height, width", SIZES)
def test_any_picture_can_be_edited_and_gives_a_latent_of_its_shape(height, width):
    positive, negative, latent = run(nodes().CoLoGenEdit, positive=PROMPT, vae=Vae(), image=picture(height, width))
    (source,) = sources(positive)
    assert source.routing.task == "edit" and sources(negative)[0].identity == source.identity
    rows, columns = latent["samples"].shape[-2:]
    assert source.latent.shape[-2:] == (rows, columns) and max(rows, columns) * 8 <= 1024
    assert rows % 2 == 0 and columns % 2 == 0
    assert not negative[0][0].any() and not negative[0][1]["pooled_output"].any() and negative[0][1]["guidance"] == 3.5


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_pictures(channels):
    image = torch.rand(1, 32, 32, channels)
    for node in ("CoLoGenEdit", "CoLoGenSubject"):
        positive, *_ = run(getattr(nodes(), node), positive=PROMPT, vae=Vae(), image=image)
        assert len(sources(positive)) == 1


def test_sources_add_up_in_both_prompts():
    first = run(nodes().CoLoGenEdit, positive=PROMPT, vae=Vae(), image=picture())
    second = run(nodes().CoLoGenSubject, positive=first[0], negative=first[1], vae=Vae(), image=picture(seed=1))
    third = run(
        nodes().CoLoGenControl, positive=second[0], negative=second[1], vae=Vae(), map=picture(seed=2), kind="canny"
    )
    for prompt in third[:2]:
        assert [source.routing.task for source in sources(prompt)] == ["edit", "subject", "control"]


def test_options_reach_the_source():
    region = torch.zeros(1, 8, 8)
    region[0, :4] = 1
    knobs = dict(strength=0.5, expert_strength=2.0, start=0.1, end=0.9, size=32, position="shifted", shift_right=0.5)
    (options,) = run(
        nodes().CoLoGenSourceOptions, **knobs, shift_down=0.25, keep_on="fp8", keep_between_runs=True, region=region
    )
    (options,) = run(nodes().CoLoGenRouting, lean=-0.5, expert=" mine ", router="", curve="1, 0.5; 0", options=options)
    positive, *_ = run(nodes().CoLoGenEdit, positive=PROMPT, vae=Vae(), image=picture(), options=options)
    (source,) = sources(positive)
    assert (source.strength, source.start, source.end, source.placement, source.keep) == (0.5, 0.1, 0.9, "fp8", True)
    assert source.latent.shape[-2:] == (4, 4)
    assert torch.equal(source.region, region[0])
    routing = source.routing
    assert (routing.strength, routing.lean, routing.expert, routing.curve) == (2.0, -0.5, "mine", (1.0, 0.5, 0.0))
    assert (routing.position, routing.shift) == ("shifted", (0.25, 0.5))


def test_modes_are_marks_of_the_lean_and_older_experts_can_be_left_out():
    def routing(**given):
        (options,) = run(nodes().CoLoGenRouting, **(dict(lean=0.25, expert="", router="", curve="") | given))
        return run(nodes().CoLoGenEdit, positive=PROMPT, vae=Vae(), image=picture(), options=options)[0]

    (plain,) = sources(routing())
    assert (plain.routing.lean, plain.routing.older) == (0.25, "")
    for mode, lean in (("concept", -1), ("balanced", 0), ("localisation", 1), ("as lean says", 0.25)):
        assert sources(routing(mode=mode))[0].routing.lean == lean
    assert sources(routing(older="none"))[0].routing.older == "none"
    assert sources(routing(older="as routed"))[0].digest == plain.digest


def test_a_schedule_gives_each_source_its_window():
    both = run(nodes().CoLoGenEdit, positive=PROMPT, vae=Vae(), image=picture())[0]
    both = run(nodes().CoLoGenSubject, positive=both, vae=Vae(), image=picture(seed=1))[0]
    (found,) = run(nodes().CoLoGenExpertSchedule, conditioning=both, windows="0 to 0.4, 0.3 to 1")
    assert [(source.start, source.end) for source in sources(found)] == [(0.0, 0.4), (0.3, 1.0)]
    assert [(source.start, source.end) for source in sources(both)] == [(0.0, 1.0), (0.0, 1.0)], "the given one stays"


@pytest.mark.parametrize("height, width, side", [(64, 48, 64), (1023, 777, 100), (33, 47, 12)])
@pytest.mark.parametrize("feather", [0, 5])
def test_a_hole_is_filled_and_every_other_pixel_stays(height, width, side, feather):
    """The mask is of another size than the picture, as masks are."""
    image, mask = picture(height, width, 2), torch.zeros(1, side, side)
    mask[0, side // 4 : side // 2, side // 4 : side // 2] = 1
    given = dict(vae=Vae(), image=image, mask=mask, grow=3, keep_rest=True)
    positive, negative, latent = run(nodes().CoLoGenInpaint, positive=PROMPT, **given)
    (source,) = sources(positive)
    assert source.routing.task == "inpaint" and latent["samples"].shape == source.latent.shape
    hole = latent["noise_mask"][0, 0] > 0
    assert hole.any() and not hole.all()
    drawn = torch.full((2, hole.shape[0], hole.shape[1], 3), 0.25)
    (back,) = run(nodes().CoLoGenPasteBack, drawn=drawn, original=image, mask=mask, grow=3, feather=feather)
    assert back.shape == image.shape
    whole = torch.nn.functional.interpolate(mask[None], (height, width), mode="bilinear", antialias=True)[0, 0] > 0.5
    ys, xs = np.nonzero(whole.numpy())
    outside = torch.ones(height, width, dtype=torch.bool)
    outside[max(ys.min() - 3, 0) : ys.max() + 4, max(xs.min() - 3, 0) : xs.max() + 4] = False
    assert torch.equal(back[:, outside], image[:, outside])
    middle = back[:, (ys.min() + ys.max()) // 2, (xs.min() + xs.max()) // 2]
    if feather == 0 or len(ys) > 400:
        assert torch.allclose(middle, torch.tensor(0.25), atol=1e-3)


def test_a_shrunk_picture_is_pasted_back_as_far_as_its_hole_grew():
    image, mask = torch.zeros(1, 256, 256, 3), torch.zeros(1, 256, 256)
    mask[0, 64:128, 64:128] = 1
    drawn = torch.ones(1, 64, 64, 3)
    (back,) = run(nodes().CoLoGenPasteBack, drawn=drawn, original=image, mask=mask, grow=2, feather=0)
    expected = torch.zeros(256, 256)
    expected[56:136, 56:136] = 1  # two of the drawn picture's pixels, which are four of the original's each
    assert torch.equal(back[0, ..., 0], expected)


def test_the_source_shows_the_hole_in_the_trained_grey():
    image, mask = picture(64, 64), torch.zeros(1, 64, 64)
    mask[0, 16:32, 16:32] = 1
    positive, *_ = run(
        nodes().CoLoGenInpaint, positive=PROMPT, vae=Vae(), image=image, mask=mask, grow=0, keep_rest=False
    )
    (source,) = sources(positive)
    assert torch.allclose(source.latent[0, :3, 2:4, 2:4], torch.tensor(128 / 255))
    assert not torch.allclose(source.latent[0, :3, :2, :2], torch.tensor(128 / 255), atol=1e-2)


@pytest.mark.parametrize(
    "change, sentence",
    [
        (dict(mask=torch.zeros(1, 8, 8)), "The mask is empty"),
        (dict(mask=torch.ones(3, 8, 8)), "3 masks for 1 images"),
        (dict(vae=None), "There is no VAE"),
        (dict(image=torch.zeros(1, 0, 4, 3)), "The image has shape"),
    ],
)
def test_inpainting_that_cannot_be_is_a_sentence(change, sentence):
    given = dict(positive=PROMPT, vae=Vae(), image=picture(), mask=torch.ones(1, 8, 8), grow=0, keep_rest=True)
    with pytest.raises(ValueError, match=sentence):
        run(nodes().CoLoGenInpaint, **{**given, **change})


@pytest.mark.parametrize("curve, sentence", [("a, b", "The curve is 'a, b'"), ("nan", "curve is nan")])
def test_curves_that_are_none_are_a_sentence(curve, sentence):
    (options,) = run(nodes().CoLoGenRouting, lean=0.0, expert="", router="", curve="1", options=None)
    with pytest.raises(ValueError, match=sentence):
        (options,) = run(nodes().CoLoGenRouting, lean=0.0, expert="", router="", curve=curve, options=options)
        run(nodes().CoLoGenEdit, positive=PROMPT, vae=Vae(), image=picture(), options=options)


@pytest.mark.parametrize(
    "windows, sentence", [("0 - 1", "A window is '0 - 1'"), ("0 to 1, 0 to 1", "2 windows for 1 sources")]
)
def test_windows_that_are_none_are_a_sentence(windows, sentence):
    one = run(nodes().CoLoGenEdit, positive=PROMPT, vae=Vae(), image=picture())[0]
    with pytest.raises(ValueError, match=sentence):
        run(nodes().CoLoGenExpertSchedule, conditioning=one, windows=windows)


def test_a_subject_is_cut_out_onto_white_paper():
    mask = torch.zeros(1, 64, 64)
    mask[0, :32] = 1
    positive, _ = run(nodes().CoLoGenSubject, positive=PROMPT, vae=Vae(), image=picture(64, 64), mask=mask)
    (source,) = sources(positive)
    assert torch.allclose(source.latent[0, :3, 5:], torch.tensor(1.0)) and source.latent[0, :3, :3].mean() < 0.8


def test_nothing_found_is_said():
    base, _ = draw_two_things()
    image = torch.from_numpy(base.astype(np.float32) / 255)[None]
    mask, box, overlay, text, boxes = run(
        nodes().CoLoGenReadGrounding, drawn=image, original=image, form="box", colour="red"
    )
    assert not mask.any() and box == {"x": 0, "y": 0, "width": 0, "height": 0} and boxes == [[]]
    assert text.startswith("Nothing was found")
    assert torch.allclose(overlay, image, atol=1 / 255)


def test_an_answer_of_another_size_is_read_in_the_original_s_pixels():
    base, things = draw_two_things()
    answer = paint(base, outline_boxes(things[:1], base.shape[:2]), COLOURS["red"], 1.0)
    original, drawn = (torch.from_numpy(part.astype(np.float32) / 255)[None] for part in (base, answer))
    large = torch.nn.functional.interpolate(drawn.movedim(-1, 1), scale_factor=2, mode="nearest").movedim(1, -1)
    mask, box, _, text, _ = run(nodes().CoLoGenReadGrounding, drawn=large, original=original, form="box", colour="red")
    assert mask.shape == (1, 120, 140) and text.startswith("1 found")
    assert all(abs(box[key] - value) <= 1 for key, value in dict(x=12, y=10, width=38, height=20).items())


@pytest.mark.parametrize("form", ["box", "mask"])
def test_an_answer_in_another_colour_is_named(form):
    base, things = draw_two_things()
    area, opacity = (outline_boxes(things[:1], base.shape[:2]), 1.0) if form == "box" else (things[0].mask, 0.5)
    answer = paint(base, area, COLOURS["green"], opacity)
    original, drawn = (torch.from_numpy(part.astype(np.float32) / 255)[None] for part in (base, answer))
    *_, text, _ = run(nodes().CoLoGenReadGrounding, drawn=drawn, original=original, form=form, colour="red")
    assert (
        text
        == "Nothing was found in this colour, but an answer in green: choose the colour that CoLoGen Ground asked for."
    )
