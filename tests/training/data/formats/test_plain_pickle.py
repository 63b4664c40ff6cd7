"""Pickles of plain values are read; whatever could run, build, fetch or fill memory is one sentence."""

import collections
import copyreg
import io
import os
import pickle
import struct

import pytest
from cologen.training.data.formats.picture_files import BrokenFile
from cologen.training.data.formats.plain_pickle import load_plain
from fuzzing import read_memory, reset_peak

PLAIN = [{"ref_id": 7, "raw": "the left cat", "box": [1.5, -2, 2**80], "tokens": ["the", None, True], "é": {}}]


def save(tmp_path, data: bytes):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_back_from_every_protocol(tmp_path, protocol):
    assert load_plain(save(tmp_path, pickle.dumps(PLAIN, protocol))) == PLAIN


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_tuples_come_back_as_lists(tmp_path, protocol):
    tuples = [(), (1,), (1, 2), (1, (2,), 3), (1, 2, 3, 4)]
    lists = [[], [1], [1, 2], [1, [2], 3], [1, 2, 3, 4]]
    assert load_plain(save(tmp_path, pickle.dumps(tuples, protocol))) == lists


def test_a_python_2_pickle_is_read(tmp_path):
    """Python 2's protocol 0 for [{'sent': u'caf\\xe9', 'raw': 'caf\\xe9', 'id': 3L, 'n': 1}]."""
    data = b"(lp0\n(dp1\nS'sent'\np2\nVcaf\\u00e9\np3\nsS'raw'\np4\nS'caf\\xe9'\np5\nsS'id'\np6\nL3L\nsS'n'\nI1\nsa."
    assert load_plain(save(tmp_path, data)) == [{"sent": "café", "raw": "café", "id": 3, "n": 1}]


class Calls:
    def __reduce__(self):
        return os.system, ("touch /tmp/cologen-was-here",)


class Persistent(pickle.Pickler):
    def persistent_id(self, obj):
        return "elsewhere" if obj == "fetch me" else None


def persistent(protocol):
    buffer = io.BytesIO()
    Persistent(buffer, protocol).dump(["fetch me"])
    return buffer.getvalue()


def extension():
    copyreg.add_extension("collections", "OrderedDict", 240)
    try:
        return pickle.dumps(collections.OrderedDict, 2)
    finally:
        copyreg.remove_extension("collections", "OrderedDict", 240)


class Thing:
    pass


HOSTILE = {
    "os.system": pickle.dumps(Calls()),
    "os.system, old": pickle.dumps(Calls(), 0),
    "os.system by INST": b"(S'true'\nios\nsystem\n.",
    "os.system by OBJ": b"(cos\nsystem\nS'true'\no.",
    "a class": pickle.dumps(Thing()),
    "a class, old": pickle.dumps(Thing(), 0),
    "a class by copyreg": pickle.dumps(collections.OrderedDict(a=1), 0),
    "an extension code": extension(),
    "a set": pickle.dumps({1, 2}, 4),
    "bytes of a codec": pickle.dumps(b"\xff", 0),
    "a persistent id": persistent(2),
    "a persistent id, old": persistent(0),
    "a buffer from outside": pickle.dumps(pickle.PickleBuffer(b"x"), 5, buffer_callback=lambda _: False),
    "a byte array": pickle.dumps(bytearray(b"x"), 5),
    "BUILD": b"}}b.",
    "no instruction": b"\xf0.",
    "an instruction cut off": b"(lp0",
    "nothing": b"",
    "text": b"hello world",
    "no mark": b"]0e.",
    "more digits than Python reads": b"I" + b"9" * 5000 + b"\n.",
    "a key that holds one tuple twice, 60 times over": b"})" + 60 * b"2\x86" + b"Ns.",
    "a key that is a list": b"(](lI1\ns.",
    "deep nesting that is cut off": b"(" * 100_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_a_sentence_and_runs_nothing(tmp_path, name):
    with pytest.raises(BrokenFile) as caught:
        load_plain(save(tmp_path, HOSTILE[name]))
    said = str(caught.value)
    assert said.startswith("refs(unc).p is no plain pickle (") and said.count("\n") == 0
    assert said.endswith("expected lists, dicts, texts and numbers alone: download it again.")
    assert not os.path.exists("/tmp/cologen-was-here")


@pytest.mark.parametrize(
    "data",
    [
        b"]r" + struct.pack("<I", 2**32 - 1) + b".",  # the memo's last place
        b"]p4294967295000\n.",
        b"\x8d" + struct.pack("<Q", 2**62) + b"x.",  # a text of 4 EB
        b"\x8e" + struct.pack("<Q", 2**40) + b"x.",  # bytes
        b"\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01.",  # a number of 2 GB
        b"\x95" + struct.pack("<Q", 2**62) + b"].",  # a frame
    ],
)
def test_a_claim_of_much_memory_takes_none(tmp_path, data):
    before = reset_peak()
    try:
        load_plain(save(tmp_path, data))
    except BrokenFile:
        pass
    assert read_memory("VmHWM") - before < 64 * 1024  # KiB


def test_a_pickle_that_is_too_large_is_not_opened(tmp_path):
    path = tmp_path / "refs(unc).p"
    with path.open("wb") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(BrokenFile, match="larger than"):
        load_plain(path)
