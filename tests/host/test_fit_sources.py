"""Sources of task nodes that know no bank: on a MODEL with one they become what the bank's experts were trained on."""

import pytest
import torch
from cologen.prw.bank.edit import merge
from cologen.prw.bank.importers import open_experts
from cologen.prw.comfyui.conditioning import list_sources
from naive_easycontrol import random_file
from safetensors.torch import save_file
from sampling import add_sources, apply_bank, conditioning, sample
from tiny import host_model, source, tiny_bank, tiny_flux
from tiny_server import make_tiny_vae

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture(scope="module")
def flux():
    return tiny_flux()


@pytest.fixture(scope="module")
def model(comfy, flux):
    return host_model(flux)


@pytest.fixture(scope="module")
def vae(comfy):
    return comfy.sd.VAE(sd=make_tiny_vae())


@pytest.fixture(scope="module")
def experts(tmp_path_factory, comfy):
    folder = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate(("inpainting", "canny", "depth")):
        save_file(random_file(seed), folder / f"{name}.safetensors")
    return merge([open_experts(path) for path in sorted(folder.iterdir())])


def picture(seed=0):
    return torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(seed))


def ask(name, vae, experts=None, **given):
    import cologen.nodes

    return getattr(cologen.nodes, name).execute(conditioning(), vae, picture(), experts=experts, **given).args[0]


def fill(vae, experts=None):
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:40, 16:40] = 1
    return ask("CoLoGenInpaint", vae, experts, mask=mask, grow=0, keep_rest=False)


def follow(vae, experts=None):
    return ask("CoLoGenControl", vae, experts, kind="depth")


@pytest.mark.parametrize("make", [fill, follow])
def test_experts_left_open_draw_what_connected_ones_do(model, vae, experts, make):
    """A black hole and a square of 512 pixels, as EasyControl knows them; the map's expert is found by its kind."""
    patched = apply_bank(model, experts)
    left_open, connected = make(vae), make(vae, experts)
    assert torch.equal(sample(patched, left_open), sample(patched, connected))
    (unfitted,), (fitted,) = (list_sources(prompt[0][1]) for prompt in (left_open, connected))
    assert unfitted.latent.shape[-1] == 8 and fitted.latent.shape[-1] == 64 and fitted.fit is None
    assert list_sources(left_open[0][1])[0].latent is unfitted.latent, "the prompt stays as it was given"


def test_another_bank_fits_the_same_prompt_anew(model, vae, experts, flux):
    left_open, routed = fill(vae), tiny_bank(flux)
    sample(apply_bank(model, experts), left_open)
    assert torch.equal(
        sample(apply_bank(model, routed), left_open), sample(apply_bank(model, routed), fill(vae, routed))
    )


def test_windows_that_were_set_later_stay(model, vae, experts):
    from cologen.nodes import CoLoGenExpertSchedule

    patched = apply_bank(model, experts)
    pictures = [
        sample(patched, CoLoGenExpertSchedule.execute(make, "0 to 0.3").args[0])
        for make in (fill(vae), fill(vae, experts))
    ]
    assert torch.equal(*pictures) and not torch.equal(pictures[0], sample(patched, fill(vae)))


def test_routes_are_those_of_the_fitted_source(model, vae, experts, flux):
    from cologen.prw.comfyui.routes import compute_routes

    (routes,) = compute_routes(
        apply_bank(model, merge([tiny_bank(flux), experts])), follow(vae), torch.zeros(1, 16, 8, 8)
    )
    assert routes.experts == ("depth",)


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_the_bank_s_strength_is_a_factor_of_each_source_s(model, flux, strength):
    from cologen.prw.comfyui.patch import apply_bank as put

    bank = tiny_bank(flux)
    found = sample(put(model, bank, strength), add_sources(conditioning(), source(strength=0.8)))
    assert torch.equal(found, sample(put(model, bank), add_sources(conditioning(), source(strength=0.8 * strength))))


def count_white(mask):
    """Naively: how many of the border's pixels are white, and how many there are."""
    rows, columns = mask.shape
    edge = [(i, j) for i in range(rows) for j in range(columns) if i in (0, rows - 1) or j in (0, columns - 1)]
    return sum(bool(mask[i, j]) for i, j in edge), len(edge)


@pytest.mark.parametrize("seed", range(8))
def test_auto_goes_by_most_of_the_border(seed):
    from cologen.prw.comfyui.masks import find_subject

    g = torch.Generator().manual_seed(seed)
    masks = (torch.rand(4, 6, 9, generator=g) < torch.rand(4, 1, 1, generator=g)).float()
    masks[:, 2, 2], masks[:, 2, 3] = 1, 0
    found = find_subject(masks, (6, 9), "auto")
    for mask, subject in zip(masks, found):
        white, count = count_white(mask)
        assert torch.equal(subject, mask < 0.5 if white > count / 2 else mask > 0.5)


def test_a_mask_that_is_white_all_over_keeps_the_picture_and_an_empty_one_is_a_sentence():
    from cologen.prw.comfyui.masks import find_subject

    assert find_subject(torch.ones(1, 8, 8), (8, 8), "auto").all()
    for mask, mask_is in (
        (torch.zeros(1, 8, 8), "auto"),
        (torch.zeros(1, 8, 8), "subject"),
        (torch.ones(1, 8, 8), "background"),
    ):
        with pytest.raises(ValueError, match="The mask shows no subject, expected some: paint it white"):
            find_subject(mask, (8, 8), mask_is)
