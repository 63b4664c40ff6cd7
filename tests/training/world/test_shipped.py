"""The sticker world's models that ship: its FLUX draws what it is told and finds it in a reference, its VAE gives back what it is given."""

import numpy as np
import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.prw.base_model import Base
from cologen.prw.base_weights import BaseWeights
from cologen.prw.flux.inputs import EncodedPrompt
from cologen.prw.flux.sampling import make_timesteps
from cologen.prw.source import Routing
from cologen.training.data.tasks.ground import read_mask
from cologen.training.data.tasks.masks import compute_iou
from cologen.training.forward import ReadSource, make_skipping_reader, run_source
from cologen.training.from_scratch.evaluate import CFG, STEPS, Evaluation, evaluate
from cologen.training.from_scratch.store import BANK, open_models
from cologen.training.sampling import SamplingSettings, sample_with_readers
from cologen.training.world.drawings import list_pool
from cologen.training.world.grounds import GROUNDS
from cologen.training.world.oracle import read_scene
from cologen.training.world.references import draw_mark
from cologen.training.world.render import render
from cologen.training.world.scene import CORNERS, Scene, Thing
from cologen.training.world.score import SCORERS, has_thing
from cologen.training.world.stickers import NAMED
from cologen.training.world.store import STICKERS
from cologen.training.world.tasks import draw_ground_scene, make_questions
from cologen.training.world.words import GROUND_WORDS
from mark_words import read_mark_words

DRAWN, MARKED, GIVEN_BACK = 0.9, 0.55, 0.88
"""At least: the share of named things in corners that are drawn as told, the mean IoU of marks with true ones, and the share of unseen subjects
that the VAE leaves recognisable."""


LEARNED = {"inpaint": ("hit", 0.6), "ground": ("iou", 0.5), "subject": ("right", 0.2), "edit": ("done", 0.35)}
"""At least, of 16 questions: three standard errors below what 1,024 gave. Subject's tells a broken set, not a broken expert: FLUX
alone gets 0.52."""


@pytest.fixture(scope="module")
def models():
    return open_models(STICKERS)


@pytest.fixture(scope="module")
def bank():
    return Bank.open(STICKERS.folder / BANK)


def test_the_bank_is_this_flux_s_and_all_of_it_is_small(models, bank):
    base = Base.of(models.flux)
    assert not bank.info.base.describe_incompatibility(base)
    assert not bank.info.base.describe_difference(base.with_probe(models.flux.float()))
    assert list(bank.info.experts) == list(bank.info.routers) == list(STICKERS.tasks)
    assert sum(path.stat().st_size for path in STICKERS.folder.iterdir()) <= 64 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize("task", LEARNED)
def test_the_bank_does_what_it_has_learned(models, bank, task):
    name, least = LEARNED[task]
    evaluation = Evaluation(STICKERS, count=16, tasks=[task])
    assert evaluate(models.make_host(), models.encoders, bank, evaluation)[task][name] >= least


def draw(models, texts: list[str], references: list[np.ndarray] = ()) -> np.ndarray:
    """Draws a picture for each of the words, after its reference if there are any."""
    host = models.make_host()
    prompt = EncodedPrompt(*models.encoders.encode_prompts(texts))
    negative = EncodedPrompt(*models.encoders.encode_prompts([""] * len(texts)))
    side = STICKERS.side // host.family.latent_pixels
    shape = len(texts), host.family.latent_channels, side, side
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    settings = SamplingSettings(make_timesteps(STEPS), cfg=CFG, negative=negative)
    read = make_reference_reader(host, models, references) if references else make_skipping_reader(host)
    return models.encoders.decode(sample_with_readers(host, [read] * 2, noise, prompt, settings))


def make_reference_reader(host, models, references: list[np.ndarray]) -> ReadSource:
    weights, latents = BaseWeights(Base.of(models.flux)), models.encoders.encode(references)
    return lambda inputs: run_source(host, weights, Routing(task="edit"), latents, inputs)


@pytest.mark.slow
def test_flux_draws_a_thing_by_its_name_in_the_corner_that_is_named(models):
    rng = np.random.default_rng(8)
    names, grounds = rng.permutation(list(NAMED))[:24].tolist(), list(GROUNDS)
    scenes = [Scene(grounds[i % 6], 60, i, (Thing(name, *CORNERS[i % 4]),)) for i, name in enumerate(names)]
    texts = [
        f"a {each.things[0].sticker} at the {each.things[0].place}, {GROUND_WORDS[each.ground]}" for each in scenes
    ]
    readings = [read_scene(picture) for picture in draw(models, texts)]
    assert [reading.scene.ground for reading in readings] == [each.ground for each in scenes]
    drawn = [has_thing(reading, each.things[0], hue=False) for reading, each in zip(readings, scenes, strict=True)]
    assert np.mean(drawn) >= DRAWN


@pytest.mark.slow
def test_flux_marks_the_thing_of_a_reference_that_is_named(models):
    rng, asked = np.random.default_rng(11), []
    while len(asked) < 24:
        scene = draw_ground_scene(rng, list_pool())
        marked, words = draw_mark(rng, scene)
        if words:
            asked.append((render(scene), marked, words))
    references, pictures, texts = map(list, zip(*asked))
    drawn = draw(models, texts, references)
    found = [
        compute_iou(read_mask(picture, reference, read_mark_words(words).colour), (marked != reference).any(-1))
        for picture, reference, marked, words in zip(drawn, references, pictures, texts, strict=True)
    ]
    assert np.mean(found) >= MARKED


@pytest.mark.slow
def test_the_vae_leaves_subjects_recognisable_that_it_has_never_seen(models):
    questions = make_questions("subject", 60, 8, unseen=True)
    pictures = models.encoders.decode(models.encoders.encode([question.example.target for question in questions]))
    right = [SCORERS["subject"](question, picture)["right"] for question, picture in zip(questions, pictures)]
    assert np.mean(right) >= GIVEN_BACK
