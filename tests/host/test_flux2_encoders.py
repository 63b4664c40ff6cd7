"""FLUX.2's encoders without ComfyUI give what the host's give, and diffusers' pipeline, from the same files."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cologen.prw.files.errors import FileError
from cologen.training.encoders.families import open_encoders
from cologen.training.encoders.flux2 import Flux2Encoders
from flux2_files import AE, QWEN3, save_flux2_files
from pack import HOST
from safetensors.torch import load_file, save_file

PROMPTS = ["a red circle on the left", "", "Zwei grüne Quadrate; the (small) one, half <|im_end|> hidden!"]
LONG = "every " * 600


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_flux2_files(tmp_path_factory.mktemp("flux2"))


@pytest.fixture(scope="module")
def host(comfy, folder):
    """The host's own classes on the same files, as it opens them."""
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.text_encoders.flux import KleinTokenizer, klein_te

    clip = klein_te()(dtype=torch.float32, model_options={"qwen3_4b_model_config": QWEN3})
    missing = clip.load_sd(load_file(folder / "qwen3.safetensors"))
    assert not missing.missing_keys
    vae = AutoencoderKL(ddconfig={**AE, "batch_norm_latent": True}, embed_dim=AE["z_channels"]).eval()
    weights = load_file(folder / "vae.safetensors")
    weights = {
        n.removeprefix("encoder." if ".quant" in n else "decoder." if ".post_quant" in n else ""): t
        for n, t in weights.items()
    }
    vae.load_state_dict(weights)
    return SimpleNamespace(clip=clip, tokenizer=KleinTokenizer(), vae=vae.requires_grad_(False))


def ours(folder, **changes) -> Flux2Encoders:
    encoders = open_encoders(
        {**{name: str(folder / f"{name}.safetensors") for name in ("qwen3", "vae")}, **changes}, "cpu"
    )
    assert isinstance(encoders, Flux2Encoders)
    return encoders


def encode_on_host(host, prompt):
    with torch.no_grad():
        return host.clip.encode_token_weights(host.tokenizer.tokenize_with_weights(prompt))[0]


def apart(ours, theirs) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("prompt", [*PROMPTS, LONG])
def test_texts_are_the_hosts_with_their_padding(host, folder, prompt):
    encoders = ours(folder)
    expected, rows = encode_on_host(host, prompt), encoders.tokenize([prompt])
    found = encoders.encode_rows(rows)
    assert found.shape == expected.shape and found.shape[1:] == (len(rows[0]), encoders.context_width)
    assert apart(found, expected) <= 1e-5 and expected.abs().max() > 0.5
    context, pooled = encoders.encode_prompts([prompt, PROMPTS[0]])
    assert torch.equal(context[0], found[0].bfloat16()) and pooled.shape == (2, 0)


def test_texts_are_those_of_diffusers(comfy, folder):
    from diffusers import Flux2KleinPipeline
    from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

    theirs = Qwen3ForCausalLM(
        Qwen3Config(**QWEN3, head_dim=128, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    ).eval()
    report = theirs.load_state_dict(load_file(folder / "qwen3.safetensors"), strict=False)
    assert report.missing_keys == ["lm_head.weight"]
    tokenizer = Qwen2Tokenizer.from_pretrained(HOST / "comfy/text_encoders/qwen25_tokenizer")
    tokenizer.chat_template = (  # Qwen3's for one message of a user, whose answer begins without thinking
        "<|im_start|>user\n{{messages[0].content}}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>{{'\\n\\n'}}"
    )
    with torch.no_grad():
        expected = Flux2KleinPipeline._get_qwen3_prompt_embeds(theirs, tokenizer, PROMPTS[:2])
    encoders = ours(folder)
    assert apart(encoders.encode_rows(encoders.tokenize(PROMPTS[:2])), expected) <= 1e-5


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float8_e4m3fn])
def test_narrow_files_are_widened_when_they_compute(host, folder, tmp_path, stored):
    weights = {n: t.to(stored) for n, t in load_file(folder / "qwen3.safetensors").items()}
    save_file(weights, tmp_path / "qwen3.safetensors")
    wide = tmp_path / "wide.safetensors"
    save_file({n: t.float() for n, t in weights.items()}, wide)
    narrow = ours(folder, qwen3=str(tmp_path / "qwen3.safetensors"))
    rows = narrow.tokenize(PROMPTS[:1])
    found = narrow.encode_rows(rows)
    assert apart(found, ours(folder, qwen3=str(wide)).encode_rows(rows)) <= 1e-6
    assert {p.dtype for p in narrow.qwen3.layers.parameters()} == {stored}
    assert apart(found, encode_on_host(host, PROMPTS[0])) > 1e-4


def test_a_scaled_fp8_file_is_read_as_the_host_reads_it(comfy, host, folder, tmp_path):
    """Mixed: some layers stay as they are."""
    from comfy.text_encoders.flux import klein_te
    from comfy.text_encoders.hunyuan_video import llama_detect

    stored = {}
    for name, weight in load_file(folder / "qwen3.safetensors").items():
        if name.endswith("_proj.weight") and ".5." not in name:
            scale, layer = weight.abs().max() / 448, name.removesuffix(".weight")
            mark = json.dumps({"format": "float8_e4m3fn", "full_precision_matrix_mult": True}).encode()
            stored |= {name: (weight / scale).to(torch.float8_e4m3fn), f"{layer}.weight_scale": scale}
            stored |= {f"{layer}.comfy_quant": torch.tensor(list(mark), dtype=torch.uint8)}
        else:
            stored[name] = weight.bfloat16()
    save_file(stored, tmp_path / "qwen3.safetensors")
    clip = klein_te(**llama_detect(stored))(model_options={"qwen3_4b_model_config": QWEN3})
    clip.load_sd(dict(stored))
    encoders = ours(folder, qwen3=str(tmp_path / "qwen3.safetensors"))
    expected = encode_on_host(SimpleNamespace(clip=clip, tokenizer=host.tokenizer), PROMPTS[0])
    for _ in range(2):  # the weights are narrow again after the first
        found = encoders.encode_rows(encoders.tokenize(PROMPTS[:1]))
        assert apart(found, expected) <= 1e-5
    assert {p.dtype for p in encoders.qwen3.layers.parameters()} == {torch.bfloat16, torch.float8_e4m3fn}
    assert 1e-3 < apart(expected, encode_on_host(host, PROMPTS[0])) < 0.3


def test_latents_are_the_hosts_and_those_of_diffusers(host, folder):
    from diffusers import Flux2KleinPipeline

    encoders = ours(folder)
    pictures = np.random.default_rng(1).integers(0, 256, (2, 48, 64, 3), np.uint8)
    pixels = torch.from_numpy(pictures).float().movedim(-1, 1) / 255 * 2 - 1
    found, expected = encoders.encode(list(pictures)), host.vae.encode(pixels)
    assert found.shape == expected.shape == (2, 128, 3, 4) and expected.std() > 0.05
    assert (found - expected).abs().max() <= 1e-5
    pipeline = SimpleNamespace(vae=encoders.vae, _patchify_latents=Flux2KleinPipeline._patchify_latents)
    with torch.no_grad():
        theirs = Flux2KleinPipeline._encode_vae_image(pipeline, pixels, None)
    assert (found - theirs).abs().max() <= 1e-5
    seen = (((host.vae.decode(expected) + 1) / 2).clamp(0, 1) * 255).round().movedim(1, -1)
    assert np.abs(encoders.decode(expected).astype(int) - seen.numpy()).max() <= 1


def test_a_narrow_decoder_and_diffusers_layout_are_read(folder, tmp_path):
    pictures = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), np.uint8)
    encoders = ours(folder)
    latents = encoders.encode(pictures)
    save_file({n: t.contiguous() for n, t in encoders.vae.state_dict().items()}, tmp_path / "vae.safetensors")
    assert torch.equal(ours(folder, vae=str(tmp_path / "vae.safetensors")).encode(pictures), latents)
    save_flux2_files(tmp_path, decoder=64)
    assert ours(tmp_path).decode(latents).shape == pictures.shape


def test_words_are_the_hosts(host, folder):
    from cologen.training.comfyui.training_data import HostEncoders

    clip = SimpleNamespace(tokenize=host.tokenizer.tokenize_with_weights)
    for prompt in ("photo of a [dog]", "a [red brick house], half hidden!", "a [dog] and a [Zweihänder]"):
        found = ours(folder).find_words(prompt)
        assert found == HostEncoders(None, clip).find_words(prompt) and found.noun


def test_what_is_wrong_is_a_sentence(comfy, folder, tmp_path):
    weights = load_file(folder / "qwen3.safetensors")
    save_file({n: t for n, t in weights.items() if "5.mlp.up" not in n}, tmp_path / "part.safetensors")
    save_file({n: t for n, t in weights.items() if ".26." not in n}, tmp_path / "short.safetensors")
    codes = {n: t.to(torch.uint8) if n.endswith("q_proj.weight") else t for n, t in weights.items()}
    save_file(codes, tmp_path / "codes.safetensors")
    save_file({"encoder.conv_in.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "ae.safetensors")
    for changes, sentence in (
        (dict(qwen3="nowhere.safetensors"), "FLUX.2's encoders are needed, but there is no file nowhere.safetensors"),
        (dict(vae=""), r"the recipe's table \[encoders\] says no vae: set encoders.vae"),
        (dict(qwen3=str(folder / "vae.safetensors")), "vae.safetensors holds .*, expected Qwen3"),
        (dict(qwen3=str(tmp_path / "short.safetensors")), "short.safetensors holds .*, expected Qwen3"),
        (dict(qwen3=str(tmp_path / "part.safetensors")), "part.safetensors lacks layers.*up_proj.weight .3 tensors"),
        (dict(qwen3=str(tmp_path / "codes.safetensors")), "layers.*q_proj.weight is torch.uint8, expected bf16, fp16"),
        (dict(vae=str(tmp_path / "ae.safetensors")), "ae.safetensors holds .*, expected FLUX.2's VAE"),
        (dict(qwen3_tokenizer=str(tmp_path)), "No tokenizer can be read from .*: set encoders.qwen3_tokenizer"),
    ):
        with pytest.raises(FileError, match=sentence):
            encoders = ours(folder, **changes)
            encoders.encode_prompts(["a"]), encoders.encode(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="unknown entry"):
        ours(folder, t5="t5.safetensors")
