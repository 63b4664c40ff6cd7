"""`cologen bench ...`: figures as ratios, measured in one run on this machine."""

import argparse
import json
from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Callable

import torch

from ..bench.controls import bench_controls
from ..bench.experts import bench_experts
from ..bench.inference import bench_inference
from ..bench.shapes import PRESETS, Preset, Shapes
from ..bench.start import bench_import
from ..comfyui.enter_host import enter_host
from ..find_host import require_host


def add_commands(commands: _SubParsersAction) -> None:
    on_shapes = (
        ("inference", "what a source costs a sampler step", _inference),
        ("controls", "what each added control costs a step, and as the peers' cache has it", _controls),
        ("experts", "what experts cost the source pass", _experts),
        ("training", "what an iteration costs against a LoRA on concatenated tokens", _training),
    )
    for name, text, run in on_shapes:
        parser = commands.add_parser(name, help=text)
        parser.add_argument(
            "--preset", default="small", choices=PRESETS, help="a model's shape; what follows changes it"
        )
        parser.add_argument("--width", type=_parse_count(128), help="hidden size, a multiple of 128")
        parser.add_argument("--double", type=_parse_count(), help="double blocks")
        parser.add_argument("--single", type=_parse_count(), help="single blocks")
        parser.add_argument("--text", type=_parse_count(), help="text tokens")
        parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
        parser.add_argument("--target", type=_parse_count(16), default=512, help="side of the picture in pixels")
        parser.add_argument("--source", type=_parse_count(16), default=512, help="side of the source in pixels")
        parser.add_argument("--rank", type=int, default=0, help="0: as the paper's 128 is to width 3072")
        parser.add_argument("--device", type=_parse_device, default="cuda" if torch.cuda.is_available() else "cpu")
        _add_shared(parser, run)
        if name == "inference":
            parser.add_argument("--host", default="embedded", choices=["embedded", "comfyui"])
        if name == "training":
            parser.add_argument("--batch", type=_parse_count(), default=1)
            parser.add_argument("--checkpointing", action="store_true", help="compute blocks twice")
    _add_shared(commands.add_parser("import", help="what the pack adds to ComfyUI's start"), _import)
    parser = commands.add_parser("scaling", help="what processes started by torchrun cost each other, FLUX left out")
    parser.add_argument("--seconds", type=_parse_seconds, default=2.0, help="of FLUX's part in an iteration")
    parser.add_argument("--batch", type=_parse_count(), default=4, help="samples of a process")
    parser.add_argument("--width", type=_parse_count(128), default=3072, help="hidden size, a multiple of 128")
    parser.add_argument("--double", type=_parse_count(), default=19, help="double blocks")
    parser.add_argument("--single", type=_parse_count(), default=38, help="single blocks")
    parser.add_argument("--device", type=_parse_device, default="cuda" if torch.cuda.is_available() else "cpu")
    _add_shared(parser, _scaling)


def _add_shared(parser: ArgumentParser, run: Callable[[Namespace], str]) -> None:
    parser.add_argument("--repeats", type=_parse_count(), default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def _parse_count(step: int = 1) -> Callable[[str], int]:
    """Makes a parser of a positive multiple of `step`, for argparse."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not (value := int(text)) or value % step:
            raise argparse.ArgumentTypeError(f"{text} is no positive multiple of {step}")
        return value

    return parse


def _parse_seconds(text: str) -> float:
    value = float(text) if text.replace(".", "", 1).isdecimal() else -1
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 to 3600")
    return value


def _parse_device(text: str) -> str:
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError):
        raise argparse.ArgumentTypeError(f"{text} cannot be used on this machine") from None
    return text


def read_shapes(args: Namespace) -> tuple[Shapes, torch.dtype]:
    """Returns a preset's shapes and dtype, with what the command says otherwise."""
    changes = {name: getattr(args, name) for name in Preset._fields if getattr(args, name, None) is not None}
    family, width, double, single, text, dtype = PRESETS[args.preset]._replace(**changes)
    shapes = Shapes(width, double, single, args.target, args.source, text, args.rank, family)
    return shapes, getattr(torch, dtype)


def _inference(args: Namespace) -> str:
    if args.host == "comfyui":
        enter_host(require_host(), cpu=not args.device.startswith("cuda"), torch_attention=True)
    return _format(args, bench_inference(*read_shapes(args), args.device, args.host, args.repeats))


def _experts(args: Namespace) -> str:
    return _format(args, bench_experts(*read_shapes(args), args.device, args.repeats))


def _controls(args: Namespace) -> str:
    return _format(args, bench_controls(*read_shapes(args), args.device, args.repeats))


def _training(args: Namespace) -> str:
    from ..bench.training import bench_training

    result = bench_training(*read_shapes(args), args.device, args.repeats, args.batch, args.checkpointing)
    return _format(args, result)


def _import(args: Namespace) -> str:
    return _format(args, bench_import(args.repeats))


def _scaling(args: Namespace) -> str:
    from ..bench.scaling import bench_scaling

    shapes = Shapes(args.width, args.double, args.single, text=256)
    result = bench_scaling(shapes, args.seconds, args.batch, args.repeats, args.device)
    return _format(args, result) if result else ""


def _format(args: Namespace, result: dict) -> str:
    if args.json:
        return json.dumps(result)
    flat = {}
    for key, value in result.items():
        flat |= {f"{key}.{name}": part for name, part in value.items()} if isinstance(value, dict) else {key: value}
    width = max(map(len, flat))
    return "\n".join(f"{key:<{width}}  {f'{v:.4g}' if isinstance(v, float) else v}" for key, v in flat.items())
