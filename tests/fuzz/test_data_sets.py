"""Damaged data sets of every layout, and masks: what is broken is counted and named, what is read is a sample."""

import json
import shutil
import tarfile

import numpy as np
import pytest
from benchmark_layouts import LAYOUTS as BENCHMARKS
from cologen.training.data.formats.picture_files import BrokenFile
from cologen.training.data.formats.run_length_masks import decode_mask
from cologen.training.data.sample import Pair, Sample, Triple
from cologen.training.data.sets import open_dataset
from cologen.training.data.sets.folder import PictureFiles
from cologen.training.data.sets.stream import iterate_rows, read_sample
from cologen.training.evaluation.case import read_pixels
from cologen.training.evaluation.networks import MetricNetworks
from cologen.training.evaluation.protocols import PROTOCOLS
from layouts import LAYOUTS, write_parquet, write_tar
from mutate import WORDS, dump, make_value, mutate_bytes, mutate_json, pick

CASES = [(name, lay_out) for name, layouts in LAYOUTS.items() for lay_out in layouts]


def test_damaged_data_sets(tmp_path, fuzz):
    whole = []
    for number, (name, lay_out) in enumerate(CASES):
        root = tmp_path / f"whole-{number}"
        lay_out(root)
        whole.append((name, root))
        assert read_set(name, root)[0], name
    copy = tmp_path / "copy"

    def attempt(rng):
        name, root = pick(rng, whole)
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(root, copy)
        mutate_set(rng, copy)
        read_set(name, copy)

    fuzz.run(150, attempt)


def read_set(name, root):
    """Samples and what was broken, as a stream reads them."""
    reader = open_dataset(name, {"path": str(root), "set": name}).reader
    samples, broken = [], []
    for row in iterate_rows(reader, reader.shards()):
        try:
            samples.append(read_sample(reader, row))
        except BrokenFile as error:
            broken.append(str(error))
            continue
        check_sample(samples[-1])
    return samples, broken


def test_damaged_benchmarks(tmp_path, fuzz):
    whole = []
    for name in sorted(BENCHMARKS.keys() - {"multigen-lineart"}):  # its lines are drawn by a network
        BENCHMARKS[name](tmp_path / name)
        whole.append((name, tmp_path / name))
        assert read_benchmark(name, tmp_path / name), name
    copy = tmp_path / "copy"

    def attempt(rng):
        name, root = pick(rng, whole)
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(root, copy)
        mutate_set(rng, copy)
        for case in read_benchmark(name, copy):
            assert isinstance(case.id, str) and isinstance(case.prompt, str)
            for picture in (case.source, case.reference):
                pixels = None if picture is None else read_pixels(picture)
                assert pixels is None or (pixels.dtype == np.uint8 and pixels.ndim == 3)

    fuzz.run(60, attempt)


def read_benchmark(name, root):
    return list(PROTOCOLS[name].read_cases(root, 64, MetricNetworks(root, {}, "cpu")))


def check_sample(sample):
    assert isinstance(sample, (Sample, Pair, Triple, PictureFiles))
    assert isinstance(sample.id, str)
    for value in vars(sample).values() if not isinstance(sample, PictureFiles) else ():
        if isinstance(value, np.ndarray):
            assert value.dtype == np.uint8 and value.ndim == 3 and value.shape[2] == 3 and value.size
    for thing in getattr(sample, "things", ()):
        assert thing.mask.dtype == bool and thing.mask.shape == sample.picture.shape[:2]
        assert isinstance(thing.name, str) and isinstance(thing.kind, str)


def mutate_set(rng, root):
    """Damages a file, or what is in it, once or more."""
    for _ in range(int(rng.integers(1, 4))):
        files = sorted(path for path in root.rglob("*") if path.is_file())
        if not files:
            return
        path, way = pick(rng, files), rng.integers(6)
        if way == 0:
            path.unlink()
        elif way == 1:
            path.write_bytes(mutate_bytes(rng, path.read_bytes()))
        elif way == 2:
            path.write_bytes(pick(rng, files).read_bytes())
        elif way == 3:
            rename(rng, path)
        else:
            mutate_content(rng, path)


def rename(rng, path):
    word = str(pick(rng, WORDS)).replace("\0", "").replace("/", "_").encode("utf-8", "replace")[:200]
    name = (word or b"x") + path.suffix.encode()
    try:
        path.rename(path.parent / name.decode("utf-8", "surrogateescape"))
    except OSError:
        pass


def mutate_content(rng, path):
    data = path.read_bytes()
    if path.suffix == ".parquet":
        mutate_parquet(rng, path)
    elif path.suffix in (".tar", ".tgz") and data:
        mutate_tar(rng, path)
    elif path.suffix in (".json", ".jsonl"):
        lines = data.split(b"\n")
        at = int(rng.integers(len(lines)))
        try:
            lines[at] = dump(mutate_json(rng, json.loads(lines[at])))
        except (ValueError, RecursionError):
            lines[at] = mutate_bytes(rng, lines[at])
        path.write_bytes(b"\n".join(lines))
    else:
        path.write_bytes(mutate_bytes(rng, data))


def mutate_parquet(rng, path):
    from pyarrow.parquet import read_table

    try:
        rows = read_table(path).to_pylist()
    except Exception:
        return
    if not rows:
        return
    column = pick(rng, sorted(rows[0])) if rows[0] else ""
    value = pick(rng, (None, 5, 2.5, "text", b"\xff\xfe", [1, 2], {"bytes": b"x", "path": None}, make_value(rng)))
    for row in rows if rng.random() < 0.6 else rows[:1]:
        if rng.random() < 0.2:
            row.pop(column, None)
        elif isinstance(row.get(column), dict) and isinstance(row[column].get("bytes"), bytes) and rng.random() < 0.5:
            row[column]["bytes"] = mutate_bytes(rng, row[column]["bytes"])
        else:
            row[column] = value
    try:
        write_parquet(path, rows)
    except Exception:  # what no table can hold
        return


def mutate_tar(rng, path):
    try:
        with tarfile.open(path) as file:
            members = {member.name: file.extractfile(member).read() for member in file if member.isfile()}
    except Exception:
        return
    if not members:
        return
    name = pick(rng, sorted(members))
    data = members.pop(name)
    if rng.random() < 0.4:
        name = str(pick(rng, WORDS)).encode("utf-8", "replace").decode().replace("\0", "") + name[-5:]
    else:
        data = mutate_bytes(rng, data)
    write_tar(path, {**members, name: data}, "w:gz" if path.suffix == ".tgz" else "w")


@pytest.mark.parametrize("kind", ["run lengths", "polygons", "anything"])
def test_masks(fuzz, kind):
    def attempt(rng):
        height, width = (int(pick(rng, (1, 2, 7, 64, 480, 640))) for _ in range(2))
        mask = decode_mask(make_mask(rng, kind, height, width), (height, width))
        assert mask.dtype == bool and mask.shape == (height, width)

    fuzz.run(300, attempt)


def make_mask(rng, kind, height, width):
    numbers = (0, 1, 2, 63, 64, height * width, height * width - 1, -1, 2**31, 2**62, 2**63 - 1, 2**63, 2**64, 0.5)
    if kind == "run lengths":
        size = [height, width] if rng.random() < 0.9 else [pick(rng, numbers), pick(rng, numbers)]
        counts = np.diff([0, *sorted(rng.integers(0, height * width + 1, 4)), height * width]).tolist()
        if rng.random() < 0.5:
            counts[int(rng.integers(len(counts)))] = pick(rng, numbers)
        elif rng.random() < 0.3:
            counts = bytes(rng.integers(48, 112, 20).astype(np.uint8)).decode()
        return {"size": size, "counts": counts}
    if kind == "polygons":
        edge = (*numbers, -1e9, 1e9, 1e300, float("nan"), float("inf"), width / 2, height / 2)
        if rng.random() < 0.6:
            edge = (0, 1, width / 2, width, height, height / 3, -3, 5000)
            return [[pick(rng, edge) for _ in range(2 * rng.integers(3, 8))] for _ in range(rng.integers(1, 5))]
        return [[pick(rng, edge) for _ in range(rng.integers(12))] for _ in range(rng.integers(1, 5))]
    return make_value(rng)
