"""What several commands read from their arguments, and how they say what they are doing."""

import argparse
import sys
from typing import TextIO

from ...prw.files.validate import escape_controls

LINES = "\n\t"
"""Control characters that a text of several lines has."""


def parse_positive(text: str) -> int:
    """Parses a positive whole number, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return int(text)


def choose_device(name: str | None) -> str:
    """Chooses the device that was asked for, else CUDA if there is one, else the CPU."""
    import torch

    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def print_progress(line: str) -> None:
    write_text(sys.stderr, line)


def write_text(stream: TextIO | None, text: str) -> None:
    """Writes text for people, of which parts may come from a file: no terminal obeys it. A closed stream takes nothing."""
    if stream is not None:
        encoding = stream.encoding or "utf-8"
        stream.write(escape_controls(text, LINES).encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
