"""`cologen bench ...`: figures as ratios, measured in one run on this machine."""

import argparse
import json
from argparse import Namespace, _SubParsersAction

import torch

from ..bench.controls import controls
from ..bench.experts import experts
from ..bench.inference import Shapes, inference
from ..bench.start import imports
from ..comfyui.find_host import enter_host, needed_host


def add_commands(commands: _SubParsersAction) -> None:
    common = dict(inference=_inference, controls=_controls, experts=_experts, training=_training)
    helps = dict(
        inference="what a source costs a sampler step",
        controls="what each added control costs a step, and as the peers' cache has it",
        experts="what experts cost the source pass",
        training="what an iteration costs against a LoRA on concatenated tokens",
    )
    for name, run in common.items():
        parser = commands.add_parser(name, help=helps[name])
        parser.add_argument("--width", type=_counted(128), default=1024, help="hidden size, a multiple of 128")
        parser.add_argument("--double", type=_counted(), default=2, help="double blocks")
        parser.add_argument("--single", type=_counted(), default=4, help="single blocks")
        parser.add_argument("--target", type=_counted(16), default=512, help="side of the picture in pixels")
        parser.add_argument("--source", type=_counted(16), default=512, help="side of the source in pixels")
        parser.add_argument("--text", type=_counted(), default=256, help="text tokens")
        parser.add_argument("--rank", type=int, default=0, help="0: as the paper's 128 is to width 3072")
        parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
        parser.add_argument("--device", type=_device, default="cuda" if torch.cuda.is_available() else "cpu")
        parser.add_argument("--preset", choices=["flux1"], help="the real shapes of FLUX.1, bf16")
        _shared(parser, run)
        if name == "inference":
            parser.add_argument("--host", default="embedded", choices=["embedded", "comfyui"])
        if name == "training":
            parser.add_argument("--batch", type=_counted(), default=1)
            parser.add_argument("--checkpointing", action="store_true", help="compute blocks twice")
    _shared(commands.add_parser("import", help="what the pack adds to ComfyUI's start"), _import)
    parser = commands.add_parser("scaling", help="what processes started by torchrun cost each other, FLUX left out")
    parser.add_argument("--seconds", type=_seconds, default=2.0, help="of FLUX's part in an iteration")
    parser.add_argument("--batch", type=_counted(), default=4, help="samples of a process")
    parser.add_argument("--width", type=_counted(128), default=3072, help="hidden size, a multiple of 128")
    parser.add_argument("--double", type=_counted(), default=19, help="double blocks")
    parser.add_argument("--single", type=_counted(), default=38, help="single blocks")
    parser.add_argument("--device", type=_device, default="cuda" if torch.cuda.is_available() else "cpu")
    _shared(parser, _scaling)


def _shared(parser, run) -> None:
    parser.add_argument("--repeats", type=_counted(), default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def _counted(step: int = 1):
    """A positive multiple of `step`, for argparse."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not (value := int(text)) or value % step:
            raise argparse.ArgumentTypeError(f"{text} is no positive multiple of {step}")
        return value

    return parse


def _seconds(text: str) -> float:
    value = float(text) if text.replace(".", "", 1).isdecimal() else -1
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 to 3600")
    return value


def _device(text: str) -> str:
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError):
        raise argparse.ArgumentTypeError(f"{text} cannot be used on this machine") from None
    return text


def _shapes(args: Namespace) -> Shapes:
    if args.preset == "flux1":
        args.dtype = "bfloat16"
        return Shapes.flux1(args.target, args.source)
    return Shapes(args.width, args.double, args.single, args.target, args.source, args.text, args.rank)


def _inference(args: Namespace) -> str:
    if args.host == "comfyui":
        enter_host(needed_host(), cpu=not args.device.startswith("cuda"), torch_attention=True)
    return _shown(args, inference(_shapes(args), getattr(torch, args.dtype), args.device, args.host, args.repeats))


def _experts(args: Namespace) -> str:
    return _shown(args, experts(_shapes(args), getattr(torch, args.dtype), args.device, args.repeats))


def _controls(args: Namespace) -> str:
    return _shown(args, controls(_shapes(args), getattr(torch, args.dtype), args.device, args.repeats))


def _training(args: Namespace) -> str:
    from ..bench.training import training

    dtype = getattr(torch, args.dtype)
    return _shown(args, training(_shapes(args), dtype, args.device, args.repeats, args.batch, args.checkpointing))


def _import(args: Namespace) -> str:
    return _shown(args, imports(args.repeats))


def _scaling(args: Namespace) -> str:
    from ..bench.scaling import scaling

    shapes = Shapes(args.width, args.double, args.single, text=256)
    found = scaling(shapes, args.seconds, args.batch, args.repeats, args.device)
    return _shown(args, found) if found else ""


def _shown(args: Namespace, result: dict) -> str:
    if args.json:
        return json.dumps(result)
    flat = {}
    for key, value in result.items():
        flat |= {f"{key}.{name}": part for name, part in value.items()} if isinstance(value, dict) else {key: value}
    width = max(map(len, flat))
    return "\n".join(f"{key:<{width}}  {f'{v:.4g}' if isinstance(v, float) else v}" for key, v in flat.items())
