"""FLUX files as people have them."""

import pytest
import torch
from cologen.prw.flux.checkpoint import load_flux
from safetensors.torch import save_file
from tiny import inputs, tiny_flux


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("kind", ["dev", "schnell", "fill"])
def test_a_saved_flux_loads_as_it_was(tmp_path, prefix, kind):
    changes = {"dev": {}, "schnell": dict(guidance_embed=False), "fill": dict(in_channels=384)}[kind]
    flux = tiny_flux(**changes)
    weights = {prefix + key: value for key, value in flux.state_dict().items()}
    if prefix:
        weights["vae.decoder.conv_in.weight"] = torch.zeros(3)  # a checkpoint with everything in it
    save_file(weights, tmp_path / "flux.safetensors")
    loaded = load_flux(tmp_path / "flux.safetensors")
    assert loaded.params == flux.params
    x, *rest = inputs(2)
    x = x if kind != "fill" else torch.cat([x, x, x.repeat(1, 4, 1, 1)], 1)
    assert torch.equal(loaded(x, *rest), flux(x, *rest))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_low_precision_files_give_what_their_numbers_say(tmp_path, dtype):
    flux = tiny_flux()
    low = {key: value.to(dtype) for key, value in flux.state_dict().items()}
    save_file(low, tmp_path / "flux.safetensors")
    loaded = load_flux(tmp_path / "flux.safetensors")
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    flux.load_state_dict({key: value.float() for key, value in low.items()})
    args = inputs()
    assert (loaded(*args) - flux(*args)).abs().max() < 1e-4
    assert torch.equal(load_flux(tmp_path / "flux.safetensors", torch.float32)(*args), flux(*args))


def test_the_hosts_norm_names_load(comfy, tmp_path):
    from tiny import host_model

    flux = tiny_flux()
    save_file(dict(host_model(flux).model.diffusion_model.state_dict()), tmp_path / "flux.safetensors")
    args = inputs()
    assert torch.equal(load_flux(tmp_path / "flux.safetensors")(*args), flux(*args))


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda w: w.pop("img_in.bias"), "lacks img_in.bias"),
        (lambda w: w.pop("img_in.weight"), "lacks a whole img_in.weight"),
        (
            lambda w: w.update({"txt_in.weight": torch.ones(3)}),
            "lacks a whole txt_in.weight, expected a whole FLUX.1 file: download it again",
        ),
        (lambda w: w.update({"img_in.weight": torch.ones(0, 64)}), "lacks a whole img_in.weight"),
        (lambda w: w.update({"img_in.bias": torch.ones(5)}), r"img_in.bias has shape \(5,\), expected \(256,\)"),
        (lambda w: w.update({"double_blocks.0.img_attn.qkv.scale_weight": torch.ones(())}), "no place for"),
        (lambda w: w.update({"img_in.bias": w["img_in.bias"].to(torch.int8)}), "is torch.int8, expected bf16"),
        (lambda w: [w.pop(key) for key in list(w) if "double" in key], "looks like another model"),
        (
            lambda w: w.update({f"single_blocks.{i}.x": torch.ones(0) for i in range(4000)}),
            "names 4000 single_blocks, expected 1000 at most: download it again",
        ),
        (
            lambda w: w.update({"img_in.weight": torch.ones(100, 64)}),
            "flux.safetensors cannot be a FLUX.1 .hidden_size is 100, expected .*download it again",
        ),
        (lambda w: w.clear() or w.update({"transformer_blocks.0.x": torch.ones(1)}), "looks like a diffusers file"),
    ],
)
def test_other_files_are_a_sentence(tmp_path, change, sentence):
    weights = tiny_flux().state_dict()
    change(weights)
    save_file(dict(weights), tmp_path / "flux.safetensors")
    with pytest.raises(ValueError, match=sentence):
        load_flux(tmp_path / "flux.safetensors")
