"""`cologen eval toy`: the five tasks on the toy world, judged by its oracle."""

import json
from argparse import Namespace, _SubParsersAction
from pathlib import Path

from ...prw.bank.bank import Bank
from ...prw.embedded_host import EmbeddedHost
from .arguments import parse_positive, print_progress


def add_commands(commands: _SubParsersAction) -> None:
    toy = commands.add_parser("toy", help="the five tasks on held-out toy scenes, judged by the oracle")
    toy.add_argument("--bank", type=Path, help="a bank for the toy FLUX; the one that ships if not given")
    toy.add_argument("--base", type=Path, help="a folder with another toy FLUX, VAE and text encoder")
    toy.add_argument("--n", type=parse_positive, default=256, help="scenes of each task")
    toy.add_argument("--seed", type=int, default=0, help="draws other scenes")
    toy.add_argument("--tasks", nargs="+", help="only these")
    toy.add_argument("--router", default="", help='a stage whose router answers everything, or "final"')
    toy.add_argument("--json", action="store_true", help="print one JSON object")
    toy.set_defaults(run=_toy)


def _toy(args: Namespace) -> str:
    from ..toy.evaluate import evaluate
    from ..toy.store import BANK, SHIPPED, open_set
    from ..toy.tasks import QUESTION_MAKERS

    tasks = args.tasks or list(QUESTION_MAKERS)
    if unknown := [task for task in tasks if task not in QUESTION_MAKERS]:
        raise ValueError(f"There is no toy task {unknown[0]!r}, expected some of {', '.join(QUESTION_MAKERS)}.")
    toy = open_set(args.base or SHIPPED)
    bank = Bank.open(args.bank or SHIPPED / BANK)
    say = None if args.json else print_progress
    host = EmbeddedHost(toy.flux, next(toy.flux.parameters()).dtype)
    report = evaluate(host, toy.encoders, bank, args.n, args.seed, tasks, args.router, say=say)
    return json.dumps(report) if args.json else table(report)


def table(report: dict) -> str:
    rows = []
    for task, found in report.items():
        if isinstance(found, dict):
            rows += [
                f"{task:8} {name:8} {value:.4f}   95 % {found[name + '_ci'][0]:.4f} to {found[name + '_ci'][1]:.4f}"
                for name, value in found.items()
                if not name.endswith("_ci")
            ]
    return "\n".join([*rows, f"{report['n']} scenes a task, seed {report['seed']}"])
