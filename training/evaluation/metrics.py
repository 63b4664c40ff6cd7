"""METRICS: how an answer is measured. A new one is a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import distance
from .case import Case, Picture, pixels, resized
from .depth import Depth, spread
from .embedding_cache import Looker
from .fid import Inception, frechet
from .judge import LocalJudge, Marks, kept_marks, mean_of_groups
from .likeness import Clip, Dino, cosine
from .lines import Lines
from .networks import Shelf, Unmeasured
from .segmentation import Overlap, Segmenter, mean_iou, overlap


@dataclass(frozen=True)
class Answer:
    case: Case
    picture: Picture
    """What was drawn."""
    path: Path = Path()
    """Where it lies."""
    group: int = 0
    """Which of several pictures for one case."""

    @cached_property
    def drawn(self) -> np.ndarray:
        return pixels(self.picture)

    @cached_property
    def source(self) -> np.ndarray:
        return pixels(self.case.source)

    @cached_property
    def reference(self) -> np.ndarray:
        if self.case.reference is None:
            raise Unmeasured("The data has no picture to compare with, only sources and prompts.")
        return pixels(self.case.reference)

    @property
    def caption(self) -> str:
        return self.case.extra.get("caption") or self.case.prompt

    def extra(self, name: str) -> Picture:
        if name not in self.case.extra:
            raise Unmeasured(f"The data brings no {name}.")
        return self.case.extra[name]


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


class Metric(NamedTuple):
    label: str
    rises: bool
    """More is better."""
    score: Callable[[Shelf, Answer], Any]
    """Of one answer; None: it has none."""
    needs: str = ""
    """A row of CHECKPOINTS."""
    total: Callable[[Sequence], float] = mean
    each: Callable[[Any], float] | None = float
    """What stands under a picture; None: only all together mean something."""


def compared(how: Callable, to: str, shelf: Shelf, answer: Answer) -> float:
    other = getattr(answer, to)
    return how(resized(answer.drawn, other.shape[:2]), other)


def apart(how: Callable, to: str, shelf: Shelf, answer: Answer) -> float:
    """Pixel by pixel; only outside a mask that the case has."""
    other, mask = getattr(answer, to), answer.case.extra.get("mask")
    drawn = resized(answer.drawn, other.shape[:2])
    if mask is None:
        return how(drawn, other)
    if (outside := ~pixels(mask)).any():
        return how(drawn[outside][None], other[outside][None])
    raise Unmeasured("The mask covers the whole picture: nothing outside it is left to compare.")


def likeness(kind: type[Looker], key: str, to: str, shelf: Shelf, answer: Answer) -> float:
    embedder = shelf.take(key, kind)
    return cosine(embedder.see(answer.drawn), embedder.see(getattr(answer, to)))


def likeness_to_photos(kind: type[Looker], key: str, shelf: Shelf, answer: Answer) -> float:
    """The mean over all photographs of the subject, as DreamBooth has it."""
    embedder = shelf.take(key, kind)
    drawn = embedder.see(answer.drawn)
    return mean([cosine(drawn, embedder.see(pixels(photo))) for photo in answer.extra("photos")])


def agreement(key: str, shelf: Shelf, answer: Answer) -> float:
    clip = shelf.take(key, Clip)
    return cosine(clip.see(answer.drawn), clip.text(answer.caption))


def clip_score(shelf: Shelf, answer: Answer) -> float:
    return 100 * max(agreement("clip_score", shelf, answer), 0.0)


def in_depth(how: Callable, shelf: Shelf, answer: Answer) -> float:
    found = shelf.take("depth", Depth).map(answer.drawn)
    return how(found, spread(resized(answer.source, found.shape)[..., 0]))


def in_lines(shelf: Shelf, answer: Answer) -> float:
    """White on black, both: SSIM is not the same of a negative. ControlNet++ computes 1 - map on bytes, which wraps."""
    found = shelf.take("lines", Lines).map(answer.drawn)
    return distance.ms_ssim(255 - found, 255 - resized(answer.source, found.shape)[..., 0])


def classes(key: str, shelf: Shelf, answer: Answer) -> Overlap:
    segmenter, labels = shelf.take(key, Segmenter), pixels(answer.extra("labels"))
    height, width = answer.drawn.shape[:2]
    rows, columns = (np.arange(new) * old // new for new, old in zip((height, width), labels.shape))
    return overlap(segmenter.read(answer.drawn), labels[rows[:, None], columns], segmenter.classes)


def features(shelf: Shelf, answer: Answer) -> tuple[int, np.ndarray, np.ndarray]:
    inception = shelf.take("inception", Inception)
    return answer.group, inception.see(answer.drawn), inception.see(answer.reference)


def mean_fid(values: Sequence[tuple[int, np.ndarray, np.ndarray]]) -> float:
    """Each group of drawn pictures, one a case, against the photographs; then the mean."""
    groups = sorted({group for group, *_ in values})
    parts = [zip(*(pair for group, *pair in values if group == wanted)) for wanted in groups]
    return mean([frechet(list(drawn), list(real)) for drawn, real in parts])


def marks(part: str, shelf: Shelf, answer: Answer) -> tuple[str, float] | None:
    judge = shelf.take("judge", LocalJudge)
    found: Marks | None = kept_marks(judge, answer.path, answer.source, answer.drawn, answer.case.prompt)
    return found and (answer.case.extra.get("group", ""), getattr(found, part))


def judged(label: str, part: str) -> Metric:
    return Metric(label, True, partial(marks, part), "judge", mean_of_groups, lambda value: value[1])


def segmented(label: str, key: str) -> Metric:
    return Metric(label, True, partial(classes, key), key, mean_iou, lambda value: mean_iou([value]))


METRICS = {
    "clip_i_source": Metric("CLIP-I to the source", True, partial(likeness, Clip, "clip", "source"), "clip"),
    "clip_i": Metric("CLIP-I to the reference", True, partial(likeness, Clip, "clip", "reference"), "clip"),
    "clip_i_photos": Metric("CLIP-I to the subject", True, partial(likeness_to_photos, Clip, "clip"), "clip"),
    "clip_out": Metric("CLIP-T (out)", True, partial(agreement, "clip"), "clip"),
    "clip_score": Metric("CLIP score", True, clip_score, "clip_score"),
    "dino_source": Metric("DINO to the source", True, partial(likeness, Dino, "dino", "source"), "dino"),
    "dino": Metric("DINO to the reference", True, partial(likeness, Dino, "dino", "reference"), "dino"),
    "dino_photos": Metric("DINO to the subject", True, partial(likeness_to_photos, Dino, "dino"), "dino"),
    "l1_source": Metric("L1 to the source", False, partial(apart, distance.l1, "source")),
    "l1": Metric("L1 to the reference", False, partial(apart, distance.l1, "reference")),
    "rmse": Metric("RMSE to the reference", False, partial(apart, distance.rmse, "reference")),
    "colour": Metric("Colour difference to the reference", False, partial(apart, distance.colour, "reference")),
    "ssim": Metric("SSIM to the reference", True, partial(compared, distance.ssim, "reference")),
    "ms_ssim": Metric("MS-SSIM to the reference", True, partial(compared, distance.ms_ssim, "reference")),
    "depth_rmse": Metric("RMSE of depth", False, partial(in_depth, distance.rmse), "depth"),
    "depth_ssim": Metric("SSIM of depth", True, partial(in_depth, distance.ssim), "depth"),
    "lines_ms_ssim": Metric("MS-SSIM of line art", True, in_lines, "lines"),
    "miou_ade20k": segmented("mIoU", "ade20k"),
    "miou_cocostuff": segmented("mIoU", "cocostuff"),
    "fid": Metric("FID", False, features, "inception", mean_fid, None),
    "sc": judged("SC", "semantics"),
    "pq": judged("PQ", "quality"),
    "overall": judged("O", "overall"),
}
