"""The five tasks on the toy world: questions, and how well a picture answers them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..data.control import MAPS, control
from ..data.ground import read_box, read_mask
from ..data.inpaint import inpaint
from ..data.masks import iou
from ..data.pairs import edit, subject
from ..data.sample import Example, Pair, Sample, Thing, Triple
from .oracle import read
from .render import depth_map, frame, item_mask, render, seg_map
from .scene import (
    COLOURS,
    FORMS,
    GROUNDS,
    MARKERS,
    PLACES,
    SHAPES,
    SIZES,
    TEXTURES,
    Mark,
    Scene,
    draw_item,
    draw_scene,
    free_places,
    pick,
)
from .words import Fact, noun, tell, tell_added, tell_all, tell_change, thing_of


@dataclass(frozen=True, eq=False)
class Question:
    example: Example
    scene: Scene
    """What the target shows."""
    item: int | None = None
    """Which of its items was asked for or changed."""


def sample_of(rng: np.random.Generator, scene: Scene, name: str) -> Sample:
    """A scene as an annotated picture, told in toy words."""
    facts = [thing_of(item) for item in scene.items]
    things = tuple(Thing(noun(rng, fact), item.shape, item_mask(item)) for fact, item in zip(facts, scene.items))
    caption = tell_all(rng, [*facts, Fact("ground", colour=scene.ground)])
    return Sample(name, render(scene), caption, things, {"depth": depth_map(scene), "seg": seg_map(scene)})


def ask_inpaint(rng: np.random.Generator, name: str) -> Question:
    scene = draw_scene(rng)
    sample = sample_of(rng, scene, name)
    example = inpaint(rng, sample)
    asked = next((i for i, thing in enumerate(sample.things) if thing.name == example.prompt), None)
    return Question(example, scene, asked)


def ask_ground(rng: np.random.Generator, name: str) -> Question:
    """A box round one thing, or the thing painted over; it is referred to by what sets it apart."""
    scene = draw_scene(rng)
    index = int(rng.integers(len(scene.items)))
    mark = Mark(pick(rng, FORMS), pick(rng, MARKERS), index)
    marked = replace(scene, marks=(mark,))
    prompt = tell(rng, referring(rng, scene, index, mark))
    return Question(Example(name, "ground", prompt, render(scene), render(marked), mark.form), marked, index)


def referring(rng: np.random.Generator, scene: Scene, index: int, mark: Mark) -> Fact:
    """A colour is enough (no two things share one); shape, or a place, may come with it."""
    item = scene.items[index]
    place = item.place if rng.random() < 0.3 else ""
    return Fact(mark.form, item.shape if rng.random() < 0.8 else "", item.colour, place=place, marker=mark.colour)


def ask_control(rng: np.random.Generator, name: str) -> Question:
    """Words say colours, textures and corners; what things are, how big and where exactly, the map says."""
    scene = draw_scene(rng, int(rng.integers(2, 4)))
    facts = [replace(thing_of(item), shape="", size="") for item in scene.items]
    caption = tell_all(rng, [*facts, Fact("ground", colour=scene.ground)])
    example = control(rng, replace(sample_of(rng, scene, name), caption=caption))
    return Question(example, scene)


def ask_subject(rng: np.random.Generator, name: str) -> Question:
    """The same thing elsewhere, on another ground; words say where, and what kind of thing, but not its looks."""
    here, there = (list(PLACES)[i] for i in rng.permutation(len(PLACES))[:2])
    ground, other = (list(GROUNDS)[i] for i in rng.permutation(len(GROUNDS))[:2])
    first = Scene(ground, (draw_item(rng, here),))
    moved = replace(draw_item(rng, there), shape=first.items[0].shape, colour=first.items[0].colour)
    second = Scene(other, (replace(moved, texture=first.items[0].texture, size=first.items[0].size),))
    captions = [
        tell_all(
            rng, [Fact("thing", scene.items[0].shape, place=scene.items[0].place), Fact("ground", colour=scene.ground)]
        )
        for scene in (first, second)
    ]
    example = subject(rng, Pair(name, render(first), render(second), *captions))
    return Question(example, second if example.prompt == captions[1] else first, 0)


def ask_edit(rng: np.random.Generator, name: str) -> Question:
    before = draw_scene(rng)
    kind = pick(rng, EDITS)
    after, prompt, item = EDITS[kind](rng, before)
    example = edit(rng, Triple(name, render(before), render(after), prompt))
    return Question(replace(example, kind=kind), after, item)


def _change(detail: str, options) -> Callable:
    def change(rng, before: Scene):
        index = int(rng.integers(len(before.items)))
        item = before.items[index]
        taken = {getattr(other, detail) for other in before.items} if detail == "colour" else {getattr(item, detail)}
        after = before.swapped(index, **{detail: pick(rng, [option for option in options if option not in taken])})
        fact = thing_of(after.items[index])
        known = {name: getattr(fact, name) for name in ("shape", detail)} | {"place": fact.place}
        if detail == "shape":
            known["colour"] = fact.colour
        return after, tell_change(rng, Fact("thing", **known), detail), index

    return change


def _add(rng, before: Scene):
    before_colours = {item.colour for item in before.items}
    place = pick(rng, free_places(before))
    item = draw_item(rng, place, pick(rng, [colour for colour in COLOURS if colour not in before_colours]))
    after = replace(before, items=(*before.items, item))
    return after, tell_added(rng, thing_of(item)), len(after.items) - 1


def _remove(rng, before: Scene):
    index = int(rng.integers(len(before.items)))
    item = before.items[index]
    after = replace(before, items=before.items[:index] + before.items[index + 1 :])
    shape = item.shape if rng.random() < 0.7 else ""
    return after, tell(rng, Fact("none", shape=shape, place=item.place)), None


def _reground(rng, before: Scene):
    after = replace(before, ground=pick(rng, [ground for ground in GROUNDS if ground != before.ground]))
    return after, tell_change(rng, Fact("ground", colour=after.ground), "colour"), None


EDITS = {
    "colour": _change("colour", COLOURS),
    "texture": _change("texture", TEXTURES),
    "shape": _change("shape", SHAPES),
    "add": _add,
    "remove": _remove,
    "ground": _reground,
}
ASK = {"inpaint": ask_inpaint, "ground": ask_ground, "control": ask_control, "subject": ask_subject, "edit": ask_edit}


def questions(task: str, count: int, seed: int) -> list[Question]:
    rng = np.random.default_rng((seed, list(ASK).index(task)))
    return [ASK[task](rng, f"{task}-{seed}-{i}") for i in range(count)]


# ---- answers ----


def same_item(found: Scene, wanted, place: str, details=("shape", "colour", "texture", "size")) -> bool:
    item = found.at(place)
    return item is not None and all(getattr(item, name) == getattr(wanted, name) for name in details)


def score_inpaint(question: Question, picture: np.ndarray) -> dict[str, float]:
    example = question.example
    hole = (example.source != example.target).any(-1)
    scores = {"outside": difference(picture, example.target, ~hole)}
    if question.item is not None:
        wanted, reading = question.scene.items[question.item], read(picture)
        scores["hit"] = float(reading.sure(wanted.place) and same_item(reading.scene, wanted, wanted.place))
    return scores


def score_ground(question: Question, picture: np.ndarray) -> dict[str, float]:
    mark = question.scene.marks[0]
    item = item_mask(question.scene.items[mark.item])
    if mark.form == "paint":
        return {"iou": iou(read_mask(picture, question.example.source, mark.colour, colours=MARKERS), item)}
    box = read_box(picture, mark.colour, question.example.source, MARKERS)
    drawn = np.zeros_like(item)
    if box is not None:
        drawn[box.y0 : box.y1, box.x0 : box.x1] = True
    return {"iou": iou(drawn, filled(frame(item)))}


def filled(lines: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(lines.any(1))[0], np.nonzero(lines.any(0))[0]
    area = np.zeros_like(lines)
    area[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1] = True
    return area


def score_control(question: Question, picture: np.ndarray) -> dict[str, float]:
    kind = question.example.kind
    if kind == "depth":
        return {"depth": depth_order(question.scene, read(picture))}
    if kind == "seg":
        return {"seg": mean_iou(seg_map(read(picture).scene), seg_map(question.scene))}
    ink = {"canny": 128, "lineart": 128, "hed": 64}[kind]
    drawn, wanted = (MAPS[kind](image)[..., 0].astype(int) for image in (picture, question.example.target))
    if kind == "lineart":
        drawn, wanted = 255 - drawn, 255 - wanted
    return {kind: edge_f1(drawn > ink, wanted > ink)}


def depth_order(scene: Scene, reading) -> float:
    """Share of the pairs of places whose order of depth is right; the ground is the farthest."""
    nearness = {place: list(SIZES).index(item.size) + 1 if (item := scene.at(place)) else 0 for place in PLACES}
    found = {
        place: list(SIZES).index(item.size) + 1 if (item := reading.scene.at(place)) and reading.sure(place) else 0
        for place in PLACES
    }
    pairs = [(a, b) for i, a in enumerate(PLACES) for b in list(PLACES)[:i] if nearness[a] != nearness[b]]
    right = [np.sign(nearness[a] - nearness[b]) == np.sign(found[a] - found[b]) for a, b in pairs]
    return float(np.mean(right))


def mean_iou(drawn: np.ndarray, wanted: np.ndarray) -> float:
    """Over the classes that are wanted, ground included; maps are colours."""
    classes = np.unique(wanted.reshape(-1, 3), axis=0)
    return float(np.mean([iou((drawn == colour).all(-1), (wanted == colour).all(-1)) for colour in classes]))


def edge_f1(drawn: np.ndarray, wanted: np.ndarray, reach: int = 1) -> float:
    """An edge pixel is right if the other picture has one within `reach` pixels."""
    if not drawn.any() or not wanted.any():
        return float(drawn.any() == wanted.any())
    precision = (drawn & widened(wanted, reach)).sum() / drawn.sum()
    recall = (wanted & widened(drawn, reach)).sum() / wanted.sum()
    return float(2 * precision * recall / max(precision + recall, 1e-9))


def widened(mask: np.ndarray, reach: int) -> np.ndarray:
    wide = np.pad(mask, reach)
    height, width = mask.shape
    steps = range(2 * reach + 1)
    return np.logical_or.reduce([wide[y : y + height, x : x + width] for y in steps for x in steps])


def score_subject(question: Question, picture: np.ndarray) -> dict[str, float]:
    wanted, reading = question.scene.items[0], read(picture)
    kept = reading.sure(wanted.place) and same_item(reading.scene, wanted, wanted.place, ("shape", "colour", "texture"))
    return {"kept": float(kept)}


def score_edit(question: Question, picture: np.ndarray) -> dict[str, float]:
    """Done: the changed thing (or its absence, or the ground) is as wanted. Rest: what should not change did not."""
    example, scene = question.example, question.scene
    reading = read(picture)
    changed = widened((example.source != example.target).any(-1), 2)
    if example.kind == "ground":
        changed = (example.source != example.target).any(-1)
        done = reading.scene.ground == scene.ground
    elif question.item is None:
        place = next(place for place in PLACES if scene.at(place) is None and _there(changed, place))
        done = reading.scene.at(place) is None
    else:
        wanted = scene.items[question.item]
        done = reading.sure(wanted.place) and same_item(reading.scene, wanted, wanted.place)
    return {"done": float(done), "rest": difference(picture, example.target, ~changed)}


def _there(changed: np.ndarray, place: str) -> bool:
    row, column = (part * changed.shape[0] // 2 for part in PLACES[place])
    half = changed.shape[0] // 2
    return changed[row : row + half, column : column + half].sum() > changed.sum() / 2


def difference(picture: np.ndarray, wanted: np.ndarray, where: np.ndarray) -> float:
    """Mean absolute difference, 0 to 1."""
    return float(abs(picture[where].astype(float) - wanted[where]).mean() / 255) if where.any() else 0.0


SCORE = {
    "inpaint": score_inpaint,
    "ground": score_ground,
    "control": score_control,
    "subject": score_subject,
    "edit": score_edit,
}
