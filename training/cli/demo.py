"""`cologen demo`: the tasks with a built-in world's set, each picture judged by the world's oracle."""

import tempfile
from argparse import Namespace, _SubParsersAction
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...prw.bank.bank import Bank
from ...prw.tasks import TASKS
from ..from_scratch.evaluate import answer_questions
from ..from_scratch.store import BANK, open_models
from ..from_scratch.world import Question, World
from ..toy.store import TOY
from ..world.store import STICKERS

SEED = 7
HEADS = ("source", "result", "truth")
PAPER, INK, FAINT = (24, 26, 31), (222, 226, 232), (150, 156, 166)
RIGHT, WRONG = (120, 220, 140), (240, 120, 110)
LETTER = 6.8
"""Pixels that a letter takes, about."""


@dataclass(frozen=True)
class Show:
    """How a world is shown."""

    world: World
    each: int
    """Questions of each task."""
    side: int
    """Of a picture on the sheet, in pixels."""
    resample: Image.Resampling


SHOWS = {
    "toy": Show(TOY, 4, 128, Image.Resampling.NEAREST),
    "world": Show(STICKERS, 3, 192, Image.Resampling.LANCZOS),
}
BEST = "world"
"""What is shown if nobody says."""


def add_commands(commands: _SubParsersAction) -> None:
    parser = commands.add_parser("demo", help="the tasks with a built-in world's set")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--comfy", action="store_true", help="through a ComfyUI server instead")
    parser.add_argument(
        "--world", choices=list(SHOWS), default=BEST, help="toy: shapes; world: stickers (if not given)"
    )
    parser.add_argument("--base", type=Path, help="a folder with another FLUX, VAE and text encoder of that world")
    parser.add_argument("--bank", type=Path, help="a bank for it")
    parser.set_defaults(run=_demo)


def _demo(args: Namespace) -> str:
    if args.comfy and (args.base or args.bank):
        raise ValueError("--comfy shows the set that ships, expected no --base and no --bank: leave them out.")
    return str(run_demo(args.out, args.comfy, args.world, args.base, args.bank))


def run_demo(
    out: Path, comfy: bool = False, name: str = BEST, base: Path | None = None, bank: Path | None = None
) -> Path:
    """Asks every task a few questions and returns the path of one sheet: source, result, truth and verdict."""
    show = SHOWS[name]
    questions = [each for task in show.world.tasks for each in show.world.ask_held_out(task, show.each, SEED)]
    if comfy:
        from ..comfyui.server_demo import draw_examples

        with tempfile.TemporaryDirectory() as folder:
            pictures = draw_examples(Path(folder), show.world, [question.example for question in questions])
    else:
        pictures = answer_embedded(show.world, questions, base, bank)
    out.mkdir(parents=True, exist_ok=True)
    path = out / ("demo-comfy.png" if comfy else "demo.png")
    draw_sheet(show, list(zip(questions, pictures))).save(path)
    return path.resolve()


def answer_embedded(
    world: World, questions: Sequence[Question], base: Path | None = None, bank: Path | None = None
) -> list[np.ndarray]:
    """Answers questions on the embedded FLUX, one picture each."""
    models, experts = open_models(world, base), Bank.open(bank or world.folder / BANK)
    host, tasks = models.make_host(), dict.fromkeys(question.example.task for question in questions)
    parts = [[each for each in questions if each.example.task == task] for task in tasks]
    pictures: list[np.ndarray] = []
    for task, part in zip(tasks, parts):
        is_guided = task in world.guided_by_source
        pictures += [*answer_questions(host, models.encoders, experts, part, SEED, guided_by_source=is_guided)]
    return pictures


def judge(world: World, question: Question, picture: np.ndarray) -> tuple[str, bool]:
    """Gives what the oracle says of an answer, and whether that is good."""
    scores = world.scorers[question.example.task](question, picture)
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
    "right": (_format_yes, bool),
    "kept": (_format_yes, bool),
    "done": (_format_yes, bool),
    "wrong": (_format_yes, lambda value: not value),
    "rest": (_format_number, lambda value: value <= 0.04),
    **{kind: (_format_number, lambda value: value >= 0.8) for kind in ("canny", "lineart", "hed", "depth", "seg")},
}
"""How a measure is written, and when it is good."""
FORMATS = {name: format for name, (format, _) in MEASURES.items()}
IS_GOOD = {name: is_good for name, (_, is_good) in MEASURES.items()}


def draw_sheet(show: Show, answers: Sequence[tuple[Question, np.ndarray]]) -> Image.Image:
    """Draws a row a task: its questions side by side."""
    margin, text, cell = 14, 20, 3 * (show.side + 4)
    height = show.side + 3 * text + margin
    tasks = list(dict.fromkeys(question.example.task for question, _ in answers))
    size = (show.each * (cell + margin) + margin, len(tasks) * (height + text) + margin)
    canvas = Image.new("RGB", size, PAPER)
    write = partial(ImageDraw.Draw(canvas).text, font=ImageFont.load_default(size=13))
    for row, task in enumerate(tasks):
        top = margin + row * (height + text)
        write((margin, top), f"{TASKS[task].label}: {' | '.join(HEADS)}", fill=FAINT)
        entries = [entry for entry in answers if entry[0].example.task == task]
        for column, (question, picture) in enumerate(entries):
            left = margin + column * (cell + margin)
            for i, image in enumerate((question.example.source, picture, question.example.target)):
                big = Image.fromarray(image).resize((show.side, show.side), show.resample)
                canvas.paste(big, (left + i * (show.side + 4), top + text))
            words, good = judge(show.world, question, picture)
            below = top + text + show.side
            write((left, below + 2), truncate(question.example.prompt, round(cell / LETTER)), fill=INK)
            write((left, below + text), words, fill=RIGHT if good else WRONG)
    return canvas


def truncate(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
