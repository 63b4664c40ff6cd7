"""The best of several pictures, by what can be measured on this machine."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import folder_paths
import numpy as np
from comfy_api.latest import io, ui
from torch import Tensor

from ..prw.comfyui.masks import reshape_mask, resize_mask
from ..training.evaluation.case import Case
from ..training.evaluation.measure import Score, measure
from ..training.evaluation.metrics import METRICS, Answer
from ..training.evaluation.networks import MetricNetworks
from ..training.evaluation.ranking import average_ranks
from ..training.evaluation.report import explain_missing
from .evaluate import NETWORKS, each, matched, pictures_of, progress
from .inputs.schema import SAMPLING, schema

ALL = "all"


class Measure(NamedTuple):
    metric: str
    """A row of METRICS."""
    needs: str
    """The input that it cannot do without."""
    whole: bool = False
    """Whether it looks at all of the reference, whatever the mask: it likes an edit best that was not made."""


MEASURES = {
    "RMSE": Measure("rmse", "reference"),
    "colour": Measure("colour", "reference"),
    "CLIP-I": Measure("clip_i", "reference", whole=True),
    "DINO": Measure("dino", "reference", whole=True),
    "CLIP-T": Measure("clip_out", "prompt"),
}


class CoLoGenBestOf(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CoLoGenBestOf",
            display_name="CoLoGen Best Of",
            category=SAMPLING,
            description="Draw a batch, keep the best: ranks pictures by how like a reference they are and how they fit a "
            "prompt.",
            search_aliases=[
                "best of n",
                "rank images",
                "pick best",
                "CLIP score",
                "select image",
                "rejection sampling",
            ],
            inputs=[
                io.Image.Input(
                    "images", tooltip="A batch of pictures of one and the same wish, such as of several seeds."
                ),
                io.Int.Input("keep", default=1, min=1, max=4096, tooltip="How many come out, the best first."),
                io.Combo.Input(
                    "by",
                    options=[ALL, *MEASURES],
                    tooltip="all takes the mean of the places in everything that can be measured. RMSE and colour need a "
                    "reference alone, CLIP-I and DINO their networks besides; CLIP-T needs a prompt and CLIP.",
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="",
                    tooltip="What is to be seen, for CLIP-T; not an instruction. Empty: it does not count.",
                ),
                io.Image.Input(
                    "reference",
                    optional=True,
                    tooltip="What they shall be like: the picture that was edited, the subject, or a right answer.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White was to change: RMSE and colour then look outside it, and all leaves CLIP-I and DINO "
                    "out. As for CoLoGen Inpaint.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="best", tooltip="So many as shall be kept, the best first."),
                io.String.Output(display_name="ranking", tooltip="A line a picture, the best first, with its figures."),
                io.String.Output(
                    display_name="scores",
                    tooltip="The same as JSON: order counts the batch from 0; figures are in the batch's order.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: Tensor,
        keep: int,
        by: str,
        prompt: str = "",
        reference: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        prompt = prompt.strip()
        given = {"reference": reference is not None, "prompt": bool(prompt)}
        names = measurable(by, given, within=reference is not None and mask is not None)
        answers = answers_of(images, prompt, reference, mask)
        networks = MetricNetworks(Path(folder_paths.models_dir) / NETWORKS)
        scores = measure(names, answers, networks, progress(len(answers)))
        found = [score for score in scores if not score.reason]
        if not found:
            raise ValueError(
                f"Nothing of {', '.join(names)} could be measured, expected one at least to rank by: choose a mask that "
                f"leaves something out, or put the networks of CLIP and DINO into models/{NETWORKS}."
            )
        places = average_ranks(found, [answer.key for answer in answers])
        order = np.argsort(places, kind="stable").tolist()
        text = "\n".join([*ranking(found, order, answers), *explain_missing(scores)])
        figures = json.dumps({"order": order, **each(found, len(answers))})
        return io.NodeOutput(images[order[:keep]], text, figures, ui=ui.PreviewText(text))


def measurable(by: str, given: dict[str, bool], within: bool = False) -> list[str]:
    """Rows of METRICS whose inputs are there; not all of them look `within` a mask alone."""
    chosen = [one for one in MEASURES.values() if not (within and one.whole)] if by == ALL else [MEASURES[by]]
    if names := [one.metric for one in chosen if given[one.needs]]:
        return names
    needed = " or ".join(dict.fromkeys(one.needs for one in chosen))
    raise ValueError(
        f"There is no {needed} to rank pictures by, expected one: connect or type it, or choose another way."
    )


def answers_of(images: Tensor, prompt: str, reference: Tensor | None, mask: Tensor | None) -> list[Answer]:
    drawn = pictures_of([images])
    others = matched("references", pictures_of(None if reference is None else [reference]), len(drawn))
    extras: list[dict] = [{}] * len(drawn)
    if others and mask is not None:
        rows = resize_mask(reshape_mask(mask, len(drawn)), others[0].shape[:2]).numpy()
        extras = [{"mask": rows[i % len(rows)]} for i in range(len(drawn))]
    cases = [Case(str(i), None, prompt, others[i] if others else None, extras[i]) for i in range(len(drawn))]
    return [Answer(case, picture, Path(f"{case.id}.png")) for case, picture in zip(cases, drawn)]


def ranking(scores: Sequence[Score], order: Sequence[int], answers: Sequence[Answer]) -> list[str]:
    lines = []
    for place, i in enumerate(order, 1):
        figures = [
            f"{METRICS[score.metric].label} {score.value_of(answers[i].key):.4g} {'↑' if METRICS[score.metric].higher_is_better else '↓'}"
            for score in scores
        ]
        lines.append(f"{place}. picture {i + 1}: {', '.join(figures)}")
    return lines
