"""The sticker world's models that ship: its FLUX draws what it is told, its VAE gives back what it is given."""

import numpy as np
import pytest
import torch
from cologen.prw.embedded_host import EmbeddedHost
from cologen.prw.flux.inputs import EncodedPrompt
from cologen.prw.flux.sampling import make_timesteps
from cologen.training.forward import skip_source
from cologen.training.from_scratch.evaluate import CFG, STEPS
from cologen.training.from_scratch.store import open_models
from cologen.training.sampling import SamplingSettings, sample_with_readers
from cologen.training.world.grounds import GROUNDS
from cologen.training.world.oracle import read_scene
from cologen.training.world.scene import CENTRES, Scene, Thing
from cologen.training.world.score import SCORERS, has_thing
from cologen.training.world.stickers import NAMED
from cologen.training.world.store import STICKERS
from cologen.training.world.tasks import make_questions
from cologen.training.world.words import GROUND_WORDS

CORNERS = [(x, y) for x in CENTRES[::3] for y in CENTRES[::3]]
DRAWN, GIVEN_BACK = 0.75, 0.88
"""Share of named things in corners that are drawn as told, and of unseen subjects that the VAE leaves recognisable, at least."""


@pytest.fixture(scope="module")
def models():
    return open_models(STICKERS)


@pytest.mark.slow
def test_flux_draws_a_thing_by_its_name_in_the_corner_that_is_named(models):
    rng = np.random.default_rng(8)
    names, grounds = rng.permutation(list(NAMED))[:24].tolist(), list(GROUNDS)
    scenes = [Scene(grounds[i % 6], 60, i, (Thing(name, *CORNERS[i % 4]),)) for i, name in enumerate(names)]
    texts = [
        f"a {each.things[0].sticker} at the {each.things[0].place}, {GROUND_WORDS[each.ground]}" for each in scenes
    ]
    prompt = EncodedPrompt(*models.encoders.encode_prompts(texts))
    negative = EncodedPrompt(*models.encoders.encode_prompts([""] * len(texts)))
    host = EmbeddedHost(models.flux, next(models.flux.parameters()).dtype)
    side = STICKERS.side // host.family.latent_pixels
    shape = len(texts), host.family.latent_channels, side, side
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    settings = SamplingSettings(make_timesteps(STEPS), cfg=CFG, negative=negative)
    readers = [lambda inputs: skip_source(host, inputs.x)] * 2
    pictures = models.encoders.decode(sample_with_readers(host, readers, noise, prompt, settings))
    readings = [read_scene(picture) for picture in pictures]
    assert [reading.scene.ground for reading in readings] == [each.ground for each in scenes]
    drawn = [has_thing(reading, each.things[0], hue=False) for reading, each in zip(readings, scenes, strict=True)]
    assert np.mean(drawn) >= DRAWN


@pytest.mark.slow
def test_the_vae_leaves_subjects_recognisable_that_it_has_never_seen(models):
    questions = make_questions("subject", 60, 8, unseen=True)
    pictures = models.encoders.decode(models.encoders.encode([question.example.target for question in questions]))
    right = [SCORERS["subject"](question, picture)["right"] for question, picture in zip(questions, pictures)]
    assert np.mean(right) >= GIVEN_BACK
