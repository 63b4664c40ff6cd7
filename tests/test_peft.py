"""PEFT adapters: peft itself loads what we export, and it comes back equal; LoRAs of others become experts."""

import json

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.bank_info import BankError
from cologen.prw.bank_work import random_bank
from cologen.prw.embedded import velocity
from cologen.prw.importers import open_experts
from cologen.prw.importers.peft import export
from cologen.prw.reshape import cast, sharing
from safetensors.torch import load_file, save_file
from tiny import inputs, source, tiny_bank, tiny_flux, tiny_info

WIDTH, RANK = 256, 4


@pytest.fixture(scope="module")
def flux():
    return tiny_flux()


def picture(flux, bank, expert):
    return velocity(flux, *inputs(), Attachment(bank), [source(expert=expert)])


WITH = {
    "k and v": {},
    "q, k, v and out": {"targets": {"q": "all", "k": "all", "v": "all", "out": "all"}},
    "some": {"targets": {"k": "double", "v": "all"}},
}


def bank_with(flux, what):
    return random_bank(tiny_info(flux, names=("ground", "control"), **WITH[what]), up=0.3)


@pytest.mark.parametrize("spelling", ["flux", "diffusers"])
@pytest.mark.parametrize("what", WITH)
def test_there_and_back_is_equal(flux, tmp_path, what, spelling):
    bank = bank_with(flux, what)
    for folder in export(bank, tmp_path, spelling):
        back = open_experts(folder)
        assert back.info.experts == {folder.name: bank.info.experts[folder.name]} and back.info.base == bank.info.base
        assert all(torch.equal(back.tensors[key], bank.tensors[key]) for key in back.tensors)
        assert torch.equal(picture(flux, back, folder.name), picture(flux, bank, folder.name))


@pytest.mark.parametrize("what", WITH)
def test_peft_loads_it_on_our_flux(flux, tmp_path, what):
    from peft import PeftModel

    bank, plain, adapted = bank_with(flux, what), tiny_flux(), tiny_flux()
    (_, folder) = export(bank, tmp_path, "flux")
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
    (_, folder) = export(bank, tmp_path, "diffusers")
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
    bank = bank_with(flux, "q, k, v and out" if spelling == "nobody" else "k and v")
    (_, folder) = export(bank, tmp_path, spelling)
    (folder / "cologen.json").unlink()
    back = open_experts(folder)
    assert (picture(flux, back, "control") - picture(flux, bank, "control")).abs().max() < 1e-5


@pytest.mark.parametrize("smaller", [lambda bank: cast(bank, torch.float8_e4m3fn), lambda bank: sharing(bank, 8)])
def test_smaller_banks_export_what_they_are(flux, tmp_path, smaller):
    bank = smaller(tiny_bank(flux, names=("ground", "control")))[0]
    (_, folder) = export(bank, tmp_path)
    back = open_experts(folder)
    found, expected = (one.expert("control", "single_blocks.1")["v"] for one in (back, bank))
    x = torch.randn(3, WIDTH)
    assert torch.allclose(found(x), expected(x), atol=0.02 * float(expected(x).abs().max()))


def kohya(alpha, dim=WIDTH, rank=RANK, **more):
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for layer, rows in (("double_blocks_{}_img_attn_qkv", 3 * dim), ("single_blocks_{}_linear1", 7 * dim)):
        for i in range(2):
            stem = f"lora_unet_{layer.format(i)}"
            up = torch.randn(rows, rank, generator=generator)
            up[3 * dim :] = 0
            tensors[f"{stem}.lora_down.weight"] = torch.randn(rank, dim, generator=generator) * dim**-0.5
            tensors[f"{stem}.lora_up.weight"] = up
            tensors[f"{stem}.alpha"] = torch.tensor(float(alpha))
    return {**tensors, **more}


def test_a_fused_lora_with_alphas_does_to_a_source_what_it_does_to_a_picture(flux, tmp_path):
    save_file(kohya(2.0), tmp_path / "style.safetensors")
    bank, tensors = open_experts(tmp_path / "style.safetensors"), kohya(2.0)
    assert bank.info.experts["style"].alpha == 2.0 and bank.info.experts["style"].targets == dict.fromkeys("kqv", "all")
    x = torch.randn(5, WIDTH)
    for block, stem in (
        ("double_blocks.1", "lora_unet_double_blocks_1_img_attn_qkv"),
        ("single_blocks.0", "lora_unet_single_blocks_0_linear1"),
    ):
        delta = x @ (2.0 / RANK * tensors[f"{stem}.lora_up.weight"] @ tensors[f"{stem}.lora_down.weight"]).T
        for i, target in enumerate("qkv"):
            found = bank.expert("style", block)[target](x)
            assert torch.allclose(found, delta[:, i * WIDTH : (i + 1) * WIDTH], atol=1e-5)
    picture(flux, bank, "style")


def test_layers_of_other_ranks_and_scales_and_missing_layers(tmp_path):
    tensors = kohya(2.0)
    for key in [key for key in tensors if "double_blocks_0" in key]:
        del tensors[key]
    small = "lora_unet_single_blocks_0_linear1"
    tensors[f"{small}.alpha"] = torch.tensor(8.0)
    for part, cut in (("down", lambda t: t[:2]), ("up", lambda t: t[:, :2])):
        tensors[f"{small}.lora_{part}.weight"] = cut(tensors[f"{small}.lora_{part}.weight"]).contiguous()
    save_file(tensors, tmp_path / "odd.safetensors")
    bank, x = open_experts(tmp_path / "odd.safetensors"), torch.randn(5, WIDTH)
    assert not bank.expert("odd", "double_blocks.0")["k"](x).any()
    delta = x @ (4.0 * tensors[f"{small}.lora_up.weight"] @ tensors[f"{small}.lora_down.weight"]).T
    assert torch.allclose(bank.expert("odd", "single_blocks.0")["v"](x), delta[:, 2 * WIDTH : 3 * WIDTH], atol=1e-4)
    assert torch.equal(
        bank.save(tmp_path / "b.safetensors") and bank.tensors["experts.odd.double_blocks.0.k.up"],
        torch.zeros(WIDTH, RANK),
    )


def test_what_a_lora_does_elsewhere_is_said_or_left_out(tmp_path):
    more = {"lora_unet_double_blocks_0_img_mlp_0.lora_down.weight": torch.ones(RANK, WIDTH)}
    save_file(kohya(2.0, **more), tmp_path / "more.safetensors")
    with pytest.raises(BankError, match="also changes 1 tensors that no expert can .*choose the kind partial"):
        open_experts(tmp_path / "more.safetensors")
    assert open_experts(tmp_path / "more.safetensors", kind="partial").info.experts.keys() == {"more"}
    tensors = kohya(2.0)
    tensors["lora_unet_single_blocks_1_linear1.lora_up.weight"][-1] = 1.0
    save_file(tensors, tmp_path / "mlp.safetensors")
    with pytest.raises(BankError, match="also changes the MLP in .*partial"):
        open_experts(tmp_path / "mlp.safetensors")


def test_what_cannot_be_exported_or_read_is_a_sentence(flux, tmp_path):
    from naive_easycontrol import random_file

    save_file(random_file(), tmp_path / "canny.safetensors")
    with pytest.raises(BankError, match="reads what the output projection made, which no PEFT adapter does"):
        export(open_experts(tmp_path / "canny.safetensors"), tmp_path / "x")
    (folder,) = export(tiny_bank(flux, names=("ground",)), tmp_path / "y")
    with pytest.raises(BankError, match="is there already"):
        export(tiny_bank(flux, names=("ground",)), tmp_path / "y")
    (folder / "cologen.json").write_text("[1]")
    with pytest.raises(BankError, match="holds no object"):
        open_experts(folder)
    (folder / "cologen.json").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    for change, sentence in (
        ({"use_dora": True}, "is a DoRA"),
        ({"r": "x"}, "expected numbers"),
        ({"use_rslora": True}, "ranks or scales"),
    ):
        (folder / "adapter_config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(BankError, match=sentence):
            open_experts(folder)
    assert len(load_file(folder / "adapter_model.safetensors")) == 16
