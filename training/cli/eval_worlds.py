"""`cologen eval toy` and `cologen eval world`: the five tasks on a world that a program draws, judged by its oracle."""

import json
from argparse import Namespace, _SubParsersAction
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...prw.bank.bank import Bank
from ...prw.base_model import Base
from ...prw.flux.flux1 import stretch_positions
from ..from_scratch.ablate import ABLATION, ablate
from ..from_scratch.evaluate import READINGS
from .arguments import parse_positive, print_progress

POSITIONS = ("stretched", "counted")
SCENES = {"toy": "toy scenes", "world": "scenes of stickers"}


def add_commands(commands: _SubParsersAction) -> None:
    for name, scenes in SCENES.items():
        parser = commands.add_parser(name, help=f"the five tasks on held-out {scenes}, judged by the oracle")
        add_arguments(parser, name)
        if name == "toy":
            parser.add_argument(
                "--side", type=int, default=64, help="of the pictures in pixels; models were trained at 64"
            )
            parser.add_argument(
                "--positions",
                choices=POSITIONS,
                default=POSITIONS[0],
                help="where larger pictures' tokens lie: over the places of training, or counted beyond them",
            )
        if name == "world":
            parser.add_argument(
                "--seen", action="store_true", help="ask with the unnamed things of training, in new scenes"
            )
        parser.set_defaults(run=partial(_evaluate, name))


def add_arguments(parser: Any, name: str) -> None:
    parser.add_argument("--bank", type=Path, help=f"a bank for the {name} FLUX; the one that ships if not given")
    parser.add_argument("--base", type=Path, help=f"a folder with another {name} FLUX, VAE and text encoder")
    parser.add_argument("--n", type=parse_positive, default=256, help="scenes of each task")
    parser.add_argument(
        "--seed", type=int, nargs="+", default=[0], help="draws other scenes; of several, intervals are hierarchical"
    )
    parser.add_argument("--tasks", nargs="+", help="only these")
    parser.add_argument(
        "--reads",
        choices=READINGS,
        default=READINGS[0],
        help="what reads the sources: the bank's experts, the base's own weights, or nothing",
    )
    parser.add_argument("--router", default="", help='a stage whose router answers everything, or "final"')
    parser.add_argument(
        "--ablate",
        nargs="?",
        const="all",
        choices=("all", "blocks"),
        help="what changes if older experts' blocks go to the newest, or to none; blocks: one block at a time, too",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _evaluate(name: str, args: Namespace) -> str:
    from ..from_scratch.evaluate import Evaluation, evaluate
    from ..from_scratch.store import BANK, open_models
    from ..setup.worlds import WORLDS
    from ..toy.large import enlarge

    world = WORLDS[name]
    if unknown := [task for task in args.tasks or () if task not in world.tasks]:
        raise ValueError(f"There is no {name} task {unknown[0]!r}, expected some of {', '.join(world.tasks)}.")
    if args.ablate and len(args.seed) > 1:
        raise ValueError(f"--ablate takes one seed, not {len(args.seed)}: leave the others out.")
    models = open_models(world, args.base)
    bank = Bank.open(args.bank or world.folder / BANK)
    if problem := bank.info.base.describe_incompatibility(Base.of(models.flux)):
        raise ValueError(problem)
    if (side := getattr(args, "side", world.side)) != world.side:
        if args.positions == "stretched":
            models = models._replace(flux=stretch_positions(models.flux, world.side / side))
        world = enlarge(side)
    host, encoders = models.make_host(), models.encoders
    if getattr(args, "seen", False):
        world = replace(world, ask_held_out=world.ask)
    first, *more = args.seed
    evaluation = Evaluation(world, args.n, first, args.tasks or (), args.router, reads=args.reads, more_seeds=more)
    say = (lambda line: None) if args.json else print_progress
    if args.ablate:
        report = ablate(host, encoders, bank, evaluation, args.ablate == "blocks", say)
    else:
        report = evaluate(host, encoders, bank, evaluation, say)
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
    seeds = report.get("seeds", [report["seed"]])
    rows.append(f"{report['n']} scenes a task, seed{'s' * (len(seeds) > 1)} {' '.join(map(str, seeds))}")
    return "\n".join(rows)


def format_changes(found: dict[str, Any]) -> list[str]:
    """Formats lines of an ablation: how each measure changes, and whether the scenes show that it does."""
    rows = []
    for way, words in (("newest", "to the newest"), ("none", "to none")):
        changes = found[way]
        for name in (name for name in changes if not name.endswith("_ci")):
            low, high = changes[f"{name}_ci"]
            verdict = "a difference" if low > 0 or high < 0 else "no difference that these scenes show"
            rows.append(f"  {words:13} {name:8} {changes[name]:+.4f}   95 % {low:+.4f} to {high:+.4f}   {verdict}")
    return rows
