"""The best of several pictures, by what can be measured on this machine."""

import json
from pathlib import Path
from typing import NamedTuple

import folder_paths
import numpy as np
from comfy_api.latest import io, ui
from torch import Tensor

from ..prw.comfyui.masks import reshape_mask, resize_mask
from ..training.comfyui.progress import open_counting_bar
from ..training.evaluation.case import Case
from ..training.evaluation.format_scores import format_ranking, list_values
from ..training.evaluation.measure import measure
from ..training.evaluation.metrics import Answer
from ..training.evaluation.networks import MetricNetworks
from ..training.evaluation.ranking import average_ranks
from ..training.evaluation.report import explain_missing
from .evaluate import NETWORKS
from .inputs.images import match_count, split_images
from .inputs.schema import SAMPLING, make_schema

ALL = "all"


class Measure(NamedTuple):
    """A way to rank pictures."""

    metric: str
    """Key of METRICS (training/evaluation/metrics.py)."""
    needs: str
    """Name of the node's input that it requires."""
    ignores_mask: bool = False
    """Whether it looks at all of the reference, whatever the mask: it likes an edit best that was not made."""


MEASURES = {
    "RMSE": Measure("rmse", "reference"),
    "colour": Measure("colour", "reference"),
    "CLIP-I": Measure("clip_i", "reference", ignores_mask=True),
    "DINO": Measure("dino", "reference", ignores_mask=True),
    "CLIP-T": Measure("clip_out", "prompt"),
}


class CoLoGenBestOf(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
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
        names = select_metrics(by, given, has_mask=reference is not None and mask is not None)
        answers = make_answers(images, prompt, reference, mask)
        networks = MetricNetworks(Path(folder_paths.models_dir) / NETWORKS)
        scores = measure(names, answers, networks, open_counting_bar(len(answers)))
        measured = [score for score in scores if not score.reason]
        if not measured:
            raise ValueError(
                f"Nothing of {', '.join(names)} could be measured, expected one at least to rank by: choose a mask that "
                f"leaves something out, or put the networks of CLIP and DINO into models/{NETWORKS}."
            )
        ranks = average_ranks(measured, [answer.key for answer in answers])
        order = np.argsort(ranks, kind="stable").tolist()
        text = "\n".join([*format_ranking(measured, order, answers), *explain_missing(scores)])
        figures = json.dumps({"order": order, **list_values(measured, answers)})
        return io.NodeOutput(images[order[:keep]], text, figures, ui=ui.PreviewText(text))


def select_metrics(by: str, given: dict[str, bool], has_mask: bool = False) -> list[str]:
    """Selects rows of METRICS whose inputs are there; with a mask, ALL leaves out those that ignore it."""
    rows = list(MEASURES.values()) if by == ALL else [MEASURES[by]]
    if by == ALL and has_mask:
        rows = [row for row in rows if not row.ignores_mask]
    if names := [row.metric for row in rows if given[row.needs]]:
        return names
    needed = " or ".join(dict.fromkeys(row.needs for row in rows))
    raise ValueError(
        f"There is no {needed} to rank pictures by, expected one: connect or type it, or choose another way."
    )


def make_answers(images: Tensor, prompt: str, reference: Tensor | None, mask: Tensor | None) -> list[Answer]:
    """Makes what the metrics take: each picture with its reference, and with the mask in that one's size."""
    pictures = split_images([images])
    references = match_count("references", [] if reference is None else split_images([reference]), len(pictures))
    extras: list[dict] = [{}] * len(pictures)
    if references and mask is not None:
        masks = resize_mask(reshape_mask(mask, len(pictures)), references[0].shape[:2]).numpy()
        extras = [{"mask": masks[i % len(masks)]} for i in range(len(pictures))]
    cases = [Case(str(i), None, prompt, references[i] if references else None, extras[i]) for i in range(len(pictures))]
    return [Answer(case, picture, Path(f"{case.id}.png")) for case, picture in zip(cases, pictures)]
