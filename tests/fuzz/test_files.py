"""Damaged safetensors files of every format that is read: each is refused in a sentence, or read whole."""

import json

import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.prw.bank.edit import make_random_bank
from cologen.prw.bank.importers import open_experts
from cologen.prw.bank.importers.easycontrol import looks_like_easycontrol
from cologen.prw.bank.importers.peft import CONFIG, NOTE, export_adapters
from cologen.prw.bank.importers.template import looks_like_template
from cologen.prw.bank.summary import describe_bank
from cologen.prw.base_model import Base
from cologen.prw.coredi.features import Features, FeaturesInfo, list_shapes, looks_like_features
from cologen.prw.flux.checkpoint import load_flux
from cologen.prw.learned_keys import LearnedKeys, looks_like_learned_keys
from cologen.prw.personalization.concept import Concept, ConceptInfo, looks_like_concept
from cologen.prw.personalization.concept import list_shapes as list_concept_shapes
from cologen.training.checkpoint.checkpoints import read_checkpoint, write_checkpoint
from mutate import dump, mutate_bytes, mutate_file, mutate_json
from naive_easycontrol import random_file
from naive_learned_keys import learned_keys_file
from safetensors.torch import save_file
from tiny import tiny_bank, tiny_info
from tiny_flux2 import tiny_flux2
from tiny_run import SMALL, random_flux
from tiny_template import save_template

SMALL1 = SMALL | dict(hidden_size=128, num_heads=1, axes_dim=(16, 56, 56), depth_single_blocks=1)
SMALL2 = dict(hidden_size=128, num_heads=1, depth=1, depth_single_blocks=1, context_in_dim=8)
EXPERTS = dict(names=("ground", "control"), rank=2)


def draw(shapes):
    g = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}


def save_concept(path):
    info = ConceptInfo(Base.of(random_flux(**SMALL)), "dog", 1, 8, 2, 2.0)
    return Concept(info, draw(list_concept_shapes(info))).save(path)


def save_features(path):
    info = FeaturesInfo(Base.of(random_flux(**SMALL)), task="control", size=4)
    return Features(info, draw(list_shapes(info))).save(path)


def save_lora(path):
    tensors = {}
    for i in range(2):
        stem = f"lora_unet_double_blocks_{i}_img_attn_qkv"
        pair = {"lora_down.weight": (2, 128), "lora_up.weight": (384, 2)}
        tensors |= {f"{stem}.{part}": torch.randn(shape) for part, shape in pair.items()}
        tensors[f"{stem}.alpha"] = torch.tensor(2.0)
    save_file(tensors, path)


def save_peft(path):
    bank = make_random_bank(tiny_info(random_flux(**SMALL), ("control",), 2))
    (folder,) = export_adapters(bank, path.parent / "adapter", "diffusers")
    return folder / "adapter_model.safetensors"


def read_bank(path):
    read_experts(path, Bank.open(path))


def read_experts(path, bank=None):
    bank = bank or open_experts(path.parent if path.name.startswith("adapter") else path)
    blocks = list(bank.info.base.blocks())
    for name in bank.info.experts:
        for block in blocks[:2] + blocks[-2:]:
            for pair in bank.expert(name, block).values():
                assert pair.down.shape[0] == pair.up.shape[1]
    for name in bank.info.models:
        bank.model(name, tiny_flux2(**SMALL2))
    for stage in bank.info.routers:
        for block in blocks[:2]:
            assert bank.router(stage, block)[0].shape[1] >= len(bank.info.routers[stage].experts)
    if not bank.info.models:
        assert "\x1b" not in describe_bank(bank, "file")


def read_vectors(cls):
    def read(path):
        found = cls.open(path)
        assert all(tensor.isfinite().all() for tensor in found.tensors.values())

    return read


def read_learned_keys(path):
    keys = LearnedKeys.open(path)
    assert keys.keys > 0


def read_flux(path):
    assert all(isinstance(tensor, torch.Tensor) for tensor in load_flux(path).state_dict().values())


def read_run(path):
    tensors, state = read_checkpoint(path)
    assert state == {"version": 1, "iteration": 7} and torch.equal(tensors["a"], torch.arange(60.0))


FORMATS = {
    "bank": (lambda path: tiny_bank(random_flux(**SMALL), **EXPERTS).save(path), read_bank),
    "bank of FLUX.2": (lambda path: tiny_bank(tiny_flux2(**SMALL2), **EXPERTS).save(path), read_bank),
    "concept": (save_concept, read_vectors(Concept)),
    "features": (save_features, read_vectors(Features)),
    "template": (lambda path: save_template(path.parent, path.stem, **SMALL2)[0], read_experts),
    "learned keys": (lambda path: save_file(learned_keys_file(), path), read_learned_keys),
    "LoRA": (save_lora, read_experts),
    "PEFT": (save_peft, read_experts),
    "EasyControl": (lambda path: save_file(random_file(rank=2, width=128), path), read_experts),
    "FLUX.1": (lambda path: save_file(random_flux(**SMALL1).state_dict(), path), read_flux),
    "FLUX.2": (lambda path: save_file(tiny_flux2(**SMALL2).state_dict(), path), read_flux),
    "checkpoint": (
        lambda path: write_checkpoint(path, {"a": torch.arange(60.0), "b": torch.ones(3)}, {"iteration": 7}),
        read_run,
    ),
}
"""How a file is written, and how it is read."""


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_files(tmp_path, fuzz, format):
    save, read = FORMATS[format]
    path = save(tmp_path / "canny.safetensors") or tmp_path / "canny.safetensors"
    read(path)
    whole = path.read_bytes()

    def attempt(rng):
        path.unlink()  # another file, not another content: who has it open keeps it
        path.write_bytes(mutate_file(rng, whole))
        read(path)

    fuzz.run(60, attempt)


@pytest.mark.parametrize("name", [NOTE, CONFIG])
def test_damaged_settings_of_adapters(tmp_path, fuzz, name):
    """An adapter of ours by its note; without, as one of others, by PEFT's settings."""
    file = save_peft(tmp_path / "x.safetensors").parent / name
    whole = json.loads(file.read_text())
    if name == CONFIG:
        file.with_name(NOTE).unlink()

    def attempt(rng):
        text = dump(mutate_json(rng, whole))
        file.write_bytes(mutate_bytes(rng, text) if rng.random() < 0.3 else text)
        read_experts(file.with_name("adapter_model.safetensors"))

    fuzz.run(100, attempt)


LOOKS = (
    looks_like_concept,
    looks_like_easycontrol,
    looks_like_features,
    looks_like_learned_keys,
    looks_like_template,
)


def test_files_that_are_only_listed(tmp_path, fuzz):
    """Lists of nodes look into every file of a folder of models: none may hold them up."""
    path = tmp_path / "large.safetensors"

    def attempt(rng):
        words = [
            b"transformer_blocks.0.",
            b"attn.",
            b"proj_loras.",
            b'"',
            b"img_to_qkv.weights",
            b"proj_k.",
            b"cologen-",
        ]
        path.write_bytes(b"".join(words[i] for i in rng.integers(len(words), size=2**16)))
        assert [looks(path) for looks in LOOKS] == [False] * len(LOOKS)

    fuzz.run(3, attempt)
