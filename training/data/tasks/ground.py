"""Grounding (paper, section 2.3): the answer is painted on the picture; this paints it, and reads it again.

The paper's three forms: a box round what a phrase refers to, a mask over it, a box round a random instance of a class.
A fourth is ours, for sets that ask for it: boxes round all instances. Our choice: templates, colours, line width, each
form as often. Reading compares with the picture that was asked about.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..box import Box, Size, find_box
from ..sample import Example, Sample, Thing, UnsuitableSample

Colours = dict[str, tuple[int, int, int]]
COLOURS: Colours = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
}
"""Corners of the colour cube: as far apart as colours can be, to survive a drift."""
LINE, MIN_LINE = 3 / 256, 4
"""A box's line, as a share of the shorter side of the picture; and in pixels at least, half of what a latent covers:
of thinner ones a VAE keeps little."""
MIN_DISTANCE, MAX_NEAR_SHARE = 128, 0.05
"""A colour is not drawn on pixels nearer to it than this, a few aside: the answer would not show."""
MAX_REMAINING = 0.5
"""A pixel was painted if less than this share of its way to the colour is left."""
MIN_OUTLINE = 0.25
"""A box is believed if this share of its outline was painted."""


def outline_boxes(things: Sequence[Thing], size: Size) -> np.ndarray:
    """Draws the things' boxes as lines. The outer edge is the box; the line gives way where it would hide a small thing."""
    area = np.zeros(size, bool)
    for x0, y0, x1, y1 in (thing.box for thing in things):
        ring = np.ones((y1 - y0, x1 - x0), bool)
        line = max(1, min(max(MIN_LINE, round(LINE * min(size))), min(ring.shape) // 4))
        ring[line:-line, line:-line] = False
        area[y0:y1, x0:x1] |= ring
    return area


def join_masks(things: Sequence[Thing], size: Size) -> np.ndarray:
    return np.logical_or.reduce([thing.mask for thing in things])


class Form(NamedTuple):
    """A way to answer, and the prompts that ask for it."""

    by: str
    """The field of a thing that the prompt says: "name" or "kind"."""
    area: Callable[[Sequence[Thing], Size], np.ndarray]
    """What is painted."""
    translucent: bool
    """Painted with the opacity that is asked for; else always in full."""
    templates: tuple[str, ...]
    """No article before the colour, which may begin with a vowel."""
    one: bool = False
    """Of several things that the prompt fits, a random one is painted; else all of them."""


FORMS = {
    "box": Form(
        "name",
        outline_boxes,
        False,
        (
            "Draw a box in {colour} around {thing}.",
            "Frame {thing} with a rectangle in {colour}.",
            "Where is {thing}? Answer with a box in {colour}.",
            "Put a bounding box in {colour} around {thing}.",
        ),
    ),
    "mask": Form(
        "name",
        join_masks,
        True,
        (
            "Cover {thing} with {colour}.",
            "Paint {thing} all in {colour}.",
            "Segment {thing}: mask it in {colour}.",
            "Which pixels belong to {thing}? Answer with a mask in {colour}.",
        ),
    ),
    "instance": Form(
        "kind",
        outline_boxes,
        False,
        (
            "Draw a box in {colour} around one {kind}.",
            "Detect one {kind} and frame it in {colour}.",
            "Find an instance of {kind}: a box in {colour}.",
            "Mark any {kind} in the picture with a rectangle in {colour}.",
        ),
        one=True,
    ),
    "detect": Form(
        "kind",
        outline_boxes,
        False,
        (
            "Draw a box in {colour} around every {kind}.",
            "Detect each {kind} and frame it in {colour}.",
            "Find all instances of {kind}: boxes in {colour}.",
            "Mark every {kind} in the picture with a rectangle in {colour}.",
        ),
    ),
}


PAPER_FORMS = ("box", "mask", "instance")
"""Those that a set makes if its table names none."""
OLD_FORMS = ("box", "mask", "detect")
"""Those that it made before there was "instance"."""


def make_ground_example(
    rng: np.random.Generator,
    sample: Sample,
    forms: Sequence[str] = (),
    colours: Colours = COLOURS,
    opacity: float = 1.0,
) -> Example:
    """Chooses a form (none given: of the paper's), what it asks for, a colour and a template,
    each uniformly among those that are possible."""
    phrases = {name: list_phrases(FORMS[name], sample.things) for name in (forms or PAPER_FORMS)}
    possible = [name for name, some in phrases.items() if some]
    if not possible:
        raise UnsuitableSample(
            f"The picture {sample.id!r} has nothing to find ({len(sample.things)} things, asked for "
            f"{', '.join(phrases)}), expected a thing with a name or a class: leave it out of the grounding data."
        )
    name = choose(rng, possible)
    form, phrase = FORMS[name], choose(rng, phrases[name])
    size = sample.picture.shape[:2]
    asked = [thing for thing in sample.things if getattr(thing, form.by) == phrase]
    if form.one:
        instances = list({thing.box: thing for thing in asked}.values())  # a thing with several names is there as often
        asked = [instances[int(rng.integers(len(instances)))]]
    area = form.area(asked, size)
    colour = choose(rng, find_visible_colours(sample.picture[area], colours))
    target = paint(sample.picture, area, colours[colour], opacity if form.translucent else 1.0)
    prompt = choose(rng, form.templates).format(thing=phrase, kind=phrase, colour=colour)
    return Example(sample.id, "ground", prompt, sample.picture, target, name)


def list_phrases(form: Form, things: Sequence[Thing]) -> list[str]:
    """Lists what a prompt of this form can ask for; things without a name can still have a class."""
    return list(dict.fromkeys(phrase for thing in things if (phrase := getattr(thing, form.by))))


def choose(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def find_visible_colours(pixels: np.ndarray, colours: Colours) -> list[str]:
    """Lists the colours that stand out from these pixels; if none does, all."""
    visible = [
        name
        for name, rgb in colours.items()
        if np.mean(compute_squared_distance(pixels, rgb) < MIN_DISTANCE**2) <= MAX_NEAR_SHARE
    ]
    return visible or list(colours)


def paint(picture: np.ndarray, area: np.ndarray, rgb: Sequence[int], opacity: float) -> np.ndarray:
    """Paints an area of a copy; opacity 1 hides what was there."""
    target, levels = picture.copy(), np.arange(256)
    if not area.any():
        return target
    part = find_box(area).part
    for i, level in enumerate(rgb):
        mixed = np.round(opacity * level + (1 - opacity) * levels).astype(np.uint8)
        np.copyto(target[part][..., i], mixed[picture[part][..., i]], where=area[part])
    return target


def compute_squared_distance(pixels: np.ndarray, rgb: Sequence[int]) -> np.ndarray:
    """Computes it for every pixel, a channel at a time, which takes a fraction of linalg.norm's time."""
    result = np.zeros(pixels.shape[:-1], np.float32)
    for i, level in enumerate(rgb):
        apart = np.subtract(pixels[..., i], level, dtype=np.float32)
        result += np.square(apart, out=apart)
    return result


def read_mask(
    picture: np.ndarray, source: np.ndarray, colour: str, opacity: float = 1.0, colours: Colours = COLOURS
) -> np.ndarray:
    """Finds the pixels that went at least half their way from the source to this colour, and to no other named colour.

    Where the source has the very colour already, nothing is found."""
    paint_only = picture if opacity == 1 else source + (picture.astype(np.float32) - source) / opacity
    rgb = colours[colour]
    painted = compute_squared_distance(paint_only, rgb) < MAX_REMAINING**2 * compute_squared_distance(source, rgb)
    named, indices = np.array(list(colours.values()), np.float32), np.flatnonzero(painted)
    pixels = paint_only.reshape(-1, 3)[indices].astype(np.float32)
    similarity = named @ pixels.T - np.square(named).sum(1, keepdims=True) / 2  # most where the distance is least
    index = list(colours).index(colour)
    nearest = similarity[index] == similarity.max(0)  # of equal ones the first counts
    painted.reshape(-1)[indices] = nearest & (similarity[index] > similarity[:index].max(0, initial=-np.inf))
    return painted


def read_box(
    picture: np.ndarray, colour: str, source: np.ndarray | None = None, colours: Colours = COLOURS
) -> Box | None:
    """Finds the box drawn in this colour, past stray pixels; None, if no outline can be believed.

    Its sides are the first and last rows and columns that are painted nearly as much as the fullest one. Without the
    source a grey picture stands in for it: then things that have the colour by themselves are read as painted."""
    mask = read_mask(picture, np.full_like(picture, 128) if source is None else source, colour, colours=colours)
    if not mask.any():
        return None
    rows, columns = mask.sum(1), mask.sum(0)
    ys, xs = np.nonzero(2 * rows >= rows.max())[0], np.nonzero(2 * columns >= columns.max())[0]
    box = Box(int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1)
    return box if measure_outline(mask[box.part]) >= MIN_OUTLINE else None


def measure_outline(box: np.ndarray) -> float:
    """Measures the share of a box's outermost pixels that were painted."""
    return np.concatenate([box[0], box[-1], box[:, 0], box[:, -1]]).mean()


def read_colour(
    picture: np.ndarray, source: np.ndarray, opacity: float = 1.0, colours: Colours = COLOURS
) -> str | None:
    """Finds the named colour that most pixels were painted in."""
    counts = {colour: int(read_mask(picture, source, colour, opacity, colours).sum()) for colour in colours}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] else None
