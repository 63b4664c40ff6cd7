"""`cologen eval BENCHMARK`: the paper's tables, drawn and measured."""

import argparse
import signal
from argparse import Namespace, _SubParsersAction
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...prw.files.regular_file import hash_file
from ...prw.router import ABLATIONS
from ...prw.source import Routing
from ..distributed import ranks
from ..errors import RunStopped
from .arguments import choose_device, parse_positive, print_progress

if TYPE_CHECKING:
    from ..evaluation.case import Case
    from ..evaluation.image_generator import GenerationSettings, ImageGenerator
    from ..evaluation.networks import MetricNetworks
    from ..evaluation.protocols import Protocol

TOY = "toy"
AGAIN = "Stopped: give the same command again to go on, nothing is drawn twice."
BENCHMARKS = {
    "magicbrush": "edits of photographs, one turn (Table 2)",
    "emuedit": "edits of photographs (Table 2)",
    "dreambench": "30 subjects in 25 scenes each (Table 4)",
    "multigen": "pictures from canny edges, depth or line art (Tables 3 and 6)",
    "ade20k": "pictures from ADE20K's maps of classes (Table 3)",
    "cocostuff": "pictures from COCO-Stuff's maps of classes (Table 3)",
    "gedit": "edits judged by a model on this machine (Table 8)",
    "inpainting": "holes in COCO-Stuff's held-out pictures: CLIP, FID, what changed outside",
    "refcoco": "boxes round what a phrase refers to, RefCOCO val: IoU of the box that is read back",
    "refcoco+": "the same of RefCOCO+",
    "refcocog": "the same of RefCOCOg",
}
KINDS = {"multigen": ("canny", "depth", "lineart")}


def add_commands(commands: _SubParsersAction) -> None:
    for name, words in BENCHMARKS.items():
        parser = commands.add_parser(name, help=words)
        parser.add_argument("--data", default=TOY, help="the benchmark's folder; the built-in toy world if not given")
        parser.add_argument("--out", type=Path, help="where answers and report go; out/eval/BENCHMARK if not given")
        if name in KINDS:
            parser.add_argument("--kind", choices=KINDS[name], required=True)
        # not --n: torchrun would take it for the beginning of an option of its own
        parser.add_argument("--cases", type=parse_positive, default=0, help="only the first so many")
        parser.add_argument(
            "--ablate", action="store_true", help="also with older experts' blocks given to the newest, and to none"
        )
        parser.add_argument("--measure", action="store_true", help="only measure what is drawn already")
        add_generation(parser)
        parser.add_argument("--router", help='a stage whose router answers everything, or "final"')
        parser.add_argument(
            "--guided-by-source", action="store_true", default=None, help="cfg's negative prompt reads no source"
        )
        parser.set_defaults(run=_evaluate, benchmark=name)


def add_generation(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say how pictures are generated and with which networks they are measured."""
    parser.add_argument("--bank", type=Path, help="the experts; those of the toy world if not given")
    parser.add_argument("--flux", type=Path, help="FLUX.1's file, opened by ComfyUI; the toy FLUX if not given")
    parser.add_argument("--vae", type=Path, help="ae.safetensors")
    parser.add_argument("--clip", type=Path, nargs=2, metavar=("CLIP_L", "T5"))
    parser.add_argument(
        "--side", type=parse_side, help="of a square of the area to draw; the benchmark's, or the toy world's"
    )
    parser.add_argument("--steps", type=parse_positive)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--cfg", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="a folder of networks")
    parser.add_argument("--model", metavar="KEY=PATH", action="append", default=[], help="another network")
    parser.add_argument("--device", help="cuda if there is one, else cpu, if not given")


def parse_side(text: str) -> int:
    """Parses a multiple of 16, for argparse."""
    if parse_positive(text) % 16:
        raise argparse.ArgumentTypeError(f"{text} is no multiple of 16")
    return int(text)


def _evaluate(args: Namespace) -> str:
    with ranks.join(choose_device(args.device)) as device:
        try:
            text = _run(args, device)
        except KeyboardInterrupt:
            raise RunStopped(AGAIN if ranks.rank() == 0 else "", signal.SIGINT) from None
        return text if ranks.rank() == 0 else ""


def _run(args: Namespace, device: str) -> str:
    from ..evaluation.ablation import compare_ablations
    from ..evaluation.generate import limit_cases, read_answers
    from ..evaluation.measure import measure
    from ..evaluation.networks import MetricNetworks
    from ..evaluation.protocols import PROTOCOLS
    from ..evaluation.report import write_report
    from ..evaluation.toy_cases import TOY_METRICS, TOY_SIDE

    name = "-".join((args.benchmark, *([args.kind] if "kind" in args else [])))
    protocol, out = PROTOCOLS[name], args.out or Path("out") / "eval" / name
    networks = MetricNetworks(args.checkpoints, parse_models(args.model), device)
    side = args.side or (protocol.side if args.flux else TOY_SIDE)
    toy, sampling = args.data == TOY, read_settings(args)

    def cases() -> "Iterator[Case]":
        return limit_cases(_read_cases(args, protocol, side, networks), args.cases)

    record = dict(benchmark=name, data=args.data, side=side, seed=args.seed, **asdict(sampling))
    record |= dict(bank=_digest(args.bank), flux=args.flux.name if args.flux else TOY, files=fingerprint_models(args))
    generator = None if args.measure else open_generator(args, sampling, device)
    folders = {"": out} | {way: out / f"older-{way}" for way in (ABLATIONS if args.ablate else ())}
    for older, folder in folders.items():
        record_of_folder = record | ({"bank": f"{record['bank']}, older experts' blocks to {older}"} if older else {})
        _generate(
            generator and replace(generator, routing=Routing(older=older)), protocol, cases(), folder, record_of_folder
        )
    if ranks.rank() > 0:
        return ""
    names = list(dict.fromkeys((*protocol.paper, *protocol.extra_metrics, *(TOY_METRICS if toy else ()))))
    by_way = {
        older: measure(names, read_answers(protocol, cases(), folder), networks, print_progress)
        for older, folder in folders.items()
    }
    scores = by_way.pop("")
    ablations = compare_ablations(scores, by_way)
    report = write_report(out, protocol, scores, read_answers(protocol, cases(), out), networks, record, ablations)
    return (out / "report.md").read_text(encoding="utf-8") + f"\n{report}"


def _generate(
    generator: "ImageGenerator | None",
    protocol: "Protocol",
    cases: "Iterator[Case]",
    out: Path,
    record: dict,
) -> None:
    """Draws what is missing in a folder, or without a generator only looks whether something is there."""
    from ..evaluation.generate import claim_answers, generate_answers

    with ranks.main_process_first():
        if ranks.rank() == 0:
            claim_answers(out, record)
    if generator:
        generate_answers(generator, protocol, cases, out, record["side"], record["seed"], print_progress)
        ranks.barrier()
    if ranks.rank() == 0 and not any((out / "drawn").glob("*/*.png")):
        raise ValueError(f"There is no answer in {out}: draw some first, without --measure.")


def _read_cases(args: Namespace, protocol: "Protocol", side: int, networks: "MetricNetworks") -> "Iterable[Case]":
    if args.data == TOY:
        from ..evaluation.toy_cases import DEFAULT_COUNT, make_toy_cases

        return make_toy_cases(protocol.task, protocol.kind, args.cases or DEFAULT_COUNT, args.seed)
    if not (root := Path(args.data)).is_dir():
        raise FileNotFoundError(
            f"There is no folder {root}: download the benchmark from {protocol.url}; expected are {protocol.layout}."
        )
    return protocol.read_cases(root, side, networks)


def read_settings(args: Namespace) -> "GenerationSettings":
    """Reads the sampling that was asked for: FLUX.1-dev's usual, or the toy world's, with changes."""
    from ..evaluation.image_generator import WORLD_SETTINGS, GenerationSettings

    names = ("steps", "guidance", "cfg", "router", "guided_by_source")
    options = {name: vars(args).get(name) for name in names}
    return replace(
        GenerationSettings() if args.flux else WORLD_SETTINGS,
        **{name: value for name, value in options.items() if value is not None},
    )


def open_generator(args: Namespace, settings: "GenerationSettings", device: str) -> "ImageGenerator":
    """Opens the toy FLUX, or FLUX.1's files by --flux."""
    from ..evaluation.image_generator import open_flux_generator, open_world_generator
    from ..toy.store import TOY

    if not args.flux:
        return open_world_generator(TOY, args.bank, settings, device)
    if not ((args.bank or vars(args).get("subject")) and args.vae and args.clip):
        raise ValueError("--flux is given, expected --bank, --vae and --clip (CLIP-L and T5) beside it: name all four.")
    return open_flux_generator(args.bank, args.flux, args.vae, args.clip, settings, device)


def parse_models(words: Sequence[str]) -> dict[str, Path]:
    """Reads --model KEY=PATH."""
    pairs = [word.partition("=") for word in words]
    if wrong := [word for word, (key, _, path) in zip(words, pairs) if not key or not path]:
        raise ValueError(f"--model is {wrong[0]!r}, expected KEY=PATH, as in dino=checkpoints/dinov2-base.")
    return {key: Path(path) for key, _, path in pairs}


def fingerprint_models(args: Namespace) -> dict[str, str]:
    """Hashes FLUX.1's files: answers of others, under the same names, are not mixed in."""
    from ..encoders.from_files import fingerprint_file

    named = {"flux": args.flux, "vae": args.vae, **dict(zip(("clip_l", "t5xxl"), args.clip or ()))}
    return {name: fingerprint_file(path) for name, path in named.items() if path is not None and path.is_file()}


def _digest(bank: Path | None) -> str:
    """Gives a bank's name and a hash of its file."""
    from ..from_scratch.store import BANK
    from ..toy.store import TOY

    path = bank or TOY.folder / BANK
    if not path.is_file():
        raise FileNotFoundError(f"There is no bank {path}: check the name.")
    return f"{path.name} {hash_file(path)[:16]}"
