"""`cologen data cache ...`: the sets of a recipe, encoded once, also under torchrun."""

import argparse
import logging
import signal
import sys
from argparse import Namespace, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path

import torch

from ...prw.files.validate import build
from ..data.encoded.dataset import Codec
from ..data.encoded.encode import Cache
from ..data.encoded.index import all_entries
from ..data.encoded.size import estimate, refuse_full
from ..distributed import ranks
from ..errors import Stopped
from ..monitor.terminal import Line
from ..recipes.curriculum import Curriculum, Stage, load_curriculum, recipes
from ..setup.stage_data import TOY, cache_of, source_of

AGAIN = "Stopped: give the same command again to go on behind the last whole shard."


def add_commands(commands: _SubParsersAction) -> None:
    parser = commands.add_parser(
        "cache",
        help="encode the sets of a recipe into shards that training reads",
        description="Pictures and words through the encoders. It can be stopped at any time; the same command goes on.",
    )
    parser.add_argument("config", metavar="CONFIG", help=f"a TOML file, or one of {', '.join(recipes())}")
    parser.add_argument("changes", metavar="KEY=VALUE", nargs="*", help="as for train; data.SET.path=FOLDER")
    parser.add_argument("--out", type=Path, help="a folder, if the set's table names none as its cache")
    parser.add_argument("--shard-size", type=_counted, default=512, metavar="N", help="samples in a file; 512")
    parser.add_argument("--padding", action="store_true", help="keep what T5 makes of a prompt's padding, too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cuda if there is one, else cpu, if not given")
    parser.set_defaults(run=_cache)


def _counted(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text} is no number from 2 on")
    return int(text)


def _cache(args: Namespace) -> str:
    curriculum = load_curriculum(args.config, args.changes)
    wanted = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    with ranks.joined(wanted) as device:
        first = ranks.rank() == 0
        caches = list(caches_of(curriculum, codec_of(curriculum, device), args))
        try:
            with ranks.first_alone():
                if first:
                    begin(caches)
            for cache in caches:
                fill(cache)
        except KeyboardInterrupt:
            raise Stopped(AGAIN if first else "", signal.SIGINT) from None
        ranks.wait()
    return "\n".join(str(cache.folder) for cache in caches) if first else ""


def codec_of(curriculum: Curriculum, device: str) -> Codec:
    """The toy world's encoders, or FLUX.1's."""
    if curriculum.base != "toy":
        from ..encoders.flux1 import open_encoders

        return open_encoders(curriculum.encoders, device)
    from ..toy.make import ToyRecipe
    from ..toy.store import open_codec

    if build(ToyRecipe, curriculum.toy, "toy").rebuild:
        raise ValueError("The recipe trains encoders of its own, which are not there yet: set toy.rebuild=false.")
    return open_codec(device=device)


def caches_of(curriculum: Curriculum, codec: Codec, args: Namespace) -> Iterator[Cache]:
    """Each set once for each task that it feeds."""
    wanted: dict[tuple[str, str], Stage] = {
        (stage.task, name): stage for stage in curriculum.stages for name in stage.data if name != TOY
    }
    if not wanted:
        raise ValueError("The recipe names no data set: all its data is the built-in world's, which needs no cache.")
    for (task, name), stage in wanted.items():
        source, out = source_of(curriculum, stage, name), args.out or cache_of(curriculum, name)
        if not out:
            raise ValueError(f"The table data.{name} names no cache, expected a folder: set it, or give --out FOLDER.")
        share = dict(rank=ranks.rank(), world=ranks.count(), shard=args.shard_size, trim=not args.padding)
        yield Cache(source, task, codec, Path(out), curriculum.settings.resolution, args.seed, **share)


def begin(caches: list[Cache]) -> None:
    """Says what all of it takes, before anything is encoded."""
    missing: dict[Path, float] = {}
    for cache in caches:
        found = estimate(cache, sum(entry.size for entry in all_entries(cache.folder)))
        sys.stdout.write(f"{cache.task:10} {cache.source.name:20} {found}\n")
        missing[cache.folder.parent] = missing.get(cache.folder.parent, 0) + found.missing
    sys.stdout.flush()
    for folder, size in missing.items():
        refuse_full(folder, size)
    for cache in caches:
        cache.begin()


def fill(cache: Cache) -> None:
    line, whole_set = Line(), cache.wanted or (cache.source.reader.count() or 0) * cache.source.knobs.variants
    for done in cache.fill():
        if ranks.rank() == 0:
            line.progress(
                f"{cache.source.name} for {cache.task}", done, whole_set // (1 if cache.wanted else cache.world)
            )
    line.leave()
    if cache.read and (cache.read.stream.tally.broken or cache.read.stream.tally.unfit):
        logging.getLogger(__name__).warning("%s: %s.", cache.source.name, cache.read.told())
