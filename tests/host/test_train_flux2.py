"""Training on FLUX.2 in the host: the bank of a headless run, resumed or not; wrong encoders are named before it begins."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from cologen.prw.embedded_host import EmbeddedHost
from cologen.prw.flux.inputs import EncodedPrompt
from cologen.prw.source import Routing, Source
from cologen.training.comfyui.training_data import TrainingData
from cologen.training.coredi.make_trainer import make_stage_trainer
from cologen.training.curriculum_run import CurriculumRun
from cologen.training.forward import EMBEDDED_CHECKPOINTING
from cologen.training.monitor.log import LOG_FILE, Log, read_log
from cologen.training.sampling import SamplingSettings, sample_latents
from host_training import (
    TWO_STAGES,
    TinyClip,
    TinyVae,
    default_inputs,
    largest_difference,
    save_pairs,
    train_on_host,
    training_data,
    with_samples,
)
from host_training_flux2 import (
    BLOCKS,
    TEXT_ROWS,
    flux2_data,
    load_flux2,
    load_klein_clip,
    load_vae,
    random_flux2_dataset,
    with_contexts,
)
from tiny import host_model, latent, tiny_bank, tiny_flux
from tiny_flux2 import TEXT_WIDTH, tiny_flux2

pytestmark = pytest.mark.usefixtures("comfy")
ONE_STAGE = replace(TWO_STAGES, stages=TWO_STAGES.stages[:1])


@pytest.fixture(scope="module")
def model(comfy):
    return load_flux2()


@pytest.fixture(scope="module")
def clip(comfy):
    return load_klein_clip()


@pytest.fixture(scope="module")
def vae(comfy):
    return load_vae()


def read_losses(folder):
    return [line["task"] for line in read_log(folder / LOG_FILE) if "task" in line]


@pytest.mark.slow
def test_the_node_trains_the_bank_that_a_headless_run_trains(model, tmp_path):
    data = flux2_data()
    found = train_on_host(model, tmp_path / "host", given=data)
    headless = CurriculumRun(
        EmbeddedHost(tiny_flux2(**BLOCKS), torch.float32),
        TWO_STAGES,
        data.datasets,
        data.encoders,
        tmp_path / "headless",
        7,
        listeners=[Log(tmp_path / "headless")],
        checkpointing_options=EMBEDDED_CHECKPOINTING,
        make_trainer=make_stage_trainer,
    ).train()
    assert found.info.base.family == "flux2" and largest_difference(found, headless) < 1e-4
    losses = torch.tensor([read_losses(tmp_path / folder) for folder in ("host", "headless")])
    assert losses.shape == (2, 6) and (losses[0] - losses[1]).abs().max() < 1e-5
    assert min(tensor.abs().max() for name, tensor in found.tensors.items() if name.endswith(".up")) > 1e-4


@pytest.mark.slow
def test_cancelled_and_queued_again_is_as_if_never_cancelled(model, tmp_path):
    import comfy.model_management

    curriculum = replace(TWO_STAGES, settings=replace(TWO_STAGES.settings, checkpointing=True))
    data = flux2_data(tokens=20)
    whole = train_on_host(model, tmp_path / "a", curriculum, data)

    class Cancel(Log):
        def on_iteration(self, trainer, result):
            if trainer.iteration == 2:
                comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train_on_host(model, tmp_path / "b", curriculum, data, listeners=[Cancel(tmp_path)])
    assert largest_difference(train_on_host(model, tmp_path / "b", curriculum, data), whole) == 0


def test_short_prompts_are_filled_up_as_the_host_does_it(model, tmp_path):
    def fill(context):
        rows = [model.model.extra_conds(cross_attn=row[None], noise=row, device=row.device) for row in context]
        return torch.cat([row["c_crossattn"].cond for row in rows])

    data = flux2_data(tokens=5)
    filled = with_contexts(data, fill)
    assert filled.datasets["inpaint"].samples.context.shape[1] == TEXT_ROWS
    found = train_on_host(model, tmp_path / "a", ONE_STAGE, data)
    assert largest_difference(found, train_on_host(model, tmp_path / "b", ONE_STAGE, filled)) == 0


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16], ids=["fp8", "bf16"])
def test_small_weights_train_with_a_finite_loss(dtype, tmp_path):
    small = load_flux2(dtype)
    bank = train_on_host(small, tmp_path, ONE_STAGE, flux2_data(tokens=20))
    assert all(torch.isfinite(tensor).all() for tensor in bank.tensors.values())
    assert torch.isfinite(torch.tensor(read_losses(tmp_path))).all()
    assert small.model.diffusion_model.double_blocks[0].img_attn.qkv.weight.dtype == dtype


def test_training_s_pictures_are_those_of_the_nodes(comfy):
    import comfy.sample
    import comfy.samplers
    from cologen.prw.comfyui.conditioning import add_source
    from cologen.prw.comfyui.patch import apply_bank
    from cologen.training.comfyui.training_host import TrainingHost

    flux = tiny_flux2()
    model, bank, times = load_flux2(depth=2, depth_single_blocks=3), tiny_bank(flux), [1.0, 0.6, 0.0]
    text, given = torch.randn(1, 9, TEXT_WIDTH, generator=torch.Generator().manual_seed(4)), latent(1, 3, 5, 3, 128)
    empty = torch.zeros(1, 128, 4, 6)
    noise, routing = comfy.sample.prepare_noise(empty, 7), Routing(task="control")
    with torch.inference_mode():
        told, kind = add_source([[text, {}]], Source(given, routing)), comfy.samplers.sampler_object("euler")
        rest = dict(disable_pbar=True, seed=7)
        sigmas, patched = torch.tensor(times), apply_bank(model, bank)
        expected = comfy.sample.sample_custom(patched, noise, 1.0, kind, sigmas, told, told, empty, **rest)
    host, prompt = TrainingHost(model), EncodedPrompt(text, torch.zeros(1, 0))
    with host.training(0):
        found = sample_latents(host, bank, routing, given, noise, prompt, SamplingSettings(times))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def sample(model, positive):
    import comfy.sample

    empty = torch.zeros(1, 128, 4, 4)
    noise = comfy.sample.prepare_noise(empty, 7)
    rest = dict(disable_pbar=True, seed=7)
    with torch.inference_mode():
        return comfy.sample.sample(model, noise, 2, 1.0, "euler", "simple", positive, positive, empty, **rest)


def test_what_was_trained_on_the_base_acts_on_a_distilled_model_of_its_shape(model, tmp_path):
    from cologen.prw.comfyui.conditioning import add_source
    from cologen.prw.comfyui.patch import apply_bank
    from cologen.training.comfyui.enter_host import load_model

    bank = train_on_host(model, tmp_path, ONE_STAGE, flux2_data(tokens=5))
    distilled = load_model(tiny_flux2(seed=1, **BLOCKS).state_dict(), torch.float32)
    text, given = [[torch.randn(1, 5, TEXT_WIDTH), {}]], latent(1, 4, 4, 3, 128)
    for flux in (model, distilled):
        applied = apply_bank(flux, bank)
        found, without = (
            sample(applied, add_source(text, Source(given, Routing(task="inpaint", strength=strength))))
            for strength in (100.0, 0.0)
        )
        assert torch.isfinite(found).all() and (found - without).abs().max() > 1e-3
    larger = load_model(tiny_flux2(depth=2, depth_single_blocks=1).state_dict(), torch.float32)
    with pytest.raises(ValueError, match="has double_blocks 2, the bank was made for 1"):
        apply_bank(larger, bank)


# encoders


def read(vae, clip, **changes):
    from cologen.nodes.training_data import CoLoGenTrainingData

    knobs = dict(vae=vae, clip=clip, source="folder", folder="mine", task="edit", size=64, count=0, cut_seed=0)
    with torch.inference_mode():
        return CoLoGenTrainingData.execute(**{**knobs, **changes}).result[0]


@pytest.mark.slow
def test_a_folder_trains_klein_through_the_nodes(folders, model, vae, clip):
    from cologen.nodes.training import CoLoGenTrainCurriculum

    save_pairs(folders / "input/cologen/mine")
    data = read(vae, clip)
    samples = data.datasets["edit"].samples
    assert samples.target.shape == samples.source.shape == (3, 128, 4, 4)
    assert samples.context.shape == (3, TEXT_ROWS, TEXT_WIDTH) and samples.pooled.shape == (3, 0)
    with torch.inference_mode():
        text, pooled = clip.encode_from_tokens(clip.tokenize("picture 1"), return_pooled=True)
    assert pooled is None and torch.equal(samples.context[1:2], text.bfloat16())

    recipe = 'rank = 4\n[[stages]]\nname = "edit"\niterations = 100\nbatch = 2'
    knobs = default_inputs(CoLoGenTrainCurriculum, model=model, data=data, recipe=recipe, budget="tiny")
    with torch.inference_mode():
        bank, losses, sheets = CoLoGenTrainCurriculum.execute(**{**knobs, "sample_steps": 1}).result
    assert list(bank.info.experts) == ["edit"] and bank.info.base.family == "flux2" and losses["loss"]
    assert sheets.shape == (1, 64, 3 * 64, 3) and sheets.std() > 0


class ClipOfWidth:
    """What a CLIP of another family gives."""

    def __init__(self, width: int, pooled=True):
        self.width, self.pooled = width, torch.zeros(1, 768) if pooled else None

    def tokenize(self, text):
        return text

    def encode_from_tokens(self, tokens, return_pooled=False):
        return torch.zeros(1, 4, self.width), self.pooled


@pytest.mark.parametrize(
    "vae, clip, sentence",
    [
        (
            128,
            ClipOfWidth(4096),
            r"4096 wide \(T5-XXL, FLUX.1's and Chroma's\), expected those of FLUX.2, whose VAE is",
        ),
        (16, ClipOfWidth(7680, pooled=False), r"7680 wide \(Qwen3-4B, FLUX.2 klein 4B's\), expected those of FLUX.1"),
        (16, ClipOfWidth(4096, pooled=False), "gives no pooled text, expected FLUX.1's pair: load CLIP-L and T5-XXL"),
        (4, TinyClip(), r"The latent has shape \(1, 4, 8, 8\), expected .* 16 channels for FLUX.1 or 128 channels for"),
    ],
)
def test_a_vae_and_a_clip_of_two_families_are_a_sentence_before_anything_is_encoded(folders, vae, clip, sentence):
    save_pairs(folders / "input/cologen/mine")
    made, asked = TinyVae() if vae == 16 else load_vae(vae), []
    counted = SimpleNamespace(encode=lambda pixels: asked.append(1) or made.encode(pixels))
    with pytest.raises(ValueError, match=sentence):
        read(counted, clip)
    assert len(asked) == 1


def test_data_of_another_family_is_a_sentence_before_training(model, tmp_path):
    data = flux2_data(tokens=5, tasks=["inpaint"])
    dataset = data.datasets["inpaint"]
    for changes, sentence in (
        (dict(source=torch.zeros(5, 16, 8, 8)), "has 16 channels .the VAE of FLUX.1., expected 128 for FLUX.2"),
        (dict(context=torch.zeros(5, 5, 4096)), "rows are 4096 wide .T5-XXL.*, the model expects 48 wide"),
    ):
        wrong = TrainingData(data.encoders, {"inpaint": with_samples(dataset, **changes)})
        with pytest.raises(ValueError, match=sentence):
            train_on_host(model, tmp_path, ONE_STAGE, wrong)
    flux1 = host_model(tiny_flux(depth=1, depth_single_blocks=1))
    with pytest.raises(ValueError, match="has 128 channels .the VAE of FLUX.2., expected 16 for FLUX.1"):
        train_on_host(flux1, tmp_path, ONE_STAGE, data)
    no_pooled = with_samples(training_data().datasets["inpaint"], pooled=torch.zeros(5, 0))
    with pytest.raises(ValueError, match="pooled text is 0 numbers wide, the model reads 16: connect this FLUX's own"):
        train_on_host(flux1, tmp_path, ONE_STAGE, TrainingData(data.encoders, {"inpaint": no_pooled}))
    assert not list(tmp_path.iterdir())


def test_memory_grows_with_what_flux_computes(model):
    from cologen.training.comfyui.training_host import TrainingHost

    host = TrainingHost(model)
    samples = random_flux2_dataset("inpaint", tokens=5).samples
    assert host.count_tokens(samples, (samples.target, samples.source)) == 4 * 4 + 4 * 3 + TEXT_ROWS
