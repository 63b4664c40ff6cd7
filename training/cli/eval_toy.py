"""`cologen eval toy`: the five tasks on the toy world, judged by its oracle."""

import json
from argparse import Namespace, _SubParsersAction
from pathlib import Path
from typing import Any

from ...prw.bank.bank import Bank
from ...prw.base_model import Base
from ...prw.embedded_host import EmbeddedHost
from ..toy.ablate import ABLATION, ablate
from ..toy.evaluate import READINGS
from .arguments import parse_positive, print_progress


def add_commands(commands: _SubParsersAction) -> None:
    toy = commands.add_parser("toy", help="the five tasks on held-out toy scenes, judged by the oracle")
    toy.add_argument("--bank", type=Path, help="a bank for the toy FLUX; the one that ships if not given")
    toy.add_argument("--base", type=Path, help="a folder with another toy FLUX, VAE and text encoder")
    toy.add_argument("--n", type=parse_positive, default=256, help="scenes of each task")
    toy.add_argument("--seed", type=int, default=0, help="draws other scenes")
    toy.add_argument("--tasks", nargs="+", help="only these")
    toy.add_argument(
        "--reads",
        choices=READINGS,
        default=READINGS[0],
        help="what reads the sources: the bank's experts, the base's own weights, or nothing",
    )
    toy.add_argument("--router", default="", help='a stage whose router answers everything, or "final"')
    toy.add_argument(
        "--ablate",
        nargs="?",
        const="all",
        choices=("all", "blocks"),
        help="what changes if older experts' blocks go to the newest, or to none; blocks: one block at a time, too",
    )
    toy.add_argument("--json", action="store_true", help="print one JSON object")
    toy.set_defaults(run=_evaluate_toy)


def _evaluate_toy(args: Namespace) -> str:
    from ..toy.evaluate import ToyEvaluation, evaluate
    from ..toy.store import BANK, SHIPPED, open_toy_models
    from ..toy.tasks import QUESTION_MAKERS

    tasks = args.tasks or list(QUESTION_MAKERS)
    if unknown := [task for task in tasks if task not in QUESTION_MAKERS]:
        raise ValueError(f"There is no toy task {unknown[0]!r}, expected some of {', '.join(QUESTION_MAKERS)}.")
    toy = open_toy_models(args.base or SHIPPED)
    bank = Bank.open(args.bank or SHIPPED / BANK)
    if problem := bank.info.base.describe_incompatibility(Base.of(toy.flux)):
        raise ValueError(problem)
    host = EmbeddedHost(toy.flux, next(toy.flux.parameters()).dtype)
    evaluation = ToyEvaluation(args.n, args.seed, tasks, args.router, reads=args.reads)
    say = (lambda line: None) if args.json else print_progress
    if args.ablate:
        report = ablate(host, toy.encoders, bank, evaluation, args.ablate == "blocks", say)
    else:
        report = evaluate(host, toy.encoders, bank, evaluation, say)
    return json.dumps(report) if args.json else format_table(report)


def format_table(report: dict[str, Any]) -> str:
    rows = []
    for task, scores in report.items():
        if isinstance(scores, dict) and task != ABLATION:
            rows += [
                f"{task:8} {name:8} {value:.4f}   95 % {scores[name + '_ci'][0]:.4f} to {scores[name + '_ci'][1]:.4f}"
                for name, value in scores.items()
                if not name.endswith("_ci")
            ]
    for task, found in report.get(ABLATION, {}).items():
        rows += ["", f"{task}: older experts take {found['older']:.1%} of the blocks", *format_changes(found)]
        for block, alone in found.get("blocks", {}).items():
            rows += [f"  {block} alone, older in {alone['older']:.1%} of the scenes", *format_changes(alone)]
    return "\n".join([*rows, f"{report['n']} scenes a task, seed {report['seed']}"])


def format_changes(found: dict[str, Any]) -> list[str]:
    """Lines of an ablation: how each measure changes, and whether the scenes show that it does."""
    rows = []
    for way, words in (("newest", "to the newest"), ("none", "to none")):
        changes = found[way]
        for name in (name for name in changes if not name.endswith("_ci")):
            low, high = changes[f"{name}_ci"]
            verdict = "a difference" if low > 0 or high < 0 else "no difference that these scenes show"
            rows.append(f"  {words:13} {name:8} {changes[name]:+.4f}   95 % {low:+.4f} to {high:+.4f}   {verdict}")
    return rows
