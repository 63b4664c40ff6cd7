"""What a bank can do on a world: every task asked on held-out scenes, every picture read by the oracle."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...prw.bank.bank import Bank
from ...prw.files.validate import check_choice, check_range
from ...prw.flux.inputs import EncodedPrompt
from ...prw.flux.sampling import make_timesteps
from ...prw.router import ABLATIONS
from ...prw.source import Routing
from ...prw.source_pass import Host
from ..forward import make_skipping_reader
from ..sampling import SamplingSettings, sample_latents, sample_with_readers
from .encoders import SmallEncoders
from .world import Question, World

HELD_OUT_SEED = 10**6
"""Added to an evaluation's seed, so that no training run has seen its scenes."""
STEPS = 12
CFG = 2.5
EXPERTS, NOTHING = "experts", "nothing"
READINGS = (EXPERTS, "base", NOTHING)
"""The bank's experts; the base's own weights, as where there is no bank; nothing, so that pictures know the prompt alone."""
Sampler = Callable[..., torch.Tensor]
"""sample_latents, or what is called as it is."""


@dataclass(frozen=True)
class Evaluation:
    """What is asked."""

    world: World
    count: int = 256
    """Questions of each task."""
    seed: int = 0
    tasks: Sequence[str] = ()
    """Empty: all of them."""
    router: str = ""
    """A stage whose router answers every task, or "final"; empty: each task has its own."""
    chunk: int = 64
    """Pictures that are sampled at once."""
    older: str = ""
    """A row of ABLATIONS: who gets what older experts would take; empty: they."""
    older_in: Sequence[str] = ()
    """The blocks in which `older` acts; empty: all."""
    reads: str = EXPERTS
    """A row of READINGS: what reads the sources."""
    more_seeds: Sequence[int] = ()
    """Others, whose questions are asked, too."""

    def __post_init__(self):
        check_range("count", self.count, 1, 10**7)
        check_range("chunk", self.chunk, 1, 10**5)
        check_choice("older", self.older, ("", *ABLATIONS))
        check_choice("reads", self.reads, READINGS)

    def make_routing(self, task: str) -> Routing:
        strength = float(self.reads == EXPERTS)
        return Routing(
            task=task, router=self.router, strength=strength, older=self.older, older_in=tuple(self.older_in)
        )


@torch.no_grad()
def answer_questions(
    host: Host,
    encoders: SmallEncoders,
    bank: Bank,
    questions: Sequence[Question],
    seed: int,
    routing: Routing | None = None,
    sampler: Sampler = sample_latents,
    guided_by_source: bool = False,
) -> np.ndarray:
    """Samples an answer to each question of one task: pictures uint8 (questions, height, width, 3).

    Without a `routing` the task's own router answers.
    """
    examples = [question.example for question in questions]
    source = encoders.encode([example.source for example in examples])
    prompt = EncodedPrompt(*encoders.encode_prompts([example.prompt for example in examples]))
    negative = EncodedPrompt(*encoders.encode_prompts([""] * len(examples)))
    noise = torch.randn(source.shape, generator=torch.Generator().manual_seed(seed))
    routing = routing or Routing(task=examples[0].task)
    settings = SamplingSettings(make_timesteps(STEPS), cfg=CFG, negative=negative, guided_by_source=guided_by_source)
    return encoders.decode(sampler(host, bank, routing, source, noise, prompt, settings))


def evaluate(
    host: Host,
    encoders: SmallEncoders,
    bank: Bank,
    evaluation: Evaluation,
    report: Callable[[str], Any] | None = None,
    sampler: Sampler = sample_latents,
) -> dict[str, Any]:
    """Gives {"n": count, "seed": seed, "inpaint": {"hit": mean, "hit_ci": [low, high], ...}, ...}; of several seeds also
    "seeds": [seed, ...].

    `report` is told each task's scores in words as soon as they are known.
    """
    seeds = [evaluation.seed, *evaluation.more_seeds]
    scores_by_task: dict[str, Any] = {"n": evaluation.count, "seed": evaluation.seed}
    scores_by_task |= {"seeds": seeds} if len(seeds) > 1 else {}
    for task in evaluation.tasks or evaluation.world.tasks:
        scores_by_task[task] = summarize(
            *(score_answers(host, encoders, bank, task, replace(evaluation, seed=seed), sampler) for seed in seeds)
        )
        if report is not None:
            report(f"{task}: {scores_by_task[task]}")
    return scores_by_task


def score_answers(
    host: Host,
    encoders: SmallEncoders,
    bank: Bank,
    task: str,
    evaluation: Evaluation,
    sampler: Sampler = sample_latents,
) -> list[dict[str, float]]:
    """Scores an answer to each of a task's questions, in their order."""
    scores, routing, world = [], evaluation.make_routing(task), evaluation.world
    sampler = sample_without_source if evaluation.reads == NOTHING else sampler
    questions = world.ask_held_out(task, evaluation.count, HELD_OUT_SEED + evaluation.seed)
    is_guided = task in world.guided_by_source
    for start in range(0, evaluation.count, evaluation.chunk):
        chunk, seed = questions[start : start + evaluation.chunk], evaluation.seed + start
        pictures = answer_questions(host, encoders, bank, chunk, seed, routing, sampler, is_guided)
        scores += [world.scorers[task](question, picture) for question, picture in zip(chunk, pictures)]
    return scores


def sample_without_source(
    host: Host,
    bank: Bank,
    routing: Routing,
    source: torch.Tensor,
    noise: torch.Tensor,
    prompt: EncodedPrompt,
    settings: SamplingSettings,
) -> torch.Tensor:
    """Samples as sample_latents does, but reads no source."""
    return sample_with_readers(host, [make_skipping_reader(host)] * 2, noise, prompt, settings)


def summarize(*seeds: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Gives the mean of each measure over the pictures that have it, and as NAME_ci its 95 % interval.

    Of several seeds' scores it is the mean of the seeds' means, and the interval is hierarchical.
    """
    summary: dict[str, Any] = {}
    for name in sorted({name for scores in seeds for score in scores for name in score}):
        groups = [np.array([score[name] for score in scores if name in score]) for scores in seeds]
        groups = [values for values in groups if len(values)]
        summary[name] = round(float(np.mean([values.mean() for values in groups])), 4)
        summary[f"{name}_ci"] = [round(float(bound), 4) for bound in bootstrap_interval(*groups)]
    return summary


def bootstrap_interval(*groups: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """Gives the middle 95 % of bootstrap_means."""
    low, high = np.quantile(bootstrap_means(*groups, draws=draws), [0.025, 0.975])
    return float(low), float(high)


def bootstrap_means(*groups: np.ndarray, draws: int) -> np.ndarray:
    """Gives the means of resampled values: of resampled groups, if there are several, each of which is resampled in itself."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(len(groups), size=(draws, len(groups))) if len(groups) > 1 else np.zeros((draws, 1), int)
    means = np.zeros(chosen.shape)
    for number, values in enumerate(groups):
        taken = chosen == number
        means[taken] = values[rng.integers(len(values), size=(taken.sum(), len(values)))].mean(1)
    return means.mean(1)
