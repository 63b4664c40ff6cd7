"""Weights in one file or in several are the same weights."""

import pytest
import torch
from cologen.prw.files.errors import FileError
from cologen.training.from_scratch.store import FLUX, find_parts, open_models, read_weights, save_weights
from cologen.training.toy.store import TOY
from cologen.training.world.store import STICKERS


def test_large_weights_lie_in_several_files_and_half_of_them_are_none(tmp_path):
    weights = {f"w{i}": torch.randn(100, generator=torch.Generator().manual_seed(i)) for i in (3, 1, 0, 2, 4)}
    save_weights(weights, tmp_path / FLUX, torch.bfloat16, max_shard_size=450)
    parts = find_parts(tmp_path / FLUX)
    assert [part.name for part in parts] == [f"flux-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert all(sum(t.nbytes for t in read_weights(part).values()) <= 450 for part in parts)
    found = read_weights(tmp_path / FLUX)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name: tensor.bfloat16().tolist() for name, tensor in weights.items()
    }
    parts[1].unlink()
    assert not find_parts(tmp_path / FLUX)
    with pytest.raises(FileError, match="There is no file .*flux.safetensors"):
        read_weights(tmp_path / FLUX)


def test_a_flux_of_other_words_is_refused():
    with pytest.raises(
        FileError, match="flux.safetensors is no FLUX that reads the world world's words, expected one: name a"
    ):
        open_models(STICKERS, TOY.folder)


def test_small_weights_lie_in_one(tmp_path):
    save_weights({"w": torch.ones(3)}, tmp_path / FLUX, max_shard_size=450)
    assert find_parts(tmp_path / FLUX) == [tmp_path / FLUX]
