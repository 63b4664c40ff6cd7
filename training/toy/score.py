"""Scores how well a picture answers a question (tasks.py), by what the oracle reads in it.

Each measure is from 0 to 1; more is better, but for "outside" and "rest", differences of which less is better.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.ndimage import binary_dilation

from ..data.box import find_box
from ..data.tasks.canny import canny
from ..data.tasks.control import hed, lineart
from ..data.tasks.ground import read_mask
from ..data.tasks.masks import compute_iou
from ..data.tasks.read_grounding import fill_boxes, read_answer
from .oracle import Reading, read_scene
from .render import draw_frame, draw_item_mask, draw_seg_map
from .scene import MARKERS, PLACES, SIZES, Item, Scene
from .tasks import Question

DETAILS = ("shape", "colour", "texture", "size")


def has_item(scene: Scene, wanted: Item, place: str, details: Sequence[str] = DETAILS) -> bool:
    """Says whether the scene has at a place an item with these details of the wanted one."""
    item = scene.at(place)
    return item is not None and all(getattr(item, name) == getattr(wanted, name) for name in details)


def score_inpaint(question: Question, picture: np.ndarray) -> dict[str, float]:
    """outside: how far the picture is from the truth outside the hole (less is better). hit: the thing is there."""
    example = question.example
    hole = (example.source != example.target).any(-1)
    scores = {"outside": compute_mean_difference(picture, example.target, ~hole)}
    if question.item is not None:
        wanted, reading = question.scene.items[question.item], read_scene(picture)
        scores["hit"] = float(reading.is_sure(wanted.place) and has_item(reading.scene, wanted, wanted.place))
    return scores


def score_ground(question: Question, picture: np.ndarray) -> dict[str, float]:
    """iou: of the painted mask and the thing, or of the drawn box and the true one."""
    mark = question.scene.marks[0]
    item = draw_item_mask(question.scene.items[mark.item])
    if mark.form == "paint":
        return {"iou": compute_iou(read_mask(picture, question.example.source, mark.colour, colours=MARKERS), item)}
    answer = read_answer(picture, question.example.source, "box", mark.colour, MARKERS).mask
    return {"iou": compute_iou(answer, fill_boxes([find_box(draw_frame(item))], item.shape))}


EDGE_MAPS = {"canny": (canny, 128), "lineart": (lineart, 128), "hed": (hed, 64)}
"""How a kind of map is drawn, and from which brightness on, of 255, a pixel of it is an edge."""


def score_control(question: Question, picture: np.ndarray) -> dict[str, float]:
    """Scores how well the map that was given is the picture's own, under the name of its kind."""
    kind = question.example.kind
    if kind == "depth":
        return {"depth": score_depth_order(question.scene, read_scene(picture))}
    if kind == "seg":
        return {"seg": compute_mean_iou(draw_seg_map(read_scene(picture).scene), draw_seg_map(question.scene))}
    return {kind: score_edges(kind, picture, question.example.target)}


def score_edges(kind: str, picture: np.ndarray, truth: np.ndarray) -> float:
    """Compares the edges that a row of EDGE_MAPS finds in a picture with those that it finds in the true one."""
    draw_map, threshold = EDGE_MAPS[kind]
    drawn, wanted = (draw_map(image)[..., 0].astype(int) for image in (picture, truth))
    if kind == "lineart":
        drawn, wanted = 255 - drawn, 255 - wanted
    return compute_edge_f1(drawn > threshold, wanted > threshold)


def score_depth_order(scene: Scene, reading: Reading) -> float:
    """Computes share of the pairs of places whose order of depth is right; the ground is the farthest."""
    wanted = {place: list(SIZES).index(item.size) + 1 if (item := scene.at(place)) else 0 for place in PLACES}
    read = {
        place: list(SIZES).index(item.size) + 1 if (item := reading.scene.at(place)) and reading.is_sure(place) else 0
        for place in PLACES
    }
    pairs = [(a, b) for i, a in enumerate(PLACES) for b in list(PLACES)[:i] if wanted[a] != wanted[b]]
    right = [np.sign(wanted[a] - wanted[b]) == np.sign(read[a] - read[b]) for a, b in pairs]
    return float(np.mean(right))


def compute_mean_iou(drawn: np.ndarray, wanted: np.ndarray, ground: bool = True) -> float:
    """Computes the mean IoU of the classes that are wanted, with black, the ground, or without; both are segmentation maps in colours."""
    classes = [colour for colour in np.unique(wanted.reshape(-1, 3), axis=0) if ground or colour.any()]
    return float(np.mean([compute_iou((drawn == colour).all(-1), (wanted == colour).all(-1)) for colour in classes]))


def compute_edge_f1(drawn: np.ndarray, wanted: np.ndarray, reach: int = 1) -> float:
    """Computes the F1 score of edge pixels; one is right if the other picture has one within `reach` pixels."""
    if not drawn.any() or not wanted.any():
        return float(drawn.any() == wanted.any())
    precision = (drawn & binary_dilation(wanted, make_square(reach))).sum() / drawn.sum()
    recall = (wanted & binary_dilation(drawn, make_square(reach))).sum() / wanted.sum()
    return float(2 * precision * recall / max(precision + recall, 1e-9))


def make_square(reach: int) -> np.ndarray:
    return np.ones((2 * reach + 1, 2 * reach + 1), bool)


def score_subject(question: Question, picture: np.ndarray) -> dict[str, float]:
    """kept: the thing is where it was asked for, with its shape, colour and texture."""
    wanted, reading = question.scene.items[0], read_scene(picture)
    kept = reading.is_sure(wanted.place) and has_item(
        reading.scene, wanted, wanted.place, ("shape", "colour", "texture")
    )
    return {"kept": float(kept)}


def score_edit(question: Question, picture: np.ndarray) -> dict[str, float]:
    """done: the changed thing (or its absence, or the ground) is as wanted. rest: how much changed that should not
    (less is better).
    """
    example, scene = question.example, question.scene
    reading = read_scene(picture)
    changed = binary_dilation((example.source != example.target).any(-1), make_square(2))
    if example.kind == "ground":
        changed = (example.source != example.target).any(-1)
        done = reading.scene.ground == scene.ground
    elif question.item is None:
        place = next(place for place in PLACES if scene.at(place) is None and _is_changed_at(changed, place))
        done = reading.scene.at(place) is None
    else:
        wanted = scene.items[question.item]
        done = reading.is_sure(wanted.place) and has_item(reading.scene, wanted, wanted.place)
    return {"done": float(done), "rest": compute_mean_difference(picture, example.target, ~changed)}


def _is_changed_at(changed: np.ndarray, place: str) -> bool:
    """Says whether most of the change lies in a place's quarter."""
    row, column = (part * changed.shape[0] // 2 for part in PLACES[place])
    half = changed.shape[0] // 2
    return changed[row : row + half, column : column + half].sum() > changed.sum() / 2


def compute_mean_difference(picture: np.ndarray, wanted: np.ndarray, where: np.ndarray) -> float:
    """Computes the mean absolute difference, 0 to 1, of the pixels in `where` (height, width)."""
    return float(abs(picture[where].astype(float) - wanted[where]).mean() / 255) if where.any() else 0.0


SCORERS: dict[str, Callable[[Question, np.ndarray], dict[str, float]]] = {
    "inpaint": score_inpaint,
    "ground": score_ground,
    "control": score_control,
    "subject": score_subject,
    "edit": score_edit,
}
