"""The terminal: `cologen train ...`, `cologen bank|bench|eval|data ...`, `cologen demo`."""

import argparse
import logging
import subprocess
import sys
from pathlib import Path

from . import (
    bank_commands,
    bench_commands,
    data_commands,
    drift_commands,
    eval_commands,
    evaluation_commands,
    reproduce_commands,
    reshape_commands,
)
from .demo import demo
from .mishaps import Stopped
from .train_commands import add_command


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="cologen", description="CoLoGen: experts that let FLUX.1 read a source image."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    bank = commands.add_parser("bank", help="make, look at, change, import and export banks")
    actions = bank.add_subparsers(required=True, metavar="ACTION")
    bank_commands.add_commands(actions)
    reshape_commands.add_commands(actions)
    bench = commands.add_parser("bench", help="measure on this machine")
    bench_commands.add_commands(bench.add_subparsers(required=True, metavar="FIGURE"))
    judged = commands.add_parser("eval", help="measure what a bank can do")
    worlds = judged.add_subparsers(required=True, metavar="WORLD")
    eval_commands.add_commands(worlds)
    drift_commands.add_command(worlds)
    evaluation_commands.add_commands(worlds)
    data = commands.add_parser("data", help="look at training data")
    data_commands.add_commands(data.add_subparsers(required=True, metavar="ACTION"))
    shown = commands.add_parser("demo", help="the five tasks with the toy set that ships")
    shown.add_argument("--out", type=Path, default=Path("out"))
    shown.add_argument("--comfy", action="store_true", help="through a ComfyUI server instead")
    shown.set_defaults(run=lambda args: str(demo(args.out, args.comfy)))

    add_command(commands)
    reproduce_commands.add_command(commands)

    args = parsed(parser, argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if said := args.run(args):
            sys.stdout.write(said + "\n")
    except Stopped as stopped:
        if str(stopped):
            sys.stderr.write(f"cologen: {stopped}\n")
        return 128 + stopped.signal
    except ModuleNotFoundError as error:
        sys.stderr.write(f"cologen: {error.name} is not installed: pip install -e '.[train]' in the pack's folder.\n")
        return 1
    except (ValueError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"cologen: {error}\n")
        return 1
    return 0


def parsed(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """With KEY=VALUE anywhere in a command that takes them; argparse itself wants them in one place."""
    args, rest = parser.parse_known_args(argv)
    changes = [word for word in rest if "=" in word and not word.startswith("-")]
    if rest and (len(changes) < len(rest) or not hasattr(args, "changes")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if changes:
        args.changes = [*args.changes, *changes]
    return args


if __name__ == "__main__":
    sys.exit(main())
