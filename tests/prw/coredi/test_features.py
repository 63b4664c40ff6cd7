"""Features: their file, and how noisy they are at a time."""

import json

import pytest
import torch
from cologen.prw.coredi.features import CoevolvingState, Features
from cologen.prw.files.errors import FileError
from safetensors.torch import save_file
from tiny_features import random_features


def test_a_late_start_begins_as_noised_as_it_is(flux):
    noise = torch.randn(1, 65, 6, generator=torch.Generator().manual_seed(1))
    assert torch.equal(CoevolvingState({}, noise).advance(1.0), noise)
    assert torch.allclose(CoevolvingState({}, noise).advance(0.3), 0.3 * noise)


def test_a_file_brings_back_what_was_saved_and_refuses_all_else(flux, bank, tmp_path):
    features = random_features(flux, "self")
    found = Features.open(features.save(tmp_path / "1-control.features.safetensors"))
    assert found.info == features.info
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in features.tensors.items())
    halves = Features(features.info, {name: tensor.half() for name, tensor in features.tensors.items()})
    assert {t.dtype for t in Features.open(halves.save(tmp_path / "half.safetensors")).tensors.values()} == {
        torch.float32
    }
    with pytest.raises(FileError, match="bank.safetensors is no CoLoGen features file: choose a file that a training"):
        Features.open(bank.save(tmp_path / "bank.safetensors"))
    fewer = Features(features.info, {"norm.weight": features.tensors["norm.weight"]})
    with pytest.raises(FileError, match="fewer.safetensors lacks the tensor"):
        Features.open(fewer.save(tmp_path / "fewer.safetensors"))
    later = dict(format="cologen-features", version=2), dict(format="cologen-features", version=1, way="nowhere")
    for metadata, said in zip(later, ("a features file of version 2", "'nowhere', expected one of 'coredi', 'self'")):
        save_file(features.tensors, tmp_path / "x.safetensors", {"cologen_features": json.dumps(metadata)})
        with pytest.raises(FileError, match=said):
            Features.open(tmp_path / "x.safetensors")
    features.tensors["head.bias"][0] = torch.nan
    with pytest.raises(FileError, match="head.bias holds values that are not finite: train or download it again"):
        Features.open(features.save(tmp_path / "nan.safetensors"))


def test_a_time_that_is_asked_for_twice_changes_nothing(flux):
    features, noise = random_features(flux), torch.randn(1, 5, 6, generator=torch.Generator().manual_seed(1))
    own = torch.randn(1, 5, flux.params.hidden_size, generator=torch.Generator().manual_seed(2))
    once, twice = (CoevolvingState(features.tensors, noise) for _ in range(2))
    for state, times in ((once, (1.0, 0.5, 0.2)), (twice, (1.0, 0.5, 0.5, 0.3, 0.2))):
        for t in times:
            found = state.advance(t)
            state.update(own, None, None)
    assert torch.allclose(once.advance(0.1), twice.advance(0.1), atol=1e-5) and not torch.allclose(found, noise)
