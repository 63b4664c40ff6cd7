"""`cologen data cache ...`: the sets of a recipe, encoded once, also under torchrun."""

import argparse
import logging
import signal
import sys
from argparse import Namespace, _SubParsersAction
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...prw.files.validate import build
from ..data.encoded.cache_index import read_all_entries
from ..data.encoded.cache_writer import CacheSettings, CacheWriter
from ..data.encoded.estimate_cache import check_free, estimate_cache
from ..distributed import ranks
from ..encoders.protocol import Encoders
from ..errors import RunStopped
from ..monitor.terminal import ProgressLine
from ..recipes.curriculum import Curriculum, Stage, list_recipes, load_curriculum
from ..setup.check_objects import check_objects
from ..setup.stage_data import find_cache, open_stage_dataset
from ..setup.worlds import WORLDS
from .arguments import choose_device, write_text

AGAIN = "Stopped: give the same command again to go on behind the last whole shard."


def add_commands(commands: _SubParsersAction) -> None:
    parser = commands.add_parser(
        "cache",
        help="encode the sets of a recipe into shards that training reads",
        description="Pictures and words through the encoders. It can be stopped at any time; the same command goes on.",
    )
    parser.add_argument("config", metavar="CONFIG", help=f"a TOML file, or one of {', '.join(list_recipes())}")
    parser.add_argument("changes", metavar="KEY=VALUE", nargs="*", help="as for train; data.SET.path=FOLDER")
    parser.add_argument("--out", type=Path, help="a folder, if the set's table names none as its cache")
    parser.add_argument("--shard-size", type=_shard_size, default=512, metavar="N", help="samples in a file; 512")
    parser.add_argument(
        "--padding", action="store_true", help="keep what the text encoder makes of a prompt's padding, too"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cuda if there is one, else cpu, if not given")
    parser.set_defaults(run=_cache)


def _shard_size(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text} is no number from 2 on")
    return int(text)


def _cache(args: Namespace) -> str:
    curriculum = load_curriculum(args.config, args.changes)
    wanted = choose_device(args.device)
    with ranks.join(wanted) as device:
        first = ranks.rank() == 0
        writers = list(make_writers(curriculum, open_recipe_encoders(curriculum, device), args))
        try:
            with ranks.main_process_first():
                if first:
                    begin(writers)
            for writer in writers:
                fill(writer)
        except KeyboardInterrupt:
            raise RunStopped(AGAIN if first else "", signal.SIGINT) from None
        ranks.barrier()
    return "\n".join(str(writer.folder) for writer in writers) if first else ""


def open_recipe_encoders(curriculum: Curriculum, device: str) -> Encoders:
    """Opens a world's encoders, or those that its table [encoders] names."""
    if curriculum.base not in WORLDS:
        from ..encoders.families import open_encoders

        return open_encoders(curriculum.encoders, device)
    from ..from_scratch.recipe import ScratchRecipe
    from ..from_scratch.store import open_encoders as open_world_encoders

    if build(ScratchRecipe, curriculum.own_base, curriculum.base).rebuild:
        raise ValueError(
            f"The recipe trains encoders of its own, which are not there yet: set {curriculum.base}.rebuild=false."
        )
    return open_world_encoders(WORLDS[curriculum.base], device=device)


def make_writers(curriculum: Curriculum, encoders: Encoders, args: Namespace) -> Iterator[CacheWriter]:
    """Yields one for each set and each task that the set feeds."""
    wanted: dict[tuple[str, str], Stage] = {
        (stage.task, name): stage for stage in curriculum.stages for name in stage.data if name not in WORLDS
    }
    if not wanted:
        raise ValueError("The recipe names no data set: all its data is the built-in world's, which needs no cache.")
    check_objects(curriculum, caches=True)
    settings = CacheSettings(curriculum.settings.resolution, args.seed, args.shard_size, not args.padding)
    for (task, name), stage in wanted.items():
        dataset, out = open_stage_dataset(curriculum, stage, name), args.out or find_cache(curriculum, name)
        if not out:
            raise ValueError(f"The table data.{name} names no cache, expected a folder: set it, or give --out FOLDER.")
        yield CacheWriter(dataset, task, encoders, Path(out), settings, ranks.rank(), ranks.world_size())


def begin(writers: Sequence[CacheWriter]) -> None:
    """Says what all of it takes, and refuses a disk that is too small, before anything is encoded."""
    missing: dict[Path, float] = {}
    for writer in writers:
        estimate = estimate_cache(writer, sum(entry.size for entry in read_all_entries(writer.folder)))
        write_text(sys.stdout, f"{writer.task:10} {writer.dataset.name:20} {estimate}")
        missing[writer.folder.parent] = missing.get(writer.folder.parent, 0) + estimate.missing
    for folder, size in missing.items():
        check_free(folder, size)
    for writer in writers:
        writer.begin()


def fill(writer: CacheWriter) -> None:
    """Writes this process's shards, with a line of progress."""
    dataset, line = writer.dataset, ProgressLine()
    total = writer.wanted or (dataset.reader.count_rows() or 0) * dataset.knobs.variants // writer.world
    for done in writer.fill():
        if ranks.rank() == 0:
            line.count(f"{dataset.name} for {writer.task}", done, total)
    line.finish()
    if writer.examples and (writer.examples.stream.counter.broken or writer.examples.stream.counter.unfit):
        logging.getLogger(__name__).warning("%s: %s.", dataset.name, writer.examples.summarize())
