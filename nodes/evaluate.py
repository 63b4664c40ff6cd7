"""How good pictures are, measured: the paper's evaluation for a handful of them."""

import json
from pathlib import Path

import folder_paths
import numpy as np
from comfy_api.latest import io, ui

from ..training.comfyui.progress import open_counting_bar
from ..training.evaluation.case import Case
from ..training.evaluation.format_scores import format_table, list_values
from ..training.evaluation.measure import measure
from ..training.evaluation.metrics import Answer
from ..training.evaluation.networks import MetricNetworks
from .inputs.images import match_count, split_images
from .inputs.schema import TRAINING, make_schema

NETWORKS = "cologen_evaluation"
"""A folder within models/."""
COMPARED = {
    "references": ("clip_i", "dino", "l1", "rmse", "ssim", "ms_ssim"),
    "sources": ("clip_i_source", "dino_source", "l1_source"),
    "prompts": ("clip_out",),
}
"""Input of the node -> the metrics that are measured if it is connected."""


class CoLoGenEvaluate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
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
        pictures = split_images(results)
        lines = [line for line in "\n".join(prompts).splitlines() if line.strip()]
        given = {
            "references": match_count("references", split_images(references or []), len(pictures)),
            "sources": match_count("sources", split_images(sources or []), len(pictures)),
            "prompts": match_count("prompts", lines, len(pictures)),
        }
        names = [name for kind, metrics in COMPARED.items() if given[kind] for name in metrics]
        if not names:
            raise ValueError(
                "There is nothing to compare with, expected references, sources or prompts: connect or type some."
            )
        answers = [make_answer(i, picture, given) for i, picture in enumerate(pictures)]
        networks = MetricNetworks(Path(folder_paths.models_dir) / NETWORKS)
        scores = measure(names, answers, networks, open_counting_bar(len(answers)))
        table = format_table(scores)
        return io.NodeOutput(table, json.dumps(list_values(scores, answers)), ui=ui.PreviewText(table))


def make_answer(i: int, picture: np.ndarray, given: dict[str, list]) -> Answer:
    """Makes what the metrics take: a result with what is given for it."""
    reference, source, prompt = (given[kind][i] if given[kind] else None for kind in COMPARED)
    return Answer(Case(str(i), source, prompt or "", reference), picture, Path(f"{i}.png"))
