"""Nodes as the host sees them: pictures, names and regions."""

import pytest
import torch

pytestmark = pytest.mark.usefixtures("comfy")


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
