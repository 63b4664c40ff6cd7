"""`cologen eval drift`: a bank changes no bit, a subject what its weights merged into FLUX change, and both leave no trace."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pack  # noqa: F401
import pytest
import torch
from cologen.prw.base_model import Base
from cologen.prw.embedded_host import EmbeddedHost
from cologen.prw.personalization.concept import ConceptInfo, list_layers
from cologen.training.cli.main import main
from cologen.training.evaluation import distance
from cologen.training.evaluation.drift import as_told, bank_on, drawn_twice, scores_of, subject_on, unrelated
from cologen.training.evaluation.networks import CHECKPOINTS, Shelf
from cologen.training.evaluation.painter import TOY, Painter, host_painter, toy_painter
from cologen.training.subject.trainer import fresh_concept
from cologen.training.toy.render import render
from tiny_networks import tiny_clip

SHORT = replace(TOY, steps=2)
SIZE = (64, 64)
TOLD = [prompt for _, prompt in unrelated(2, 0)]


@pytest.fixture(scope="module")
def painter() -> Painter:
    return toy_painter(None, SHORT, "cpu")


def concept(flux, up: float, **changes):
    info = ConceptInfo(**{"base": Base.of(flux), "noun": "circle", "tokens": 2, "width": 8, "rank": 2, **changes})
    made = fresh_concept(info, torch.zeros(2, info.width), 0)
    g = torch.Generator().manual_seed(1)
    for name, tensor in made.tensors.items():
        if ".lora_B." in name:
            tensor.copy_(up * torch.randn(tensor.shape, generator=g))
    return made


def merged(painter: Painter, made) -> Painter:
    """A FLUX whose own weights have what the concept adds."""
    flux, info = deepcopy(painter.host.flux), made.info
    for layer, rows, name in list_layers(info):
        down, up = (made.tensors[f"{name}.lora_{part}.weight"] for part in "AB")
        flux.get_submodule(layer).weight.data[rows] += info.alpha / info.rank * up @ down
    return replace(painter, host=EmbeddedHost(flux, torch.float32))


def run(capsys, *argv):
    code = main(["eval", "drift", *map(str, argv), "--device", "cpu"])
    captured = capsys.readouterr()
    return code, captured.out.strip(), captured.err.strip()


def test_a_bank_that_is_in_place_changes_no_bit(painter):
    heard = []
    with bank_on(painter) as (attachment,):

        def patch(*args, **kwargs):
            heard.append(attachment(*args, **kwargs))
            return heard[-1]

        found = painter.alone(TOLD[0], SIZE, 5, [patch])
    blocks = len(painter.host.flux.double_blocks) + len(painter.host.flux.single_blocks)
    assert heard == [{}] * (2 * SHORT.steps * blocks), "with the prompt and without, in every block"
    assert np.array_equal(found, painter.alone(TOLD[0], SIZE, 5)) and found.std() > 5


def test_a_subject_changes_what_its_weights_merged_into_flux_would(painter, tmp_path):
    made = concept(painter.host.flux, up=0.05)
    made.save(tmp_path / "mine.safetensors")
    before = [painter.alone(prompt, SIZE, 3 + i) for i, prompt in enumerate(TOLD)]
    answers = drawn_twice(painter, subject_on(painter, tmp_path / "mine.safetensors"), TOLD, SIZE, 3)
    other = merged(painter, made)
    for i, answer in enumerate(answers):
        assert np.array_equal(answer.reference, before[i])
        wanted = other.alone(TOLD[i], SIZE, 3 + i).astype(int)
        assert np.abs(answer.drawn - wanted).max() <= 1 < np.abs(answer.drawn - before[i].astype(int)).max()
        assert np.array_equal(painter.alone(TOLD[i], SIZE, 3 + i), before[i]), "FLUX is as it was"


def test_figures_are_differences_of_pictures_words_and_scenes(painter, tmp_path):
    tiny_clip(tmp_path / CHECKPOINTS["clip"].name)
    concept(painter.host.flux, up=0.05).save(tmp_path / "mine.safetensors")
    scenes = [scene for scene, _ in unrelated(2, 0)]
    answers = drawn_twice(painter, subject_on(painter, tmp_path / "mine.safetensors"), TOLD, SIZE, 3)
    shelf = Shelf(tmp_path)
    scores, why = scores_of(answers, shelf, scenes)
    clip = shelf.opened["clip"]
    for score, answer, scene in zip(scores, answers, scenes):
        said = [clip.look(picture) @ clip.text(answer.case.prompt) for picture in (answer.drawn, answer.reference)]
        assert score["clip_t"] == pytest.approx(float(said[0] - said[1]), abs=1e-6)
        assert score["colour"] == distance.colour(answer.drawn, answer.reference) > 0 and score["changed"] == 1
        assert score["told"] == as_told(scene, answer.drawn) - as_told(scene, answer.reference)
    assert not why
    _, why = scores_of(answers, Shelf(tmp_path / "empty"))
    assert why.startswith("There is no clip-vit-base-patch32")


def test_the_oracle_finds_what_was_told():
    (scene, prompt), (other, _) = unrelated(2, 4)
    assert as_told(scene, render(scene)) == 1 > as_told(scene, render(other))
    assert all(item.shape in prompt and "circle" not in prompt for item in scene.items)
    assert as_told(scene, render(replace(scene, items=()))) == 1 / (1 + len(scene.items))


def test_the_terminal_says_that_a_bank_forgets_nothing(capsys, painter, tmp_path):
    _, said, _ = run(capsys, "--n", 2, "--steps", 2, "--json")
    found = json.loads(said)
    assert (found["colour"], found["changed"], found["told"], found["n"]) == (0.0, 0.0, 0.0, 2)
    assert "There is no clip-vit-base-patch32" in found["clip_t_why"] and "clip_t" not in found
    concept(painter.host.flux, up=0.05).save(tmp_path / "mine.safetensors")
    (tmp_path / "prompts.txt").write_text("a red square\n\n")
    words = ["--subject", tmp_path / "mine.safetensors", "--prompts", tmp_path / "prompts.txt", "--n", 3, "--steps", 2]
    code, said, heard = run(capsys, *words)
    assert code == 0 and heard.count("a red square") == 6 and said.endswith("3 pictures, seed 0")
    lines = {line.split()[0]: line.split()[1] for line in said.splitlines()}
    assert float(lines["colour"]) > 0 and lines["changed"] == "1.0000" and "told" not in lines


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--subject", "a", "--bank", "b"], "Both --bank and --subject are given, expected one of them"),
        (["--prompts", "empty.txt"], "There is no prompt in empty.txt, expected a line each"),
        (["--subject", "other.safetensors"], "other.safetensors was trained on a FLUX of another shape"),
        (["--flux", "x", "--subject", "y"], "--flux is given, expected --bank, --vae and --clip"),
    ],
)
def test_mistakes_are_one_sentence(capsys, painter, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    base = replace(Base.of(painter.host.flux), double_blocks=9)
    concept(painter.host.flux, up=0.0, base=base).save(tmp_path / "other.safetensors")
    code, _, error = run(capsys, *words)
    assert code == 1 and sentence in error and "\n" not in error


@pytest.mark.usefixtures("comfy")
def test_the_host_s_flux_drifts_alike(painter, tmp_path):
    from cologen.training.comfyui.toy_models import toy_clip, toy_model, toy_vae

    theirs = host_painter(toy_model({}), toy_vae(), toy_clip(), painter.bank, SHORT)
    concept(painter.host.flux, up=0.05).save(tmp_path / "mine.safetensors")
    pairs = [
        drawn_twice(one, subject_on(one, tmp_path / "mine.safetensors"), TOLD, SIZE, 3) for one in (painter, theirs)
    ]
    for ours, other in zip(*pairs):
        assert np.abs(ours.drawn.astype(int) - other.drawn).max() <= 3  # fp16 weights, cast on the way
    still = drawn_twice(theirs, bank_on(theirs), TOLD, SIZE, 3)
    assert all(np.array_equal(answer.drawn, answer.reference) for answer in still)
