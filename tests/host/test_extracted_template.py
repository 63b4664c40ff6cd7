"""Templates that were extracted, in the real host: pictures are those of the template's own file, on the base's layers."""

import pytest
import torch
from cologen.prw.bank.difference import DifferenceInfo, TemplateDifference
from cologen.prw.bank.extract import ExtractedTensors
from cologen.prw.bank.importers import open_experts
from cologen.prw.base_model import Base
from cologen.prw.source import Source
from safetensors.torch import save_file
from sampling import add_sources, apply_bank, assert_close
from tiny import latent
from tiny_flux2 import TEXT_WIDTH, tiny_flux2
from tiny_template import template_weights

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.slow]

RANK = 3


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    """A template whose matrices learned something of a low rank: its own file, and what was extracted of it."""
    folder, flux = tmp_path_factory.mktemp("banks"), tiny_flux2()
    base, g = flux.state_dict(), torch.Generator().manual_seed(5)

    def learn(weight):
        rows, columns = weight.shape if weight.ndim == 2 else (len(weight), 1)
        change = torch.randn(rows, RANK, generator=g) @ torch.randn(RANK, columns, generator=g) / columns**0.5
        return weight + 0.1 * change.reshape(weight.shape)

    template = {name: learn(weight) for name, weight in base.items()}
    save_file(template_weights(template), folder / "whole.safetensors")
    tensors = ExtractedTensors(template, base, RANK, torch.float32)
    TemplateDifference(DifferenceInfo(Base.of(flux), "whole", RANK), tensors).save(folder / "small.safetensors")
    return [open_experts(folder / f"{name}.safetensors") for name in ("whole", "small")]


@pytest.fixture(scope="module")
def model(comfy):
    from cologen.training.comfyui.enter_host import load_model

    return load_model(tiny_flux2().state_dict(), torch.float32)


def prompt(seed=4, tokens=5):
    return [[torch.randn(1, tokens, TEXT_WIDTH, generator=torch.Generator().manual_seed(seed)), {}]]


def draw(model, bank, seed=3, cfg=4.0, keep=False):
    import comfy.sample
    import comfy.samplers

    positive, negative = (add_sources(prompt(one), Source(latent(1, 3, 5, seed, 128), keep=keep)) for one in (4, 5))
    empty, sampler = torch.zeros(2, 128, 4, 6), comfy.samplers.sampler_object("euler")
    noise, rest = comfy.sample.prepare_noise(empty, 7), dict(disable_pbar=True, seed=7)
    sigmas = torch.linspace(1, 0, 3)
    used = model if bank is None else bank
    with torch.inference_mode():
        return comfy.sample.sample_custom(used, noise, cfg, sampler, sigmas, positive, negative, empty, **rest)


def test_a_picture_is_that_of_the_template_s_own_file(model, banks):
    before = {name: weight.clone() for name, weight in model.model.diffusion_model.state_dict().items()}
    whole, small = (draw(model, apply_bank(model, bank)) for bank in banks)
    assert_close(small, whole)
    assert (draw(model, apply_bank(model, None)) - whole).abs().max() > 0.01
    after = model.model.diffusion_model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_a_lora_on_the_base_acts_on_it_and_nothing_is_read_late(model, banks):
    def with_lora(patched):
        clone, g = patched.clone(), torch.Generator().manual_seed(2)
        key = "diffusion_model.double_blocks.1.txt_attn.qkv.weight"
        change = 0.02 * torch.randn(768, 256, generator=g)
        assert clone.add_patches({key: ("diff", (change,))}, 1.0)
        return clone

    used = apply_bank(model, banks[1])
    plain = draw(model, used, keep=True)
    changed = draw(model, with_lora(used), keep=True)
    assert torch.equal(changed, draw(model, with_lora(apply_bank(model, banks[1]))))
    assert (changed - plain).abs().max() > 1e-3
    assert torch.equal(draw(model, used, keep=True), plain)
