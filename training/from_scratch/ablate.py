"""Whether older experts matter: a task's measures when what they take goes to the newest expert, or to none.

The questions and the noise are the same in every run, so differences are paired; the newest expert is the one whose column
is the router's last.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ...prw.bank.bank import Bank
from ...prw.find_experts import find_router
from ...prw.flux.inputs import EncodedPrompt, FluxInputs
from ...prw.router import ABLATIONS, Route
from ...prw.source_pass import Host
from ..forward import run_source
from .encoders import SmallEncoders
from .evaluate import HELD_OUT_SEED, Evaluation, score_answers, summarize

ABLATION = "ablation"
"""The report's entry that is no task."""
Scores = Sequence[Mapping[str, float]]
"""A picture's measures each, in the order of the questions."""


def ablate(
    host: Host,
    encoders: SmallEncoders,
    bank: Bank,
    evaluation: Evaluation,
    by_block: bool = False,
    report: Callable[[str], Any] = lambda line: None,
) -> dict[str, Any]:
    """Gives what evaluate() does, and under "ablation" {"edit": {"older": share of blocks, "newest": differences, ...}}.

    `by_block` takes older experts from one block at a time, too: {"blocks": {"single_blocks.3": {"older": ..., ...}}}.
    """
    scores_by_task: dict[str, Any] = {"n": evaluation.count, "seed": evaluation.seed}
    ablations: dict[str, Any] = {}
    for task in evaluation.tasks or evaluation.world.tasks:
        routed = score_answers(host, encoders, bank, task, evaluation)
        scores_by_task[task] = summarize(routed)
        report(f"{task}: {scores_by_task[task]}")
        shares = count_older(host, encoders, bank, task, evaluation)
        if not any(shares.values()):
            report(f"{task}: no block takes an older expert")
            continue
        measure = partial(measure_changes, host, encoders, bank, task, evaluation, routed)
        ablations[task] = {"older": round(sum(shares.values()) / len(shares), 4), **measure()}
        report(f"{task}: {ablations[task]}")
        if by_block:
            taken = [block for block, share in shares.items() if share]
            ablations[task]["blocks"] = {block: {"older": shares[block], **measure(block)} for block in taken}
            report(f"{task}: {ablations[task]['blocks']}")
    return scores_by_task | {ABLATION: ablations}


def measure_changes(
    host: Host, encoders: SmallEncoders, bank: Bank, task: str, evaluation: Evaluation, routed: Scores, *blocks: str
) -> dict[str, Any]:
    """Measures, by way of ABLATIONS, what changes against the scores as routed; in some blocks, or in all if none is named."""
    asked = {way: replace(evaluation, older=way, older_in=blocks) for way in ABLATIONS}
    return {way: compare_scores(routed, score_answers(host, encoders, bank, task, how)) for way, how in asked.items()}


@torch.no_grad()
def count_older(host: Host, encoders: SmallEncoders, bank: Bank, task: str, evaluation: Evaluation) -> dict[str, float]:
    """Measures the share of a task's questions in which a block takes an older expert."""
    routing = evaluation.make_routing(task)
    columns = len(find_router(bank.info, routing)[1].experts)
    examples = [
        question.example
        for question in evaluation.world.ask_held_out(task, evaluation.count, HELD_OUT_SEED + evaluation.seed)
    ]
    older: dict[str, float] = {}
    for start in range(0, len(examples), evaluation.chunk):
        chunk = examples[start : start + evaluation.chunk]
        source = encoders.encode([example.source for example in chunk])
        prompt = EncodedPrompt(*encoders.encode_prompts([example.prompt for example in chunk]))
        inputs = FluxInputs(torch.zeros_like(source), torch.zeros(len(source), device=source.device), *prompt)
        for block, route in run_source(host, bank, routing, source, inputs).routes.items():
            older[block] = older.get(block, 0.0) + sum_older(route, columns) / len(examples)
    return {block: round(share, 4) for block, share in older.items()}


def sum_older(route: Route, columns: int) -> float:
    """Sums how many samples of a route take an older expert; of a sample that is routed token by token,
    a part of one."""
    return float((route.expert != columns - 1).float().reshape(len(route.expert), -1).mean(-1).sum())


def compare_scores(routed: Scores, ablated: Scores) -> dict[str, Any]:
    """Gives the mean change of each measure, over the questions that have it, and as NAME_ci its 95 % interval."""
    pairs = zip(routed, ablated, strict=True)
    return summarize([{name: after[name] - value for name, value in before.items()} for before, after in pairs])
