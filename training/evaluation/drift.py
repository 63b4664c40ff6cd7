"""Open-world forgetting: what a bank or a subject changes in pictures that have nothing to do with it.

Every prompt is generated twice from the same noise, without it and with it; nothing reads a source and no word names the
subject. A bank then changes no bit: that is its promise. A subject's low-rank weights act on every text.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np

from ...prw.attachment import Attachment
from ...prw.base_model import Base
from ...prw.personalization.concept import Concept, make_residuals
from ...prw.personalization.low_rank_patch import apply_low_rank
from ..from_scratch.evaluate import HELD_OUT_SEED
from ..toy.oracle import read_scene
from ..toy.scene import Scene, draw_scene
from ..toy.score import has_item
from ..toy.subject import NOUN
from ..toy.words import Fact, describe_facts, make_fact
from .case import Case
from .image_generator import ImageGenerator
from .measure import measure
from .metrics import Answer
from .networks import MetricNetworks

PROMPTS = (
    "a lighthouse on a cliff at sunset",
    "a bowl of oranges on a wooden table, still life",
    "portrait of an old fisherman, black and white photograph",
    "a city street in the rain at night, neon signs",
    "a snowy mountain range under a blue sky",
    "a red bicycle leaning against a brick wall",
    "an empty subway station",
    "a watercolor of a garden full of tulips",
    "a grand piano in a concert hall",
    "a child flying a kite on a meadow",
    "a steaming cup of coffee seen from above",
    "an astronaut floating above the earth",
    "a stack of old books beside a candle",
    "a sailing ship in a storm, oil painting",
    "a modern kitchen with white cupboards",
    "a forest path in autumn",
)
"""The default: things, people, places and styles."""


Patches = Generator[Sequence[Callable], None, None]
"""A context manager that applies attention patches, and yields those that a forward is given."""


@contextmanager
def attach_bank(generator: ImageGenerator) -> Patches:
    """Yields the patches by which the generator's bank acts on FLUX, though no source is read."""
    assert generator.bank is not None
    attachment = Attachment(generator.bank)
    attachment.check(generator.host)
    yield (attachment,)


@contextmanager
def apply_subject(generator: ImageGenerator, path: Path) -> Patches:
    """Adds a subject's low-rank weights to the generator's FLUX meanwhile; yields no patches."""
    concept, device = Concept.open(path), generator.host.device
    if concept.info.base.describe_incompatibility(Base.of(generator.host.flux)):
        raise ValueError(
            f"{path.name} was trained on a FLUX of another shape ({concept.info.base.name or 'unnamed'}), expected this "
            f"one's: give that FLUX by --flux."
        )
    tensors = {name: tensor.to(device) for name, tensor in concept.tensors.items()}
    with apply_low_rank(generator.host.flux, make_residuals(concept.info, tensors)):
        yield ()


def generate_pairs(
    generator: ImageGenerator,
    applied: AbstractContextManager[Sequence[Callable]],
    prompts: Sequence[str],
    size: tuple[int, int],
    seed: int,
    say: Callable[[str], None] = lambda line: None,
) -> list[Answer]:
    """Generates every prompt within `applied` and without; answers are the pictures with, their references those without."""

    def generate_all(patches: Sequence[Callable], which: str) -> list[np.ndarray]:
        pictures = []
        for i, prompt in enumerate(prompts):
            pictures.append(generator.generate_plain(prompt, size, seed + i, patches))
            say(f"{which} {i + 1} of {len(prompts)}: {prompt}")
        return pictures

    with applied as patches:
        changed = generate_all(patches, "with")
    plain = generate_all((), "without")
    cases = [Case(str(i), picture, prompt, picture) for i, (picture, prompt) in enumerate(zip(plain, prompts))]
    return [Answer(case, picture, Path(f"{case.id}.png")) for case, picture in zip(cases, changed)]


def score_pairs(
    answers: Sequence[Answer], networks: MetricNetworks, scenes: Sequence[Scene] = ()
) -> tuple[list[dict], str]:
    """Returns each picture's figures, differences as with minus without, and why there are none by CLIP (or "")."""
    before = [Answer(answer.case, answer.reference, answer.path) for answer in answers]
    colour, after = measure(["colour", "clip_out"], answers, networks)
    (first,) = measure(["clip_out"], before, networks)
    scores = []
    for i, answer in enumerate(answers):
        key = answer.key
        score = {"colour": colour.values[key], "changed": float((answer.pixels != answer.reference).any())}
        if not after.reason:
            score["clip_t"] = after.values[key] - first.values[key]
        if scenes:
            pictures = (answer.pixels, answer.reference)
            prompt_agreement, plain_agreement = (measure_agreement(scenes[i], picture) for picture in pictures)
            score["told"] = prompt_agreement - plain_agreement
        scores.append(score)
    return scores, after.reason


def draw_unrelated(count: int, seed: int) -> list[tuple[Scene, str]]:
    """Draws scenes of the toy world that lack its subject's noun, each with a prompt."""
    rng, scenes = np.random.default_rng((HELD_OUT_SEED + seed, 20)), []
    while len(scenes) < count:
        scene = draw_scene(rng)
        if all(item.shape != NOUN for item in scene.items):
            facts = [*map(make_fact, scene.items), Fact("ground", colour=scene.ground)]
            scenes.append((scene, describe_facts(rng, facts)))
    return scenes


def measure_agreement(scene: Scene, picture: np.ndarray) -> float:
    """Measures the share of a scene's things, and its ground, that the oracle finds."""
    reading = read_scene(picture)
    things = [
        reading.is_sure(item.place) and has_item(reading.scene, item, item.place, ("shape", "colour"))
        for item in scene.items
    ]
    return float(np.mean([*things, reading.scene.ground == scene.ground]))
