"""Files that are not the toy world's: one sentence each."""

import shutil

import pytest
from cologen.prw.files.errors import FileError
from cologen.training.cli.main import main
from cologen.training.from_scratch.store import TEXT, VAE, open_encoders
from cologen.training.toy.store import TOY
from safetensors.torch import load_file, save_file
from tiny import tiny_bank, tiny_flux


def cut_short(tensors):
    name = next(iter(tensors))
    tensors[name] = tensors[name][:1].clone()


def take_away(tensors):
    tensors.popitem()


@pytest.mark.parametrize("name", [TEXT, VAE])
@pytest.mark.parametrize("damage", [cut_short, take_away])
def test_half_a_toy_world(tmp_path, name, damage):
    folder = tmp_path / "toy"
    shutil.copytree(TOY.folder, folder)
    tensors = load_file(folder / name)
    damage(tensors)
    save_file(tensors, folder / name)
    with pytest.raises(
        FileError, match=f"{name} is no whole file of the toy world's .*, expected all of its weights"
    ) as said:
        open_encoders(TOY, folder)
    assert "\n" not in str(said.value)


def test_the_toy_world_asked_with_a_bank_of_another_base(tmp_path, capsys):
    bank = tiny_bank(tiny_flux()).save(tmp_path / "other.safetensors")
    assert main(["eval", "toy", "--bank", str(bank), "--n", "1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the bank was made for" in line
