"""Scores how well a picture answers a question (tasks.py), by what the oracle reads in it.

Each measure is from 0 to 1; more is better, but for "outside", "rest" and "wrong".
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.ndimage import binary_dilation

from ..data.box import find_box
from ..data.tasks.ground import read_colour
from ..data.tasks.masks import compute_iou
from ..data.tasks.read_grounding import fill_boxes, read_answer
from ..toy.score import compute_mean_difference, compute_mean_iou, make_square, score_edges
from .oracle import Reading, read_ground, read_scene, read_subject
from .render import draw_depth_map, draw_seg_map, draw_thing_mask, find_visible_masks, list_depth_levels
from .scene import Scene, Thing, name_place
from .stickers import NAMED
from .tasks import SILHOUETTES, Question, pad_words

POSITION_TOLERANCE = 12
"""Pixels that a thing may be off its position; the next one is 16 away."""
BORDER = 4
"""Pixels that it may be outside of the place that was asked for: a drawn thing is off by as much as a pixel or two."""
NEARLY, NOWHERE = 32, -255
"""Levels of a depth map by which pixels may differ; the depth of what is not in the map."""


def is_at(found: Thing, wanted: Thing) -> bool:
    return max(abs(found.x - wanted.x), abs(found.y - wanted.y)) <= POSITION_TOLERANCE


def is_in_place(found: Thing, place: str) -> bool:
    """Says whether a thing is in a place ("top left"), or next to its border."""
    steps = (-BORDER, 0, BORDER)
    return any(name_place(found.x + x, found.y + y) == place for x in steps for y in steps)


def has_thing(reading: Reading, wanted: Thing, hue: bool = True) -> bool:
    """Says whether a thing was read near its place, and with its hue."""
    return any(is_at(found, wanted) for found in reading.find(wanted.sticker, wanted.hue if hue else None))


def score_inpaint(question: Question, picture: np.ndarray) -> dict[str, float]:
    """outside: how far the picture is from the truth outside the hole (less is better). hit: the thing is in the hole."""
    example = question.example
    hole = (example.source != example.target).any(-1)
    scores = {"outside": compute_mean_difference(picture, example.target, ~hole)}
    if question.item is not None:
        wanted = question.scene.things[question.item]
        scores["hit"] = float(has_thing(read_scene(picture), wanted, hue=bool(wanted.hue)))
    return scores


def score_ground(question: Question, picture: np.ndarray) -> dict[str, float]:
    """iou: of what was painted and what is so painted in the truth; any instance is as good as another."""
    example, form = question.example, question.example.kind
    colour = read_colour(example.target, example.source)  # not off the prompt: things have colours, too
    assert colour is not None
    answer = read_answer(picture, example.source, form, colour).mask
    if form == "mask":
        assert question.item is not None
        return {"iou": compute_iou(answer, find_visible_masks(question.scene)[question.item])}
    boxes = (fill_boxes([find_box(mask)], mask.shape) for mask in list_asked(question))
    return {"iou": max(compute_iou(answer, box) for box in boxes)}


def list_asked(question: Question) -> list[np.ndarray]:
    """Lists the masks of the things of which one is asked for."""
    masks = find_visible_masks(question.scene)
    if question.item is not None:
        return [masks[question.item]]
    prompt = pad_words(question.example.prompt)
    kinds = [(thing.sticker, NAMED.get(thing.sticker, "")) for thing in question.scene.things]
    return [mask for mask, some in zip(masks, kinds) if any(kind and f" {kind} " in prompt for kind in some)]


def score_control(question: Question, picture: np.ndarray) -> dict[str, float]:
    """Scores how well the map that was given is the picture's own, under the name of its kind; 0 for what is more like the map than like
    the answer, for a copy of a map is a picture of the same edges.
    """
    example, kind = question.example, question.example.kind
    everywhere = np.ones(picture.shape[:2], bool)
    like_map, like_answer = (
        compute_mean_difference(picture, other, everywhere) for other in (example.source, example.target)
    )
    if like_map < like_answer:
        return {kind: 0.0}
    if kind in SILHOUETTES:
        things = {thing.sticker for thing in question.scene.things}
        read = read_scene(picture, tuple(dict.fromkeys((*NAMED, *sorted(things))))).scene
        if kind == "seg":
            # without the ground, which whoever draws nothing else has right
            return {"seg": compute_mean_iou(draw_seg_map(read), draw_seg_map(question.scene), ground=False)}
        return {"depth": compare_depth(read, question.scene)}
    return {kind: score_edges(kind, picture, question.example.target)}


def compare_depth(read: Scene, wanted: Scene) -> float:
    """Gives the share of pixels whose depth is about right, of those that things cover in either scene.

    Two things that share no pixels have no order that a picture could show: each is as near as the thing of the map that it is,
    and where they share some, that one counts which was read in front.
    """
    levels = list(zip(wanted.things, list_depth_levels(wanted)))
    depth = draw_depth_map(replace(read, things=()))[..., 0].astype(int)
    for thing in read.things:
        same = [level for other, level in levels if other.sticker == thing.sticker and is_at(thing, other)]
        depth[draw_thing_mask(thing)] = same[0] if same else NOWHERE
    covered = np.logical_or.reduce([draw_thing_mask(thing) for thing in (*wanted.things, *read.things)])
    return float((abs(depth - draw_depth_map(wanted)[..., 0]) < NEARLY)[covered].mean())


def score_subject(question: Question, picture: np.ndarray) -> dict[str, float]:
    """right: of all candidates the picture shows the one that was asked for. kept: it does so in the place and on the
    ground that were asked for."""
    wanted = question.scene.things[0]
    found, (ground, *_) = read_subject(picture, question.candidates), read_ground(picture)
    right = found is not None and found.thing.sticker == wanted.sticker
    placed = found is not None and is_in_place(found.thing, wanted.place)
    return {"right": float(right), "kept": float(right and placed and ground == question.scene.ground)}


def score_edit(question: Question, picture: np.ndarray) -> dict[str, float]:
    """done: the asked change is there, and another thing is, too, for whoever draws the bare ground has removed everything.
    rest: how much changed that should not. wrong: it is not done, and another thing was changed."""
    example, after, before = question.example, question.scene, question.before
    assert before is not None
    changed = binary_dilation((example.source != example.target).any(-1), make_square(2))
    scores = {"rest": compute_mean_difference(picture, example.target, ~changed)}
    reading = read_scene(picture)
    others = [has_thing(reading, thing) for thing in before.things if thing in after.things and thing.is_named]
    if question.item is None:
        done = reading.scene.ground == after.ground
    elif example.kind == "remove":
        done = not has_thing(reading, before.things[question.item], hue=False)
    else:
        done = has_thing(reading, after.things[question.item], hue=True)
    done = done and any(others)
    wrong = {"wrong": float(not done and not all(others))} if question.item is not None else {}
    return scores | {"done": float(done)} | wrong


SCORERS: dict[str, Callable[[Question, np.ndarray], dict[str, float]]] = {
    "inpaint": score_inpaint,
    "ground": score_ground,
    "control": score_control,
    "subject": score_subject,
    "edit": score_edit,
}
