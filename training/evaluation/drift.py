"""Open-world forgetting: what a bank or a subject does to pictures that have nothing to do with it.

Every prompt is drawn twice from the same noise, without it and with it; nothing reads a source and no word names the
subject. A bank then changes no bit: that is its promise. A subject's low-rank weights act on every text.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np

from ...prw.attachment import Attachment
from ...prw.base_model import Base
from ...prw.personalization.concept import Concept, make_residuals
from ...prw.personalization.low_rank_patch import apply_low_rank
from ..forward import find_device
from ..toy.evaluate import APART
from ..toy.oracle import read
from ..toy.scene import Scene, draw_scene
from ..toy.score import same_item
from ..toy.subject import NOUN
from ..toy.words import Fact, tell_all, thing_of
from .case import Case
from .measure import key_of, measure
from .metrics import Answer
from .networks import Shelf
from .painter import Painter

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
"""Unless others are given: things, people, places and styles."""


@contextmanager
def bank_on(painter: Painter) -> Iterator[Sequence[Callable]]:
    """Gives the patches that the painter's bank has in place, whatever there is to read."""
    attachment = Attachment(painter.bank)
    attachment.check(painter.host)
    yield (attachment,)


@contextmanager
def subject_on(painter: Painter, path: Path) -> Iterator[Sequence[Callable]]:
    concept, device = Concept.open(path), find_device(painter.host)
    if concept.info.base.refusal(Base.of(painter.host.flux)):
        raise ValueError(
            f"{path.name} was trained on a FLUX of another shape ({concept.info.base.name or 'unnamed'}), expected this "
            f"one's: give that FLUX by --flux."
        )
    tensors = {name: tensor.to(device) for name, tensor in concept.tensors.items()}
    with apply_low_rank(painter.host.flux, make_residuals(concept.info, tensors)):
        yield ()


def drawn_twice(
    painter: Painter,
    applied: AbstractContextManager[Sequence[Callable]],
    prompts: Sequence[str],
    size: tuple[int, int],
    seed: int,
    say: Callable[[str], None] = lambda line: None,
) -> list[Answer]:
    """The picture with it as an answer to the one without; `applied` gives the patches to draw with."""

    def pictures(patches: Sequence[Callable], which: str) -> list[np.ndarray]:
        found = []
        for i, prompt in enumerate(prompts):
            found.append(painter.alone(prompt, size, seed + i, patches))
            say(f"{which} {i + 1} of {len(prompts)}: {prompt}")
        return found

    with applied as patches:
        others = pictures(patches, "with")
    plain = pictures((), "without")
    cases = [Case(str(i), picture, prompt, picture) for i, (picture, prompt) in enumerate(zip(plain, prompts))]
    return [Answer(case, picture, Path(f"{case.id}.png")) for case, picture in zip(cases, others)]


def scores_of(answers: Sequence[Answer], shelf: Shelf, scenes: Sequence[Scene] = ()) -> tuple[list[dict], str]:
    """Each picture's figures, differences as with minus without; and why CLIP has none."""
    before = [Answer(answer.case, answer.reference, answer.path) for answer in answers]
    colour, after = measure(["colour", "clip_out"], answers, shelf)
    (first,) = measure(["clip_out"], before, shelf)
    found = []
    for i, answer in enumerate(answers):
        key = key_of(answer)
        one = {"colour": colour.values[key], "changed": float((answer.drawn != answer.reference).any())}
        if not after.why:
            one["clip_t"] = after.values[key] - first.values[key]
        if scenes:
            one["told"] = as_told(scenes[i], answer.drawn) - as_told(scenes[i], answer.reference)
        found.append(one)
    return found, after.why


def unrelated(count: int, seed: int) -> list[tuple[Scene, str]]:
    """Scenes of the toy world without what its subject is, in words."""
    rng, found = np.random.default_rng((APART + seed, 20)), []
    while len(found) < count:
        scene = draw_scene(rng)
        if all(item.shape != NOUN for item in scene.items):
            facts = [*map(thing_of, scene.items), Fact("ground", colour=scene.ground)]
            found.append((scene, tell_all(rng, facts)))
    return found


def as_told(scene: Scene, picture: np.ndarray) -> float:
    """The share of a scene's things, and its ground, that the oracle finds."""
    reading = read(picture)
    things = [
        reading.sure(item.place) and same_item(reading.scene, item, item.place, ("shape", "colour"))
        for item in scene.items
    ]
    return float(np.mean([*things, reading.scene.ground == scene.ground]))
