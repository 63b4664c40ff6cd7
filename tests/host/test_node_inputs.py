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
    from cologen.prw.comfyui.patch import apply_bank
    from cologen.prw.comfyui.routes import compute_routes
    from sampling import conditioning
    from tiny import host_model, source, tiny_bank, tiny_flux

    flux = tiny_flux(in_channels=channels)
    model = apply_bank(host_model(flux), tiny_bank(flux))
    ((title, experts, routes, _),) = compute_routes(
        model, add_source(conditioning(), source()), torch.zeros(1, 16, 8, 8)
    )
    assert experts == ("inpaint", "ground", "control") and len(routes) == 4


def test_a_route_map_shows_what_older_experts_change():
    from cologen.nodes.route_map import CoLoGenRouteMap
    from cologen.prw.attachment import Attachment
    from cologen.prw.comfyui.conditioning import add_source
    from cologen.prw.comfyui.patch import apply_bank
    from cologen.prw.comfyui.routes import compute_routes
    from cologen.prw.embedded_host import EmbeddedHost
    from cologen.prw.flux.inputs import FluxInputs
    from sampling import conditioning
    from tiny import host_model, source, tiny_bank, tiny_flux

    flux = tiny_flux()
    bank, prompt = tiny_bank(flux), add_source(conditioning(), source())
    model, empty = apply_bank(host_model(flux), bank), torch.zeros(1, 16, 8, 8)
    ((_, names, routes, changes),) = compute_routes(model, prompt, empty, ablate=True)

    def read(way):
        one, pooled = source(older=way), prompt[0][1]["pooled_output"][:1]
        inputs = FluxInputs(empty, torch.zeros(1), prompt[0][0], pooled)
        with torch.no_grad():
            kv = Attachment(bank).prepare(EmbeddedHost(flux, torch.float32), [one], inputs).sources[0]
        return {block: torch.cat([part.flatten() for part in kv.read(block, "cpu")]) for block in routes}

    as_routed = read("")
    for way in ("newest", "none"):
        ablated = read(way)
        for block, change in changes[way].items():
            wanted = (ablated[block] - as_routed[block]).norm() / as_routed[block].norm()
            assert change == pytest.approx(float(wanted), abs=1e-4)
    older = [block for block, route in routes.items() if names[int(route.expert)] != "control"]
    assert older and all(changes["none"][block] > 0.01 for block in older)

    plain, _ = CoLoGenRouteMap.execute(model, prompt, {"samples": empty}).result
    drawn, table = CoLoGenRouteMap.execute(model, prompt, {"samples": empty}, ablate=True).result
    assert drawn.shape[1] > plain.shape[1] and f"older experts in {len(older)} of 4 blocks" in table
    assert all(f"  {block}: " in table for block in older)
