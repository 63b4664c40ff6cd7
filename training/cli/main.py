"""The terminal: the table of its commands, a module each."""

import argparse
import logging
import subprocess
import sys
from collections.abc import Sequence

from ..errors import RunStopped
from . import bank, bank_edit, bank_extract, bench, data, demo, eval_benchmarks, eval_drift, eval_toy, reproduce, train

GROUPS = (
    ("bank", "ACTION", "make, look at, change, import and export banks", (bank, bank_edit, bank_extract)),
    ("bench", "FIGURE", "measure on this machine", (bench,)),
    ("eval", "WORLD", "measure what a bank can do", (eval_toy, eval_drift, eval_benchmarks)),
    ("data", "ACTION", "look at training data", (data,)),
)
"""Name, what its commands are called in the help, the help, and the modules that add them."""
COMMANDS = (train, reproduce, demo)
"""Modules of commands outside a group."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code; mistakes are one sentence on stderr."""
    args = parse_arguments(make_parser(), argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if text := args.run(args):
            sys.stdout.write(text + "\n")
    except RunStopped as stopped:
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


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cologen", description="CoLoGen: experts that let FLUX.1 read a source image."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, metavar, text, modules in GROUPS:
        group = commands.add_parser(name, help=text).add_subparsers(required=True, metavar=metavar)
        for module in modules:
            module.add_commands(group)
    for module in COMMANDS:
        module.add_commands(commands)
    return parser


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Takes KEY=VALUE anywhere in a command that has such; argparse itself wants them in one place."""
    args, rest = parser.parse_known_args(argv)
    changes = [word for word in rest if "=" in word and not word.startswith("-")]
    if rest and (len(changes) < len(rest) or not hasattr(args, "changes")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if changes:
        args.changes = [*args.changes, *changes]
    return args


if __name__ == "__main__":
    sys.exit(main())
