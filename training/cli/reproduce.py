"""`cologen reproduce EXPERIMENT`: a table, and a picture of means and standard deviations."""

import json
from argparse import Namespace, _SubParsersAction
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..monitor.route_map import COLOURS, EMPTY, INK, PAPER
from ..recipes.curriculum import BUDGETS, SUBJECT
from .arguments import parse_positive, print_progress

MEASURES = {"subject": ("kept",), "edit": ("done", "rest")}
"""What tables show of a task; `rest` is a difference: less is better."""
MAIN = {"inpaint": "hit", "ground": "iou", "control": "seg", "subject": "kept", "edit": "done"}
"""By task: the measure that stands for all."""
TREE = "tree"
"""The experiment on experts that add to another (experiments/tree.py)."""
Rows = Mapping[str, Mapping[str, tuple[float, float]]]
"""By row and measure: mean and standard deviation."""


def add_commands(commands: _SubParsersAction) -> None:
    names = ("table5", "rho", "alpha", "rank", "coredi", "auto", "forgetting", SUBJECT, TREE)
    parser = commands.add_parser("reproduce", help="the paper's experiments on the toy world")
    parser.add_argument("experiment", choices=names)
    parser.add_argument("--budget", choices=list(BUDGETS), default="small", help="share of the toy recipe's iterations")
    parser.add_argument("--seeds", type=parse_positive, default=3)
    parser.add_argument("--n", type=parse_positive, default=128, help="scenes of each task")
    parser.add_argument("--world", choices=("toy", "world"), default="toy", help="of subject: shapes, or stickers")
    parser.add_argument("--base", type=Path, help="of subject: a folder with another FLUX, VAE and text encoder")
    parser.add_argument("--out", type=Path, help="a folder; out/reproduce/BUDGET if not given")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_reproduce)


def _reproduce(args: Namespace) -> str:
    from ..experiments.curricula import EXPERIMENTS, FORGETTING
    from ..experiments.run_curricula import ExperimentRunner

    if args.experiment != SUBJECT and (args.world != "toy" or args.base):
        raise ValueError(f"{args.experiment} is an experiment on the toy set, expected no --world and no --base.")
    if args.experiment == SUBJECT:
        return _reproduce_subject(args)
    if args.experiment == TREE:
        return _reproduce_tree(args)
    out = args.out or Path("out") / "reproduce" / args.budget
    reports = ExperimentRunner(out, args.budget, args.n, print_progress).run(args.experiment, args.seeds)
    if args.json:
        return json.dumps(reports)
    head = f"{EXPERIMENTS[args.experiment].claim} Budget {args.budget}, {args.seeds} seeds, {args.n} scenes a task."
    if args.experiment == FORGETTING:
        return head + "\n\n" + format_forgetting(reports["curriculum"])
    rows = summarize_rows(reports)
    picture = out / f"{args.experiment}.png"
    draw_rows(rows).save(picture)
    return f"{head}\n\n{format_table(rows)}\n\n{picture}"


def _reproduce_subject(args: Namespace) -> str:
    from ..experiments.subject import CLAIM, SubjectExperiment, draw_curves, summarize
    from ..from_scratch.store import open_models
    from ..setup.worlds import WORLDS

    out, world = args.out or Path("out") / "reproduce" / args.budget, WORLDS[args.world]
    models = open_models(world, args.base)
    reports = SubjectExperiment(world, models, out, args.budget, args.n, print_progress).run(args.seeds)
    if args.json:
        return json.dumps(reports)
    picture = out / f"{SUBJECT}.png"
    draw_curves(reports).save(picture)
    head = f"{CLAIM} Budget {args.budget}, {args.seeds} seeds, {args.n} questions."
    return f"{head}\n\n{format_table(summarize(reports))}\n\n{picture}"


def _reproduce_tree(args: Namespace) -> str:
    from ..experiments.tree import CLAIM, TreeExperiment, format_rows

    out = args.out or Path("out") / "reproduce" / args.budget
    reports = TreeExperiment(out, args.budget, args.n, print_progress).run(args.seeds)
    head = f"{CLAIM} Budget {args.budget}, {args.seeds} seeds, {args.n} scenes a kind of map."
    return json.dumps(reports) if args.json else f"{head}\n\n{format_rows(reports)}"


def summarize_rows(reports: Mapping[str, Mapping[int, Mapping]]) -> Rows:
    """Computes mean and standard deviation over the seeds of what tables show, and of the last expert's usage.

    Where stages end by themselves also of the iterations, as a share of the fixed recipe's.
    """
    from ..experiments.run_curricula import mean_and_sd

    rows = {}
    for row, seeds in reports.items():
        first = next(iter(seeds.values()))
        rows[row] = {
            f"{task} {name}": mean_and_sd([report[task][name] for report in seeds.values()])
            for task in MAIN
            if task in first
            for name in MEASURES.get(task, (MAIN[task],))
        }
        if "iterations" in first:
            counts = [report["iterations"] for report in seeds.values()]
            rows[row]["iterations"] = mean_and_sd([count["trained"] / count["most"] for count in counts])
        rows[row]["usage"] = mean_and_sd([list(report["usage"].values())[-1] for report in seeds.values()])
    return rows


def format_table(rows: Rows) -> str:
    """Formats a Markdown table."""
    names = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row, values in rows.items():
        lines.append(f"| {row} | " + " | ".join(f"{mean:.3f} ± {sd:.3f}" for mean, sd in values.values()) + " |")
    return "\n".join(lines)


def format_forgetting(seeds: Mapping[int, Mapping]) -> str:
    """Formats a Markdown table, a row a stage: every task so far by its own router, and in brackets by the newest."""
    from ..experiments.run_curricula import mean_and_sd

    after = [report["after"] for report in seeds.values()]
    lines = ["| after | " + " | ".join(f"{task} {MAIN[task]}" for task in MAIN) + " |", "|---" * (len(MAIN) + 1) + "|"]
    for stage in after[0]:
        cells = []
        for task, name in MAIN.items():
            if task not in after[0][stage]["own"]:
                cells.append("")
                continue
            own, final = (
                mean_and_sd([stages[stage][router][task][name] for stages in after]) for router in ("own", "final")
            )
            cells.append(f"{own[0]:.3f} ± {own[1]:.3f} ({final[0]:.3f} ± {final[1]:.3f})")
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw_rows(rows: Rows) -> Image.Image:
    """Draws a dot a row and measure, with its standard deviation as a line; all on a scale from 0 to 1."""
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
