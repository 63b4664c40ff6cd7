"""`cologen train ...`: a curriculum, or one's own subject, in a folder, also under torchrun."""

import argparse
import signal
from argparse import Namespace, _SubParsersAction
from pathlib import Path

import torch

from ...prw.bank.bank import Bank
from ..checkpoint.checkpoints import TrainingError
from ..distributed import ranks
from ..errors import Stopped
from ..recipes.curriculum import BUDGETS, SUBJECT, Curriculum, recipes, scaled
from ..recipes.subject import SubjectRecipe, load_recipe, shortened
from .arguments import choose_device

AGAIN = "Stopped, and everything is saved: give the same command with --resume to go on."


def add_commands(commands: _SubParsersAction) -> None:
    parser = commands.add_parser(
        "train",
        help="train a bank, or one's own subject, by a recipe",
        description="Trains the stages of a recipe, or fine-tunes one's own subject. Ctrl-C saves; --resume goes on.",
    )
    parser.add_argument("config", metavar="CONFIG", help=f"a TOML file, or one of {', '.join([*recipes(), SUBJECT])}")
    parser.add_argument("changes", metavar="KEY=VALUE", nargs="*", help="a setting, or STAGE.FIELD=VALUE")
    parser.add_argument("--stage", default="", help="only this one: its name, or its number from 1")
    parser.add_argument("--budget", choices=list(BUDGETS), default="full", help="share of the recipe's iterations")
    parser.add_argument("--out", type=Path, help="a folder; out/train/RECIPE if not given")
    parser.add_argument("--device", help="cuda if there is one, else cpu, if not given")
    parser.add_argument("--seed", type=_seed, default=0)
    parser.add_argument("--resume", action="store_true", help="go on in a folder that is not empty")
    parser.add_argument("--bank", type=Path, help="experts to begin with; their stages are passed over")
    parser.set_defaults(run=_train)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 to 2^63 - 1")
    return int(text)


def _train(args: Namespace) -> str:
    wanted = load_recipe(args.config, args.changes)
    subject = shortened(wanted, BUDGETS[args.budget]) if isinstance(wanted, SubjectRecipe) else None
    curriculum = scaled(wanted, BUDGETS[args.budget]) if subject is None else subject.curriculum
    if subject is not None and args.bank is not None:
        raise ValueError(f"--bank is {args.bank}, but a subject begins with no experts: leave it out.")
    only = stage_of(curriculum, args.stage)
    recipe = Path(args.config).name.removesuffix(".toml")
    out = args.out or Path("out") / "train" / recipe
    asked = choose_device(args.device)
    with ranks.joined(asked) as device:
        refuse_device(device)
        first = ranks.rank() == 0
        with ranks.first_alone():
            if first and not args.resume and not ranks.restarted():
                refuse_used(out)
        try:
            said = _run(args, curriculum, only, recipe, out, device, subject)
        except KeyboardInterrupt:  # before the first stage
            raise Stopped(AGAIN, signal.SIGINT) from None
        except Stopped as stopped:
            raise Stopped(AGAIN if first else "", stopped.signal) from None
    return said if first else ""


def _run(
    args: Namespace,
    curriculum: Curriculum,
    only: str,
    recipe: str,
    out: Path,
    device: str,
    subject: SubjectRecipe | None = None,
) -> str:
    from ..base.placement import settle
    from ..monitor.report import ReportWriter
    from ..monitor.stop_signal import StopSignals
    from ..monitor.terminal import ProgressLine
    from ..setup.build_run import open_run_inputs

    bank = None if args.bank is None else Bank.open(args.bank)
    line, signals, report = ProgressLine(), StopSignals(), ReportWriter(out, curriculum, args.seed, recipe)
    say = line.count if ranks.rank() == 0 else lambda *_: None
    with ranks.first_alone():
        inputs = open_run_inputs(curriculum, out, device, args.seed, BUDGETS[args.budget], say)
    settle(inputs.host.flux, curriculum.settings, device)
    listeners = [*watching(out, curriculum, line, report), signals]
    try:
        with signals.installed():
            if subject is None:
                made = train_stages(inputs, curriculum, out, args.seed, listeners, bank, only)
            else:
                made = train_subject(inputs, subject, out, args.seed, listeners)
    except Stopped:
        raise Stopped(signal=signals.received) from None
    finally:
        line.finish()
        if report.began:  # else the folder may be another run's
            report.write()
    return f"{made}\n{report.path}"


def train_stages(inputs, curriculum: Curriculum, out: Path, seed: int, listeners: list, bank: Bank | None, only: str):
    from ..checkpoint.run_folder import BANK
    from ..run import Run

    run = Run(
        inputs.host,
        curriculum,
        inputs.datasets,
        inputs.encoders,
        out,
        seed,
        inputs.base_name,
        listeners,
        inputs.checkpointing,
    )
    run.train(bank, only)
    return out / BANK


def train_subject(inputs, recipe: SubjectRecipe, out: Path, seed: int, listeners: list) -> Path:
    from ..subject.dataset import recipe_lessons
    from ..subject.run import SubjectRun

    lessons = recipe_lessons(recipe, inputs.encoders, seed)
    run = SubjectRun(
        inputs.host, recipe, lessons, inputs.encoders, out, seed, inputs.base_name, listeners, inputs.checkpointing
    )
    run.train()
    return run.path


def watching(out: Path, curriculum: Curriculum, line, report) -> list:
    """Who listens, besides signals: with several processes the first one's alone are told anything."""
    from ..memory_estimate import Memory
    from ..monitor.log import LogWriter
    from ..monitor.samples import SampleWriter
    from ..monitor.tensorboard import TensorBoardWriter
    from ..monitor.terminal import TerminalProgress

    return [
        LogWriter(out),
        Memory(line),
        TerminalProgress(curriculum.stages, line),
        TensorBoardWriter(out),
        SampleWriter(out),
        report,
    ]


def stage_of(curriculum: Curriculum, text: str) -> str:
    """A stage's name from its name or its number, counted from 1; "" stays that: all of them."""
    names = [stage.name for stage in curriculum.stages]
    if text.isdecimal() and text not in names and 1 <= int(text) <= len(names):
        return names[int(text) - 1]
    if text and text not in names:
        raise ValueError(f"There is no stage {text}, expected one of {', '.join(names)}, or 1 to {len(names)}.")
    return text


def refuse_used(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise TrainingError(f"{out} is a file, expected a folder: choose another with --out.")
    if out.exists() and any(out.iterdir()):
        raise TrainingError(f"The folder {out} is not empty: go on there with --resume, or choose another with --out.")


def refuse_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise ValueError(f"{device} cannot be used on this machine, expected cpu, cuda or cuda:N.") from None
