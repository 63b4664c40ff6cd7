"""A library of experts in the real host: imported by node, stacked, mixed, saved, and the same picture again."""

from functools import cache

import pytest
import torch
from cologen.prw.bank.edit import merge
from cologen.prw.bank.importers import open_experts
from cologen.prw.comfyui.conditioning import add_source
from naive_easycontrol import NaiveEasyControl, below, over, random_file, save_library
from sampling import apply_bank, conditioning, naive_model, sample
from tiny import host_model, latent, source, tiny_bank, tiny_flux

pytestmark = pytest.mark.usefixtures("comfy")


@cache
def flux():
    return tiny_flux()


@pytest.fixture(scope="module")
def model(comfy):
    return host_model(flux())


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return save_library(tmp_path_factory.mktemp("loras"))


def naive_source(name, weight=1.0, pixels=3, target=(8, 8)):
    positions = below(4, 4) if name == "subject" else over(4, 4, target[0] // 2, target[1] // 2)
    seed = ("canny", "depth", "subject").index(name)
    return dict(latent=latent(1, 8, 8, pixels), positions=positions, file=random_file(seed), weight=weight)


def test_the_host_samples_a_stack_as_the_peer_s_design_does(model, library):
    """With cfg, so that two prompts and two guidances meet in one batch; against the naive formula in FLUX's place."""
    bank = merge([open_experts(library / f"{name}.safetensors") for name in ("canny", "subject")])
    positive, negative = conditioning(4, guidance=3.5), conditioning(5, guidance=1.0)
    for one in (source("control", seed=3, strength=0.8), source("subject", seed=9)):
        positive, negative = add_source(positive, one), add_source(negative, one)
    how = dict(cfg=2.0, size=(12, 8))
    found = sample(apply_bank(model, bank), positive, negative, **how)
    stack = [naive_source("canny", 0.8, 3, (12, 8)), naive_source("subject", 1.0, 9, (12, 8))]
    naive = naive_model(model, flux().state_dict(), bank, {4: stack, 5: stack}, formula=NaiveEasyControl)
    expected = sample(naive, conditioning(4, guidance=3.5), conditioning(5, guidance=1.0), **how)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert torch.equal(sample(apply_bank(model, bank), conditioning(4)), sample(model, conditioning(4))), "none: plain"


def test_imported_and_routed_together_with_window_and_region(model, library):
    bank = merge([tiny_bank(flux()), open_experts(library / "depth.safetensors")])
    region = torch.zeros(8, 8)
    region[:, :4] = 1
    routed, imported = source("ground"), source("control", expert="depth", seed=9, end=0.5, region=region)
    both = sample(apply_bank(model, bank), add_source(add_source(conditioning(4), routed), imported))
    alone = [sample(apply_bank(model, bank), add_source(conditioning(4), one)) for one in (routed, imported)]
    assert all((both - one).abs().max() > 1e-2 for one in alone)
