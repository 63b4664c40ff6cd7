"""What a recipe is said to take before anything is there is what its trainers say of themselves."""

from dataclasses import replace

import pytest
import torch
from cologen.prw.base_model import Base
from cologen.prw.embedded_host import EmbeddedHost
from cologen.training.add_expert import add_expert, make_empty_bank
from cologen.training.base.known_models import KNOWN_MODELS
from cologen.training.base.placement import place_base
from cologen.training.cli import main as cli
from cologen.training.data.encoded.dataset import MemoryDataset
from cologen.training.data.encoded.samples import EncodedSamples
from cologen.training.estimate_recipe import estimate_recipe
from cologen.training.forward import EMBEDDED_CHECKPOINTING
from cologen.training.memory_estimate import estimate_memory
from cologen.training.recipes.curriculum import load_curriculum
from cologen.training.stage_context import StageContext
from cologen.training.stage_trainer import StageTrainer
from safetensors.torch import save_file
from tiny import tiny_flux
from tiny_flux2 import TEXT_WIDTH, tiny_flux2
from tiny_run import tiny_curriculum

GIB = 2**30


@pytest.mark.parametrize(
    "make, channels, side, tokens, text, pooled",
    [(tiny_flux, 16, 8, 256, 32, 16), (tiny_flux2, 128, 4, 512, TEXT_WIDTH, 0)],
)
@pytest.mark.parametrize("weights", ["plain", "fp8", "int8", "nf4"])
def test_it_is_what_a_trainer_says(make, channels, side, tokens, text, pooled, weights):
    curriculum = tiny_curriculum(resolution=64, batch=4, micro=2, ema=0.9, base_weights=weights, rank=4, alpha=8.0)
    told = dict(estimate_recipe(curriculum, make(), torch.float32))
    flux, g = make(), torch.Generator().manual_seed(1)
    place_base(flux, curriculum.settings, "cpu")
    latents = torch.randn(4, channels, side, side, generator=g)
    context, names = torch.randn(4, tokens, text, generator=g).bfloat16(), tuple("abcd")
    samples = EncodedSamples(names, names, latents, latents, context, torch.randn(4, pooled, generator=g))
    datasets = {stage.task: MemoryDataset(stage.task, samples) for stage in curriculum.stages}
    bank = make_empty_bank(Base.of(flux), curriculum.settings)
    for number, stage in enumerate(curriculum.stages):
        bank = add_expert(bank, stage, curriculum.settings, 0)
        empty = (context[:1], samples.pooled[:1])
        host, settings = EmbeddedHost(flux, torch.float32), curriculum.settings
        given = StageContext(host, stage, number, settings, datasets, empty, 0, EMBEDDED_CHECKPOINTING)
        assert told[stage.name] == estimate_memory(StageTrainer(given, bank))


def test_klein_s_recipe_fits_on_16_gb_and_so_does_the_paper_s_curriculum_there():
    settings = load_curriculum("klein").settings
    assert settings.base_weights == "fp8" and settings.checkpointing
    paper = load_curriculum("paper", ["precision=bf16", "base_weights=fp8", "checkpointing=true", "micro=4"])
    for curriculum in (load_curriculum("klein"), paper):
        found = dict(estimate_recipe(curriculum, KNOWN_MODELS["klein-base-4b"].build(), torch.bfloat16))
        assert list(found) == ["inpaint", "ground", "control", "subject", "edit"]
        for estimate in found.values():
            assert 10 * GIB < sum(estimate.base.values()) + estimate.trained + estimate.additional < 11 * GIB
    smaller = replace(settings, micro=1)
    (_, found), *_ = estimate_recipe(
        replace(paper, settings=smaller), KNOWN_MODELS["klein-base-4b"].build(), torch.bfloat16
    )
    assert found.activations == estimate.activations // 4


def test_the_terminal_says_it_of_a_name_and_of_a_file(tmp_path, capsys):
    save_file(tiny_flux2().state_dict(), tmp_path / "klein.safetensors")
    for base in ("tiny", tmp_path / "klein.safetensors"):
        assert cli.main(["train", "small", "--estimate", f"base={base}", "--stage", "2"]) == 0
        said = capsys.readouterr().out
        assert "ground takes:" in said and "in all" in said and "inpaint" not in said
    assert cli.main(["train", "small", "--estimate", "base=sdxl"]) == 1
    assert "There is no base sdxl, expected flux1, flux1-fill, klein-4b" in capsys.readouterr().err
    assert cli.main(["train", "subject", "--estimate"]) == 1
    assert "--estimate is given with a subject, expected a curriculum" in capsys.readouterr().err
