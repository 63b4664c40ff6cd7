"""A program's one call: the docs' block runs, and draws what the sampler draws with the mode's lean."""

import re
import runpy
import shutil
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from cologen.prw.flux.inputs import EncodedPrompt
from cologen.prw.flux.sampling import make_timesteps
from cologen.prw.source import MODES, Routing
from cologen.training.evaluation import draw_picture as drawing
from cologen.training.evaluation.draw_picture import Mode, draw_picture
from cologen.training.evaluation.image_generator import WORLD_SETTINGS, open_world_generator
from cologen.training.from_scratch.store import BANK, FLUX
from cologen.training.sampling import SamplingSettings, sample_latents
from cologen.training.toy.store import TOY
from cologen.training.toy.tasks import make_questions
from pack import ROOT
from PIL import Image


@pytest.fixture(scope="module")
def generator():
    return open_world_generator(TOY, None, replace(WORLD_SETTINGS, steps=2), "cpu")


@pytest.fixture(scope="module")
def example():
    return make_questions("edit", 1, 5)[0].example


def test_the_block_of_the_docs_runs(tmp_path, monkeypatch, example):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/programs.md").read_text(encoding="utf-8"), flags=re.S)
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    Image.fromarray(example.source).save("scene.png")
    (tmp_path / "program.py").write_text(block)
    runpy.run_path(str(tmp_path / "program.py"))
    drawn = np.asarray(Image.open("edited.png"))
    assert drawn.shape == (64, 64, 3) and drawn.std() > 5


def test_models_of_a_folder_draw_with_their_own_bank(tmp_path, generator, example):
    shutil.copytree(TOY.folder, tmp_path / "own")
    again = open_world_generator(TOY, None, generator.settings, "cpu", tmp_path / "own")
    drawn = [each("edit", example.source, example.prompt, (64, 64), 3) for each in (generator, again)]
    assert np.array_equal(*drawn)


@pytest.mark.parametrize("mode", get_args(Mode))
def test_a_mode_is_its_lean(generator, example, mode):
    drawn = draw_picture(generator, Image.fromarray(example.source), example.prompt, "edit", mode, seed=3)
    encoders = generator.encoders
    prompt, empty = (EncodedPrompt(*encoders.encode_prompts([text])) for text in (example.prompt, ""))
    noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    settings = SamplingSettings(make_timesteps(2), cfg=WORLD_SETTINGS.cfg, negative=empty)
    routing = Routing("edit", lean={"concept": -1.0, "balanced": 0.0, "localisation": 1.0}[mode])
    source = encoders.encode([example.source])
    latents = sample_latents(generator.host, generator.bank, routing, source, noise, prompt, settings)
    assert np.array_equal(np.asarray(drawn), encoders.decode(latents)[0])


def test_a_flux_and_a_bank_from_their_files_draw_the_same(generator, example, monkeypatch):
    with pytest.raises(ValueError, match="FLUX.1's encoders are needed, but there is no file x: set encoders.t5"):
        drawing.open_generator(TOY.folder / FLUX, TOY.folder / BANK, {"t5": "x", "clip": "x", "vae": "x"})
    monkeypatch.setattr(drawing, "open_encoders", lambda table, device: generator.encoders)
    opened = drawing.open_generator(TOY.folder / FLUX, TOY.folder / BANK, {}, generator.settings, dtype=torch.float32)
    asked = (Image.fromarray(example.source), example.prompt, "edit")
    assert np.array_equal(draw_picture(opened, *asked), draw_picture(generator, *asked))


def test_modes_and_their_type_are_one_list():
    assert get_args(Mode) == tuple(MODES)


def test_sizes_lie_on_the_grid_and_are_bounded(generator, example, monkeypatch):
    wide = Image.fromarray(example.source).resize((100, 60))
    assert draw_picture(generator, wide, "", "edit").size == (96, 64)
    assert draw_picture(generator, wide, "", "subject", size=(32, 64)).size == (32, 64)
    monkeypatch.setattr(drawing, "MAX_SIDE", 32)
    assert draw_picture(generator, wide, "", "edit").size == (48, 32)


@pytest.mark.parametrize("wrong", [dict(task="draw"), dict(task="edit", mode="loud")])
def test_a_wrong_word_is_a_sentence(generator, example, wrong):
    with pytest.raises(ValueError, match="is '(draw|loud)', expected"):
        draw_picture(generator, Image.fromarray(example.source), "", **wrong)
