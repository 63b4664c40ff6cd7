"""`cologen bank drop|rename|flatten|rerank|share|convert`: banks with fewer, other or smaller experts."""

from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Callable
from pathlib import Path

import torch

from ...prw.bank.bank import Bank
from ...prw.bank.compress import RelativeError, convert, rerank, share_down
from ...prw.bank.edit import drop, rename
from ...prw.bank.importers import open_experts
from ...prw.bank.importers.peft import WEIGHTS
from ...prw.bank.tree import flatten
from ...prw.files.errors import FileError
from ...prw.files.validate import shorten
from .bank import check_new

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "fp8": torch.float8_e4m3fn,
}


def add_commands(commands: _SubParsersAction) -> None:
    parser = _add_command(commands, "drop", "leave experts out; routers lose their columns", _drop)
    parser.add_argument("experts", nargs="+")
    parser = _add_command(commands, "rename", "give experts other names", _rename)
    parser.add_argument("names", nargs="+", metavar="OLD=NEW")
    parser = _add_command(commands, "flatten", "make experts that add to a parent experts of their own", _flatten)
    parser.add_argument("--experts", default="", help="with commas; all if not given")
    parser = _add_command(commands, "rerank", "lower the rank by SVD; prints the error", _rerank)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--experts", default="", help="with commas; all if not given")
    parser = _add_command(commands, "share", "one down matrix for several experts; prints the error", _share)
    parser.add_argument("--rank", type=int, required=True, help="of the shared matrix")
    parser.add_argument("--experts", default="", help="with commas; all if not given")
    parser.add_argument("--group", default="shared", help="a name, if a bank shall have several")
    parser = _add_command(commands, "convert", "another precision; prints the error", _convert)
    parser.add_argument("--dtype", choices=list(DTYPES), required=True)


def _add_command(commands: _SubParsersAction, name: str, text: str, run: Callable[[Namespace], str]) -> ArgumentParser:
    parser = commands.add_parser(name, help=text)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.set_defaults(run=run)
    return parser


def _drop(args: Namespace) -> str:
    return str(drop(open_experts(args.file), args.experts).save(check_new(args.out)))


def _rename(args: Namespace) -> str:
    pairs = [word.split("=") for word in args.names]
    if any(len(pair) != 2 for pair in pairs) or len(dict(pairs)) < len(pairs):
        raise FileError(
            f"The names are {shorten(' '.join(args.names))}, expected OLD=NEW, each expert once: put one = between them."
        )
    return str(rename(open_experts(args.file), dict(pairs)).save(check_new(args.out)))


def _flatten(args: Namespace) -> str:
    return str(flatten(open_experts(args.file), _read_names(args)).save(check_new(args.out)))


def _rerank(args: Namespace) -> str:
    return _save(args, *rerank(open_experts(args.file), args.rank, _read_names(args)))


def _share(args: Namespace) -> str:
    return _save(args, *share_down(open_experts(args.file), args.rank, args.group, _read_names(args)))


def _convert(args: Namespace) -> str:
    return _save(args, *convert(open_experts(args.file), DTYPES[args.dtype]))


def _read_names(args: Namespace) -> list[str]:
    return [name for name in args.experts.split(",") if name]


def _save(args: Namespace, bank: Bank, error: RelativeError) -> str:
    path = bank.save(check_new(args.out))
    weights = args.file / WEIGHTS if args.file.is_dir() else args.file
    before, after = (file.stat().st_size / 2**20 for file in (weights, path))
    return f"{path}: {error}; {after:.1f} MiB, before {before:.1f}"
