"""A place in a stream is kept and found again, shares add up to the whole, and damage is counted."""

import io
import json
import os
import shutil
import struct
import tarfile
import zlib
from dataclasses import dataclass

import layouts
import numpy as np
import pyarrow as pa
import pytest
from cologen.training.data.formats import json_lines as lines
from cologen.training.data.formats import parquet
from cologen.training.data.formats import tar_files as tars
from cologen.training.data.formats.picture_files import MAX_BYTES, BrokenFile, join_below
from cologen.training.data.sample import Triple
from cologen.training.data.sets import open_dataset
from cologen.training.data.sets.reader import ListedReader
from cologen.training.data.sets.sample_counter import MIN_SEEN, SampleCounter, TooManyBroken
from cologen.training.data.sets.stream import Stream
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import LAYOUTS, draw_picture, encode_picture
from pyarrow import parquet as pq

SMALL = settings(max_examples=40, deadline=None)


@dataclass(frozen=True)
class Numbers(ListedReader):
    """So many numbers, of which some are broken."""

    count_: int = 100
    every: int = 0

    def list_entries(self):
        return [(str(i), i) for i in range(self.count_)]

    def read_entry(self, id, entry):
        if self.every and entry % self.every == 0:
            raise BrokenFile("it is a multiple")
        return Triple(id, np.zeros(0), np.zeros(0), "")


def read_ids(stream) -> list[str]:
    return [found.id for found in stream]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(1, 9), st.integers(0, 5))
def test_the_shares_of_all_processes_are_the_set(count, world, seed):
    shares = [read_ids(Stream(Numbers("", count), rank=rank, world=world, seed=seed)) for rank in range(world)]
    assert sorted(map(int, sum(shares, []))) == list(range(count))


@SMALL
@given(st.integers(1, 300), st.integers(1, 4), st.data())
def test_a_stream_goes_on_where_it_was_left(count, world, data):
    rank, seed = data.draw(st.integers(0, world - 1)), data.draw(st.integers(0, 3))
    every = data.draw(st.sampled_from([0, 7]))
    reader = Numbers("", count, every)

    def made() -> Stream:
        stream = Stream(reader, rank=rank, world=world, seed=seed)
        stream.counter.seen = -(10**9)  # no judgement here
        return stream

    stream = made()
    whole = read_ids(stream) + read_ids(stream)  # two epochs
    stop = data.draw(st.integers(0, len(whole)))
    first, stream = [], made()
    while len(first) < stop:
        for found in stream:
            first.append(found.id)
            if len(first) == stop:
                break
    state = json.loads(json.dumps(stream.state_dict()))
    later = made()
    later.load_state_dict(state)
    rest = []
    while later.epoch < 2:
        rest += read_ids(later)
    assert first + rest == whole
    assert later.counter.broken == 2 * len([i for i in range(count) if every and i % every == 0]) or world > 1


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "folder"])
@pytest.mark.parametrize("world", [1, 2])
def test_every_set_can_be_shared_and_resumed(tmp_path, name, world):
    LAYOUTS[name][0](tmp_path)
    reader = open_dataset(name, {"path": str(tmp_path)}).reader
    whole = sorted(read_ids(Stream(reader)))
    resumed = []
    for rank in range(world):
        stream = Stream(reader, rank=rank, world=world)
        for found in stream:
            resumed.append(found.id)
            break
        else:
            continue  # nothing for this process
        later = Stream(reader, rank=rank, world=world)
        later.load_state_dict(stream.state_dict())
        resumed += read_ids(later)
    assert sorted(resumed) == whole


def test_epochs_come_in_another_order_and_seeds_too():
    stream = Stream(Numbers("", 1000))
    first, second = read_ids(stream), read_ids(stream)
    assert first != second and sorted(first) == sorted(second) and first != read_ids(Stream(Numbers("", 1000), seed=1))


def test_a_place_of_another_stream_is_refused():
    state = Stream(Numbers("", 100), world=2).state_dict()
    with pytest.raises(ValueError, match="go on with the same data, seed and number of processes"):
        Stream(Numbers("", 100)).load_state_dict(state)


def test_a_cache_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match="cannot write its cache .* set the environment variable HF_DATASETS_CACHE"):
        list(Stream(Numbers("", 100)))


def test_a_share_works_in_the_workers_of_a_loader():
    from torch.utils.data import DataLoader

    rows = Stream(Numbers("", 300))._open_rows()
    loaded = [row["id"] for row in DataLoader(rows, batch_size=None, num_workers=2)]
    assert sorted(map(int, loaded)) == list(range(300))


def test_one_in_a_hundred_may_be_broken_and_no_more():
    stream = Stream(Numbers("", 1000, every=100))
    assert len(list(stream)) == 990 and stream.counter.summary().startswith("10 of 1000 samples are broken (")
    stream = Stream(Numbers("", 1000, every=80), "mine")
    with pytest.raises(
        TooManyBroken, match=r"mine: \d+ of \d+ samples are broken \(\d+: it is a multiple; .*, expected 1% at most"
    ):
        list(stream)
    assert stream.counter.seen == 1000  # at the end: so few might have been chance
    stream = Stream(Numbers("", 1000, every=10))
    with pytest.raises(TooManyBroken):
        list(stream)
    assert MIN_SEEN <= stream.counter.seen < 300


def test_a_record_that_nobody_thought_of_costs_itself_alone(tmp_path):
    lines = [
        {"id": i, "picture": f"{i}.png", "caption": "c", "things": things}
        for i, things in enumerate([[], 7, [{}], {"a": 1}])
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for i in range(4):
        layouts.write_file(tmp_path / f"{i}.png", encode_picture(draw_picture(i), "PNG"))
    reader = open_dataset("json-lines", {"path": str(tmp_path)}).reader
    stream = Stream(reader)
    assert read_ids(stream) == ["0"] and stream.counter.broken == 3
    layouts.coco_stuff(tmp_path / "coco")
    odd = [layouts.make_annotation(1, 9, [18]), layouts.make_annotation(2, 25, 18) | {"segmentation": None}]
    lists = {"images": [], "annotations": odd, "categories": layouts.CATEGORIES}
    layouts.write_file(tmp_path / "coco/annotations/instances_train2017.json", lists)
    stream = Stream(open_dataset("coco-stuff", {"path": str(tmp_path / "coco")}).reader)
    assert read_ids(stream) == ["000000000030"]
    assert stream.counter.reasons["000000000009"] == "TypeError: unhashable type: 'list'"


def test_few_samples_are_not_judged_and_few_names_are_kept():
    tally = SampleCounter("x")
    for i in range(MIN_SEEN - 1):
        tally.seen += 1
        tally.add_broken(f"a\n{i}" * 100, "why\nnot")
    assert tally.broken == MIN_SEEN - 1 and len(tally.reasons) == 20
    assert all("\n" not in text and len(text) <= 120 for pair in tally.reasons.items() for text in pair)
    tally.seen += 1
    with pytest.raises(TooManyBroken):
        tally.add_broken("one more", "damaged")


@SMALL
@given(st.lists(st.text(st.characters(exclude_characters="\n\r"), max_size=30), max_size=30), st.integers(1, 60))
def test_lines_are_read_once_however_the_file_is_cut(tmp_path_factory, texts, size):
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_text("\n".join(json.dumps({"caption": text}) for text in texts))
    rows = [row for part in lines.split_files([path], size) for row in lines.read_rows(part)]
    assert [row["record"]["caption"] for row in rows] == texts
    assert len({row["id"] for row in rows}) == len(texts)


def test_a_damaged_line_costs_itself_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'{"a": 1}\nnot json\n[1]\n\n{"a": "' + b"x" * lines.MAX_LINE + b'"}\n' + b"[" * 9999 + b'\n\xff\n{"a": 2}\n'
    )
    rows = [row for part in lines.split_files([path]) for row in lines.read_rows(part)]
    assert [row.get("record") for row in rows] == [{"a": 1}, None, None, None, None, None, {"a": 2}]
    said = [row["broken"].split("(")[0].strip() for row in rows if "broken" in row]
    assert (
        said
        == ["its line is no JSON", "its line is no JSON object", f"its line is longer than {lines.MAX_LINE} bytes"]
        + ["its line is no JSON"] * 2
    )


def write_tar(tmp_path, members, mode="w", name="a.tar"):
    layouts.write_tar(tmp_path / name, members, mode)
    return tmp_path / name


PICTURES = {f"{i}.jpg": encode_picture(draw_picture(i)) for i in range(4)}


@pytest.mark.parametrize("mode, name", [("w", "a.tar"), ("w:gz", "a.tar.gz")])
def test_a_tar_that_is_cut_off_gives_what_is_whole_and_one_broken_row(tmp_path, mode, name):
    whole = write_tar(tmp_path, PICTURES, mode, name).read_bytes()
    end = len(whole.rstrip(b"\0"))
    for cut in [10, 300, end // 3, end // 2, end * 2 // 3]:
        (tmp_path / name).write_bytes(whole[:cut])
        stream = Stream(open_dataset("webdataset", {"path": str(tmp_path)}).reader)
        found = read_ids(stream)
        assert found == sorted(PICTURES)[: len(found)] or found == [str(i) for i in range(len(found))]
        assert len(found) < 4 and stream.counter.broken == 1, cut


def test_a_damaged_header_is_noticed(tmp_path):
    path = write_tar(tmp_path, PICTURES)
    data = bytearray(path.read_bytes())
    second = 512 + -(-len(PICTURES["0.jpg"]) // 512) * 512
    data[second : second + 20] = b"\xff" * 20
    path.write_bytes(data)
    with pytest.raises(BrokenFile, match=f"a.tar is damaged or cut off at byte {second}"):
        list(tars.read_members(path))


def test_names_that_lead_out_are_left_out_and_nothing_is_written(tmp_path):
    members = {"../../evil.jpg": PICTURES["0.jpg"], "/tmp/evil.jpg": PICTURES["1.jpg"], "good.jpg": PICTURES["2.jpg"]}
    write_tar(tmp_path / "in", members)
    before = sorted(tmp_path.rglob("*"))
    stream = Stream(open_dataset("webdataset", {"path": str(tmp_path / "in")}).reader)
    assert read_ids(stream) == ["good"] and stream.counter.broken == 2
    assert set(stream.counter.reasons.values()) == {"its name leads out of the archive"}
    assert sorted(tmp_path.rglob("*")) == before


def test_links_devices_and_folders_in_a_tar_are_passed_over(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as file:
        for name, kind in (
            ("a", tarfile.SYMTYPE),
            ("b", tarfile.LNKTYPE),
            ("c", tarfile.CHRTYPE),
            ("d", tarfile.DIRTYPE),
        ):
            info = tarfile.TarInfo(f"{name}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            file.addfile(info)
        info = tarfile.TarInfo("e.jpg")
        info.size = 3
        file.addfile(info, io.BytesIO(b"abc"))
    assert list(tars.read_members(path)) == [("e.jpg", b"abc")]


def make_header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.DIRTYPE])
@pytest.mark.parametrize("size", [MAX_BYTES + 1, 2**40, -512])
def test_a_header_that_claims_too_much_ends_the_file_before_anything_is_unpacked(tmp_path, kind, size):
    path = tmp_path / "bomb.tar.gz"
    packer = zlib.compressobj(9, wbits=31)
    path.write_bytes(packer.compress(make_header("zeros.jpg", size, kind) + bytes(2**20)) + packer.flush())
    with pytest.raises(BrokenFile, match="bomb.tar.gz"):
        list(tars.read_members(path))


def test_a_sample_of_many_large_parts_ends_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "MAX_BYTES", 10_000)
    zeros = bytes(4000)
    path = write_tar(tmp_path, {f"a.{i}": zeros for i in range(4)}, "w:gz", "a.tar.gz")
    with pytest.raises(BrokenFile, match="a is larger than"):
        list(tars.read_rows(path))


def test_a_picture_bomb_is_its_own_sample_alone(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = chunk(b"IHDR", struct.pack(">IIBBBBB", 50000, 50000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + size + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    write_tar(tmp_path, {"a.png": bomb, "b.jpg": PICTURES["1.jpg"], "c.jpg": b"not a picture"})
    stream = Stream(open_dataset("webdataset", {"path": str(tmp_path)}).reader)
    assert read_ids(stream) == ["b"] and "(2500000000 pixels)" in stream.counter.reasons["a"]
    assert "not a picture that can be read" in stream.counter.reasons["c"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"PAR1" + data,
        lambda data: b"",
        lambda data: data[:-200] + bytes(200),
    ],
)
def test_a_damaged_parquet_file_is_one_broken_row(tmp_path, damage):
    layouts.magicbrush(tmp_path)
    path = next(tmp_path.rglob("*.parquet"))
    layouts.write_parquet(
        tmp_path / "train-1.parquet",
        [
            {
                "source_img": layouts.make_cell(draw_picture(1)),
                "target_img": layouts.make_cell(draw_picture(2)),
                "instruction": "x",
            }
        ],
    )
    path.write_bytes(damage(path.read_bytes()))
    stream = Stream(open_dataset("magicbrush", {"path": str(tmp_path)}).reader)
    assert [found.instruction for found in stream] == ["x"] and stream.counter.broken == 1
    assert "is no whole Parquet file" in next(iter(stream.counter.reasons.values()))


@pytest.mark.parametrize(
    "row, why",
    [
        ({"source_img": None, "target_img": {"bytes": b"x"}, "instruction": "x"}, "expected picture, before and after"),
        (
            {"source_img": {"bytes": b"x"}, "target_img": {"bytes": b"x"}, "instruction": "x"},
            "source_img is not a picture",
        ),
        (
            {"source_img": "elsewhere.png", "target_img": "b.png", "instruction": "x"},
            "it names the file 'elsewhere.png'",
        ),
        ({"source_img": 3, "target_img": 4, "instruction": "x"}, "its source_img is no picture"),
    ],
)
def test_a_damaged_row_says_what_it_lacks(tmp_path, row, why):
    layouts.write_parquet(tmp_path / "a.parquet", [row])
    stream = Stream(open_dataset("magicbrush", {"path": str(tmp_path)}).reader)
    assert list(stream) == [] and why in stream.counter.summary()


def write_edits(path, rows: list[dict], type: pa.DataType | None = None, **options) -> None:
    """Writes a file of edits, whose instructions are of another type."""
    cell = pa.struct([("bytes", pa.binary())])
    fields = {"source_img": cell, "target_img": cell, "instruction": type or pa.string()}
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in fields.items()}
    pq.write_table(pa.table(columns), path, **options)


def make_edit(instruction) -> dict:
    pictures = {side: {"bytes": encode_picture(draw_picture(i))} for i, side in enumerate(("source_img", "target_img"))}
    return {**pictures, "instruction": instruction}


def count_broken(tmp_path, name="magicbrush") -> tuple[int, str]:
    """How many samples are read of a set in which one or more are broken, and why the first is."""
    stream = Stream(open_dataset(name, {"path": str(tmp_path)}).reader)
    return len(list(stream)), next(iter(stream.counter.reasons.values()), "")


def test_a_value_that_cannot_be_read_costs_its_row_alone(tmp_path):
    write_edits(tmp_path / "a.parquet", [make_edit(b"one"), make_edit(b"\xff\xfe"), make_edit(b"two")], pa.binary())
    table = pq.read_table(tmp_path / "a.parquet")
    text = pa.Array.from_buffers(pa.string(), 3, table["instruction"].combine_chunks().buffers())
    pq.write_table(table.set_column(2, "instruction", text), tmp_path / "a.parquet")
    count, reason = count_broken(tmp_path)
    assert count == 2 and reason.startswith("a value cannot be read (UnicodeDecodeError")
    write_edits(tmp_path / "a.parquet", [make_edit(0), make_edit(2**60)], pa.timestamp("ms"))
    stream = Stream(open_dataset("magicbrush", {"path": str(tmp_path)}).reader)
    assert list(stream) == [] and stream.counter.reasons["a-0"] == "its instruction is no text"
    assert stream.counter.reasons["a-1"].startswith("a value cannot be read (")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("more", range(-2, 2))
def test_a_line_as_long_as_may_be_costs_no_other(tmp_path, end, more):
    path, filling = tmp_path / "a.jsonl", b"x" * (lines.MAX_LINE + more - len(b'{"a": ""}'))
    path.write_bytes(b'{"a": "' + filling + b'"}' + end + b'{"a": 1}\n{"a": 2}\n')
    first, *others = (row for part in lines.split_files([path]) for row in lines.read_rows(part))
    assert [row["record"] for row in others] == [{"a": 1}, {"a": 2}]
    assert ("broken" in first) == (more > 0)


def test_what_unpacks_to_far_more_than_it_takes_is_a_broken_row(tmp_path):
    bomb = make_edit("x") | {"source_img": {"bytes": bytes(MAX_BYTES + 2**22)}}
    write_edits(tmp_path / "train-0.parquet", [bomb], compression="zstd")
    write_edits(tmp_path / "train-1.parquet", [make_edit("fine")])
    assert (tmp_path / "train-0.parquet").stat().st_size < 2**17
    count, reason = count_broken(tmp_path)
    assert count == 1 and "source_img, target_img, instruction unpack to" in reason


def test_a_value_that_counts_for_many_rows_is_in_memory_once(tmp_path):
    size = 2**23
    write_edits(tmp_path / "a.parquet", [make_edit("x") | {"source_img": {"bytes": bytes(size)}}] * 8)
    assert (tmp_path / "a.parquet").stat().st_size < 2 * size, "stored once"
    before = pa.total_allocated_bytes()
    rows = parquet.read_rows(str(tmp_path / "a.parquet"), ("source_img",))
    held = [pa.total_allocated_bytes() - before for row in rows if len(row["record"]["source_img"]["bytes"]) == size]
    assert len(held) == 8 and max(held) < 4 * size


def test_half_a_character_costs_its_sample_alone(tmp_path):
    lines = ['{"picture": "0.png", "caption": "fine"}', '{"picture": "0.png", "caption": "\\ud800"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    layouts.write_file(tmp_path / "0.png", encode_picture(draw_picture(0), "PNG"))
    count, reason = count_broken(tmp_path, "json-lines")
    assert count == 1 and reason.endswith("is no text in UTF-8")


def test_a_name_that_is_no_text_costs_its_sample_alone(tmp_path):
    layouts.coco_stuff(tmp_path)
    picture = next((tmp_path / "images/train2017").iterdir())
    odd = os.fsencode(picture.parent) + b"/\xff.jpg"
    shutil.copy(picture, odd)
    labels = tmp_path / "annotations/train2017"
    shutil.copy(next(labels.glob("*.png")), os.fsencode(labels) + b"/\xff.png")
    stream = Stream(open_dataset("coco-stuff", {"path": str(tmp_path)}).reader)
    assert all(id.isdecimal() for id in read_ids(stream)) and stream.counter.broken == 1


def test_a_score_that_is_text_costs_its_row_alone(tmp_path):
    layouts.subjects200k(tmp_path)
    path = next(tmp_path.rglob("*.parquet"))
    row = pq.read_table(path).to_pylist()[0]
    scores = {name: "very good" for name in row["quality_assessment"]}
    layouts.write_parquet(tmp_path / "odd.parquet", [row | {"quality_assessment": scores}])
    path.unlink()
    count, reason = count_broken(tmp_path, "subjects200k")
    assert count == 0 and reason.startswith("a column of it is of another type")


def test_ids_of_several_types_are_read_all_the_same(tmp_path):
    layouts.lvis(tmp_path)
    path = next(tmp_path.rglob("lvis_v*_train.json"))
    data = json.loads(path.read_text())
    data["images"].append({"id": "odd", "file_name": "odd.jpg"})
    data["annotations"].append({"id": 10**6, "image_id": "odd", "category_id": 1, "segmentation": []})
    known = len(list(Stream(open_dataset("lvis", {"path": str(tmp_path)}).reader)))
    path.write_text(json.dumps(data))
    count, reason = count_broken(tmp_path, "lvis")
    assert count == known and "odd.jpg cannot be read" in reason


def test_a_chain_of_headers_ends_the_file(tmp_path):
    chain = make_header("x", 512, tarfile.GNUTYPE_LONGNAME) + b"n".ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(chain * 3000 + bytes(1024))
    count, reason = count_broken(tmp_path, "webdataset")
    assert count == 0 and reason.startswith("a.tar is no whole tar file")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "c:/x", "a\0b", "", "..\\x", "\\\\host\\x"])
def test_a_list_cannot_name_a_file_elsewhere(tmp_path, name):
    with pytest.raises(BrokenFile, match="leads out of the folder"):
        join_below(tmp_path, name)
    (tmp_path / "a.jsonl").write_text(json.dumps({"picture": name or "../x", "caption": "x"}))
    stream = Stream(open_dataset("json-lines", {"path": str(tmp_path)}).reader)
    assert list(stream) == [] and "leads out of the folder" in stream.counter.summary()


def test_what_a_list_names_is_found_below(tmp_path):
    assert join_below(tmp_path, "./a/b.png") == tmp_path / "a/b.png" == join_below(tmp_path, "a\\b.png")


@pytest.mark.parametrize(
    "content", ["[]", "{}", "not json", '{"images": 3, "annotations": []}', '{"images": [], "annotations": [[]]}']
)
def test_a_damaged_list_of_coco_is_a_sentence(tmp_path, content):
    (tmp_path / "lvis_v1_train.json").write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match="download it again|There is no annotation"):
        Stream(open_dataset("lvis", {"path": str(tmp_path)}).reader)
