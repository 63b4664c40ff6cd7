"""PEFT adapters: peft itself loads what we export, and it comes back equal."""

import json
import sys

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.bank.compress import convert, share_down
from cologen.prw.bank.edit import make_random_bank
from cologen.prw.bank.importers import open_experts
from cologen.prw.bank.importers.peft import export_adapters
from cologen.prw.embedded_host import velocity
from cologen.prw.files.errors import BankError, FileError
from safetensors.torch import load_file, save_file
from tiny import inputs, source, tiny_bank, tiny_flux, tiny_info

WIDTH, RANK = 256, 4


def picture(flux, bank, expert):
    return velocity(flux, *inputs(), Attachment(bank), [source(expert=expert)])


WITH = {
    "k and v": {},
    "q, k, v and out": {"targets": {"q": "all", "k": "all", "v": "all", "out": "all"}},
    "some": {"targets": {"k": "double", "v": "all"}},
}


def bank_with(flux, what):
    return make_random_bank(tiny_info(flux, names=("ground", "control"), **WITH[what]), up=0.3)


@pytest.mark.parametrize("spelling", ["flux", "diffusers"])
@pytest.mark.parametrize("what", WITH)
def test_there_and_back_is_equal(flux, tmp_path, what, spelling):
    bank = bank_with(flux, what)
    for folder in export_adapters(bank, tmp_path, spelling):
        back = open_experts(folder)
        assert back.info.experts == {folder.name: bank.info.experts[folder.name]} and back.info.base == bank.info.base
        assert all(torch.equal(back.tensors[key], bank.tensors[key]) for key in back.tensors)
        assert torch.equal(picture(flux, back, folder.name), picture(flux, bank, folder.name))


@pytest.mark.parametrize("what", WITH)
def test_peft_loads_it_on_our_flux(flux, tmp_path, what):
    from peft import PeftModel

    bank, plain, adapted = bank_with(flux, what), tiny_flux(), tiny_flux()
    (_, folder) = export_adapters(bank, tmp_path, "flux")
    adapted = PeftModel.from_pretrained(adapted, folder).base_model.model
    x, wide, rows = torch.randn(3, WIDTH), torch.randn(3, 5 * WIDTH), slice(0, WIDTH)
    for block in bank.info.base.blocks():
        pairs, (kind, index) = bank.expert("control", block), block.split(".")
        layers = [getattr(model, kind)[int(index)] for model in (adapted, plain)]
        fused = [layer.linear1 if kind == "single_blocks" else layer.img_attn.qkv for layer in layers]
        found, expected = (layer(x) for layer in fused)
        for i, target in enumerate("qkv"):
            if target in pairs:
                expected[:, i * WIDTH : (i + 1) * WIDTH] += pairs[target](x)
        assert torch.allclose(found, expected, atol=1e-5), block
        outs = [layer.linear2 if kind == "single_blocks" else layer.img_attn.proj for layer in layers]
        given = wide if kind == "single_blocks" else x
        found, expected = (layer(given) for layer in outs)
        if "out" in pairs:
            expected = expected + pairs["out"](given[:, rows])
        assert torch.allclose(found, expected, atol=1e-5), block


def diffusers_flux():
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    return FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=2, num_single_layers=2, attention_head_dim=128, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=16, guidance_embeds=True, axes_dims_rope=(16, 56, 56),
    )  # fmt: skip


@pytest.mark.parametrize("what", WITH)
def test_peft_loads_it_on_diffusers_flux(flux, tmp_path, what):
    from peft import PeftModel

    bank = bank_with(flux, what)
    (_, folder) = export_adapters(bank, tmp_path, "diffusers")
    adapted = PeftModel.from_pretrained(diffusers_flux(), folder).base_model.model
    bent = {name for name, layer in adapted.named_modules() if hasattr(layer, "lora_A")}
    assert len(bent) == sum(len(bank.expert("control", block)) for block in bank.info.base.blocks())
    for block in bank.info.base.blocks():
        kind, index = block.split(".")
        layer = (adapted.transformer_blocks if kind == "double_blocks" else adapted.single_transformer_blocks)[
            int(index)
        ]
        for target, pair in bank.expert("control", block).items():
            if target == "out":
                to = layer.attn.to_out[0] if kind == "double_blocks" else layer.proj_out
            else:
                to = getattr(layer.attn, f"to_{target}")
            given = torch.randn(3, to.in_features)  # a single block's output reads its MLP, too
            assert torch.allclose(to(given), to.base_layer(given) + pair(given[:, :WIDTH]), atol=1e-5)


@pytest.mark.parametrize("spelling", ["flux", "diffusers"])
def test_without_our_note_it_is_a_lora_of_the_same_effect(flux, tmp_path, spelling):
    bank = bank_with(flux, "k and v")
    (_, folder) = export_adapters(bank, tmp_path, spelling)
    (folder / "cologen.json").unlink()
    back = open_experts(folder)
    assert back.info.experts["control"].data == "control"
    assert (picture(flux, back, "control") - picture(flux, bank, "control")).abs().max() < 1e-5


@pytest.mark.parametrize("smaller", [lambda bank: convert(bank, torch.float8_e4m3fn), lambda bank: share_down(bank, 8)])
def test_smaller_banks_export_what_they_are(flux, tmp_path, smaller):
    bank = smaller(tiny_bank(flux, names=("ground", "control")))[0]
    (_, folder) = export_adapters(bank, tmp_path)
    back = open_experts(folder)
    found, expected = (one.expert("control", "single_blocks.1")["v"] for one in (back, bank))
    x = torch.randn(3, WIDTH)
    assert torch.allclose(found(x), expected(x), atol=0.02 * float(expected(x).abs().max()))


def test_down_and_up_keep_their_own_types(flux, tmp_path):
    bank = bank_with(flux, "k and v")
    for key in bank.tensors:
        if key.endswith(".down") or key.endswith(".v.up"):
            bank.tensors[key] = bank.tensors[key].bfloat16()
    for spelling in ("flux", "diffusers"):
        (_, folder) = export_adapters(bank, tmp_path / spelling, spelling)
        back = open_experts(folder)
        assert all(torch.equal(back.tensors[key].float(), bank.tensors[key].float()) for key in back.tensors)
        assert back.tensors["experts.control.double_blocks.0.k.down"].dtype == torch.bfloat16
        assert back.tensors["experts.control.double_blocks.0.k.up"].dtype == torch.float32


def adapter_of(flux, folder, **changes):
    """An exported adapter, the first tensor of each name made another."""
    (folder,) = export_adapters(tiny_bank(flux, names=("ground",)), folder, "flux")
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    for name, change in changes.items():
        key = next(key for key in tensors if key.endswith(f"{name}.weight"))
        tensors[key] = change(tensors.pop(key))
    save_file(tensors, file)
    return folder


@pytest.mark.parametrize(
    "change, sentence",
    [
        (dict(lora_A=lambda t: t[:, :-1].contiguous()), r"lora_A.weight has shape \(8, 255\), expected \(8, 256\)"),
        (dict(lora_B=lambda t: t[:, :4].contiguous()), r"lora_B.weight has shape \(768, 4\), expected \(768, 8\)"),
        (dict(lora_A=lambda t: t[0].clone()), r"lora_A.weight has shape \(256,\), expected \(8, 256\)"),
        (dict(lora_B=lambda t: t.to(torch.int8)), "is of type I8"),
    ],
)
def test_a_folder_of_ours_with_other_tensors_is_refused(flux, tmp_path, change, sentence):
    with pytest.raises(FileError, match=f"ground: base_model.*{sentence}"):
        open_experts(adapter_of(flux, tmp_path, **change))


def test_a_folder_of_ours_with_more_or_fewer_tensors_is_refused(flux, tmp_path):
    folder = adapter_of(flux, tmp_path)
    whole, file = load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.safetensors"
    for more, sentence in (
        (dict(x=torch.ones(1)), "ground holds a tensor x"),
        ({next(iter(whole)): None}, "ground lacks"),
    ):
        save_file({key: t for key, t in {**whole, **more}.items() if t is not None}, file)
        with pytest.raises(FileError, match=sentence):
            open_experts(folder)


def test_an_export_is_there_whole_or_not_at_all(flux, tmp_path, monkeypatch):
    def full(*_):
        raise FileError("the disk is full")

    monkeypatch.setattr("cologen.prw.bank.importers.peft.write_safetensors", full)
    with pytest.raises(FileError, match="the disk is full"):
        export_adapters(tiny_bank(flux, names=("ground",)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_settings_of_a_megabyte_are_no_settings(flux, tmp_path):
    folder = adapter_of(flux, tmp_path)
    (folder / "cologen.json").write_text(" " * (1 << 20) + "{}")
    with pytest.raises(FileError, match="it is larger than 1048576 bytes"):
        open_experts(folder)


def test_a_folder_of_ours_can_be_given_another_name_but_no_kind(flux, tmp_path):
    folder = adapter_of(flux, tmp_path)
    assert list(open_experts(folder, "my ground").info.experts) == ["my_ground"]
    with pytest.raises(FileError, match="ground cannot be read as experts: kind is 'partial', expected one of 'auto'"):
        open_experts(folder, kind="partial")


NOTES = {
    "spelling is a list": lambda note, info: note.update(spelling=["flux"]),
    "no spelling": lambda note, info: note.update(spelling=None),
    "no bank": lambda note, info: note.update(bank={}),
    "no expert": lambda note, info: info.update(experts={}),
    "two experts": lambda note, info: info["experts"].update(other={}),
    "endless experts": lambda note, info: info.update(experts={str(i): {} for i in range(20000)}),
    "a router": lambda note, info: info.update(routers={"a": {"experts": ["ground"]}}),
    "proj": lambda note, info: info["experts"]["ground"].update(targets={"proj": "double"}),
    "scaled": lambda note, info: info["experts"]["ground"].update(scaled=True),
    "shared": lambda note, info: info["experts"]["ground"].update(shared="g"),
}


@pytest.mark.parametrize("what", NOTES)
def test_a_note_that_we_would_not_write_is_a_sentence(flux, tmp_path, what):
    note_file = adapter_of(flux, tmp_path) / "cologen.json"
    note = json.loads(note_file.read_text())
    info = json.loads(note["bank"])
    NOTES[what](note, info)
    note_file.write_text(json.dumps({**note, "bank": json.dumps(info) if note["bank"] else note["bank"]}))
    with pytest.raises(FileError, match="ground/cologen.json .* delete it, and the folder is read as a LoRA") as said:
        open_experts(note_file.parent)
    if "spelling" in what or what == "no bank":
        assert "is not as we wrote it" in str(said.value)


def test_an_export_without_peft_says_what_is_missing(flux, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(FileError, match="takes peft, which is not installed: pip install peft"):
        export_adapters(tiny_bank(flux), tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_or_read_is_a_sentence(flux, tmp_path):
    from naive_easycontrol import random_file

    save_file(random_file(), tmp_path / "canny.safetensors")
    with pytest.raises(BankError, match="reads what the output projection made, which no PEFT adapter does"):
        export_adapters(open_experts(tmp_path / "canny.safetensors"), tmp_path / "x")
    (folder,) = export_adapters(tiny_bank(flux, names=("ground",)), tmp_path / "y")
    with pytest.raises(FileError, match="is there already"):
        export_adapters(tiny_bank(flux, names=("ground",)), tmp_path / "y")
    (folder / "cologen.json").write_text("[1]")
    with pytest.raises(FileError, match="holds no object"):
        open_experts(folder)
    (folder / "cologen.json").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    for change, sentence in (
        ({"use_dora": True}, "is a DoRA"),
        ({"r": "x"}, "r x and lora_alpha .* expected numbers"),
        ({"r": True}, "expected numbers"),
        ({"lora_alpha": 10**400}, "r 4 and lora_alpha 1.*, expected numbers"),
        ({"lora_alpha": float("nan")}, "expected numbers"),
        ({"use_rslora": True}, "ranks or scales"),
        ({"rank_pattern": {"x": 8}}, "ranks or scales"),
        ({"rank_pattern": {"x": 8}, "alpha_pattern": {"x": 8}}, "ranks or scales"),
        ({"rank_pattern": [1], "alpha_pattern": {"x": "y"}}, "ranks or scales"),
    ):
        (folder / "adapter_config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(FileError, match=sentence):
            open_experts(folder)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"base_model.model.x.lora_A.weight": torch.ones(2, 2)}, folder / "adapter_model.safetensors")
    with pytest.raises(FileError, match="^ground changes no layer that an expert can"):
        open_experts(folder)


def test_a_peft_scale_is_what_its_config_says(flux, tmp_path):
    folder = adapter_of(flux, tmp_path)
    before = open_experts(folder).expert("ground", "double_blocks.0")["k"]
    (folder / "cologen.json").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 3 * config["lora_alpha"]}))
    after = open_experts(folder).expert("ground", "double_blocks.0")["k"]
    found, expected = (pair.up @ pair.down * pair.scale for pair in (after, before))
    assert torch.allclose(found, 3 * expected, rtol=1e-5)
