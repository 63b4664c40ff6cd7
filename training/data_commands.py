"""`cologen data ...`: which sets there are, and whether those of a recipe can be read."""

import argparse
import sys
from argparse import Namespace, _SubParsersAction
from pathlib import Path

from .curriculum import load_curriculum, recipes
from .whole import whole


def add_commands(commands: _SubParsersAction) -> None:
    listed = commands.add_parser("list", help="the data sets that can be read")
    listed.set_defaults(run=_list)
    checked = commands.add_parser(
        "check",
        help="what the sets of a recipe give",
        description="Reads some of every set; a sheet of pictures a task.",
    )
    checked.add_argument("config", metavar="CONFIG", help=f"a TOML file, or one of {', '.join(recipes())}")
    checked.add_argument("changes", metavar="KEY=VALUE", nargs="*", help="as for train; data.SET.path=FOLDER")
    checked.add_argument("--n", type=_positive, default=256, help="examples of each set")
    checked.add_argument("--seed", type=int, default=0)
    checked.add_argument("--out", type=Path, help="a folder for the sheets; out/data/RECIPE if not given")
    checked.set_defaults(run=_check)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return int(text)


def _list(args: Namespace) -> str:
    from .data.sets import DATASETS

    parts = []
    for name, row in DATASETS.items():
        lines = [f"{name:20}{', '.join(row.feeds)}", f"licence: {row.licence}"]
        lines += [row.home] * bool(row.home) + [f"layout: {reader.LAYOUT}" for reader in row.readers]
        parts.append(f"\n{'':20}".join(lines))
    return "\n".join(parts)


def _check(args: Namespace) -> str:
    from .data_check import check
    from .data_sheet import sheet

    curriculum = load_curriculum(args.config, args.changes)
    out = args.out or Path("out") / "data" / Path(args.config).name.removesuffix(".toml")
    shown: dict[str, list] = {}
    troubled = 0
    for found in check(curriculum, args.n, args.seed):
        sys.stdout.write("\n".join(found.lines()) + "\n")
        troubled += bool(found.trouble)
        shown.setdefault(found.stage.task, []).extend((found.name, example) for example in found.shown)
    paths = []
    for task, examples in shown.items():
        if examples:
            paths.append(out / f"{task}.png")
            with whole(paths[-1]) as partial:
                sheet(examples).save(partial, format="png")
    if troubled:
        raise ValueError(f"{troubled} of the recipe's sets cannot be used as they are: see above.")
    return "\n".join(map(str, paths)) or "The recipe names no data set: all its data is the built-in world's."
