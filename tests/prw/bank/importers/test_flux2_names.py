"""PEFT adapters and LoRAs under FLUX.2's names: peft itself loads what we export, and it comes back equal."""

from dataclasses import replace

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.bank.bank import Bank
from cologen.prw.bank.edit import make_random_bank
from cologen.prw.bank.importers import open_experts
from cologen.prw.bank.importers.peft import export_adapters
from cologen.prw.embedded_host import velocity
from cologen.prw.files.errors import FileError
from cologen.prw.source import Routing, Source
from flux2_in_diffusers import convert_to_diffusers, flatten, make_ids, make_text_ids
from safetensors.torch import load_file, save_file
from tiny import latent, tiny_info
from tiny_flux2 import flux2_inputs, tiny_flux2

WIDTH, RANK = 256, 4
TARGETS = {
    "k and v": {"k": "all", "v": "all"},
    "q, k, v and out": {"q": "all", "k": "all", "v": "all", "out": "all"},
    "some": {"k": "double", "v": "all"},
}


@pytest.fixture(scope="module")
def flux():
    return tiny_flux2()


def make_bank(flux, what="k and v"):
    return make_random_bank(tiny_info(flux, names=("ground", "control"), targets=TARGETS[what]), up=0.3)


def predict(flux, bank, expert):
    source = Source(latent(1, 3, 5, 3, 128), Routing(expert=expert))
    return velocity(flux, *flux2_inputs(), Attachment(bank), [source])


def merge_into(flux, bank, expert):
    """A FLUX.2 whose image tokens all get what the expert gives a source's."""
    merged = tiny_flux2()
    for block in bank.info.base.blocks():
        kind, index = block.split(".")
        layer, single = getattr(merged, kind)[int(index)], kind == "single_blocks"
        fused, last = (layer.linear1, layer.linear2) if single else (layer.img_attn.qkv, layer.img_attn.proj)
        for target, pair in bank.expert(expert, block).items():
            change = pair.up @ pair.down * pair.scale
            if target == "out":
                last.weight[:, :WIDTH] += change
            else:
                fused.weight["qkv".index(target) * WIDTH :][:WIDTH] += change
    return merged


def run_diffusers(model, x, times, context, *_):
    ids = make_ids(*x.shape[-2:]).float(), make_text_ids(context.shape[1])
    return model(flatten(x), context, times, *ids).sample.transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize("spelling", ["flux", "diffusers"])
@pytest.mark.parametrize("what", TARGETS)
def test_there_and_back_is_equal(flux, tmp_path, what, spelling):
    bank = make_bank(flux, what)
    for folder in export_adapters(bank, tmp_path, spelling):
        back = open_experts(folder)
        assert back.info.experts == {folder.name: bank.info.experts[folder.name]} and back.info.base == bank.info.base
        assert all(torch.equal(back.tensors[key], bank.tensors[key]) for key in back.tensors)
        assert torch.equal(predict(flux, back, folder.name), predict(flux, bank, folder.name))


@pytest.mark.parametrize("spelling", ["flux", "diffusers"])
@pytest.mark.parametrize("what", TARGETS)
def test_peft_loads_it_and_does_to_a_picture_what_merged_weights_do(flux, tmp_path, what, spelling):
    from peft import PeftModel

    bank = make_bank(flux, what)
    (_, folder) = export_adapters(bank, tmp_path, spelling)
    plain = convert_to_diffusers(flux) if spelling == "diffusers" else tiny_flux2()
    adapted = PeftModel.from_pretrained(plain, folder).base_model.model
    with torch.inference_mode():
        inputs = flux2_inputs()
        found = run_diffusers(adapted, *inputs) if spelling == "diffusers" else adapted(*inputs)
        expected = merge_into(flux, bank, "control")(*inputs)
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
        assert (found - flux(*inputs)).abs().max() > 0.01


@pytest.mark.parametrize("spelling", ["flux", "diffusers"])
def test_without_our_note_it_is_a_lora_of_the_same_effect(flux, tmp_path, spelling):
    bank = make_bank(flux)
    (_, folder) = export_adapters(bank, tmp_path, spelling)
    (folder / "cologen.json").unlink()
    back = open_experts(folder)
    assert back.info.base == replace(bank.info.base, name="FLUX.2")
    assert (predict(flux, back, "control") - predict(flux, bank, "control")).abs().max() < 1e-5


def test_what_a_lora_does_to_a_single_block_s_mlp_is_said_or_left_out(flux, tmp_path):
    bank = make_bank(flux, "q, k, v and out")
    (_, folder) = export_adapters(bank, tmp_path, "diffusers")
    (folder / "cologen.json").unlink()
    with pytest.raises(FileError, match=r"also changes 6 tensors .*single_transformer_blocks.0.attn.to_out.*partial"):
        open_experts(folder)
    back = open_experts(folder, kind="partial")
    assert back.info.experts["control"].targets == {"k": "all", "out": "double", "q": "all", "v": "all"}
    tensors = load_file(folder / "adapter_model.safetensors")
    for key in list(tensors):
        if ".attn.to_out.lora" in key:
            del tensors[key]
        elif key.endswith("1.attn.to_qkv_mlp_proj.lora_B.weight"):
            tensors[key][-1] = 1.0
    save_file(tensors, tmp_path / "mlp.safetensors")
    with pytest.raises(FileError, match=r"also changes the MLP in .*attn.to_qkv_mlp_proj.*partial"):
        open_experts(tmp_path / "mlp.safetensors")


@pytest.mark.parametrize(
    "width, stem, rows, base",
    [
        (3072, "lora_unet_single_blocks_3_linear1", 9, ("flux2", 5, 20, False, "FLUX.2 klein 4B")),
        (3072, "transformer.single_transformer_blocks.3.attn.to_qkv_mlp_proj", 9, ("flux2", 5, 20, False, "FLUX.2 klein 4B")),
        (3072, "lora_unet_single_blocks_3_linear1", 7, ("flux1", 19, 38, True, "FLUX.1")),
        (3072, "transformer.transformer_blocks.7.attn.to_k", 1, ("flux1", 19, 38, True, "FLUX.1")),
        (3072, "transformer.single_transformer_blocks.3.attn.to_k", 1, ("flux1", 19, 38, True, "FLUX.1")),
        (4096, "diffusion_model.double_blocks.3.img_attn.qkv", 3, ("flux2", 8, 24, False, "FLUX.2 klein 9B")),
        (6144, "transformer.transformer_blocks.3.attn.to_k", 1, ("flux2", 8, 48, True, "FLUX.2 dev")),
    ],
)  # fmt: skip
def test_a_lora_of_few_blocks_fits_the_whole_public_model(tmp_path, width, stem, rows, base):
    up = torch.zeros(rows * width, 1)
    up[: min(rows, 3) * width] = 1
    save_file(
        {f"{stem}.lora_down.weight": torch.ones(1, width), f"{stem}.lora_up.weight": up}, tmp_path / "few.safetensors"
    )
    bank = Bank.open(open_experts(tmp_path / "few.safetensors").save(tmp_path / "bank.safetensors"))
    found = bank.info.base
    assert (found.family, found.double_blocks, found.single_blocks, found.guidance, found.name) == base


DOUBLE = {
    "diffusers": "transformer.transformer_blocks.3.attn.to_k",
    "kohya": "lora_unet_double_blocks_3_img_attn_qkv",
}
"""A layer that FLUX.1 and klein 4B have alike."""
TELLING = {
    "transformer.transformer_blocks.3.ff.net.0.proj": (1, 4, "flux1"),
    "transformer.transformer_blocks.3.ff.linear_in": (1, 6, "flux2"),
    "lora_unet_double_blocks_3_img_mlp_0": (1, 4, "flux1"),
    "diffusion_model.double_blocks.3.txt_mlp.0": (1, 6, "flux2"),
    "lora_unet_double_blocks_3_img_mod_lin": (1, 6, "flux1"),
    "transformer.transformer_blocks.3.norm1.linear": (1, 6, "flux1"),
    "transformer.single_transformer_blocks.3.proj_out": (5, 1, "flux1"),
    "transformer.single_transformer_blocks.3.attn.to_out": (4, 1, "flux2"),
    "lora_unet_single_blocks_3_linear2": (5, 1, "flux1"),
    "diffusion_model.single_blocks.3.linear2": (4, 1, "flux2"),
}
"""A layer beside it -> its widths of 3072 in and out, and whose it is."""


def save_double(path, spelling="diffusers", more=(), metadata=None, part="lora_A lora_B"):
    """A LoRA of one double block, and of `more` layers with their widths."""
    down, up = part.split()
    layers = [(DOUBLE[spelling], 1, 3 if spelling == "kohya" else 1), *more]
    tensors = {f"{stem}.{down}.weight": torch.ones(1, 3072 * columns) for stem, columns, _ in layers}
    tensors |= {f"{stem}.{up}.weight": torch.ones(3072 * rows, 1) for stem, _, rows in layers}
    save_file(tensors, path, metadata)
    return path


@pytest.mark.parametrize("spelling", DOUBLE)
def test_a_lora_of_double_blocks_alone_asks_whose_it_is(tmp_path, spelling):
    path = save_double(tmp_path / "open.safetensors", spelling)
    sentence = "open.safetensors changes only layers that FLUX.1 and FLUX.2 klein 4B have alike, .*choose a family"
    with pytest.raises(FileError, match=sentence):
        open_experts(path)
    for family, base in (("FLUX.1", (19, 38, "flux1")), ("FLUX.2", (5, 20, "flux2")), ("Chroma", (19, 38, "chroma"))):
        found = open_experts(path, family=family).info.base
        assert (found.double_blocks, found.single_blocks, found.family) == base
    with pytest.raises(FileError, match="family is 'SDXL', expected one of 'auto', 'FLUX.1'"):
        open_experts(path, family="SDXL")


@pytest.mark.parametrize("layer", TELLING)
def test_a_layer_beside_them_tells_whose_they_are(tmp_path, layer):
    columns, rows, family = TELLING[layer]
    for part in ("lora_A lora_B", "lora_down lora_up"):
        path = save_double(tmp_path / "told.safetensors", more=[(layer, columns, rows)], part=part)
        if "norm1" in layer:  # OminiControl's sign where no text layer stands beside it
            path = save_double(
                path, more=[(layer, columns, rows), (layer.replace("norm1", "norm1_context"), columns, rows)]
            )
        assert open_experts(path, kind="partial").info.base.family == family


@pytest.mark.parametrize(
    "key, said, family",
    [
        ("ss_base_model_version", "flux2_klein_4b", "flux2"),
        ("modelspec.architecture", "Flux.2-klein-4b/lora", "flux2"),
        ("modelspec.architecture", "flux-1-dev/lora", "flux1"),
        ("ss_base_model_version", "chroma", "chroma"),
    ],
)
def test_what_a_trainer_wrote_tells_whose_they_are(tmp_path, key, said, family):
    assert open_experts(save_double(tmp_path / "said.safetensors", metadata={key: said})).info.base.family == family


def test_layers_are_believed_before_words_but_for_chroma_whose_layers_are_flux_1_s(tmp_path):
    mlp = [("transformer.transformer_blocks.3.ff.net.0.proj", 1, 4)]
    for said, family in (("flux2", "flux1"), ("chroma", "chroma")):
        path = save_double(tmp_path / "both.safetensors", more=mlp, metadata={"ss_base_model_version": said})
        assert open_experts(path, kind="partial").info.base.family == family


def test_a_bank_says_itself_whose_it_is(flux, tmp_path):
    path = make_bank(flux).save(tmp_path / "bank.safetensors")
    with pytest.raises(FileError, match="family is 'FLUX.1', expected one of 'auto'"):
        open_experts(path, family="FLUX.1")
