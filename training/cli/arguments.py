"""What several commands read from their arguments, and how they say what they are doing."""

import argparse
import sys


def parse_positive(text: str) -> int:
    """Parses a positive whole number, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return int(text)


def choose_device(name: str | None) -> str:
    """The device that was asked for, else CUDA if there is one, else the CPU."""
    import torch

    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def print_progress(line: str) -> None:
    sys.stderr.write(line + "\n")
