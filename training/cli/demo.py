"""`cologen demo`: the five tasks with the toy set that ships, each picture judged by the toy world's oracle."""

import tempfile
from argparse import _SubParsersAction
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...prw.bank.bank import Bank
from ...prw.embedded_host import EmbeddedHost
from ...prw.tasks import TASKS
from ..from_scratch.evaluate import answer_questions
from ..from_scratch.store import BANK
from ..toy.score import SCORERS
from ..toy.store import SHIPPED, open_toy_models
from ..toy.tasks import QUESTION_MAKERS, Question, make_questions

EACH = 4
"""Questions of each task."""
SEED = 7
SHOWN = 128
"""Side of a picture on the sheet: twice the toy world's."""
HEADS = ("source", "result", "truth")
PAPER, INK, FAINT = (24, 26, 31), (222, 226, 232), (150, 156, 166)
RIGHT, WRONG = (120, 220, 140), (240, 120, 110)


def add_commands(commands: _SubParsersAction) -> None:
    parser = commands.add_parser("demo", help="the five tasks with the toy set that ships")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--comfy", action="store_true", help="through a ComfyUI server instead")
    parser.set_defaults(run=lambda args: str(run_demo(args.out, args.comfy)))


def run_demo(out: Path, comfy: bool = False) -> Path:
    """Asks every task a few questions and returns the path of one sheet: source, result, truth and verdict."""
    questions = [question for task in QUESTION_MAKERS for question in make_questions(task, EACH, SEED)]
    if comfy:
        from ..comfyui.server_demo import draw_examples

        with tempfile.TemporaryDirectory() as folder:
            pictures = draw_examples(Path(folder), [question.example for question in questions])
    else:
        pictures = answer_embedded(questions)
    out.mkdir(parents=True, exist_ok=True)
    path = out / ("demo-comfy.png" if comfy else "demo.png")
    draw_sheet(list(zip(questions, pictures))).save(path)
    return path.resolve()


def answer_embedded(questions: Sequence[Question]) -> list[np.ndarray]:
    """Answers questions on the embedded FLUX, one picture each."""
    toy, bank = open_toy_models(), Bank.open(SHIPPED / BANK)
    host = EmbeddedHost(toy.flux, next(toy.flux.parameters()).dtype)
    tasks = {task: [question for question in questions if question.example.task == task] for task in QUESTION_MAKERS}
    return [picture for part in tasks.values() for picture in answer_questions(host, toy.encoders, bank, part, SEED)]


def judge(question: Question, picture: np.ndarray) -> tuple[str, bool]:
    """What the oracle says of an answer, and whether that is good."""
    scores = SCORERS[question.example.task](question, picture)
    words = ", ".join(f"{name} {FORMATS[name](value)}" for name, value in scores.items())
    return words, all(IS_GOOD[name](value) for name, value in scores.items())


def _format_yes(value: float) -> str:
    return "yes" if value else "no"


def _format_number(value: float) -> str:
    return f"{value:.2f}"


MEASURES = {
    "hit": (_format_yes, bool),
    "outside": (_format_number, lambda value: value <= 0.03),
    "iou": (_format_number, lambda value: value >= 0.75),
    "kept": (_format_yes, bool),
    "done": (_format_yes, bool),
    "rest": (_format_number, lambda value: value <= 0.04),
    **{kind: (_format_number, lambda value: value >= 0.8) for kind in ("canny", "lineart", "hed", "depth", "seg")},
}
"""How a measure is written, and when it is good."""
FORMATS = {name: format for name, (format, _) in MEASURES.items()}
IS_GOOD = {name: is_good for name, (_, is_good) in MEASURES.items()}


def draw_sheet(answers: Sequence[tuple[Question, np.ndarray]]) -> Image.Image:
    """Draws a row a task: its questions side by side."""
    margin, text, cell = 14, 20, 3 * (SHOWN + 4)
    height = SHOWN + 3 * text + margin
    tasks = list(dict.fromkeys(question.example.task for question, _ in answers))
    columns = max(sum(q.example.task == task for q, _ in answers) for task in tasks)
    size = (columns * (cell + margin) + margin, len(tasks) * (height + text) + margin)
    canvas = Image.new("RGB", size, PAPER)
    write = partial(ImageDraw.Draw(canvas).text, font=ImageFont.load_default(size=13))
    for row, task in enumerate(tasks):
        top = margin + row * (height + text)
        write((margin, top), f"{TASKS[task].label}: {' | '.join(HEADS)}", fill=FAINT)
        entries = [entry for entry in answers if entry[0].example.task == task]
        for column, (question, picture) in enumerate(entries):
            left = margin + column * (cell + margin)
            for i, image in enumerate((question.example.source, picture, question.example.target)):
                big = Image.fromarray(image).resize((SHOWN, SHOWN), Image.Resampling.NEAREST)
                canvas.paste(big, (left + i * (SHOWN + 4), top + text))
            words, good = judge(question, picture)
            write((left, top + text + SHOWN + 2), truncate(question.example.prompt, 58), fill=INK)
            write((left, top + text + SHOWN + text), words, fill=RIGHT if good else WRONG)
    return canvas


def truncate(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
