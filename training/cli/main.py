"""The terminal: `cologen train ...`, `cologen bank|bench|eval|data ...`, `cologen demo`."""

import argparse
import logging
import subprocess
import sys
from pathlib import Path

from ..errors import Stopped
from . import bank, bench, data, drift, reproduce, train
from . import compress as reshape
from . import evaluate as tables
from . import evaluate_toy as toy
from .demo import demo

GROUPS = (
    ("bank", "ACTION", "make, look at, change, import and export banks", (bank, reshape)),
    ("bench", "FIGURE", "measure on this machine", (bench,)),
    ("eval", "WORLD", "measure what a bank can do", (toy, drift, tables)),
    ("data", "ACTION", "look at training data", (data,)),
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="cologen", description="CoLoGen: experts that let FLUX.1 read a source image."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, metavar, said, members in GROUPS:
        group = commands.add_parser(name, help=said).add_subparsers(required=True, metavar=metavar)
        for member in members:
            member.add_commands(group)
    for single in (train, reproduce):
        single.add_commands(commands)
    shown = commands.add_parser("demo", help="the five tasks with the toy set that ships")
    shown.add_argument("--out", type=Path, default=Path("out"))
    shown.add_argument("--comfy", action="store_true", help="through a ComfyUI server instead")
    shown.set_defaults(run=lambda args: str(demo(args.out, args.comfy)))

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
