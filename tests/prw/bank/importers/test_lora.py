"""LoRAs of others as experts: what they do to a picture's tokens, a source gets."""

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.bank.bank import Bank
from cologen.prw.bank.importers import open_experts
from cologen.prw.embedded_host import velocity
from cologen.prw.files.errors import FileError
from safetensors.torch import save_file
from tiny import inputs, source, tiny_flux

WIDTH, RANK = 256, 4


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


def test_a_fused_lora_with_alphas_does_to_a_source_what_it_does_to_a_picture(tmp_path):
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
    flux = tiny_flux()
    bent, plain = (
        velocity(flux, *inputs(), Attachment(bank), [source(expert="style", strength=s)]) for s in (1.0, 0.0)
    )
    assert (bent - plain).abs().max() > 1e-2


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
    saved = Bank.open(bank.save(tmp_path / "b.safetensors"))
    assert torch.equal(saved.tensors["experts.odd.double_blocks.0.k.up"], torch.zeros(WIDTH, RANK))
    assert all(torch.equal(saved.tensors[key], bank.tensors[key]) for key in saved.tensors)


def test_an_fp8_lora_of_two_alphas_keeps_its_digits(tmp_path):
    tensors = {key: t.to(torch.float8_e4m3fn) if t.ndim else t for key, t in kohya(2.0).items()}
    loud = "lora_unet_double_blocks_1_img_attn_qkv"
    tensors[f"{loud}.alpha"] = torch.tensor(7.0)
    save_file(tensors, tmp_path / "small.safetensors")
    bank = open_experts(open_experts(tmp_path / "small.safetensors").save(tmp_path / "bank.safetensors"))
    for block, stem, alpha in (("double_blocks.1", loud, 7.0), ("double_blocks.0", loud.replace("1", "0"), 2.0)):
        up, down = (tensors[f"{stem}.lora_{part}.weight"].float() for part in ("up", "down"))
        found, expected = bank.expert("small", block)["k"], alpha / RANK * up[WIDTH : 2 * WIDTH] @ down
        assert torch.allclose(found.up.float() @ found.down.float() * found.scale, expected, rtol=1e-5)


def test_a_lora_of_few_blocks_fits_the_whole_flux_1(tmp_path):
    """A width of 3072 is FLUX.1's, whose blocks are known; of another width, those that are named are all."""
    stem = "transformer.single_transformer_blocks.20.attn.to_v"
    for width, blocks in ((3072, (19, 38)), (64, (0, 21))):
        pair = {f"{stem}.lora_A.weight": torch.ones(1, width), f"{stem}.lora_B.weight": torch.ones(width, 1)}
        save_file(pair, tmp_path / "few.safetensors")
        bank = Bank.open(open_experts(tmp_path / "few.safetensors").save(tmp_path / "bank.safetensors"))
        assert (bank.info.base.double_blocks, bank.info.base.single_blocks) == blocks
        bent = {key for key, tensor in bank.tensors.items() if key.endswith(".up") and tensor.any()}
        assert bent == {"experts.few.single_blocks.20.v.up"}


def test_an_alpha_without_its_layer_is_said(tmp_path):
    tensors = kohya(2.0)
    stem = "lora_unet_double_blocks_1_img_attn_qkv"
    tensors[stem.replace("lora_unet_", "lora_unett_") + ".alpha"] = tensors.pop(f"{stem}.alpha")
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(FileError, match="odd.safetensors has lora_unett_.*alpha without the layer that it belongs to"):
        open_experts(tmp_path / "odd.safetensors")
    elsewhere = "lora_unet_double_blocks_0_img_mlp_0"
    more = {f"{elsewhere}.lora_down.weight": torch.ones(RANK, WIDTH), f"{elsewhere}.alpha": torch.tensor(1.0)}
    save_file(kohya(2.0, **more), tmp_path / "more.safetensors")
    assert open_experts(tmp_path / "more.safetensors", kind="partial").info.experts.keys() == {"more"}


def test_one_pair_of_a_high_rank_does_not_blow_up_all_others(tmp_path):
    tensors = {}
    for i in range(38):
        stem, rank = f"transformer.single_transformer_blocks.{i}.attn.to_v", 64 if i == 7 else 1
        tensors |= {f"{stem}.lora_A.weight": torch.ones(rank, 64), f"{stem}.lora_B.weight": torch.ones(64, rank)}
    save_file(tensors, tmp_path / "one.safetensors")
    with pytest.raises(
        FileError, match="one.safetensors has pairs of rank 64 beside 1, expected ranks near one another"
    ):
        open_experts(tmp_path / "one.safetensors")


def test_digits_are_ascii(tmp_path):
    stem = "transformer.single_transformer_blocks.\u0662.attn.to_v"
    save_file(
        {f"{stem}.lora_A.weight": torch.ones(1, 64), f"{stem}.lora_B.weight": torch.ones(64, 1)},
        tmp_path / "a.safetensors",
    )
    with pytest.raises(FileError):
        open_experts(tmp_path / "a.safetensors")


def test_what_a_lora_does_elsewhere_is_said_or_left_out(tmp_path):
    more = {"lora_unet_double_blocks_0_img_mlp_0.lora_down.weight": torch.ones(RANK, WIDTH)}
    save_file(kohya(2.0, **more), tmp_path / "more.safetensors")
    with pytest.raises(FileError, match="also changes 1 tensors that no expert can .*choose the kind partial"):
        open_experts(tmp_path / "more.safetensors")
    assert open_experts(tmp_path / "more.safetensors", kind="partial").info.experts.keys() == {"more"}
    tensors = kohya(2.0)
    tensors["lora_unet_single_blocks_1_linear1.lora_up.weight"][-1] = 1.0
    save_file(tensors, tmp_path / "mlp.safetensors")
    with pytest.raises(FileError, match="also changes the MLP in .*partial"):
        open_experts(tmp_path / "mlp.safetensors")
