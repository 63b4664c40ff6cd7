"""METRICS: how an answer is measured. A new metric is a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.tasks.masks import compute_iou
from ..data.tasks.read_grounding import fill_boxes, read_answer
from .cached_encoder import CachedEncoder
from .case import Case, Picture, read_pixels, resize
from .depth import DepthNetwork, stretch
from .distance import colour_difference, l1, ms_ssim, rmse, ssim
from .embeddings import Clip, Dino, cosine
from .fid import Inception, frechet_distance
from .judge import LocalJudge, average_groups, load_marks
from .lines import LineNetwork
from .networks import MetricNetworks, MetricUnavailable
from .segmentation import Overlap, Segmenter, compute_miou_percent, count_overlap

Distance = Callable[[np.ndarray, np.ndarray], float]
"""How far two pictures of one size are apart."""
Encoder = Callable[[Path, str], CachedEncoder]
"""Opens a network's folder on a device."""


@dataclass(frozen=True)
class Answer:
    """A generated picture and the case that it answers."""

    case: Case
    picture: Picture
    """What was generated."""
    path: Path = Path()
    """Its file."""
    group: int = 0
    """Which of several pictures for one case."""

    @property
    def key(self) -> str:
        return f"{self.group}/{self.path.stem}"

    @cached_property
    def pixels(self) -> np.ndarray:
        return read_pixels(self.picture)

    @cached_property
    def source(self) -> np.ndarray:
        return _read_given(self.case.source)

    @cached_property
    def reference(self) -> np.ndarray:
        return _read_given(self.case.reference)

    @property
    def caption(self) -> str:
        return self.case.extra.get("caption") or self.case.prompt

    def extra(self, name: str) -> Any:
        """Gives an entry of the case's extra; MetricUnavailable if it is not there."""
        if name not in self.case.extra:
            raise MetricUnavailable(f"The data brings no {name}.")
        return self.case.extra[name]


def _read_given(picture: Picture | None) -> np.ndarray:
    if picture is None:
        raise MetricUnavailable("The data has no picture to compare with, only sources and prompts.")
    return read_pixels(picture)


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


class Metric(NamedTuple):
    """How answers are measured."""

    label: str
    higher_is_better: bool
    score: Callable[[MetricNetworks, Answer], Any]
    """Measures one answer; None: it has no value."""
    network: str = ""
    """A row of CHECKPOINTS; empty: the pixels are enough."""
    aggregate: Callable[[Sequence], float] = mean
    """Makes one figure of all values."""
    per_picture: Callable[[Any], float] | None = float
    """Makes one picture's figure of its value; None: only all together mean something."""


def compare(distance: Distance, reference: str, networks: MetricNetworks, answer: Answer) -> float:
    other = getattr(answer, reference)
    return distance(resize(answer.pixels, other.shape[:2]), other)


def compare_outside_mask(distance: Distance, reference: str, networks: MetricNetworks, answer: Answer) -> float:
    """Compares pixel by pixel, outside the mask alone if the case has one."""
    other, mask = getattr(answer, reference), answer.case.extra.get("mask")
    pixels = resize(answer.pixels, other.shape[:2])
    if mask is None:
        return distance(pixels, other)
    if (outside := ~read_pixels(mask)).any():
        return distance(pixels[outside][None], other[outside][None])
    raise MetricUnavailable("The mask covers the whole picture: nothing outside it is left to compare.")


def compare_embeddings(kind: Encoder, key: str, reference: str, networks: MetricNetworks, answer: Answer) -> float:
    embedder = networks.load(key, kind)
    return cosine(embedder.embed(answer.pixels), embedder.embed(getattr(answer, reference)))


def compare_with_photos(kind: Encoder, key: str, networks: MetricNetworks, answer: Answer) -> float:
    """Means the cosines with all photographs of the subject, as DreamBooth does."""
    embedder = networks.load(key, kind)
    embedding = embedder.embed(answer.pixels)
    return mean([cosine(embedding, embedder.embed(read_pixels(photo))) for photo in answer.extra("photos")])


def compare_with_caption(key: str, networks: MetricNetworks, answer: Answer) -> float:
    clip = networks.load(key, Clip)
    return cosine(clip.embed(answer.pixels), clip.embed_text(answer.caption))


def compute_clip_score(networks: MetricNetworks, answer: Answer) -> float:
    return 100 * max(compare_with_caption("clip_score", networks, answer), 0.0)


def compare_depth(distance: Distance, networks: MetricNetworks, answer: Answer) -> float:
    depth = networks.load("depth", DepthNetwork).predict(answer.pixels)
    return distance(depth, stretch(resize(answer.source, depth.shape)[..., 0]))


def compare_lines(networks: MetricNetworks, answer: Answer) -> float:
    """Compares white lines on black: SSIM is not the same of a negative. ControlNet++ computes 1 - map on bytes, which wraps."""
    lines = networks.load("lines", LineNetwork).predict(answer.pixels)
    return ms_ssim(255 - lines, 255 - resize(answer.source, lines.shape)[..., 0])


def compare_classes(key: str, networks: MetricNetworks, answer: Answer) -> Overlap:
    segmenter, labels = networks.load(key, Segmenter), read_pixels(answer.extra("labels"))
    height, width = answer.pixels.shape[:2]
    rows, columns = (np.arange(new) * old // new for new, old in zip((height, width), labels.shape))
    return count_overlap(segmenter.predict(answer.pixels), labels[rows[:, None], columns], segmenter.classes)


def compare_boxes(networks: MetricNetworks, answer: Answer) -> float:
    """Reads the box back from the picture; IoU with the one that was asked for, 0 where there is none."""
    asked = answer.extra("asked")
    pixels = resize(answer.pixels, answer.source.shape[:2])
    found = read_answer(pixels, answer.source, "box", asked.colour, asked.colours)
    return compute_iou(found.mask, fill_boxes([asked.box], answer.source.shape[:2]))


def extract_features(networks: MetricNetworks, answer: Answer) -> tuple[int, np.ndarray, np.ndarray]:
    inception = networks.load("inception", Inception)
    return answer.group, inception.embed(answer.pixels), inception.embed(answer.reference)


def average_fid(values: Sequence[tuple[int, np.ndarray, np.ndarray]]) -> float:
    """Means the FIDs of the groups of generated pictures, one a case, against the photographs."""
    groups = sorted({group for group, *_ in values})
    pairs = [zip(*(pair for group, *pair in values if group == wanted)) for wanted in groups]
    return mean([frechet_distance(list(generated), list(real)) for generated, real in pairs])


def judge_part(part: str, networks: MetricNetworks, answer: Answer) -> tuple[str, float] | None:
    judge = networks.load("judge", LocalJudge)
    marks = load_marks(judge, answer.path, answer.source, answer.pixels, answer.case.prompt)
    return None if marks is None else (answer.case.extra.get("group", ""), getattr(marks, part))


def make_judge_metric(label: str, part: str) -> Metric:
    return Metric(label, True, partial(judge_part, part), "judge", average_groups, lambda value: value[1])


def make_segmentation_metric(label: str, key: str) -> Metric:
    return Metric(
        label,
        True,
        partial(compare_classes, key),
        key,
        compute_miou_percent,
        lambda value: compute_miou_percent([value]),
    )


METRICS = {
    "clip_i_source": Metric("CLIP-I to the source", True, partial(compare_embeddings, Clip, "clip", "source"), "clip"),
    "clip_i": Metric("CLIP-I to the reference", True, partial(compare_embeddings, Clip, "clip", "reference"), "clip"),
    "clip_i_photos": Metric("CLIP-I to the subject", True, partial(compare_with_photos, Clip, "clip"), "clip"),
    "clip_out": Metric("CLIP-T (out)", True, partial(compare_with_caption, "clip"), "clip"),
    "clip_score": Metric("CLIP score", True, compute_clip_score, "clip_score"),
    "dino_source": Metric("DINO to the source", True, partial(compare_embeddings, Dino, "dino", "source"), "dino"),
    "dino": Metric("DINO to the reference", True, partial(compare_embeddings, Dino, "dino", "reference"), "dino"),
    "dino_photos": Metric("DINO to the subject", True, partial(compare_with_photos, Dino, "dino"), "dino"),
    "l1_source": Metric("L1 to the source", False, partial(compare_outside_mask, l1, "source")),
    "l1": Metric("L1 to the reference", False, partial(compare_outside_mask, l1, "reference")),
    "rmse": Metric("RMSE to the reference", False, partial(compare_outside_mask, rmse, "reference")),
    "colour": Metric(
        "Colour difference to the reference", False, partial(compare_outside_mask, colour_difference, "reference")
    ),
    "ssim": Metric("SSIM to the reference", True, partial(compare, ssim, "reference")),
    "ms_ssim": Metric("MS-SSIM to the reference", True, partial(compare, ms_ssim, "reference")),
    "depth_rmse": Metric("RMSE of depth", False, partial(compare_depth, rmse), "depth"),
    "depth_ssim": Metric("SSIM of depth", True, partial(compare_depth, ssim), "depth"),
    "lines_ms_ssim": Metric("MS-SSIM of line art", True, compare_lines, "lines"),
    "box_iou": Metric("IoU of the box", True, compare_boxes),
    "box_hit": Metric(
        "Boxes with an IoU of 0.5 or more, in percent",
        True,
        lambda networks, answer: 100.0 * (compare_boxes(networks, answer) >= 0.5),
    ),
    "miou_ade20k": make_segmentation_metric("mIoU", "ade20k"),
    "miou_cocostuff": make_segmentation_metric("mIoU", "cocostuff"),
    "fid": Metric("FID", False, extract_features, "inception", average_fid, None),
    "sc": make_judge_metric("SC", "semantics"),
    "pq": make_judge_metric("PQ", "quality"),
    "overall": make_judge_metric("O", "overall"),
}
