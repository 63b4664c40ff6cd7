"""FLUX.1's encoders without ComfyUI give what the host's give, from the same files."""

import json
import shutil
from types import SimpleNamespace

import layouts
import numpy as np
import pytest
import torch
from cologen.prw.files.errors import FileError
from cologen.training.encoders.families import open_encoders
from cologen.training.encoders.flux1 import Flux1Files, FluxEncoders
from pack import HOST
from safetensors.torch import load_file, save_file
from tiny_run import tiny_host

T5 = dict(d_ff=96, d_kv=8, d_model=32, num_heads=4, num_layers=2)
CLIP = dict(hidden_size=128, intermediate_size=160, num_hidden_layers=2, num_attention_heads=2)
PROMPTS = ["a red circle on the left", "", "Zwei grüne Quadrate; the (small) one, half hidden!", "a dog " * 60]
LONG = "every " * 300
RECIPE = """
base = "flux.safetensors"
rank = 2
alpha = 4.0
resolution = 32
sample_every = 2
sample_steps = 2
validate_every = 0
[[stages]]
name = "inpaint"
data = ["mine"]
iterations = 2
batch = 2
rho = 1.0
[data.mine]
set = "json-lines"
path = "mine"
cache = "cache"
"""


@pytest.fixture(scope="module")
def models(comfy, tmp_path_factory):
    """The host's own classes, small, with random weights, and files in its layouts."""
    from comfy.text_encoders.flux import FluxClipModel, FluxTokenizer

    folder = tmp_path_factory.mktemp("encoders")
    options = {"t5xxl_model_config": T5, "clip_l_model_config": CLIP}
    clip = FluxClipModel(dtype_t5=torch.float32, dtype=torch.float32, model_options=options)
    generator = torch.Generator().manual_seed(3)
    for name, weight in clip.named_parameters():
        scale = 0.1 if weight.ndim < 2 else weight.shape[-1] ** -0.5
        if name.endswith("SelfAttention.q.weight"):  # as T5 is: its attention has no scale of its own
            scale *= T5["d_kv"] ** -0.5 / 2
        drawn = torch.randn(weight.shape, generator=generator) * scale
        weight.data = drawn + ("norm" in name and name.endswith("weight"))
    save_file({n: t.contiguous() for n, t in clip.t5xxl.transformer.state_dict().items()}, folder / "t5.safetensors")
    save_file({n: t.contiguous() for n, t in clip.clip_l.transformer.state_dict().items()}, folder / "clip.safetensors")
    save_file(random_ae(generator), folder / "ae.safetensors")
    return clip, FluxTokenizer(), host_vae(load_file(folder / "ae.safetensors")), folder


AE = dict(z_channels=16, resolution=64, in_channels=3, out_ch=3, ch=32, ch_mult=(1, 2, 4, 4))
AE |= dict(num_res_blocks=2, attn_resolutions=[], dropout=0.0, double_z=True)


def host_vae(weights=None):
    """The host's autoencoder as it makes it for FLUX.1's file, a quarter as wide."""
    from comfy.ldm.models.autoencoder import AutoencodingEngine

    module = "comfy.ldm.modules.diffusionmodules.model."
    vae = AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
        encoder_config={"target": module + "Encoder", "params": AE},
        decoder_config={"target": module + "Decoder", "params": AE},
    ).requires_grad_(False)
    if weights:
        vae.load_state_dict(weights)
    return vae


def random_ae(generator) -> dict[str, torch.Tensor]:
    found = {}
    for name, weight in host_vae().state_dict().items():
        size = 0.1 if weight.ndim < 2 else weight[0].numel() ** -0.5
        found[name] = torch.randn(weight.shape, generator=generator) * size + ("norm" in name and weight.ndim == 1)
    return found


def ours(folder, **changes) -> FluxEncoders:
    files = dict(t5=folder / "t5.safetensors", clip=folder / "clip.safetensors", vae=folder / "ae.safetensors")
    return open_encoders({**{name: str(path) for name, path in files.items()}, **changes}, "cpu")


def hosts(models, prompt: str, clip=None, **options):
    """Words alone: its marks for weights are for prompts, ours are captions."""
    tokens = models[1].tokenize_with_weights(prompt, disable_weights=True, **options)
    with torch.no_grad():
        return (clip or models[0]).encode_token_weights(tokens)


def apart(ours, theirs) -> float:
    """Two right ways of adding up the same numbers in fp32 are up to 4e-6 apart here, and each up to 3e-6 from fp64."""
    return float((ours - theirs).norm() / theirs.norm())


def hidden(encoders, prompt):
    return encoders.encode_rows(encoders.tokenize([prompt]))


@pytest.mark.parametrize("prompt", [*PROMPTS, LONG])
@pytest.mark.parametrize("tokens", [256, 512])
def test_texts_are_the_hosts_with_their_padding(models, prompt, tokens):
    encoders = ours(models[3], tokens=tokens)
    context, pooled = hosts(models, prompt, tokenizer_options={"t5xxl_min_length": tokens})
    found = hidden(encoders, prompt)
    assert found.shape == context.shape and found.shape[1] >= tokens
    assert apart(found, context) <= 1e-5 and apart(encoders.encode_pooled([prompt]), pooled) <= 1e-5
    assert context.abs().max() > 0.5 and pooled.abs().max() > 0.5


def test_prompts_together_are_what_each_is_alone(models):
    encoders = ours(models[3])
    prompts = [*PROMPTS, LONG]
    context, pooled = encoders.encode_prompts(prompts)
    assert context.dtype == torch.bfloat16 and context.shape[1] > 256
    for row, prompt in enumerate(prompts):
        alone, one = encoders.encode_prompts([prompt])
        assert torch.allclose(context[row, : alone.shape[1]].float(), alone[0].float(), atol=2e-2)
        assert not context[row, alone.shape[1] :].any() and torch.allclose(pooled[row], one[0], atol=1e-5)
    assert encoders.count_tokens(prompts)[1] == 1 and encoders.count_tokens(prompts)[4] == context.shape[1]


@pytest.mark.parametrize("stored", [torch.float16, torch.float8_e4m3fn])
def test_narrow_files_are_widened_as_the_host_does_it(models, tmp_path, stored):
    from comfy.text_encoders.flux import FluxClipModel

    weights = {n: t.to(stored) for n, t in load_file(models[3] / "t5.safetensors").items()}
    save_file(weights, tmp_path / "t5.safetensors")
    clip = FluxClipModel(
        dtype_t5=stored, dtype=torch.float32, model_options={"t5xxl_model_config": T5, "clip_l_model_config": CLIP}
    )
    clip.t5xxl.load_sd(weights)
    clip.clip_l.load_state_dict(models[0].clip_l.state_dict())
    encoders = ours(models[3], t5=str(tmp_path / "t5.safetensors"))
    context, _ = hosts(models, PROMPTS[0], clip)
    for _ in range(2):  # the weights are narrow again after the first
        assert apart(hidden(encoders, PROMPTS[0]), context) <= 1e-5
        assert {p.dtype for p in encoders.t5.encoder.block.parameters()} == {stored}
    plain, _ = hosts(models, PROMPTS[0])
    assert apart(context, plain) > 1e-4


@pytest.mark.parametrize("kept", [torch.float16, torch.float32])
def test_a_scaled_fp8_file_is_read_as_the_host_reads_it(models, tmp_path, kept):
    from comfy.text_encoders.flux import FluxClipModel
    from comfy.text_encoders.sd3_clip import t5_xxl_detect
    from comfy.utils import convert_old_quants

    # two numbers: layers multiply in full precision
    stored = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name, weight in load_file(models[3] / "t5.safetensors").items():
        if name.startswith("encoder.block.") and weight.ndim == 2 and "relative" not in name:
            scale = weight.abs().max() / 448
            stored |= {name: (weight / scale).to(torch.float8_e4m3fn)}
            stored |= {name.replace(".weight", part): scale.clone() for part in (".scale_weight", ".scale_input")}
        else:
            stored[name] = weight.to(kept)
    save_file(stored, tmp_path / "t5.safetensors")
    weights, _ = convert_old_quants(dict(stored), "")
    detected = t5_xxl_detect(weights)
    shapes = {"t5xxl_model_config": T5, "clip_l_model_config": CLIP}
    options = {**shapes, "t5xxl_quantization_metadata": detected["t5_quantization_metadata"]}
    clip = FluxClipModel(dtype_t5=detected["dtype_t5"], dtype=torch.float32, model_options=options)
    clip.t5xxl.load_sd(weights)
    clip.clip_l.load_state_dict(models[0].clip_l.state_dict())
    encoders = ours(models[3], t5=str(tmp_path / "t5.safetensors"))
    context, _ = hosts(models, PROMPTS[0], clip)
    for _ in range(2):
        assert apart(hidden(encoders, PROMPTS[0]), context) <= 1e-5
    plain, _ = hosts(models, PROMPTS[0])
    assert 1e-3 < apart(context, plain) < 0.2


def test_latents_are_the_hosts_and_so_is_their_scale(models):
    from comfy.latent_formats import Flux

    encoders, vae = ours(models[3]), models[2]
    pictures = np.random.default_rng(1).integers(0, 256, (2, 48, 64, 3), np.uint8)
    expected = vae.encode(torch.from_numpy(pictures).float().movedim(-1, 1) / 255 * 2 - 1)
    found = encoders.encode(list(pictures))
    assert found.shape == expected.shape == (2, 16, 6, 8) and expected.std() > 0.05
    assert (found - expected).abs().max() <= 1e-5
    assert (tiny_host().scale_latent(found) - Flux().process_in(expected)).abs().max() <= 1e-5
    seen = (((vae.decode(expected) + 1) / 2).clamp(0, 1) * 255).round().movedim(1, -1)
    assert np.abs(encoders.decode(expected).astype(int) - seen.numpy()).max() <= 1


def test_a_vae_in_diffusers_layout_is_the_same(models, tmp_path):
    encoders = ours(models[3])
    save_file({n: t.contiguous() for n, t in encoders.vae.state_dict().items()}, tmp_path / "vae.safetensors")
    pictures = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), np.uint8)
    other = ours(models[3], vae=str(tmp_path / "vae.safetensors"))
    assert torch.equal(other.encode(pictures), encoders.encode(pictures))


def test_tokenizers_lie_anywhere(models, tmp_path):
    shutil.copytree(HOST / "comfy/text_encoders/t5_tokenizer", tmp_path / "tokenizer_2")
    shutil.copytree(HOST / "comfy/sd1_tokenizer", tmp_path / "tokenizer")
    places = dict(t5_tokenizer=str(tmp_path / "tokenizer_2"), clip_tokenizer=str(tmp_path / "tokenizer"))
    moved, here = ours(models[3], **places), ours(models[3])
    assert all(torch.equal(a, b) for a, b in zip(moved.encode_prompts(PROMPTS), here.encode_prompts(PROMPTS)))


@pytest.mark.parametrize("channels", [64, 384], ids=["dev", "fill"])
def test_flux_itself_is_trained_from_a_cache_without_a_host(models, tmp_path, monkeypatch, capsys, channels):
    from cologen.prw.bank.bank import Bank
    from cologen.training.base.random_models import random_flux
    from cologen.training.cli import main as cli

    monkeypatch.chdir(tmp_path)
    layouts.json_lines(tmp_path / "mine", 4)
    widths = dict(context_in_dim=T5["d_model"], vec_in_dim=CLIP["hidden_size"], in_channels=channels)
    save_file(random_flux(depth=1, depth_single_blocks=1, **widths).state_dict(), "flux.safetensors")
    files = dict(t5="t5", clip="clip", vae="ae")
    places = [f'encoders.{name}="{models[3] / file}.safetensors"' for name, file in files.items()]
    (tmp_path / "r.toml").write_text(RECIPE)
    words = ["r.toml", *places, "--device", "cpu"]
    assert cli.main(["data", "cache", *words]) == 0, capsys.readouterr().err
    monkeypatch.setattr(FluxEncoders, "encode_rows", None)  # training needs no T5
    assert cli.main(["train", *words, "--out", "out"]) == 0, capsys.readouterr().err
    info = Bank.open("out/bank.safetensors").info
    assert list(info.experts) == ["inpaint"] and info.base.in_channels == channels
    assert len(list((tmp_path / "out/samples").iterdir())) == 1
    for base, found in (("", "is not named"), ("flux-x.safetensors", "is flux-x.safetensors, which is no file")):
        assert cli.main(["train", *words, f"base={base}", "--out", "no"]) == 1
        assert f"The recipe's base {found}, expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    "prompt", ["photo of a [dog]", "a [red brick house], half hidden!", "[it]", "a [dog] and a [Zweihänder]"]
)
def test_words_are_the_hosts(models, prompt):
    from cologen.training.comfyui.training_data import HostEncoders

    clip = SimpleNamespace(tokenize=models[1].tokenize_with_weights)
    found = ours(models[3]).find_words(prompt)
    assert found == HostEncoders(None, clip).find_words(prompt) and found.noun
    with pytest.raises(ValueError, match="marks no word"):
        ours(models[3]).find_words("a dog")


def test_a_subject_of_flux_itself_is_trained_without_a_host(models, tmp_path, monkeypatch, capsys):
    from cologen.prw.personalization.concept import Concept
    from cologen.training.base.random_models import random_flux
    from cologen.training.cli import main as cli

    monkeypatch.chdir(tmp_path)
    layouts.json_lines(tmp_path / "mine", 3)
    photos = [path for path in sorted((tmp_path / "mine").rglob("*")) if path.suffix in (".png", ".jpg")][:3]
    (tmp_path / "photos").mkdir()
    for path in photos:
        shutil.copy(path, tmp_path / "photos" / path.name)
    flux = random_flux(context_in_dim=T5["d_model"], vec_in_dim=CLIP["hidden_size"], depth=1, depth_single_blocks=1)
    save_file(flux.state_dict(), "flux.safetensors")
    files = dict(t5="t5", clip="clip", vae="ae")
    words = ["subject", "base=flux.safetensors", "--device", "cpu", "resolution=32", "mine.iterations=2"]
    words += [f'encoders.{name}="{models[3] / file}.safetensors"' for name, file in files.items()]
    words += ["sample_every=2", "sample_steps=2", "validate_every=0", 'subject.prompts=["a thing on a beach"]']
    assert cli.main(["train", *words, "--out", "no"]) == 1
    assert "The recipe says no subject.photos" in capsys.readouterr().err
    assert cli.main(["train", *words, "subject.photos=photos", "--out", "no2"]) == 1
    assert "The recipe says no subject.prior" in capsys.readouterr().err
    assert cli.main(["train", *words, "subject.photos=photos", "mine.replay=0.0", "--out", "out"]) == 0
    concept = Concept.open("out/mine.safetensors")
    assert concept.vectors.shape == (2, T5["d_model"]) and len(list((tmp_path / "out/samples").iterdir())) == 1


def test_another_file_is_another_identity(models, tmp_path):
    same, other = tmp_path / "same.safetensors", tmp_path / "other.safetensors"
    weights = load_file(models[3] / "t5.safetensors")
    shutil.copy(models[3] / "t5.safetensors", same)
    save_file({**weights, "shared.weight": weights["shared.weight"] + 1}, other)
    first = ours(models[3]).identity()
    assert ours(models[3], t5=str(same)).identity() == first != ours(models[3], t5=str(other)).identity()
    assert ours(models[3], tokens=512).identity() != first and json.dumps(first)


def test_what_is_wrong_is_a_sentence(models, tmp_path):
    folder = models[3]
    (tmp_path / "torn.safetensors").write_bytes((folder / "t5.safetensors").read_bytes()[:5000])
    weights = load_file(folder / "t5.safetensors")
    save_file({n: t for n, t in weights.items() if "wo" not in n}, tmp_path / "part.safetensors")
    save_file({**weights, "x.scale_weight": torch.ones(1)}, tmp_path / "stray.safetensors")
    save_file({**weights, "weight_scale": torch.zeros(1)}, tmp_path / "scaled.safetensors")
    for changes, sentence in (
        (dict(t5="nowhere.safetensors"), "there is no file nowhere.safetensors: set encoders.t5 to its place"),
        (dict(vae=""), r"the recipe's table \[encoders\] says no vae: set encoders.vae"),
        (dict(t5=str(folder / "clip.safetensors")), "clip.safetensors holds .*, expected T5-XXL's encoder"),
        (dict(vae=str(folder / "t5.safetensors")), "t5.safetensors holds .*, expected FLUX.1's VAE"),
        (dict(clip=str(folder / "ae.safetensors")), "ae.safetensors holds .*, expected CLIP-L's"),
        (dict(t5=str(tmp_path / "torn.safetensors")), "torn.safetensors is not a whole safetensors file"),
        (dict(t5=str(tmp_path / "part.safetensors")), "part.safetensors lacks encoder.*wo.weight .2 tensors in all"),
        (dict(t5=str(tmp_path / "scaled.safetensors")), "scaled.safetensors also holds weight_scale"),
        (
            dict(t5=str(tmp_path / "stray.safetensors")),
            r"stray.safetensors: the scale of x is \(1,\), expected one number",
        ),
        (dict(t5_tokenizer=str(tmp_path)), "No tokenizer can be read from .*: set encoders.t5_tokenizer"),
    ):
        with pytest.raises(FileError, match=sentence):
            encoders = ours(folder, **changes)
            encoders.encode_prompts(["a"]), encoders.encode(np.zeros((1, 16, 16, 3), np.uint8))
    for changes in (dict(tokens=0), dict(precision="fp8"), dict(t6="")):
        with pytest.raises(ValueError, match="encoders"):
            ours(folder, **changes)
    assert Flux1Files().tokens == 256
