"""`cologen eval drift`: what applying a bank or a subject changes where nobody asked for it."""

import json
from argparse import Namespace, _SubParsersAction
from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import choose_device, parse_positive, print_progress
from .eval_benchmarks import add_generation, open_generator, parse_models, read_settings

if TYPE_CHECKING:
    from ..toy.scene import Scene

MEANS = {
    "colour": "Delta E between without and with; about 2 can be seen",
    "changed": "share of pictures that are not the same to the bit",
    "clip_t": "CLIP-T, with minus without",
    "told": "share of what was told that the oracle finds, with minus without",
}


def add_commands(commands: _SubParsersAction) -> None:
    parser = commands.add_parser("drift", help="unrelated prompts with and without a bank or a subject: forgetting")
    parser.add_argument("--subject", type=Path, help="a concept of CoLoGen Train Subject, instead of a bank")
    parser.add_argument("--prompts", type=Path, help="a text file, a prompt a line; built-in ones if not given")
    parser.add_argument("--n", type=parse_positive, default=16, help="pictures, the prompts in turn")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_generation(parser)
    parser.set_defaults(run=_drift)


def _drift(args: Namespace) -> str:
    from ..evaluation.drift import apply_subject, attach_bank, generate_pairs, score_pairs
    from ..evaluation.networks import MetricNetworks
    from ..from_scratch.evaluate import summarize

    if args.subject and args.bank:
        raise ValueError("Both --bank and --subject are given, expected one of them: measure them one by one.")
    device = choose_device(args.device)
    prompts, scenes = read_prompts(args)
    generator = open_generator(args, read_settings(args), device)
    applied = apply_subject(generator, args.subject) if args.subject else attach_bank(generator)
    say = (lambda line: None) if args.json else print_progress
    answers = generate_pairs(generator, applied, prompts, (read_side(args),) * 2, args.seed, say)
    scores, reason = score_pairs(answers, MetricNetworks(args.checkpoints, parse_models(args.model), device), scenes)
    report = {**summarize(scores), "n": len(answers), "seed": args.seed, **({"clip_t_why": reason} if reason else {})}
    return json.dumps(report) if args.json else format_table(report)


def read_prompts(args: Namespace) -> "tuple[list[str], list[Scene]]":
    """Reads the prompts, and on the toy world the scenes that they describe."""
    from ..evaluation.drift import PROMPTS, draw_unrelated
    from ..toy.scene import SIDE

    if not args.flux and not args.prompts and read_side(args) == SIDE:
        scenes, prompts = zip(*draw_unrelated(args.n, args.seed))
        return list(prompts), list(scenes)
    lines = args.prompts.read_text(encoding="utf-8").splitlines() if args.prompts else PROMPTS
    if not (prompts := [line.strip() for line in lines if line.strip()]):
        raise ValueError(f"There is no prompt in {args.prompts}, expected a line each: write some.")
    return list(islice(cycle(prompts), args.n)), []


def read_side(args: Namespace) -> int:
    """Reads side of the pictures in pixels."""
    from ..toy.scene import SIDE

    return args.side or (512 if args.flux else SIDE)


def format_table(report: Mapping[str, Any]) -> str:
    """Formats a line a figure, with its 95 % interval."""
    lines = []
    for name, means in MEANS.items():
        if name in report:
            low, high = report[f"{name}_ci"]
            lines.append(f"{name:8} {report[name]:9.4f}   95 % {low:.4f} to {high:.4f}   {means}")
    reasons = [report["clip_t_why"]] if "clip_t_why" in report else []
    return "\n".join([*lines, *reasons, f"{report['n']} pictures, seed {report['seed']}"])
