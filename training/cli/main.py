"""The terminal: the table of its commands, a module each.

Whatever ends a command is one line: a mistake, Ctrl-C (also while this is still importing), a closed output.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from types import FrameType
from typing import NoReturn

from ...prw.files.validate import escape_controls
from .arguments import LINES, write_text

GROUPS = (
    ("bank", "ACTION", "make, look at, change, import and export banks", ("bank", "bank_edit", "bank_extract")),
    ("bench", "FIGURE", "measure on this machine", ("bench",)),
    ("eval", "WORLD", "measure what a bank can do", ("eval_worlds", "eval_drift", "eval_benchmarks")),
    ("data", "ACTION", "look at training data", ("data",)),
)
"""Name, what its commands are called in the help, the help, and the modules that add them."""
COMMANDS = ("train", "reproduce", "plan", "demo")
"""Modules of commands outside a group."""
INTERRUPTED = 128 + signal.SIGINT
STOPPED = "cologen: stopped."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code; mistakes are one sentence on stderr."""
    try:
        with handle_signals(clean_up, signal.SIGTERM):
            return run_command(argv)
    except KeyboardInterrupt:
        write_text(sys.stderr, STOPPED)
        return INTERRUPTED
    except BrokenPipeError:  # who read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is not flushed into it
        return 1


def run_command(argv: Sequence[str] | None) -> int:
    # commands are imported here, for they take seconds, in which Ctrl-C is Ctrl-C, too
    with handle_signals(leave_at_once, signal.SIGINT, signal.SIGTERM):
        parser = make_parser()
    args = parse_arguments(parser, argv)
    from ..errors import RunStopped

    log_to_stderr()
    try:
        if text := args.run(args):
            write_text(sys.stdout, text)
    except RunStopped as stopped:
        if str(stopped):
            write_text(sys.stderr, f"cologen: {stopped}")
        return 128 + stopped.signal
    except BrokenPipeError:
        raise
    except ModuleNotFoundError as error:
        write_text(
            sys.stderr, f"cologen: {error.name} is not installed: pip install -e '.[train]' in the pack's folder."
        )
        return 1
    except (ValueError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        write_text(sys.stderr, f"cologen: {error}")
        return 1
    return 0


class PlainFormatter(logging.Formatter):
    """Writes records as `write_text` writes text."""

    def format(self, record: logging.LogRecord) -> str:
        return escape_controls(super().format(record), LINES)


def log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


@contextmanager
def handle_signals(handler: Callable[[int, FrameType | None], NoReturn], *numbers: int) -> Generator[None, None, None]:
    """Lets `handler` answer these signals, but those that this process was told to ignore."""
    before = {}
    with suppress(ValueError):  # not the main thread: signals are not ours
        for number in numbers:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def clean_up(number: int, frame: FrameType | None) -> NoReturn:
    """Ends this process as an exception does: what is half written is deleted on the way out."""
    raise SystemExit(128 + number)


def leave_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """Ends this process where it stands: libraries swallow exceptions while they are imported."""
    if number == signal.SIGINT:
        with suppress(OSError):
            os.write(2, f"{STOPPED}\n".encode())
    os._exit(128 + number)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cologen", description="CoLoGen: experts that let FLUX read a source image.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, metavar, text, modules in GROUPS:
        group = commands.add_parser(name, help=text).add_subparsers(required=True, metavar=metavar)
        for module in modules:
            import_module(f".{module}", __package__).add_commands(group)
    for module in COMMANDS:
        import_module(f".{module}", __package__).add_commands(commands)
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
