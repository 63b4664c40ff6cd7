"""A template's file under the public names is the FLUX.2 that it was written from; the names are the published ones."""

import pytest
import torch
from cologen.prw.files.errors import FileError
from cologen.prw.files.safe_file import SafeFile
from cologen.prw.flux.checkpoint import build_flux
from cologen.prw.flux.template_names import is_template, rename_template
from safetensors.torch import save_file
from tiny_flux2 import flux2_inputs, tiny_flux2
from tiny_template import save_template, template_weights


def test_a_template_is_the_flux_2_that_it_was_written_from(tmp_path):
    path, weights = save_template(tmp_path, dtype=torch.bfloat16)
    file = SafeFile(path)
    renamed = rename_template(file)
    assert is_template(file) and not is_template(weights)
    assert renamed.keys() == weights.keys()
    assert all(torch.equal(renamed[name], weights[name]) for name in weights)
    flux, args = build_flux(renamed, path.name, torch.float32), flux2_inputs()
    expected = tiny_flux2()
    expected.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    assert torch.equal(flux(*args), expected(*args))


def test_the_names_are_the_published_ones(tmp_path):
    """As facts, not by a rule: one name of each kind."""
    names = template_weights(tiny_flux2().state_dict()).keys()
    for name in (
        "img_embedder", "txt_embedder", "time_guidance_embed.timestep_embedder.2", "double_stream_modulation_img.linear",
        "single_stream_modulation.linear", "transformer_blocks.1.img_to_qkv", "transformer_blocks.0.txt_norm_k",
        "transformer_blocks.0.img_norm_q", "transformer_blocks.0.txt_to_out", "transformer_blocks.0.img_ff.linear_in",
        "transformer_blocks.0.txt_ff.linear_out", "single_transformer_blocks.2.to_qkv_mlp_proj",
        "single_transformer_blocks.0.to_out", "single_transformer_blocks.0.norm_q", "norm_out.linear", "proj_out",
    ):  # fmt: skip
        assert f"{name}.weight" in names


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda w: w.pop("transformer_blocks.1.txt_to_out.weight"), "lacks transformer_blocks.1.txt_to_out.weight"),
        (lambda w: w.pop("proj_out.weight"), "lacks proj_out.weight, expected a whole template: download it again"),
        (lambda w: w.update(mask_embedder=torch.zeros(1)), "holds mask_embedder, which no template that is a whole"),
    ],
)
def test_a_file_that_is_no_whole_template_is_a_sentence(tmp_path, change, sentence):
    weights = template_weights(tiny_flux2().state_dict())
    change(weights)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(FileError, match=f"^model.safetensors {sentence}"):
        rename_template(SafeFile(tmp_path / "model.safetensors"))
