"""Diffusion Templates as experts: what a template's file becomes, where it may go, and what is said of all other kinds."""

import json

import pytest
import torch
from cologen.prw.bank.bank import METADATA_KEY, Bank
from cologen.prw.bank.compress import convert, rerank
from cologen.prw.bank.edit import drop, merge, rename
from cologen.prw.bank.importers import open_experts
from cologen.prw.bank.importers.peft import export_adapters
from cologen.prw.bank.importers.template import looks_like_template
from cologen.prw.bank.info import encode_info
from cologen.prw.bank.summary import describe_bank
from cologen.prw.files.errors import BankError, FileError
from safetensors.torch import save_file
from tiny import tiny_bank
from tiny_flux2 import flux2_inputs, tiny_flux2
from tiny_template import save_template, template_weights

NAME = "Template-KleinBase4B-ControlNet"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_template(tmp_path_factory.mktemp("templates"), NAME, dtype=torch.bfloat16)[0]


@pytest.fixture(scope="module")
def bank(path):
    return open_experts(path)


def test_a_template_is_named_after_its_folder_or_as_one_likes(path, bank, tmp_path):
    assert (list(bank.info.models), bank.info.experts, bank.info.routers) == ([NAME], {}, {})
    assert bank.info.models[NAME].data == f"{NAME}/model.safetensors"
    assert list(open_experts(path, "my map").info.models) == ["my_map"]
    (tmp_path / "upscale.safetensors").hardlink_to(path)
    assert list(open_experts(tmp_path / "upscale.safetensors").info.models) == ["upscale"]


def test_its_model_is_the_file_s(path, bank):
    flux, expected = bank.model(NAME, tiny_flux2()), tiny_flux2(50)
    expected.load_state_dict({name: tensor.bfloat16().float() for name, tensor in expected.state_dict().items()})
    assert {parameter.dtype for parameter in flux.parameters()} == {torch.bfloat16}
    assert torch.equal(flux.float()(*flux2_inputs()), expected(*flux2_inputs()))


def test_the_base_that_it_wants_is_read_off_its_shapes(bank, tmp_path):
    base = bank.info.base
    assert (base.family, base.hidden_size, base.double_blocks, base.single_blocks, base.name) == (
        "flux2",
        256,
        2,
        3,
        "",
    )


def test_it_is_told_by_its_header(path, tmp_path):
    assert looks_like_template(path)
    save_file(tiny_flux2().state_dict(), tmp_path / "flux2.safetensors")
    assert not looks_like_template(tmp_path / "flux2.safetensors")
    assert not looks_like_template(tmp_path / "none.safetensors")


def test_a_summary_says_what_it_is(bank):
    text = describe_bank(bank, "file")
    assert "file: 0 experts, 0 routers, 1 whole models" in text
    assert NAME in text and "bfloat16" in text and f"{NAME}/model.safetensors" in text and "rank" not in text
    assert json.loads(encode_info(bank.info))["models"] == {
        NAME: {"data": f"{NAME}/model.safetensors", "on_base": False}
    }
    assert "models" not in json.loads(encode_info(tiny_bank(tiny_flux2()).info))


def test_templates_and_low_rank_experts_merge(bank, path):
    low_rank = tiny_bank(tiny_flux2())
    merged = merge([low_rank, bank, open_experts(path, "other")])
    assert list(merged.info.models) == [NAME, "other"] and merged.info.experts == low_rank.info.experts
    assert merged.info.source == low_rank.info.source
    with pytest.raises(BankError, match=f"Two banks have expert {NAME}, expected a name once"):
        merge([bank, bank])
    with pytest.raises(BankError, match="Two banks have expert control, expected a name once"):
        merge([low_rank, open_experts(path, "control")])


WRITERS = {
    "save": lambda bank, folder: bank.save(folder / "bank.safetensors"),
    "rerank": lambda bank, folder: rerank(bank, 1),
    "convert": lambda bank, folder: convert(bank, torch.float16),
    "rename": lambda bank, folder: rename(bank, {}),
    "drop": lambda bank, folder: drop(bank, []),
    "export": lambda bank, folder: export_adapters(bank, folder),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_makes_no_sense_of_a_whole_model_is_a_sentence(bank, writer, tmp_path):
    sentence = f"The experts hold a whole model .{NAME}., expected low-rank experts alone: load it from its own file"
    for given in (bank, merge([tiny_bank(tiny_flux2()), bank])):
        with pytest.raises(BankError, match=sentence):
            WRITERS[writer](given, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_bank_s_file_holds_no_whole_model(bank, tmp_path):
    path = tmp_path / "bank.safetensors"
    save_file({"x": torch.ones(1)}, path, metadata={METADATA_KEY: encode_info(bank.info)})
    with pytest.raises(
        BankError, match="metadata that cannot be used .it names whole models, which no bank file holds"
    ):
        Bank.open(path)


def test_two_experts_of_a_name_are_none(bank):
    from dataclasses import replace

    with pytest.raises(ValueError, match="two experts are named control: rename one of them"):
        replace(tiny_bank(tiny_flux2()).info, models={"control": bank.info.models[NAME]})


OTHERS = {
    "learned keys": (
        {"proj_k.double_0.prefer_value_embedder.0.weight": torch.ones(4, 2)},
        r"model.safetensors is a Diffusion Template of learned keys from a number .* choose it in Learned Keys",
    ),
    "LoRA of a template": (
        {"transformer_blocks.0.img_to_qkv.lora_A.weight": torch.ones(4, 2)},
        r"is a Diffusion Template \(a LoRA of one\), expected one that is a whole model",
    ),
    "image to LoRA": (
        {"layers.0.attention.to_q.proj_residual.proj_out.weight": torch.ones(4, 2)},
        r"is an image-to-LoRA model \(i2L\), which writes a LoRA for pictures",
    ),
    "more than a model": (
        template_weights(tiny_flux2().state_dict()) | {"mask_embedder.weight": torch.ones(2, 2)},
        "holds mask_embedder.weight, which no template that is a whole FLUX.2 has",
    ),
    "another shape": (
        template_weights(tiny_flux2().state_dict()) | {"transformer_blocks.1.txt_to_out.weight": torch.ones(2, 2)},
        r"double_blocks.1.txt_attn.proj.weight has shape \(2, 2\), expected \(256, 256\)",
    ),
    "whole numbers": (
        template_weights(tiny_flux2().state_dict()) | {"img_embedder.weight": torch.ones(256, 128, dtype=torch.int8)},
        "img_in.weight is torch.int8, expected bf16, fp16, fp32 or fp8",
    ),
    "anything else": ({"x": torch.ones(1)}, "is neither a CoLoGen bank nor a file that can be imported"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_kinds_are_sentences(what, tmp_path):
    weights, sentence = OTHERS[what]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(FileError, match=sentence):
        open_experts(tmp_path / "model.safetensors")


def test_a_kind_says_nothing_of_a_template(path):
    with pytest.raises(FileError, match="cannot be read as experts: kind is 'canny', expected one of 'auto'"):
        open_experts(path, kind="canny")
