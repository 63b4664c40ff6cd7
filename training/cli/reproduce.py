"""`cologen reproduce EXPERIMENT`: a table, and a picture of means and standard deviations."""

import json
import sys
from argparse import Namespace, _SubParsersAction
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..monitor.route_map import COLOURS, EMPTY, INK, PAPER
from ..recipes.curriculum import BUDGETS, SUBJECT
from .evaluate_toy import positive

MEASURES = {"subject": ("kept",), "edit": ("done", "rest")}
"""What tables show of a task; `rest` is a difference: less is better."""
MAIN = {"inpaint": "hit", "ground": "iou", "control": "seg", "subject": "kept", "edit": "done"}
"""A task in one number."""


def add_commands(commands: _SubParsersAction) -> None:
    names = ("table5", "rho", "alpha", "rank", "coredi", "forgetting", SUBJECT)
    parser = commands.add_parser("reproduce", help="the paper's experiments on the toy world")
    parser.add_argument("experiment", choices=names)
    parser.add_argument("--budget", choices=list(BUDGETS), default="small", help="share of the toy recipe's iterations")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--n", type=positive, default=128, help="scenes of each task")
    parser.add_argument("--out", type=Path, help="a folder; out/reproduce/BUDGET if not given")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_reproduce)


def _reproduce(args: Namespace) -> str:
    from ..experiments.curricula import EXPERIMENTS, Laboratory

    if args.experiment == SUBJECT:
        return _reproduce_subject(args)
    out = args.out or Path("out") / "reproduce" / args.budget
    laboratory = Laboratory(out, args.budget, args.n, lambda line: sys.stderr.write(line + "\n"))
    found = laboratory.perform(args.experiment, args.seeds)
    if args.json:
        return json.dumps(found)
    head = f"{EXPERIMENTS[args.experiment].says} Budget {args.budget}, {args.seeds} seeds, {args.n} scenes a task."
    if args.experiment == "forgetting":
        return head + "\n\n" + forgetting_table(found["curriculum"])
    rows = summary(found)
    picture = out / f"{args.experiment}.png"
    draw_rows(rows).save(picture)
    return f"{head}\n\n{table(rows)}\n\n{picture}"


def _reproduce_subject(args: Namespace) -> str:
    from ..experiments.subject import SAYS, SubjectLaboratory, draw_curves, summary

    out = args.out or Path("out") / "reproduce" / args.budget
    laboratory = SubjectLaboratory(out, args.budget, args.n, lambda line: sys.stderr.write(line + "\n"))
    found = laboratory.perform(args.seeds)
    if args.json:
        return json.dumps(found)
    picture = out / f"{SUBJECT}.png"
    draw_curves(found).save(picture)
    head = f"{SAYS} Budget {args.budget}, {args.seeds} seeds, {args.n} questions."
    return f"{head}\n\n{table(summary(found))}\n\n{picture}"


def summary(found: dict) -> dict[str, dict[str, tuple[float, float]]]:
    """{row: {"edit done": (mean, sd), ..., "usage error": ...}}"""
    from ..experiments.curricula import mean_and_sd

    rows = {}
    for row, seeds in found.items():
        reports = list(seeds.values())
        rows[row] = {
            f"{task} {name}": mean_and_sd([report[task][name] for report in reports])
            for task, names in MEASURES.items()
            for name in names
        }
        rows[row]["usage"] = mean_and_sd([list(report["usage"].values())[-1] for report in reports])
    return rows


def table(rows: dict[str, dict[str, tuple[float, float]]]) -> str:
    names = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row, values in rows.items():
        lines.append(f"| {row} | " + " | ".join(f"{mean:.3f} ± {sd:.3f}" for mean, sd in values.values()) + " |")
    return "\n".join(lines)


def forgetting_table(seeds: dict) -> str:
    """A row a stage: every task so far with its own router, and in brackets with the newest."""
    from ..experiments.curricula import mean_and_sd

    after = [report["after"] for report in seeds.values()]
    stages = list(after[0])
    lines = ["| after | " + " | ".join(f"{task} {MAIN[task]}" for task in MAIN) + " |", "|---" * (len(MAIN) + 1) + "|"]
    for stage in stages:
        cells = []
        for task, name in MAIN.items():
            if task not in after[0][stage]["own"]:
                cells.append("")
                continue
            own, final = (
                mean_and_sd([each[stage][router][task][name] for each in after]) for router in ("own", "final")
            )
            cells.append(f"{own[0]:.3f} ± {own[1]:.3f} ({final[0]:.3f} ± {final[1]:.3f})")
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw_rows(rows: dict[str, dict[str, tuple[float, float]]]) -> Image.Image:
    """A dot a row and measure, with its standard deviation as a line; all on a scale from 0 to 1."""
    names, left, width, line = list(next(iter(rows.values()))), 175, 480, 22
    height = 40 + len(names) * (len(rows) * line + 26)
    sheet = Image.new("RGB", (left + width + 40, height), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    y = 16
    for name in names:
        draw.text((left, y), name, INK, font)
        y += 22
        for i, (row, values) in enumerate(rows.items()):
            mean, sd = values[name]
            colour, middle = COLOURS[i % len(COLOURS)], y + line // 2
            draw.text((12, y + 2), row, INK, font)
            draw.line((left, middle, left + width, middle), EMPTY)
            places = [left + width * min(max(value, 0), 1) for value in (mean - sd, mean, mean + sd)]
            draw.line((places[0], middle, places[2], middle), colour, 3)
            draw.ellipse((places[1] - 5, middle - 5, places[1] + 5, middle + 5), colour)
            draw.text((left + width + 4, y + 2), f"{mean:.2f}", INK, font)
            y += line
        y += 4
    return sheet
