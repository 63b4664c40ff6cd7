"""Inpainting at full resolution with the host's own nodes: what is cut, what is drawn, and the whole picture again."""

import numpy as np
import pytest
import torch
from cologen.prw.comfyui.conditioning import list_sources
from host_family import HostFamily
from PIL import Image
from tiny_server import make_tiny_vae

pytestmark = pytest.mark.usefixtures("comfy", "folders")


def crop(image, mask, grow=0, feather=0, context=1.5, size=64):
    from cologen.nodes import CoLoGenCropForInpaint

    given = dict(grow=grow, feather=feather, context=context, size=size)
    return CoLoGenCropForInpaint.execute(image=image, mask=mask, **given).args


def put_back(stitch, drawn):
    from cologen.nodes import CoLoGenStitch

    return CoLoGenStitch.execute(stitch=stitch, drawn=drawn).args[0]


def picture(height, width, images=1, channels=3, seed=0):
    return torch.rand(images, height, width, channels, generator=torch.Generator().manual_seed(seed))


def draw_soft_mask(height, width, masks=1):
    """White discs with slopes, each mask's in another place."""
    y, x = np.mgrid[:height, :width]
    found = []
    for i in range(masks):
        far = np.hypot(y - height * 0.4, x - width * (0.3 + 0.4 * i))
        found.append(np.clip((min(height, width) * 0.2 - far) / 6, 0, 1))
    return torch.from_numpy(np.stack(found).astype(np.float32))


def resize(picture, size, kind=Image.Resampling.BICUBIC):
    """By Pillow, a channel at a time."""
    channels = [
        Image.fromarray(np.ascontiguousarray(part)).resize(size[::-1], kind) for part in picture.T.swapaxes(1, 2)
    ]
    return np.clip(np.stack([np.asarray(part) for part in channels], -1), 0, 1)


def naive_hole(mask, grow):
    """Every pixel the largest of its neighbourhood."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            found[y, x] = mask[max(y - grow, 0) : y + grow + 1, max(x - grow, 0) : x + grow + 1].max()
    return np.where(found > 0.02, found, 0)


def naive_weight(hole, feather):
    """The hole, or how deep a pixel lies in it, whichever is less."""
    outside = np.argwhere(hole == 0)
    found = np.zeros_like(hole)
    for y, x in np.argwhere(hole > 0):
        depth = np.abs(outside - (y, x)).max(1).min() if len(outside) else feather + 1
        found[y, x] = min(hole[y, x], min(depth, feather + 1) / (feather + 1))
    return found


@pytest.mark.parametrize("height, width, size", [(90, 121, 64), (41, 37, 64), (200, 150, 48)])
@pytest.mark.parametrize("grow, feather", [(0, 0), (3, 4)])
def test_outside_the_hole_nothing_changes_and_inside_stands_the_crop(height, width, size, grow, feather):
    image, mask = picture(height, width), draw_soft_mask(height, width)
    stitch, part, inside, preview = crop(image, mask, grow, feather, size=size)
    hole = naive_hole(mask[0].numpy(), grow)
    (window,) = stitch.windows
    rows, columns = window.clip((height, width))
    if (rows.stop - rows.start, columns.stop - columns.start) == (window.height, window.width):
        cut = image[0, rows, columns].numpy()
        assert np.allclose(part[0].numpy(), resize(cut, part.shape[1:3]), atol=1e-5)
        soft = resize(hole[rows, columns, None], part.shape[1:3], Image.Resampling.BILINEAR)[..., 0]
        assert np.allclose(inside[0].numpy(), soft, atol=1e-5)
    assert max(part.shape[1:3]) == size and part.shape[1:3] == inside.shape[1:]
    assert ((0.05 < inside) & (inside < 0.95)).any(), "soft masks stay soft"
    assert preview.shape[0] == 1
    drawn = torch.rand_like(part)
    found = put_back(stitch, drawn)[0].numpy()
    back = resize(drawn[0].numpy(), (window.height, window.width))
    weight, original = naive_weight(hole, feather), image[0].numpy()
    assert np.array_equal(found[weight == 0], original[weight == 0]), "to the bit"
    expected = original.copy()
    for y, x in np.argwhere(weight > 0):
        by = weight[y, x]
        expected[y, x] = (1 - by) * original[y, x] + by * back[y - window.top, x - window.left]
    assert np.allclose(found, expected, atol=1e-5) and (weight == 1).any()


def test_a_hole_gets_exactly_what_was_drawn_where_nothing_is_resized():
    image, mask = picture(300, 400), torch.zeros(1, 300, 400)
    mask[0, 100:164, 120:184] = 1
    stitch, part, inside, _ = crop(image, mask, context=2.0, size=128)
    assert torch.equal(part, image[:, 68:196, 88:216]) and torch.equal(inside, mask[:, 68:196, 88:216])
    drawn, expected = torch.rand_like(part), image.clone()
    expected[:, 100:164, 120:184] = drawn[:, 32:96, 32:96]
    assert torch.equal(put_back(stitch, drawn), expected)


def test_a_mask_of_another_size_lies_where_it_lies():
    image, small = picture(160, 240), torch.zeros(1, 40, 60)
    small[0, 10:20, 15:30] = 1
    large = small.repeat_interleave(4, 1).repeat_interleave(4, 2)
    (window,), (expected,) = (crop(image, mask)[0].windows for mask in (small, large))
    assert abs(window.top - expected.top) <= 4 and abs(window.left - expected.left) <= 4


@pytest.mark.parametrize("pictures, masks", [(1, 2), (2, 2), (2, 1)])
def test_batches_are_one_picture_at_a_time(pictures, masks):
    image, mask = picture(100, 140, pictures), draw_soft_mask(100, 140, masks)
    mask = (mask > 0.5).float()
    stitch, part, inside, _ = crop(image, mask, grow=2, feather=2)
    assert len(part) == len(inside) == 2 and part.shape[1:3] == inside.shape[1:]
    drawn = torch.rand(4, *part.shape[1:])
    found = put_back(stitch, drawn)
    for k in range(4):
        i = k % 2
        alone, *_ = crop(image[[min(i, pictures - 1)]], mask[[min(i, masks - 1)]], grow=2, feather=2)
        assert alone.size == stitch.size and alone.windows == stitch.windows[i : i + 1]
        assert torch.equal(found[k], put_back(alone, drawn[k : k + 1])[0])


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_pictures(channels):
    image, mask = picture(80, 90, channels=channels), torch.zeros(1, 80, 90)
    mask[0, 20:50, 30:60] = 1
    stitch, part, *_ = crop(image, mask)
    found = put_back(stitch, torch.rand_like(part))
    assert part.shape[-1] == 3 and found.shape[-1] == max(channels, 3)
    outside = mask[0] == 0
    assert torch.equal(found[0, outside], image.expand(-1, -1, -1, found.shape[-1])[0, outside])
    if channels == 4:
        assert (found[0, ~outside][:, 3] == 1).all(), "what is drawn is not transparent"


@pytest.mark.parametrize(
    "image, mask, sentence",
    [
        (picture(20, 20), torch.zeros(1, 8, 8), "The mask is empty, expected some white"),
        (picture(20, 20), torch.stack([torch.ones(8, 8), torch.zeros(8, 8)]), "Mask 2 of 2 is empty"),
        (picture(20, 20, 2), torch.ones(3, 8, 8), "There are 3 masks for 2 images"),
        (torch.zeros(1, 0, 4, 3), torch.ones(1, 8, 8), "The image has shape"),
    ],
)
def test_what_cannot_be_cut_is_a_sentence(image, mask, sentence):
    with pytest.raises(ValueError, match=sentence):
        crop(image, mask)


@pytest.fixture(scope="module")
def flux(comfy):
    return HostFamily("flux1")


@pytest.fixture(scope="module")
def vae(comfy):
    import comfy.sd

    return comfy.sd.VAE(sd=make_tiny_vae())


def sample(model, prompts, latent):
    """By the host's KSampler."""
    from nodes import common_ksampler

    with torch.inference_mode():
        return common_ksampler(model, 7, 4, 1.0, "euler", "simple", *prompts, latent)[0]["samples"]


@pytest.mark.slow
def test_differential_diffusion_draws_a_crop_as_softly_as_its_mask(flux, vae):
    """The latent is one that the host's own nodes make, with a mask that loops made."""
    from cologen.nodes import CoLoGenApply, CoLoGenInpaint
    from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion
    from nodes import SetLatentNoiseMask, VAEEncode

    image, mask = picture(128, 160), torch.zeros(1, 128, 160)
    mask[0, 40:72] = torch.linspace(0.1, 1, 160)
    stitch, part, inside, _ = crop(image, mask, grow=2, context=2.0, size=160)
    assert part.shape[1:3] == inside.shape[1:] == (80, 160)
    given = dict(positive=flux.prompt(), vae=vae, image=part, mask=inside, grow=0, keep_rest=True)
    *prompts, latent = CoLoGenInpaint.execute(**given, soft=True).args
    (source,) = list_sources(prompts[0][0][1])
    assert source.routing.task == "inpaint"
    hole = torch.from_numpy(naive_hole(mask[0].numpy(), 2))[stitch.windows[0].top :][:80]
    (encoded,) = VAEEncode().encode(vae, part)
    (expected,) = SetLatentNoiseMask().set_mask(encoded, hole[None])
    model = DifferentialDiffusion.execute(CoLoGenApply.execute(flux.model, flux.bank).args[0]).args[0]
    drawn = sample(model, prompts, latent)
    assert torch.equal(drawn, sample(model, prompts, expected))
    assert torch.equal(latent["noise_mask"][:, 0], inside)
    *_, hard = CoLoGenInpaint.execute(**given).args
    assert set(hard["noise_mask"].unique().tolist()) == {0.0, 1.0}
    assert not torch.allclose(sample(model, prompts, hard), drawn, atol=0.01)
    found, outside = put_back(stitch, vae.decode(drawn)), naive_hole(mask[0].numpy(), 2) == 0
    assert torch.equal(found[0, outside], image[0, outside]) and not torch.equal(found, image)


@pytest.mark.slow
def test_the_host_s_own_inpainting_takes_the_crop(vae):
    """The conditioning for FLUX.1-Fill, from a crop and from the same pixels by hand."""
    from nodes import InpaintModelConditioning

    image, mask = picture(128, 160), torch.zeros(1, 128, 160)
    mask[0, 40:72, 50:82] = 1
    _, part, inside, _ = crop(image, mask, context=2.0, size=64)
    prompts = [[[torch.zeros(1, 1, 4), {}]]] * 2
    found = InpaintModelConditioning().encode(*prompts, part, vae, inside)
    expected = InpaintModelConditioning().encode(*prompts, image[:, 24:88, 34:98], vae, mask[:, 24:88, 34:98])
    for name in ("concat_latent_image", "concat_mask"):
        assert torch.equal(found[0][0][1][name], expected[0][0][1][name])
    assert all(torch.equal(found[2][name], expected[2][name]) for name in ("samples", "noise_mask"))
