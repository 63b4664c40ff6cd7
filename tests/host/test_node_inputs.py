"""Nodes as the host sees them: pictures, names and regions."""

import numpy as np
import pytest
import torch
from cologen.prw.fit_image import filled, keep, pad, rgb, stretch
from PIL import Image

pytestmark = pytest.mark.usefixtures("comfy")


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
    found = keep(rgb(image), longest)
    assert found.shape == (2, *expected, 3)
    assert 0 <= found.min() and found.max() <= 1
    if expected == (height, width):
        assert torch.equal(found, image[..., :3])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_grey_and_transparent_images_become_rgb(channels):
    image = torch.rand(1, 16, 16, channels).half()
    found = keep(rgb(image), 0)
    assert torch.equal(found, (image[..., :3] if channels >= 3 else image[..., :1].expand(-1, -1, -1, 3)).float())


@pytest.mark.parametrize("shape", [(0, 16, 16, 3), (1, 0, 16, 3), (16, 16, 3), (1, 2, 16, 16, 3)])
def test_images_of_other_shapes_are_a_sentence(shape):
    with pytest.raises(ValueError, match=r"The image has shape .* expected \(batch, height, width, 3\)"):
        rgb(torch.zeros(shape))


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
        found = filled(image, hole, colour)
        assert torch.equal(found[:, 2:4, 4:6], torch.full((2, 2, 2, 3), value))
        assert ((found != image).any(-1).sum(dim=(1, 2)) == 4).all()


@pytest.mark.parametrize(
    "change, sentence",
    [
        (dict(latent=torch.zeros(1, 4, 8, 8)), "connect FLUX.1's VAE"),
        (dict(latent=torch.zeros(1, 16, 1, 8, 8)), "connect FLUX.1's VAE"),
        (dict(latent=torch.zeros(0, 16, 8, 8)), "connect FLUX.1's VAE"),
        (dict(latent=torch.full((1, 16, 8, 8), torch.nan)), "not finite"),
        (dict(region=torch.zeros(8)), "expected .height, width.: connect a mask"),
        (dict(region=torch.full((8, 8), -1.0)), "expected 0 to 1"),
        (dict(region=torch.full((8, 8), torch.nan)), "expected 0 to 1"),
        (dict(strength=torch.nan), "strength is nan, expected 0 to 100"),
        (dict(start=0.5, end=0.5), "let it end later than it starts"),
        (dict(placement="disk"), "placement is 'disk', expected one of"),
        (dict(routing=dict(strength=float("inf"))), "expert strength is inf"),
        (dict(routing=dict(shift=(float("nan"), 0.0))), "shift is nan"),
        (dict(routing=dict(lean=2.0)), "lean is 2.0, expected -1 to 1"),
        (dict(routing=dict(position="left")), "position is 'left', expected one of"),
    ],
)
def test_a_source_that_cannot_be_is_a_sentence(change, sentence):
    from cologen.prw.source import Routing, Source

    with pytest.raises(ValueError, match=sentence):
        fields = {"latent": torch.zeros(1, 16, 8, 8), **change}
        Source(**{**fields, "routing": Routing(**fields.get("routing", {}))})


@pytest.mark.parametrize(
    "region, sentence", [(torch.zeros(1, 64, 64), "The region is empty"), (torch.ones(2, 8, 8), "holds 2 masks")]
)
def test_regions_that_say_nothing_are_a_sentence(region, sentence):
    from cologen.prw.comfyui.masks import check_region

    with pytest.raises(ValueError, match=sentence):
        check_region(region)


BAD_NAMES = [
    "",
    "sub/",
    ".safetensors",
    "../x",
    "/etc/x",
    "a/../../x",
    "a\0b",
    "a\nb",
    "con",
    "nul.txt",
    "a:b",
    "x" * 300,
]
BAD_NAMES += ["..", ".", " ", "trailing.", "trailing ", "..\\x", "a*b", "\ud800"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_cannot_be_files_are_a_sentence(name):
    from cologen.training.comfyui.folders import new_bank_path

    with pytest.raises(ValueError, match="cannot be used, expected a name"):
        new_bank_path(name)


def test_a_new_bank_gets_a_free_name_and_stays_inside(tmp_path, monkeypatch):
    import folder_paths
    from cologen.training.comfyui.folders import new_bank_path

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "cologen", ([str(tmp_path)], {".safetensors"}))
    assert new_bank_path("über/mine v1.2.safetensors") == tmp_path / "über" / "mine v1.2.safetensors"
    for expected in ("a", "a_02", "a_03"):
        path = new_bank_path("a")
        assert path == tmp_path / f"{expected}.safetensors"
        path.touch()
    (tmp_path / "out").symlink_to(tmp_path.parent)
    with pytest.raises(ValueError, match="leads outside"):
        new_bank_path("out/x")


@pytest.mark.parametrize("channels", [64, 128, 384])
def test_route_maps_of_every_flux(channels):
    from cologen.prw.comfyui.conditioning import add_source
    from cologen.prw.comfyui.patch import apply_bank, compute_routes
    from sampling import conditioning
    from tiny import host_model, source, tiny_bank, tiny_flux

    flux = tiny_flux(in_channels=channels)
    model = apply_bank(host_model(flux), tiny_bank(flux))
    ((title, experts, routes),) = compute_routes(model, add_source(conditioning(), source()), torch.zeros(1, 16, 8, 8))
    assert experts == ("inpaint", "ground", "control") and len(routes) == 4
