"""Pictures as a source's FLUX wants them: sizes, channels, squares, holes."""

import numpy as np
import pytest
import torch
from cologen.prw.fit_image import FIT_IMAGE, fill_holes, limit_size, pad, stretch, to_rgb
from PIL import Image


@pytest.mark.parametrize(
    "height, width, longest, expected",
    [
        (1023, 777, 0, (1024, 784)),
        (512, 512, 0, (512, 512)),
        (1, 1, 0, (16, 16)),
        (1000, 2000, 512, (256, 512)),
        (64, 64, 128, (64, 64)),
        (3000, 20, 512, (512, 16)),
    ],
)
def test_a_source_of_any_size_fits_the_token_grid(height, width, longest, expected):
    image = torch.rand(2, height, width, 4)
    found = limit_size(to_rgb(image), longest)
    assert found.shape == (2, *expected, 3)
    assert 0 <= found.min() and found.max() <= 1
    if expected == (height, width):
        assert torch.equal(found, image[..., :3])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_grey_and_transparent_images_become_rgb(channels):
    image = torch.rand(1, 16, 16, channels).half()
    found = limit_size(to_rgb(image), 0)
    assert torch.equal(found, (image[..., :3] if channels >= 3 else image[..., :1].expand(-1, -1, -1, 3)).float())


@pytest.mark.parametrize("shape", [(0, 16, 16, 3), (1, 0, 16, 3), (16, 16, 3), (1, 2, 16, 16, 3)])
def test_images_of_other_shapes_are_a_sentence(shape):
    with pytest.raises(ValueError, match=r"The image has shape .* expected \(batch, height, width, 3\)"):
        to_rgb(torch.zeros(shape))


@pytest.mark.parametrize("height, width", [(40, 90), (90, 40), (64, 64)])
def test_imported_experts_get_squares_as_they_know_them(height, width):
    """Against Pillow and torchvision's way of padding, as the peers' pipeline has it."""
    from torchvision.transforms.functional import pad as padded

    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels)[None] / 255
    whole = np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.LANCZOS))
    assert torch.equal(stretch(image, 64)[0], torch.from_numpy(whole.copy()) / 255)
    scale = 64 / max(height, width)
    rows, columns = (int(side * scale) // 16 * 16 for side in (height, width))
    small = np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.LANCZOS))
    normalised = torch.from_numpy(small.copy()).permute(2, 0, 1) / 127.5 - 1
    left, top = (64 - columns) // 2, (64 - rows) // 2
    expected = padded(normalised, [left, top, left, top], fill=0)
    assert torch.allclose(pad(image, 64)[0] * 2 - 1, expected.permute(1, 2, 0), atol=1e-6)


def test_holes_are_painted_where_the_mask_is_white():
    image, hole = torch.rand(2, 8, 8, 3), torch.zeros(1, 4, 4)
    hole[0, 1, 2] = 1
    for colour, value in (("", 128 / 255), ("black", 0.0)):
        found = fill_holes(image, hole, colour)
        assert torch.equal(found[:, 2:4, 4:6], torch.full((2, 2, 2, 3), value))
        assert ((found != image).any(-1).sum(dim=(1, 2)) == 4).all()


@pytest.mark.parametrize("size", [(1, 8000), (8000, 1)])
@pytest.mark.parametrize("fit", FIT_IMAGE)
def test_a_picture_of_one_row_becomes_a_source_as_any(size, fit):
    found = FIT_IMAGE[fit](torch.rand(1, *size, 3), 512)
    assert all(side % 16 == 0 and 16 <= side <= 512 for side in found.shape[1:3])
