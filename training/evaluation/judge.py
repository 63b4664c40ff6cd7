"""GEdit-Bench's two questions to a vision-language model on this machine, and the marks in its answers.

The benchmark follows VIEScore: of the marks from 0 to 10 for semantics (SC) the lowest mark counts, likewise for quality (PQ),
and the whole is sqrt(SC PQ). The wording is ours.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image

from ...prw.files.atomic_write import atomic_write
from ...prw.files.regular_file import read_regular_text
from .case import resize
from .networks import open_network, open_processor

FORM = 'Answer with JSON alone: {"score": [first, second], "reason": "one short sentence"}'
SEMANTICS = (
    "The first picture is an original, the second is what became of it by this instruction: INSTRUCTION\n"
    "Give two marks from 0 to 10. First: how well the instruction was followed (0: not at all, 10: perfectly). Second: "
    "how well everything that it does not speak of was kept (0: another picture, 10: nothing else changed).\n" + FORM
)
QUALITY = (
    "Give this picture two marks from 0 to 10. First: how natural it looks, in light, shadow, distance and scale (0: not "
    "at all, 10: as a photograph). Second: how free of faults it is, such as distortion, blur, seams, watermarks or "
    "damaged faces, hands and objects (0: full of them, 10: none).\n" + FORM
)
MAX_MARK = 10
MAX_TOKENS = 256
"""Tokens of an answer."""


class Marks(NamedTuple):
    """A picture's marks, 0 to 10."""

    semantics: float
    quality: float

    @property
    def overall(self) -> float:
        return math.sqrt(self.semantics * self.quality)


class Judge(Protocol):
    """What answers questions about pictures."""

    name: str

    def ask(self, pictures: Sequence[np.ndarray], question: str) -> str: ...


class LocalJudge:
    """A vision-language model from a folder: any that transformers opens for pictures and text."""

    def __init__(self, folder: Path, device: str):
        self.name, self.device = folder.name, device
        self.network = open_network(folder, "AutoModelForImageTextToText", device, dtype="auto")
        self.processor = open_processor(folder, "AutoProcessor")

    @torch.no_grad()
    def ask(self, pictures: Sequence[np.ndarray], question: str) -> str:
        """Returns the model's answer to a question about pictures."""
        images = [{"type": "image", "image": Image.fromarray(picture)} for picture in pictures]
        messages = [{"role": "user", "content": [*images, {"type": "text", "text": question}]}]
        inputs = self.processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(self.device)
        answer = self.network.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
        return self.processor.batch_decode(answer[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)[0]


def ask_marks(judge: Judge, source: np.ndarray, answer: np.ndarray, instruction: str) -> Marks | None:
    """Asks for a picture's marks; None if an answer has none: it is left out, where VIEScore would throw dice."""
    answer = resize(answer, source.shape[:2])
    semantics = parse_lowest_mark(judge.ask([source, answer], SEMANTICS.replace("INSTRUCTION", instruction)))
    quality = parse_lowest_mark(judge.ask([answer], QUALITY))
    return None if semantics is None or quality is None else Marks(semantics, quality)


def load_marks(judge: Judge, path: Path, source: np.ndarray, answer: np.ndarray, instruction: str) -> Marks | None:
    """Reads the marks that this judge gave the picture at `path`, kept in a file beside it; asks if there is none."""
    file = path.with_suffix(".marks.json")
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):  # none yet, or damaged: ask
        record = json.loads(read_regular_text(file, 2**20))
        if record["judge"] == judge.name:
            return Marks(*record["marks"]) if record["marks"] else None
    marks = ask_marks(judge, source, answer, instruction)
    with atomic_write(file) as partial:
        partial.write_text(json.dumps({"judge": judge.name, "marks": marks}), encoding="utf-8")
    return marks


def parse_lowest_mark(answer: str) -> float | None:
    """Parses the least number of the first list after "score"; None if there is none, or one above 10."""
    match = re.search(r'"?score"?\s*:\s*\[?([\d\s.,]+)', answer)
    numbers = re.findall(r"\d+(?:\.\d+)?", match[1]) if match else []
    marks = [float(number) for number in numbers]
    return min(marks) if marks and max(marks) <= MAX_MARK else None


def average_groups(values: Sequence[tuple[str, float]]) -> float:
    """Computes the mean of the groups' means: each kind of edit counts alike, however many there are."""
    groups = defaultdict(list)
    for group, value in values:
        groups[group].append(value)
    return float(np.mean([np.mean(part) for part in groups.values()]))
