"""`cologen train ...`: a curriculum, or one's own subject, in a folder, also under torchrun."""

import argparse
import signal
from argparse import Namespace, _SubParsersAction
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...prw.bank.bank import Bank
from ..base.known_models import KNOWN_MODELS, open_shape
from ..checkpoint.checkpoints import TrainingError
from ..distributed import ranks
from ..errors import RunStopped
from ..recipes.curriculum import BUDGETS, SUBJECT, Curriculum, list_recipes, scale_curriculum
from ..recipes.subject import SubjectRecipe, load_recipe, scale_recipe
from ..setup.build_run import DTYPES
from .arguments import choose_device

if TYPE_CHECKING:
    from ..listener import Listener
    from ..monitor.report import Report
    from ..monitor.terminal import ProgressLine
    from ..setup.build_run import RunInputs

ESTIMATE = f"only say what memory each stage takes; base may be a name, too: {', '.join(KNOWN_MODELS)}"
AGAIN = "Stopped, and everything is saved: give the same command with --resume to go on."


def add_commands(commands: _SubParsersAction) -> None:
    parser = commands.add_parser(
        "train",
        help="train a bank, or one's own subject, by a recipe",
        description="Trains the stages of a recipe, or fine-tunes one's own subject. Ctrl-C saves; --resume goes on.",
    )
    parser.add_argument(
        "config", metavar="CONFIG", help=f"a TOML file, or one of {', '.join([*list_recipes(), SUBJECT])}"
    )
    parser.add_argument("changes", metavar="KEY=VALUE", nargs="*", help="a setting, or STAGE.FIELD=VALUE")
    parser.add_argument("--stage", default="", help="only this one: its name, or its number from 1")
    parser.add_argument(
        "--budget",
        default="full",
        help=f"share of the recipe's iterations, {', '.join(BUDGETS)}; or one of the recipe's own",
    )
    parser.add_argument("--out", type=Path, help="a folder; out/train/RECIPE if not given")
    parser.add_argument("--device", help="cuda if there is one, else cpu, if not given")
    parser.add_argument("--seed", type=parse_seed, default=0)
    parser.add_argument("--resume", action="store_true", help="go on in a folder that is not empty")
    parser.add_argument("--bank", type=Path, help="experts to begin with; their stages are passed over")
    parser.add_argument("--estimate", action="store_true", help=ESTIMATE)
    parser.set_defaults(run=_train)


def parse_seed(text: str) -> int:
    """Parses a seed that fits into 63 bits, for argparse."""
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 to 2^63 - 1")
    return int(text)


def _train(args: Namespace) -> str:
    recipe = load_recipe(args.config, args.changes, args.budget)
    share = BUDGETS.get(args.budget, 1.0)
    recipe = scale_recipe(recipe, share) if isinstance(recipe, SubjectRecipe) else scale_curriculum(recipe, share)
    if isinstance(recipe, SubjectRecipe) and args.bank is not None:
        raise ValueError(f"--bank is {args.bank}, but a subject begins with no experts: leave it out.")
    only = find_stage(_curriculum_of(recipe), args.stage)
    if args.estimate:
        if isinstance(recipe, SubjectRecipe):
            raise ValueError("--estimate is given with a subject, expected a curriculum: leave it out.")
        return estimate_stages(recipe, only)
    out = args.out or Path("out") / "train" / _recipe_name(args)
    with ranks.join(choose_device(args.device)) as device:
        check_device(device)
        is_first = ranks.rank() == 0
        with ranks.main_process_first():
            if is_first and not args.resume and not ranks.was_restarted():
                check_unused(out)
        try:
            text = _run(args, recipe, only, out, device)
        except KeyboardInterrupt:  # before the first stage
            raise RunStopped(AGAIN, signal.SIGINT) from None
        except RunStopped as stopped:
            raise RunStopped(AGAIN if is_first else "", stopped.signal) from None
    return text if is_first else ""


def _curriculum_of(recipe: Curriculum | SubjectRecipe) -> Curriculum:
    return recipe.curriculum if isinstance(recipe, SubjectRecipe) else recipe


def estimate_stages(curriculum: Curriculum, only: str) -> str:
    """Makes a table for each stage, or for `only` one; nothing is read but the base's shape."""
    from ..estimate_recipe import estimate_recipe

    flux, dtype = open_shape(curriculum.base), DTYPES[curriculum.settings.precision]
    estimates = estimate_recipe(curriculum, flux, dtype)
    return "\n".join(f"{name} takes:\n{found.format_table()}" for name, found in estimates if only in ("", name))


def _recipe_name(args: Namespace) -> str:
    return Path(args.config).name.removesuffix(".toml")


def _run(args: Namespace, recipe: Curriculum | SubjectRecipe, only: str, out: Path, device: str) -> str:
    """Trains, and writes the report whatever happens; returns the paths of the result and of the report."""
    from ..base.placement import place_base
    from ..monitor.report import Report
    from ..monitor.stop_signal import StopSignals
    from ..monitor.terminal import ProgressLine
    from ..setup.build_run import open_run_inputs
    from ..setup.describe_maps import describe_maps

    bank, curriculum = None if args.bank is None else Bank.open(args.bank), _curriculum_of(recipe)
    line, signals = ProgressLine(), StopSignals()
    progress = line.count if ranks.rank() == 0 else lambda *_: None
    with ranks.main_process_first():
        inputs = open_run_inputs(curriculum, out, device, args.seed, BUDGETS.get(args.budget, 1.0), progress)
    report = Report(out, curriculum, args.seed, _recipe_name(args), describe_maps(curriculum))
    place_base(inputs.host.flux, curriculum.settings, device)
    listeners = [*make_listeners(out, curriculum, line, report), signals]
    try:
        with signals.installed():
            if isinstance(recipe, SubjectRecipe):
                path = train_subject(inputs, recipe, out, args.seed, listeners)
            else:
                path = train_stages(inputs, recipe, out, args.seed, listeners, bank, only)
    except RunStopped:
        raise RunStopped(signal=signals.received) from None
    finally:
        line.finish()
        if report.began:
            report.write()
    return f"{path}\n{report.path}"


def train_stages(
    inputs: "RunInputs",
    curriculum: Curriculum,
    out: Path,
    seed: int,
    listeners: "Sequence[Listener]",
    bank: Bank | None,
    only: str,
) -> Path:
    """Trains the stages of a curriculum, or `only` one; returns the bank's path."""
    from ..checkpoint.run_folder import BANK
    from ..coredi.make_trainer import make_stage_trainer
    from ..curriculum_run import CurriculumRun

    run = CurriculumRun(
        inputs.host,
        curriculum,
        inputs.datasets,
        inputs.encoders,
        out,
        seed,
        inputs.base_name,
        listeners,
        inputs.checkpointing,
        make_trainer=make_stage_trainer,
    )
    run.train(bank, only)
    return out / BANK


def train_subject(
    inputs: "RunInputs", recipe: SubjectRecipe, out: Path, seed: int, listeners: "Sequence[Listener]"
) -> Path:
    """Fine-tunes one's own subject; returns the concept's path."""
    from ..setup.worlds import WORLDS
    from ..subject.dataset import open_subject_datasets
    from ..subject.run import SubjectRun

    datasets = open_subject_datasets(recipe, inputs.encoders, seed, WORLDS.get(recipe.curriculum.base))
    run = SubjectRun(
        inputs.host, recipe, datasets, inputs.encoders, out, seed, inputs.base_name, listeners, inputs.checkpointing
    )
    run.train()
    return run.concept_path


def make_listeners(out: Path, curriculum: Curriculum, line: "ProgressLine", report: "Report") -> "list[Listener]":
    """Makes what follows a run; of several processes only the first one's are called."""
    from ..memory_estimate import MemoryReport
    from ..monitor.log import Log
    from ..monitor.samples import Samples
    from ..monitor.tensorboard import TensorBoard
    from ..monitor.terminal import Terminal

    return [
        Log(out),
        MemoryReport(line.say),
        Terminal(curriculum.stages, line),
        TensorBoard(out),
        Samples(out),
        report,
    ]


def find_stage(curriculum: Curriculum, text: str) -> str:
    """Finds a stage's name from its name or its number, counted from 1; "" stays: all of them."""
    names = [stage.name for stage in curriculum.stages]
    if text.isdecimal() and text not in names and 1 <= int(text) <= len(names):
        return names[int(text) - 1]
    if text and text not in names:
        raise ValueError(f"There is no stage {text}, expected one of {', '.join(names)}, or 1 to {len(names)}.")
    return text


def check_unused(out: Path) -> None:
    """Raises TrainingError unless a folder is new or empty."""
    if out.exists() and not out.is_dir():
        raise TrainingError(f"{out} is a file, expected a folder: choose another with --out.")
    if out.exists() and any(out.iterdir()):
        raise TrainingError(f"The folder {out} is not empty: go on there with --resume, or choose another with --out.")


def check_device(device: str) -> None:
    """Raises ValueError if tensors cannot be made there."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise ValueError(f"{device} cannot be used on this machine, expected cpu, cuda or cuda:N.") from None
