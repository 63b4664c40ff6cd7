"""Experts on our own FLUX.2: the woven velocity is the naive formula, and a bank says what it was made for."""

import json
import math
from dataclasses import replace

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.bank.bank import METADATA_KEY, Bank
from cologen.prw.bank.edit import make_random_bank
from cologen.prw.base_model import Base
from cologen.prw.base_weights import BaseWeights
from cologen.prw.config import BankInfo, ExpertInfo, RouterInfo
from cologen.prw.embedded_host import velocity
from cologen.prw.files.safe_file import SafeFile
from cologen.prw.source import Routing, Source
from naive_flux2 import NaiveFlux2
from tiny import inputs, latent, tiny_bank, tiny_flux
from tiny import source as flux1_source
from tiny_flux2 import flux2_inputs, tiny_flux2

NAMES = ("inpaint", "ground", "control")


@pytest.fixture(scope="module")
def flux():
    return tiny_flux2()


def source(task="control", batch=1, height=3, width=5, seed=3, number=1, **routing):
    outer = {key: routing.pop(key) for key in ("region", "together") if key in routing}
    outer["strength"] = routing.pop("source_strength", 1.0)
    return Source(latent(batch, height, width, seed, 128), Routing(task=task, **routing), number=number, **outer)


def naive_source(task="control", batch=1, height=3, width=5, seed=3, **rest):
    return dict(latent=latent(batch, height, width, seed, 128), stage=task, names=NAMES, **rest)


def at_position(bank, position):
    return Bank(replace(bank.info, source=replace(bank.info.source, position=position)), bank.tensors)


def predict(flux, bank, *sources, cached=True, **size):
    return velocity(flux, *flux2_inputs(**size), Attachment(bank, cached=cached), sources)


def predict_naively(flux, bank, *sources, **size):
    return NaiveFlux2(flux.state_dict())(*flux2_inputs(**size), sources, bank)


def assert_close(found, expected):
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_naive_formula_is_flux_2(flux):
    for guided in (False, True):
        model = tiny_flux2(guidance_embed=True) if guided else flux
        size = dict(batch=2, height=3, width=5, guided=guided)
        assert_close(predict_naively(model, None, **size), model(*flux2_inputs(**size)))


@pytest.mark.parametrize("position", ["reference", "aligned"])
@pytest.mark.parametrize("task", NAMES)
@pytest.mark.parametrize("batch, height, width, guided", [(1, 4, 4, False), (2, 3, 7, True), (3, 5, 2, False)])
def test_woven_velocity_is_the_naive_formula(task, position, batch, height, width, guided):
    flux = tiny_flux2(guidance_embed=guided)
    bank, size = tiny_bank(flux), dict(batch=batch, height=height, width=width, guided=guided)
    found = predict(flux, bank, source(task, batch, position=position), **size)
    assert_close(found, predict_naively(flux, bank, naive_source(task, batch, position=position), **size))
    base = predict(flux, bank, source(task, batch, position=position, strength=0.0), **size)
    assert (found - base).abs().max() > 1e-2  # or the experts would have done nothing


@pytest.mark.parametrize("position", ["reference", "aligned"])
def test_two_sources_do_not_see_each_other(flux, position):
    bank = tiny_bank(flux)
    found = predict(
        flux, bank, source(position=position), source("inpaint", height=2, seed=9, number=2, position=position)
    )
    others = [naive_source(position=position), naive_source("inpaint", height=2, seed=9, number=2, position=position)]
    assert_close(found, predict_naively(flux, bank, *others))


def test_source_strength_is_a_log_bias_and_zero_is_no_source(flux):
    bank = tiny_bank(flux)
    for strength in (0.3, 2.5):
        found = predict(flux, bank, source(source_strength=strength))
        assert_close(found, predict_naively(flux, bank, naive_source(log_bias=math.log(strength))))
    assert torch.equal(predict(flux, bank, source(source_strength=0.0)), flux(*flux2_inputs()))


def test_a_region_is_a_log_bias_on_the_picture(flux):
    bank, region = tiny_bank(flux), torch.rand(4, 4, generator=torch.Generator().manual_seed(5))
    bias = torch.cat([torch.zeros(6), region.flatten().log()])
    found = predict(flux, bank, source(region=region))
    assert_close(found, predict_naively(flux, bank, naive_source(log_bias=bias)))


def test_expert_strength_scales_what_experts_add_and_zero_is_the_base(flux):
    bank = tiny_bank(flux)
    found = predict(flux, bank, source(strength=0.37))
    assert_close(found, predict_naively(flux, bank, naive_source(strength=0.37)))
    base = predict(flux, BaseWeights(Base.of(flux)), source(together=False))
    assert torch.equal(predict(flux, bank, source(strength=0.0)), base)
    assert torch.equal(predict(flux, tiny_bank(flux, up=0.0), source()), base)


def test_cached_is_uncached(flux):
    bank = tiny_bank(flux)
    attachment, uncached = Attachment(bank), Attachment(bank, cached=False)
    args = flux2_inputs(batch=2)
    for step in (0.9, 0.5, 0.1):
        step_args = args._replace(x=args.x * step, times=torch.full((2,), step))
        found, expected = (velocity(flux, *step_args, one, [source()]) for one in (attachment, uncached))
        assert torch.equal(found, expected)
    assert len(attachment.cache.entries) == 1  # no prompt is in a FLUX.2 source: both samples read the same


def test_tokens_take_routes_of_their_own(flux):
    bank, naive = tiny_bank(flux, per="token"), NaiveFlux2(flux.state_dict())
    found = predict(flux, bank, source(), batch=2)
    assert_close(found, naive(*flux2_inputs(batch=2), [naive_source(per="token")], bank))
    assert any(len(route.unique()) > 1 for route in naive.routes.values())


def test_a_shared_time_is_the_picture_s_own(flux):
    bank, naive = tiny_bank(flux, time="shared"), NaiveFlux2(flux.state_dict())
    attachment, args = Attachment(bank), flux2_inputs(batch=2)
    for step in (0.9, 0.2):
        args = args._replace(times=torch.tensor([step, step / 2]))
        found = velocity(flux, *args, attachment, [source()])
        assert_close(found, naive(*args, [naive_source()], bank, source_time=args.times))


def test_the_position_that_a_bank_was_trained_with_is_used(flux):
    bank = tiny_bank(flux)
    aligned, reference = (predict(flux, bank, source(position=position)) for position in ("aligned", "reference"))
    assert not torch.equal(aligned, reference)
    assert torch.equal(predict(flux, bank, source()), reference)
    assert torch.equal(predict(flux, at_position(bank, "aligned"), source()), aligned)
    assert torch.equal(predict(flux, at_position(bank, "aligned"), source(position="reference")), reference)


def test_a_bank_of_another_family_is_a_sentence(flux):
    flux1 = tiny_flux()
    with pytest.raises(ValueError, match="^The model is a FLUX.2, the bank was made for FLUX.1: load that, or another"):
        predict(flux, tiny_bank(flux1), source())
    with pytest.raises(ValueError, match="^The model is a FLUX.1, the bank was made for FLUX.2: load that, or another"):
        velocity(flux1, *inputs(), Attachment(tiny_bank(flux)), [flux1_source()])


def test_a_file_keeps_family_and_position(flux, tmp_path):
    bank = at_position(tiny_bank(flux), "aligned")
    back = Bank.open(bank.save(tmp_path / "bank.safetensors"))
    assert back.info == bank.info
    assert (back.info.base.family, back.info.source.position) == ("flux2", "aligned")
    assert torch.equal(predict(flux, back, source()), predict(flux, bank, source()))
    metadata = read_metadata(tmp_path / "bank.safetensors")
    assert metadata["version"] == 3
    assert (metadata["base"]["family"], metadata["source"]["position"]) == ("flux2", "aligned")


def read_metadata(path):
    return json.loads(SafeFile(path).metadata[METADATA_KEY])


VERSION_2 = (
    '{"format": "cologen-bank", "version": 2, '
    '"base": {"in_channels": 64, "hidden_size": 256, "double_blocks": 1, "single_blocks": 1, "guidance": true, '
    '"name": "", "probe": []}, '
    '"experts": {"edit": {"rank": 4, "alpha": 8.0, "targets": {"k": "all", "v": "all"}, "task": "edit", "role": "", '
    '"stage": 0, "iterations": 0, "data": "", "licence": "", "triggers": [], "habits": {"guidance": "", '
    '"position": "", "side": 0, "fit": "", "hole": ""}, "scaled": false, "shared": ""}}, '
    '"routers": {"edit": {"experts": ["edit"], "task": "edit", "per": "sample", "usage": []}}, '
    '"source": {"time": "zero", "guidance": 1.0}, "licence": ""}'
)
"""The metadata of a bank as packs wrote it that knew FLUX.1 alone."""


def test_a_bank_that_says_nothing_new_is_written_as_ever(tmp_path):
    info = BankInfo(
        base=Base(hidden_size=256, double_blocks=1, single_blocks=1),
        experts={"edit": ExpertInfo(rank=4, alpha=8.0, task="edit")},
        routers={"edit": RouterInfo(experts=("edit",), task="edit")},
    )
    make_random_bank(info).save(tmp_path / "bank.safetensors")
    assert SafeFile(tmp_path / "bank.safetensors").metadata[METADATA_KEY] == VERSION_2
    assert Bank.open(tmp_path / "bank.safetensors").info == info
