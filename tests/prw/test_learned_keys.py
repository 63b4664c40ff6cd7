"""Learned keys of a number, on our own FLUX.2: what the base reads of them is the naive formula."""

import re
from functools import partial

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.base_model import Base
from cologen.prw.base_weights import BaseWeights
from cologen.prw.embedded_host import velocity
from cologen.prw.files.errors import FileError
from cologen.prw.learned_keys import LearnedKeys, LearnedSource, looks_like_learned_keys
from cologen.prw.source import Source
from naive_learned_keys import BLOCKS, NaiveLearnedKeys, learned_keys_file
from safetensors.torch import save_file
from tiny import latent
from tiny_flux2 import flux2_inputs, tiny_flux2


@pytest.fixture(scope="module")
def flux():
    return tiny_flux2()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    save_file(learned_keys_file(), folder / "brightness.safetensors")
    save_file(learned_keys_file(33, keys=4), folder / "age.safetensors")
    return folder


def open_keys(folder, name="brightness"):
    return LearnedKeys.open(folder / f"{name}.safetensors")


def predict(flux, *sources, attachment=None, **size):
    attachment = attachment or Attachment(BaseWeights(Base.of(flux)))
    return velocity(flux, *flux2_inputs(**size), attachment, sources)


def predict_naively(flux, *sources, **size):
    return NaiveLearnedKeys(flux.state_dict())(*flux2_inputs(**size), sources)


def assert_close(found, expected):
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("value, batch", [(0.3, 1), (45.0, 2)])
def test_a_number_is_the_naive_formula(flux, folder, value, batch):
    found = predict(flux, LearnedSource(open_keys(folder), value), batch=batch, height=3)
    assert_close(found, predict_naively(flux, dict(tensors=learned_keys_file(), value=value), batch=batch, height=3))
    assert (found - flux(*flux2_inputs(batch, 3))).abs().max() > 0.01


def test_numbers_of_two_files_beside_a_picture(flux, folder):
    """The picture stays the first reference, wherever it stands."""
    from cologen.prw.comfyui.conditioning import add_source, list_sources

    sources = (
        LearnedSource(open_keys(folder), 0.2),
        Source(latent(1, 2, 3, 5, 128)),
        LearnedSource(open_keys(folder, "age"), 50),
    )
    prompt = [[torch.zeros(1, 1, 1), {}]]
    for source in sources:
        prompt = add_source(prompt, source)
    found = predict(flux, *list_sources(prompt[0][1]))
    first, second = dict(tensors=learned_keys_file(), value=0.2), dict(tensors=learned_keys_file(33, keys=4), value=50)
    assert_close(found, predict_naively(flux, first, second, dict(latent=latent(1, 2, 3, 5, 128))))


def test_strength_and_region_weigh_them(flux, folder):
    region = torch.zeros(4, 4)
    region[:, 2:] = 1
    found = predict(flux, LearnedSource(open_keys(folder), 0.7, strength=0.4, region=region))
    bias = torch.cat([torch.full((6,), 0.4), 0.4 * region.flatten()]).log()
    assert_close(found, predict_naively(flux, dict(tensors=learned_keys_file(), value=0.7, log_bias=bias)))
    assert torch.equal(predict(flux, LearnedSource(open_keys(folder), 0.7, strength=0.0)), flux(*flux2_inputs()))


@pytest.mark.parametrize("knobs", [{}, {"placement": "cpu"}, {"keep": True}])
def test_they_are_computed_once_a_number(flux, folder, monkeypatch, knobs):
    learned, attachment, counted = open_keys(folder), Attachment(BaseWeights(Base.of(flux))), []
    compute = LearnedKeys.compute
    monkeypatch.setattr(LearnedKeys, "compute", lambda self, *args: counted.append(args) or compute(self, *args))
    run = partial(predict, flux, attachment=attachment)
    first = run(LearnedSource(learned, 0.3, **knobs))
    assert torch.equal(run(LearnedSource(learned, 0.3, **knobs)), first) and len(counted) == len(BLOCKS)
    assert torch.equal(run(LearnedSource(learned, 0.9, **knobs)), predict(flux, LearnedSource(learned, 0.9)))
    counted.clear()
    attachment.cleanup()
    assert torch.equal(run(LearnedSource(learned, 0.3, **knobs)), first) and len(counted) == (
        0 if knobs.get("keep") else len(BLOCKS)
    )


def test_a_file_is_known_by_its_header(folder, tmp_path):
    save_file(tiny_flux2().state_dict(), tmp_path / "flux.safetensors")
    assert looks_like_learned_keys(folder / "age.safetensors") and not looks_like_learned_keys(
        tmp_path / "flux.safetensors"
    )


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda t: t.update({"proj_k.double_0.green_embedder.0.bias": torch.ones(3)}), "has proj_k.double_0.green_embedder.0.bias, "
         "expected keys learned for one number"),
        (lambda t: t.pop("proj_v.single_1.positional_embedding"), "lacks proj_v.single_1.positional_embedding"),
        (lambda t: t.update({"proj_k.double_0.prefer_value_embedder.0.weight": torch.ones(256, 768)}), "expected numbers of shape"),
        (lambda t: t.update({"proj_k.double_0.positional_embedding": torch.ones(3)}), "expected \\(keys, width\\)"),
        (lambda t: t.pop("proj_k.double_0.positional_embedding"), "learned keys of shape .., expected"),
        (lambda t: t.clear() or t.update({"img_in.weight": torch.ones(3)}), "[.]safetensors has no learned keys"),
    ],
)  # fmt: skip
def test_another_layout_is_a_sentence(tmp_path, change, sentence):
    tensors = learned_keys_file()
    change(tensors)
    save_file(tensors, tmp_path / "file.safetensors")
    with pytest.raises(FileError, match=sentence):
        LearnedKeys.open(tmp_path / "file.safetensors")


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    "name", ["proj_v.single_1.positional_embedding", "proj_k.double_0.prefer_value_embedder.0.weight"]
)
def test_keys_that_are_not_finite_are_a_sentence(flux, tmp_path, number, name):
    tensors = learned_keys_file()
    tensors[name][1, 2] = number
    save_file(tensors, tmp_path / "broken.safetensors")
    source, attachment = (
        LearnedSource(open_keys(tmp_path, "broken"), 0.3, keep=True),
        Attachment(BaseWeights(Base.of(flux))),
    )
    block = "single_blocks.1" if "single" in name else "double_blocks.0"
    with pytest.raises(
        FileError, match=f"broken.safetensors gives keys that are not finite in {block}, expected numbers"
    ):
        predict(flux, source, attachment=attachment)
    assert not attachment.cache.entries


def test_another_flux_is_a_sentence(flux, folder, tmp_path):
    save_file(learned_keys_file(blocks=BLOCKS[:-1]), tmp_path / "short.safetensors")
    with pytest.raises(
        ValueError, match=re.escape("keys of 256 numbers for 4 blocks, the model is 256 wide and has 5")
    ):
        predict(flux, LearnedSource(open_keys(tmp_path, "short"), 0.3))
    with pytest.raises(ValueError, match="value is nan"):
        LearnedSource(open_keys(folder), float("nan"))
