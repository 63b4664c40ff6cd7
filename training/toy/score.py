"""How well a picture answers a question of the toy world (tasks.py), by what the oracle reads in it."""

import numpy as np
from scipy.ndimage import binary_dilation

from ..data.tasks.control import MAP_DRAWERS
from ..data.tasks.ground import read_box, read_mask
from ..data.tasks.masks import compute_iou
from .oracle import read_scene
from .render import frame_mask, item_mask, seg_map
from .scene import MARKERS, PLACES, SIZES, Scene
from .tasks import Question


def has_item(found: Scene, wanted, place: str, details=("shape", "colour", "texture", "size")) -> bool:
    item = found.at(place)
    return item is not None and all(getattr(item, name) == getattr(wanted, name) for name in details)


def score_inpaint(question: Question, picture: np.ndarray) -> dict[str, float]:
    example = question.example
    hole = (example.source != example.target).any(-1)
    scores = {"outside": mean_difference(picture, example.target, ~hole)}
    if question.item is not None:
        wanted, reading = question.scene.items[question.item], read_scene(picture)
        scores["hit"] = float(reading.is_sure(wanted.place) and has_item(reading.scene, wanted, wanted.place))
    return scores


def score_ground(question: Question, picture: np.ndarray) -> dict[str, float]:
    mark = question.scene.marks[0]
    item = item_mask(question.scene.items[mark.item])
    if mark.form == "paint":
        return {"iou": compute_iou(read_mask(picture, question.example.source, mark.colour, colours=MARKERS), item)}
    box = read_box(picture, mark.colour, question.example.source, MARKERS)
    drawn = np.zeros_like(item)
    if box is not None:
        drawn[box.part] = True
    return {"iou": compute_iou(drawn, fill_frame(frame_mask(item)))}


def fill_frame(lines: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(lines.any(1))[0], np.nonzero(lines.any(0))[0]
    area = np.zeros_like(lines)
    area[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1] = True
    return area


def score_control(question: Question, picture: np.ndarray) -> dict[str, float]:
    kind = question.example.kind
    if kind == "depth":
        return {"depth": depth_order(question.scene, read_scene(picture))}
    if kind == "seg":
        return {"seg": mean_iou(seg_map(read_scene(picture).scene), seg_map(question.scene))}
    ink = {"canny": 128, "lineart": 128, "hed": 64}[kind]
    drawn, wanted = (MAP_DRAWERS[kind](image)[..., 0].astype(int) for image in (picture, question.example.target))
    if kind == "lineart":
        drawn, wanted = 255 - drawn, 255 - wanted
    return {kind: edge_f1(drawn > ink, wanted > ink)}


def depth_order(scene: Scene, reading) -> float:
    """Share of the pairs of places whose order of depth is right; the ground is the farthest."""
    nearness = {place: list(SIZES).index(item.size) + 1 if (item := scene.at(place)) else 0 for place in PLACES}
    found = {
        place: list(SIZES).index(item.size) + 1 if (item := reading.scene.at(place)) and reading.is_sure(place) else 0
        for place in PLACES
    }
    pairs = [(a, b) for i, a in enumerate(PLACES) for b in list(PLACES)[:i] if nearness[a] != nearness[b]]
    right = [np.sign(nearness[a] - nearness[b]) == np.sign(found[a] - found[b]) for a, b in pairs]
    return float(np.mean(right))


def mean_iou(drawn: np.ndarray, wanted: np.ndarray) -> float:
    """Over the classes that are wanted, ground included; maps are colours."""
    classes = np.unique(wanted.reshape(-1, 3), axis=0)
    return float(np.mean([compute_iou((drawn == colour).all(-1), (wanted == colour).all(-1)) for colour in classes]))


def edge_f1(drawn: np.ndarray, wanted: np.ndarray, reach: int = 1) -> float:
    """An edge pixel is right if the other picture has one within `reach` pixels."""
    if not drawn.any() or not wanted.any():
        return float(drawn.any() == wanted.any())
    precision = (drawn & binary_dilation(wanted, make_square(reach))).sum() / drawn.sum()
    recall = (wanted & binary_dilation(drawn, make_square(reach))).sum() / wanted.sum()
    return float(2 * precision * recall / max(precision + recall, 1e-9))


def make_square(reach: int) -> np.ndarray:
    return np.ones((2 * reach + 1, 2 * reach + 1), bool)


def score_subject(question: Question, picture: np.ndarray) -> dict[str, float]:
    wanted, reading = question.scene.items[0], read_scene(picture)
    kept = reading.is_sure(wanted.place) and has_item(
        reading.scene, wanted, wanted.place, ("shape", "colour", "texture")
    )
    return {"kept": float(kept)}


def score_edit(question: Question, picture: np.ndarray) -> dict[str, float]:
    """Done: the changed thing (or its absence, or the ground) is as wanted. Rest: what should not change did not."""
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
    return {"done": float(done), "rest": mean_difference(picture, example.target, ~changed)}


def _is_changed_at(changed: np.ndarray, place: str) -> bool:
    row, column = (part * changed.shape[0] // 2 for part in PLACES[place])
    half = changed.shape[0] // 2
    return changed[row : row + half, column : column + half].sum() > changed.sum() / 2


def mean_difference(picture: np.ndarray, wanted: np.ndarray, where: np.ndarray) -> float:
    """Mean absolute difference, 0 to 1."""
    return float(abs(picture[where].astype(float) - wanted[where]).mean() / 255) if where.any() else 0.0


SCORERS = {
    "inpaint": score_inpaint,
    "ground": score_ground,
    "control": score_control,
    "subject": score_subject,
    "edit": score_edit,
}
