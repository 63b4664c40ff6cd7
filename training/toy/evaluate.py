"""The curriculum's result, measured: every task asked on held-out scenes, every picture read by the oracle."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ...prw.attachment import Host
from ...prw.bank.bank import Bank
from ...prw.flux.inputs import EncodedPrompt
from ...prw.flux.sampling import make_timesteps
from ...prw.source import Routing
from ..sampling import SamplingSettings, sample_latents
from .encoders import ToyEncoders
from .score import SCORERS
from .tasks import QUESTION_MAKERS, Question, make_questions

HELD_OUT_SEED = 10**6
"""Added to an evaluation's seed, so that no training run has seen its scenes."""
STEPS = 12
CFG = 2.5


@torch.no_grad()
def answer_questions(
    host: Host,
    encoders: ToyEncoders,
    bank: Bank,
    asked: Sequence[Question],
    seed: int,
    router: str = "",
    steps: int = STEPS,
    draw: Callable[..., torch.Tensor] = sample_latents,
) -> np.ndarray:
    """Pictures uint8 (batch, height, width, 3), one a question; all of one task."""
    examples = [question.example for question in asked]
    source = encoders.encode([example.source for example in examples])
    prompt = EncodedPrompt(*encoders.encode_prompts([example.prompt for example in examples]))
    negative = EncodedPrompt(*(part.expand(len(asked), *part.shape[1:]) for part in encoders.encode_prompts([""])))
    noise = torch.randn(source.shape, generator=torch.Generator().manual_seed(seed))
    routing = Routing(task=examples[0].task, router=router)
    settings = SamplingSettings(make_timesteps(steps), cfg=CFG, negative=negative)
    return encoders.decode(draw(host, bank, routing, source, noise, prompt, settings))


def evaluate(
    host: Host,
    encoders: ToyEncoders,
    bank: Bank,
    count: int = 256,
    seed: int = 0,
    tasks: Sequence[str] = tuple(QUESTION_MAKERS),
    router: str = "",
    chunk: int = 64,
    say: Callable[[str], None] | None = None,
    draw: Callable[..., torch.Tensor] = sample_latents,
) -> dict:
    """{"inpaint": {"hit": ..., "hit_ci": [low, high], ...}, ..., "n": count}"""
    report: dict = {"n": count, "seed": seed}
    for task in tasks:
        scores = []
        asked = make_questions(task, count, HELD_OUT_SEED + seed)
        for start in range(0, count, chunk):
            some = asked[start : start + chunk]
            pictures = answer_questions(host, encoders, bank, some, seed + start, router, draw=draw)
            scores += [SCORERS[task](question, picture) for question, picture in zip(some, pictures)]
        report[task] = summarize(scores)
        if say is not None:
            say(f"{task}: {report[task]}")
    return report


def summarize(scores: Sequence[dict[str, float]]) -> dict:
    """The mean of each measure over the pictures that have it, with its 95 % interval."""
    found = {}
    for name in sorted({name for score in scores for name in score}):
        values = np.array([score[name] for score in scores if name in score])
        found[name] = round(float(values.mean()), 4)
        found[f"{name}_ci"] = [round(float(bound), 4) for bound in bootstrap_interval(values)]
    return found


def bootstrap_interval(values: np.ndarray, draws: int = 2000) -> tuple[float, float]:
    """By bootstrap: the middle 95 % of means of resampled values."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(draws, len(values)))].mean(1)
    return tuple(np.quantile(means, [0.025, 0.975]))
