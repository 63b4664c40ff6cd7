"""GEdit-Bench's two questions, asked to a vision-language model on this machine, and the marks out of its answers.

The benchmark follows VIEScore: of the marks from 0 to 10 for semantics (SC) the lowest counts, likewise for quality (PQ),
and the whole is sqrt(SC PQ). The wording is ours.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from ...prw.files.atomic_write import whole
from .case import resized
from .networks import network, preparation

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
HIGHEST = 10
LONGEST = 256
"""Tokens of an answer."""


class Marks(NamedTuple):
    semantics: float
    quality: float

    @property
    def overall(self) -> float:
        return math.sqrt(self.semantics * self.quality)


class LocalJudge:
    """Any model that transformers opens for pictures and text."""

    def __init__(self, folder: Path, device: str):
        self.name, self.device = folder.name, device
        self.network = network(folder, "AutoModelForImageTextToText", device, dtype="auto")
        self.processor = preparation(folder, "AutoProcessor")

    @torch.no_grad()
    def ask(self, pictures: Sequence[np.ndarray], question: str) -> str:
        shown = [{"type": "image", "image": Image.fromarray(picture)} for picture in pictures]
        said = [{"role": "user", "content": [*shown, {"type": "text", "text": question}]}]
        given = self.processor.apply_chat_template(
            said, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(self.device)
        answer = self.network.generate(**given, max_new_tokens=LONGEST, do_sample=False)
        return self.processor.batch_decode(answer[:, given.input_ids.shape[1] :], skip_special_tokens=True)[0]


def marks_of(judge, source: np.ndarray, drawn: np.ndarray, instruction: str) -> Marks | None:
    """None if an answer has no marks: it is left out, where VIEScore would throw dice."""
    drawn = resized(drawn, source.shape[:2])
    semantics = lowest(judge.ask([source, drawn], SEMANTICS.replace("INSTRUCTION", instruction)))
    quality = lowest(judge.ask([drawn], QUALITY))
    return None if semantics is None or quality is None else Marks(semantics, quality)


def kept_marks(judge, path: Path, source: np.ndarray, drawn: np.ndarray, instruction: str) -> Marks | None:
    """Asks once: the answer stays beside the picture, for this judge."""
    file = path.with_suffix(".marks.json")
    if file.exists():
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["judge"] == judge.name:
            return Marks(*known["marks"]) if known["marks"] else None
    marks = marks_of(judge, source, drawn, instruction)
    with whole(file) as partial:
        partial.write_text(json.dumps({"judge": judge.name, "marks": marks}), encoding="utf-8")
    return marks


def lowest(answer: str) -> float | None:
    """Of the first list of numbers after "score"."""
    found = re.search(r'"?score"?\s*:\s*\[?([\d\s.,]+)', answer)
    numbers = re.findall(r"\d+(?:\.\d+)?", found[1]) if found else []
    marks = [float(number) for number in numbers]
    return min(marks) if marks and max(marks) <= HIGHEST else None


def mean_of_groups(values: Sequence[tuple[str, float]]) -> float:
    """Each kind of edit counts alike, however many there are."""
    groups = defaultdict(list)
    for group, value in values:
        groups[group].append(value)
    return float(np.mean([np.mean(part) for part in groups.values()]))
