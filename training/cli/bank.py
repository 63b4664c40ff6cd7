"""`cologen bank ...`: make, look at, merge, split, import, export and check banks; bank_edit.py changes them."""

import json
import math
import shutil
from argparse import Namespace, _SubParsersAction
from pathlib import Path

import torch

from ...prw.bank.bank import Bank, require_low_rank
from ...prw.bank.edit import make_random_bank, merge, split
from ...prw.bank.importers import CHOICES, FAMILY_CHOICES, open_experts
from ...prw.bank.importers.peft import SPELLINGS, export_adapters
from ...prw.bank.info import encode_info
from ...prw.bank.shapes import list_shapes
from ...prw.bank.summary import describe_bank
from ...prw.base_model import Base
from ...prw.config import SOURCE_TIMES
from ...prw.files.errors import FileError
from ...prw.files.safe_file import check_numbers
from ...prw.find_experts import check_parents
from ...prw.flux.checkpoint import load_flux
from ...prw.router import ROUTE_PER
from ...prw.tasks import TASKS
from ..base.known_models import KNOWN_MODELS, find_base
from ..base.random_models import bank_info


def add_commands(commands: _SubParsersAction) -> None:
    """Adds the commands; none of those that write writes over a file."""
    _add_new(commands)
    _add_readers(commands)
    _add_writers(commands)


def _add_new(commands: _SubParsersAction) -> None:
    new = commands.add_parser("new", help="write a bank of fresh experts and routers")
    new.add_argument("out", type=Path)
    new.add_argument("--base", default="flux1", help=f"{', '.join(KNOWN_MODELS)}, or a FLUX file")
    new.add_argument("--experts", default=",".join(TASKS), help="names in training order, with commas")
    new.add_argument("--rank", type=int, default=128)
    new.add_argument("--alpha", type=float, help="2 x rank if not given, as in the paper")
    new.add_argument("--seed", type=int, default=0)
    new.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"], help="of the experts")
    new.add_argument(
        "--up", type=float, default=0.0, help="size of random up matrices; 0 adds nothing, as before training"
    )
    new.add_argument("--route", default="sample", choices=ROUTE_PER, help="what routers choose an expert for")
    new.add_argument(
        "--source-time",
        default="zero",
        choices=SOURCE_TIMES,
        help="the timestep of sources: zero runs them once a picture, shared in every step with the noise's",
    )
    new.set_defaults(run=_new)


def _add_readers(commands: _SubParsersAction) -> None:
    inspecting = commands.add_parser("inspect", help="show what is in a bank")
    inspecting.add_argument("file", type=Path)
    inspecting.add_argument("--json", action="store_true")
    inspecting.set_defaults(run=_inspect)

    verifying = commands.add_parser("verify", help="read every tensor; with --base also check that it fits a FLUX file")
    verifying.add_argument("file", type=Path)
    verifying.add_argument("--base", type=Path)
    verifying.set_defaults(run=_verify)


def _add_writers(commands: _SubParsersAction) -> None:
    merging = commands.add_parser("merge", help="write one bank with the experts and routers of several")
    merging.add_argument("files", type=Path, nargs="+")
    merging.add_argument("--out", type=Path, required=True)
    merging.set_defaults(run=_merge)

    splitting = commands.add_parser("split", help="write a file for each expert, with its stage's router")
    splitting.add_argument("file", type=Path)
    splitting.add_argument("--out", type=Path, required=True, help="a folder")
    splitting.set_defaults(run=_split)

    importing = commands.add_parser("import", help="write a bank from EasyControl, OmniConsistency, LoRA or PEFT files")
    importing.add_argument("files", type=Path, nargs="+")
    importing.add_argument("--out", type=Path, required=True)
    importing.add_argument(
        "--kind", default="auto", help=f"what they are for, if their names do not say: {', '.join(CHOICES)}"
    )
    importing.add_argument("--name", default="", help="the expert's; one file only")
    importing.add_argument(
        "--family",
        default="auto",
        choices=FAMILY_CHOICES,
        help="the FLUX that they are for, if their layers do not say",
    )
    importing.set_defaults(run=_import)

    exporting = commands.add_parser("export", help="write a PEFT adapter folder for each expert")
    exporting.add_argument("file", type=Path)
    exporting.add_argument("--peft", type=Path, required=True, help="a folder")
    exporting.add_argument("--names", default="diffusers", choices=list(SPELLINGS), help="of the layers")
    exporting.set_defaults(
        run=lambda args: "\n".join(map(str, export_adapters(open_experts(args.file), args.peft, args.names)))
    )


def _new(args: Namespace) -> str:
    path, names = check_new(args.out), tuple(args.experts.split(","))
    info = bank_info(find_base(args.base), names, args.rank, args.alpha, args.route, time=args.source_time)
    dtype, free = getattr(torch, args.dtype), find_free_space(path)
    shapes = list_shapes(info).items()
    needed = sum(math.prod(s) * (dtype.itemsize if name.startswith("experts.") else 4) for name, s in shapes)
    if needed > free:
        raise FileError(f"This bank takes {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free: lower --rank.")
    if not 0 <= args.up <= 1000:
        raise FileError(f"--up is {args.up}, expected 0 to 1000.")
    bank = make_random_bank(info, args.seed % 2**63, args.up)
    tensors = {name: t.to(dtype) if name.startswith("experts.") else t for name, t in bank.tensors.items()}
    Bank(info, tensors).save(path)
    return f"{path} ({path.stat().st_size / 2**20:.1f} MiB)"


def find_free_space(path: Path) -> int:
    """Finds bytes free where a file shall lie; its folders need not be there yet."""
    return shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.exists())).free


def check_new(path: Path) -> Path:
    """Returns a path that no file has yet; raises FileError otherwise."""
    if not path.name or path.exists():
        raise FileError(f"{path} is there already, expected a new file: delete it first or choose another name.")
    return path


def _inspect(args: Namespace) -> str:
    bank = open_experts(args.file)
    if args.json:
        return json.dumps(json.loads(encode_info(bank.info)), indent=2)
    return describe_bank(bank, args.file.name)


def _merge(args: Namespace) -> str:
    return str(merge(open_experts(path) for path in args.files).save(check_new(args.out)))


def _import(args: Namespace) -> str:
    if args.name and len(args.files) > 1:
        raise FileError(f"--name is {args.name} for {len(args.files)} files, expected one: import them one by one.")
    bank = merge(open_experts(path, args.name, args.kind, args.family) for path in args.files)
    path = bank.save(check_new(args.out))
    return f"{describe_bank(bank, path.name)}\n\n{path} ({path.stat().st_size / 2**20:.1f} MiB)"


def _split(args: Namespace) -> str:
    bank = open_experts(args.file)
    require_low_rank(bank)
    targets = {name: check_new(args.out / f"{name}.safetensors") for name in bank.info.experts}
    paths = [split(bank, name).save(path) for name, path in targets.items()]
    return "\n".join(map(str, paths))


def _verify(args: Namespace) -> str:
    bank = open_experts(args.file)
    check_numbers(args.file.name, bank.tensors)
    check_parents(bank.info, bank.info.experts)
    if args.base is not None:
        flux = load_flux(args.base)
        base = Base.of(flux).with_probe(flux)
        if problem := bank.info.base.describe_incompatibility(base) or bank.info.base.describe_difference(base):
            raise FileError(problem)
    return (
        f"{args.file.name} is whole: {len(bank.tensors)} tensors{'' if args.base is None else ', made for this base'}"
    )
