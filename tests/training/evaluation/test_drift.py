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
from cologen.training.evaluation.drift import (
    apply_subject,
    attach_bank,
    draw_unrelated,
    generate_pairs,
    measure_agreement,
    score_pairs,
)
from cologen.training.evaluation.image_generator import (
    WORLD_SETTINGS,
    ImageGenerator,
    make_host_generator,
    open_world_generator,
)
from cologen.training.evaluation.networks import CHECKPOINTS, MetricNetworks
from cologen.training.subject.trainer import init_concept
from cologen.training.toy.render import render
from cologen.training.toy.store import TOY
from tiny_networks import tiny_clip

SHORT = replace(WORLD_SETTINGS, steps=2)
SIZE = (64, 64)
TOLD = [prompt for _, prompt in draw_unrelated(2, 0)]


@pytest.fixture(scope="module")
def generator() -> ImageGenerator:
    return open_world_generator(TOY, None, SHORT, "cpu")


def concept(flux, up: float, **changes):
    info = ConceptInfo(**{"base": Base.of(flux), "noun": "circle", "tokens": 2, "width": 8, "rank": 2, **changes})
    made = init_concept(info, torch.zeros(2, info.width), 0)
    g = torch.Generator().manual_seed(1)
    for name, tensor in made.tensors.items():
        if ".lora_B." in name:
            tensor.copy_(up * torch.randn(tensor.shape, generator=g))
    return made


def merged(generator: ImageGenerator, made) -> ImageGenerator:
    """A FLUX whose own weights have what the concept adds."""
    flux, info = deepcopy(generator.host.flux), made.info
    for layer, rows, name in list_layers(info):
        down, up = (made.tensors[f"{name}.lora_{part}.weight"] for part in "AB")
        flux.get_submodule(layer).weight.data[rows] += info.alpha / info.rank * up @ down
    return replace(generator, host=EmbeddedHost(flux, torch.float32))


def run(capsys, *argv):
    code = main(["eval", "drift", *map(str, argv), "--device", "cpu"])
    captured = capsys.readouterr()
    return code, captured.out.strip(), captured.err.strip()


def test_a_bank_that_is_in_place_changes_no_bit(generator):
    heard = []
    with attach_bank(generator) as (attachment,):

        def patch(*args, **kwargs):
            heard.append(attachment(*args, **kwargs))
            return heard[-1]

        found = generator.generate_plain(TOLD[0], SIZE, 5, [patch])
    blocks = len(generator.host.flux.double_blocks) + len(generator.host.flux.single_blocks)
    assert heard == [{}] * (2 * SHORT.steps * blocks), "with the prompt and without, in every block"
    assert np.array_equal(found, generator.generate_plain(TOLD[0], SIZE, 5)) and found.std() > 5


def test_a_subject_changes_what_its_weights_merged_into_flux_would(generator, tmp_path):
    made = concept(generator.host.flux, up=0.05)
    made.save(tmp_path / "mine.safetensors")
    before = [generator.generate_plain(prompt, SIZE, 3 + i) for i, prompt in enumerate(TOLD)]
    answers = generate_pairs(generator, apply_subject(generator, tmp_path / "mine.safetensors"), TOLD, SIZE, 3)
    other = merged(generator, made)
    for i, answer in enumerate(answers):
        assert np.array_equal(answer.reference, before[i])
        wanted = other.generate_plain(TOLD[i], SIZE, 3 + i).astype(int)
        assert np.abs(answer.pixels - wanted).max() <= 1 < np.abs(answer.pixels - before[i].astype(int)).max()
        assert np.array_equal(generator.generate_plain(TOLD[i], SIZE, 3 + i), before[i]), "FLUX is as it was"


def test_figures_are_differences_of_pictures_words_and_scenes(generator, tmp_path):
    tiny_clip(tmp_path / CHECKPOINTS["clip"].name)
    concept(generator.host.flux, up=0.05).save(tmp_path / "mine.safetensors")
    scenes = [scene for scene, _ in draw_unrelated(2, 0)]
    answers = generate_pairs(generator, apply_subject(generator, tmp_path / "mine.safetensors"), TOLD, SIZE, 3)
    networks = MetricNetworks(tmp_path)
    scores, why = score_pairs(answers, networks, scenes)
    clip = networks.opened["clip"]
    for score, answer, scene in zip(scores, answers, scenes):
        said = [
            clip.encode(picture) @ clip.embed_text(answer.case.prompt) for picture in (answer.pixels, answer.reference)
        ]
        assert score["clip_t"] == pytest.approx(float(said[0] - said[1]), abs=1e-6)
        assert (
            score["colour"] == distance.colour_difference(answer.pixels, answer.reference) > 0 and score["changed"] == 1
        )
        assert score["told"] == measure_agreement(scene, answer.pixels) - measure_agreement(scene, answer.reference)
    assert not why
    _, why = score_pairs(answers, MetricNetworks(tmp_path / "empty"))
    assert why.startswith("There is no clip-vit-base-patch32")


def test_the_oracle_finds_what_was_told():
    (scene, prompt), (other, _) = draw_unrelated(2, 4)
    assert measure_agreement(scene, render(scene)) == 1 > measure_agreement(scene, render(other))
    assert all(item.shape in prompt and "circle" not in prompt for item in scene.items)
    assert measure_agreement(scene, render(replace(scene, items=()))) == 1 / (1 + len(scene.items))


def test_the_terminal_says_that_a_bank_forgets_nothing(capsys, generator, tmp_path):
    _, said, _ = run(capsys, "--n", 2, "--steps", 2, "--json")
    found = json.loads(said)
    assert (found["colour"], found["changed"], found["told"], found["n"]) == (0.0, 0.0, 0.0, 2)
    assert "There is no clip-vit-base-patch32" in found["clip_t_why"] and "clip_t" not in found
    concept(generator.host.flux, up=0.05).save(tmp_path / "mine.safetensors")
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
def test_mistakes_are_one_sentence(capsys, generator, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    base = replace(Base.of(generator.host.flux), double_blocks=9)
    concept(generator.host.flux, up=0.0, base=base).save(tmp_path / "other.safetensors")
    code, _, error = run(capsys, *words)
    assert code == 1 and sentence in error and "\n" not in error


@pytest.mark.usefixtures("comfy")
def test_the_host_s_flux_drifts_alike(generator, tmp_path):
    from cologen.training.comfyui.built_in import load_clip, load_model, load_vae

    theirs = make_host_generator(load_model(TOY, {}), load_vae(TOY), load_clip(TOY), generator.bank, SHORT)
    concept(generator.host.flux, up=0.05).save(tmp_path / "mine.safetensors")
    pairs = [
        generate_pairs(one, apply_subject(one, tmp_path / "mine.safetensors"), TOLD, SIZE, 3)
        for one in (generator, theirs)
    ]
    for ours, other in zip(*pairs):
        assert np.abs(ours.pixels.astype(int) - other.pixels).max() <= 3  # fp16 weights, cast on the way
    still = generate_pairs(theirs, attach_bank(theirs), TOLD, SIZE, 3)
    assert all(np.array_equal(answer.pixels, answer.reference) for answer in still)
