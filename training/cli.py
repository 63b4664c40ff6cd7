"""The terminal: `cologen bank ...`, `cologen bench ...`, `cologen demo`."""

import argparse
import logging
import subprocess
import sys
from pathlib import Path

from . import bank_commands, bench_commands
from .demo import demo


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="cologen", description="CoLoGen: experts that let FLUX.1 read a source image."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    bank = commands.add_parser("bank", help="make, look at, merge, split and check banks")
    bank_commands.add_commands(bank.add_subparsers(required=True, metavar="ACTION"))
    bench = commands.add_parser("bench", help="measure on this machine")
    bench_commands.add_commands(bench.add_subparsers(required=True, metavar="FIGURE"))
    shown = commands.add_parser("demo", help="run the five tasks on the embedded FLUX")
    shown.add_argument("--out", type=Path, default=Path("out"))
    shown.add_argument("--comfy", action="store_true", help="through a ComfyUI server instead")
    shown.set_defaults(run=lambda args: str(demo(args.out, args.comfy)))

    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        sys.stdout.write(args.run(args) + "\n")
    except (ValueError, OSError, RuntimeError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"cologen: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
