"""How good pictures are, measured: the paper's evaluation for a handful of them."""

import json
from collections.abc import Sequence
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
from comfy_api.latest import io, ui
from torch import Tensor

from ..prw.fit_image import to_rgb
from ..training.evaluation.case import Case
from ..training.evaluation.measure import Score, measure
from ..training.evaluation.metrics import METRICS, Answer
from ..training.evaluation.networks import MetricNetworks
from ..training.evaluation.report import explain_missing
from .inputs.schema import TRAINING, schema

NETWORKS = "cologen_evaluation"
"""A folder within models/."""
COMPARED = {
    "references": ("clip_i", "dino", "l1", "rmse", "ssim", "ms_ssim"),
    "sources": ("clip_i_source", "dino_source", "l1_source"),
    "prompts": ("clip_out",),
}
"""What is measured if this is given."""


class CoLoGenEvaluate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CoLoGenEvaluate",
            display_name="CoLoGen Evaluate",
            category=TRAINING,
            description="Measures pictures against right answers, their sources or their prompts, as papers do.",
            search_aliases=["CLIP score", "DINO", "SSIM", "metrics", "compare images", "L1 distance", "benchmark"],
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Image.Input("results", tooltip="What was drawn: a batch, or a list from a folder."),
                io.Image.Input(
                    "references",
                    optional=True,
                    tooltip="Right answers in the same order, or one for all: likeness and difference to them.",
                ),
                io.Image.Input(
                    "sources",
                    optional=True,
                    tooltip="What was given, in the same order, or one for all: how much of it was kept.",
                ),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    tooltip="What the pictures shall show: a line each, or one line for all. Say what is to be seen, not "
                    "what to change.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="table",
                    tooltip="The means over all pictures. CLIP and DINO need their networks in models/cologen_evaluation; "
                    "what is missing is said here.",
                ),
                io.String.Output(display_name="scores", tooltip="Each picture's own figures, as JSON."),
            ],
        )

    @classmethod
    def execute(cls, results, prompts, references=None, sources=None) -> io.NodeOutput:
        drawn = pictures_of(results)
        given = {
            "references": matched("references", pictures_of(references), len(drawn)),
            "sources": matched("sources", pictures_of(sources), len(drawn)),
            "prompts": matched(
                "prompts", [line for line in "\n".join(prompts).splitlines() if line.strip()], len(drawn)
            ),
        }
        names = [name for kind, these in COMPARED.items() if given[kind] for name in these]
        if not names:
            raise ValueError(
                "There is nothing to compare with, expected references, sources or prompts: connect or type some."
            )
        answers = [answer(i, picture, given) for i, picture in enumerate(drawn)]
        scores = measure(names, answers, MetricNetworks(Path(folder_paths.models_dir) / NETWORKS), progress(len(drawn)))
        text = table(scores)
        return io.NodeOutput(text, json.dumps(each(scores, len(drawn))), ui=ui.PreviewText(text))


def pictures_of(batches: Sequence[Tensor] | None) -> list[np.ndarray]:
    return [
        (picture * 255).round().clamp(0, 255).byte().cpu().numpy()
        for batch in batches or ()
        for picture in to_rgb(batch)
    ]


def matched(name: str, given: list, count: int) -> list:
    """As many as there are results; one counts for all."""
    if given and len(given) not in (1, count):
        raise ValueError(
            f"There are {count} results and {len(given)} {name}, expected as many, or one for all: add some, or leave "
            f"some out."
        )
    return given * count if len(given) == 1 else given


def answer(i: int, picture: np.ndarray, given: dict[str, list]) -> Answer:
    reference, source, prompt = (given[kind][i] if given[kind] else None for kind in COMPARED)
    return Answer(Case(str(i), source, prompt or "", reference), picture, Path(f"{i}.png"))


def progress(count: int):
    bar = comfy.utils.ProgressBar(count)

    def tell(line: str) -> None:
        bar.update(1)
        comfy.model_management.throw_exception_if_processing_interrupted()

    return tell


def table(scores: Sequence[Score]) -> str:
    found = [score for score in scores if not score.reason]
    widest = max((len(METRICS[score.metric].label) for score in found), default=0)
    lines = [
        f"{METRICS[score.metric].label:{widest}}  {score.total:.4g}  {'↑' if METRICS[score.metric].higher_is_better else '↓'}"
        for score in found
    ]
    return "\n".join([*lines, *explain_missing(scores)])


def each(scores: Sequence[Score], count: int) -> dict[str, list[float | None]]:
    return {score.metric: [score.value_of(f"0/{i}") for i in range(count)] for score in scores if not score.reason}
