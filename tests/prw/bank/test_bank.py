"""The bank file: what is saved loads, and what is broken is a sentence and changes nothing."""

import json
import pickle
import struct
from dataclasses import replace

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.bank.bank import METADATA_KEY, Bank
from cologen.prw.bank.edit import make_random_bank, merge, split
from cologen.prw.bank.info import encode_info
from cologen.prw.embedded_host import velocity
from cologen.prw.files.errors import BankError, FileError
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny import inputs, source, tiny_bank, tiny_flux, tiny_info


def run(flux, bank, *sources):
    return velocity(flux, *inputs(), Attachment(bank), sources)


def test_saved_is_loaded(flux, tmp_path):
    bank = tiny_bank(flux)
    loaded = Bank.open(bank.save(tmp_path / "sub" / "bank.safetensors"))
    assert loaded.info == bank.info
    assert loaded.tensors.keys() == bank.tensors.keys()
    assert all(torch.equal(loaded.tensors[name], bank.tensors[name]) for name in bank.tensors)
    assert torch.equal(run(flux, loaded, source()), run(flux, bank, source()))
    assert list(loaded.info.experts) == list(bank.info.experts), "in training order"
    (written,) = (tmp_path / "sub").iterdir()
    (tmp_path / "plain").touch()
    assert written.stat().st_mode == (tmp_path / "plain").stat().st_mode, "readable for whom other files are"


class FullDisk(dict):
    """Tensors whose writing ends half-way."""

    reads = 0

    def __getitem__(self, name):
        self.reads += 1
        if self.reads > 1.5 * len(self):
            raise OSError(28, "No space left on device")
        return super().__getitem__(name)


def test_a_failed_save_leaves_the_old_file(flux, tmp_path):
    path = tiny_bank(flux).save(tmp_path / "bank.safetensors")
    before, other = path.read_bytes(), tiny_bank(flux, seed=9)
    with pytest.raises(FileError, match="could not be written .*No space.*: free some space"):
        Bank(other.info, FullDisk(other.tensors)).save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_what_stands_in_the_way_of_a_file_is_a_sentence(flux, tmp_path):
    bank = tiny_bank(flux)
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.safetensors").mkdir()
    for path in (tmp_path / "file" / "bank.safetensors", tmp_path / "folder.safetensors"):
        with pytest.raises(FileError, match=f"{path.name} could not be written .*: free some space or choose another"):
            bank.save(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.safetensors"]


def test_metadata_that_no_reader_takes_is_not_written(flux, tmp_path):
    bank = tiny_bank(flux)
    with pytest.raises(BankError, match="characters long, expected at most 1048576: split the bank"):
        Bank(replace(bank.info, licence="x" * 2**20), bank.tensors).save(tmp_path / "bank.safetensors")
    assert not list(tmp_path.iterdir())


def test_experts_this_code_does_not_know_load_and_run(flux, tmp_path):
    bank = tiny_bank(flux, names=("inpaint", "ground", "control", "subject", "edit", "relight"))
    loaded = Bank.open(bank.save(tmp_path / "six.safetensors"))
    run(flux, loaded, source("relight"))
    run(flux, loaded, source("edit", router="relight"))


def test_a_later_bank_replays_an_earlier_stage_bit_for_bit(flux):
    early, late = tiny_bank(flux, names=("inpaint", "ground")), tiny_bank(flux, seed=8)
    grown = Bank(late.info, {**late.tensors, **early.tensors})
    for task in ("inpaint", "ground"):
        assert torch.equal(run(flux, grown, source(task)), run(flux, early, source(task)))


def test_merge_of_split_parts_is_the_bank(flux, tmp_path):
    bank = tiny_bank(flux)
    parts = [Bank.open(split(bank, name).save(tmp_path / f"{name}.safetensors")) for name in bank.info.experts]
    assert list(parts[1].info.experts) == ["ground"]
    whole = Bank.open(merge(parts).save(tmp_path / "whole.safetensors"))
    assert whole.info == bank.info
    assert torch.equal(run(flux, whole, source()), run(flux, bank, source()))
    with pytest.raises(BankError, match="lacks inpaint: merge it"):
        run(flux, parts[1], source("ground"))
    with pytest.raises(BankError, match="Two banks have expert inpaint, expected a name once"):
        merge([bank, parts[0]])


def test_an_expert_without_a_router_runs_alone_with_gate_one(flux):
    bank = tiny_bank(flux)
    fixed = Bank(replace(bank.info, routers={}), {k: v for k, v in bank.tensors.items() if k.startswith("experts")})
    assert torch.equal(run(flux, fixed, source("ground")), run(flux, bank, source("ground", expert="ground")))
    with pytest.raises(
        BankError, match=r"no router and no expert for edit, .*\(inpaint, ground, control\): use CoLoGen Inpaint or "
    ):
        run(flux, fixed, source("edit"))


def test_experts_may_bend_q_and_out_and_only_some_blocks(flux):
    info = tiny_info(flux, names=("inpaint",), targets={"q": "all", "v": "single", "out": "double"})
    bank = make_random_bank(info, seed=1, up=0.3)
    assert {key.split(".")[4] for key in bank.tensors if key.startswith("experts.inpaint.double")} == {"q", "out"}
    assert {key.split(".")[4] for key in bank.tensors if key.startswith("experts.inpaint.single")} == {"q", "v"}
    plain = run(flux, make_random_bank(info, seed=1), source("inpaint"))
    assert (run(flux, bank, source("inpaint")) - plain).abs().max() > 1e-3


def test_a_bank_for_another_base_is_a_sentence(flux):
    other = tiny_bank(tiny_flux(depth=1))
    with pytest.raises(ValueError, match="double_blocks 2, the bank was made for 1"):
        run(flux, other, source())


def test_another_training_of_the_same_shape_is_a_warning(flux, caplog):
    base = tiny_info(flux).base
    own = Bank(replace(tiny_info(flux), base=base.with_probe(flux)), tiny_bank(flux).tensors)
    run(flux, own, source())
    half = tiny_flux(torch.float8_e4m3fn)
    run(half, own, source())
    assert not caplog.records
    run(tiny_flux(seed=5), Bank(own.info, own.tensors), source())
    assert "trained on other weights" in caplog.text


def rewrite(path, metadata=None, tensors=None):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        held = {name: file.get_tensor(name).clone() for name in file.keys()}
        text = file.metadata()[METADATA_KEY]
    save_file(tensors(held) if tensors else held, path, {METADATA_KEY: metadata(text) if metadata else text})


def change(**entries):
    return lambda text: json.dumps({**json.loads(text), **entries})


def drop(held):
    held.pop("experts.ground.single_blocks.1.v.up")
    return held


def name_twice(data: bytes) -> bytes:
    """The file with its first tensor's entry repeated in the header."""
    size = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:size])
    name = next(name for name in header if name != "__metadata__")
    text = data[8:size].rstrip()[:-1] + f",{json.dumps(name)}:{json.dumps(header[name])}}}".encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[size:]


KEY = "experts.ground.single_blocks.1.v.up"
BROKEN = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-100]), "is not a whole safetensors file"),
    "empty": (lambda p: p.write_bytes(b""), "is not a whole safetensors file"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"a": torch.ones(2)})), "is not a whole safetensors file"),
    "a name twice": (lambda p: p.write_bytes(name_twice(p.read_bytes())), "its header names 'experts"),
    "huge header": (lambda p: p.write_bytes(struct.pack("<Q", 1 << 60) + b"{}"), "is not a whole safetensors file"),
    "missing file": (lambda p: p.unlink(), "There is no file"),
    "no metadata": (lambda p: save_file({"a": torch.ones(1)}, p), "but no CoLoGen bank"),
    "missing key": (lambda p: rewrite(p, tensors=drop), f"lacks the tensor {KEY}"),
    "extra key": (lambda p: rewrite(p, tensors=lambda t: {**t, "x": torch.ones(1)}), "holds a tensor x"),
    "wrong dtype": (lambda p: rewrite(p, tensors=lambda t: {**t, KEY: t[KEY].to(torch.int8)}), "is of type I8"),
    "wrong shape": (lambda p: rewrite(p, tensors=lambda t: {**t, KEY: t[KEY][:-1].clone()}), r"has shape \(255, 4\)"),
    "newer": (lambda p: rewrite(p, change(version=5)), "is a bank of version 5, this pack reads up to 4: update"),
    "no version": (lambda p: rewrite(p, change(version=None)), "its version is None"),
    "other format": (lambda p: rewrite(p, change(format="zip")), 'does not say "format"'),
    "not json": (lambda p: rewrite(p, lambda text: text[:-5]), "metadata that cannot be used"),
    "a list": (lambda p: rewrite(p, lambda text: "[]"), "metadata that cannot be used"),
    "deep nesting": (lambda p: rewrite(p, lambda text: "[" * 100_000), "metadata that cannot be used"),
    "too long": (lambda p: rewrite(p, lambda text: text + " " * 2_000_000), "characters long, expected at most"),
    "unknown entry": (lambda p: rewrite(p, change(code="import os")), "unknown entry 'code'"),
    "path as name": (lambda p: rewrite(p, change(experts={"../../x": {}})), "not made of 1 to 64 letters"),
    "wrong type": (lambda p: rewrite(p, change(experts=[1])), "expected an object"),
    "endless blocks": (lambda p: rewrite(p, change(base={"double_blocks": 10**9})), "expected 0 to 1000"),
    "rank 0": (lambda p: rewrite(p, change(experts={"a": {"rank": 0}})), "rank is 0"),
    "nan alpha": (lambda p: rewrite(p, change(experts={"a": {"alpha": float("nan")}})), "alpha is nan"),
    "endless experts": (
        lambda p: rewrite(p, change(experts={str(i): {} for i in range(20000)})),
        r"holds \d+ tensors, but its metadata promises 320024",
    ),
    "endless alpha": (lambda p: rewrite(p, change(experts={"a": {"alpha": 10**400}})), "cannot be used"),
    "endless guidance": (lambda p: rewrite(p, change(source={"guidance": float("inf")})), "guidance is inf"),
    "short probe": (lambda p: rewrite(p, change(base={"probe": [1.0]})), "probe is not made of 32 numbers"),
    "reserved name": (lambda p: rewrite(p, change(routers={"final": {"experts": ["inpaint"]}})), "is named final"),
    "lines in a name": (lambda p: rewrite(p, change(routers={"a": {"experts": ["x\n\x1b[31m"]}})), "the name"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "There is no file"),
    "no targets": (lambda p: rewrite(p, change(experts={"a": {"targets": {}}})), "an expert has no targets, expected"),
    "no such blocks": (
        lambda p: rewrite(p, change(base={"single_blocks": 0}, experts={"a": {"targets": {"k": "single"}}})),
        "expert a changes .*, but the base has no such block",
    ),
    "two ranks in a group": (
        lambda p: rewrite(p, change(experts={"a": {"rank": 4, "shared": "g"}, "b": {"rank": 8, "shared": "g"}})),
        "expert b has rank 8, expected 4 as all that share down matrices in g",
    ),
    "odd side": (
        lambda p: rewrite(p, change(experts={"a": {"habits": {"side": 8}}})),
        "side is 8, expected a multiple",
    ),
    "side below 0": (lambda p: rewrite(p, change(experts={"a": {"habits": {"side": -16}}})), "side is -16, expected 0"),
    "a circle": (
        lambda p: rewrite(p, change(experts={"a": {"parent": "b"}, "b": {"parent": "a"}})),
        "expert a adds to b and so on, expected a tree: no circle",
    ),
    "its own parent": (
        lambda p: rewrite(p, change(experts={"a": {"parent": "a"}})),
        "expert a adds to a .* no circle",
    ),
    "a deep tree": (
        lambda p: rewrite(p, change(experts={str(i): {"parent": str(i + 1)} for i in range(5000)})),
        "at most 8 experts above one",
    ),
    "a parent elsewhere in FLUX": (
        lambda p: rewrite(p, change(experts={"a": {"parent": "b"}, "b": {"targets": {"k": "double"}}})),
        "expert a changes .*, expected {'k': 'double'} as b, which it adds to",
    ),
    "no name for a parent": (lambda p: rewrite(p, change(experts={"a": {"parent": "../b"}})), "not made of 1 to 64"),
    "bool rank": (lambda p: rewrite(p, change(experts={"a": {"rank": True}})), "expected a number"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_sentence(flux, tmp_path, name):
    path = tiny_bank(flux).save(tmp_path / "bank.safetensors")
    spoil, sentence = BROKEN[name]
    spoil(path)
    with pytest.raises(FileError, match=sentence) as caught:
        Bank.open(path)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_metadata_does_more_than_a_sentence(flux, tmp_path_factory, data):
    """Any entry of the metadata replaced by anything: it loads, or it is a FileError."""
    path = tiny_bank(flux).save(tmp_path_factory.mktemp("fuzz") / "bank.safetensors")
    meta = json.loads(encode_info(tiny_info(flux)))
    spot = meta
    while isinstance(spot, dict) and spot:
        key = data.draw(st.sampled_from(sorted(spot)))
        if not isinstance(spot[key], dict) or data.draw(st.booleans()):
            spot[key] = data.draw(json_values)
            break
        spot = spot[key]
    rewrite(path, lambda text: json.dumps(meta))
    try:
        Bank.open(path)
    except FileError:
        pass


def test_a_bank_written_over_while_loaded_is_a_sentence_and_a_replaced_one_is_not(flux, tmp_path):
    path = tiny_bank(flux).save(tmp_path / "bank.safetensors")
    loaded, expected = Bank.open(path), run(flux, tiny_bank(flux), source())
    tiny_bank(flux, seed=9).save(path)  # by name: whoever has the old file open keeps it
    assert torch.equal(run(flux, loaded, source()), expected)
    again = Bank.open(path)
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(FileError, match="has changed since it was loaded"):
        run(flux, again, source())


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(
    "part, block",
    [
        ("experts.inpaint.double_blocks.0.k.up", "double_blocks.0"),
        ("routers.inpaint.double_blocks.0.weight", "double_blocks.0"),
        ("experts.inpaint.single_blocks.1.k.up", "single_blocks.1"),
        ("experts.inpaint.single_blocks.1.v.up", "single_blocks.1"),
    ],
)
def test_values_that_are_not_finite_are_a_sentence(flux, part, block, value):
    bank = tiny_bank(flux)
    bank.tensors[part][0, 0] = value
    with pytest.raises(BankError, match=rf"not finite in {block}, where it takes inpaint, expected numbers"):
        run(flux, bank, source("inpaint", seed=3))


def test_an_expert_and_its_router_part_and_meet_again_in_any_order(flux):
    bank = tiny_bank(flux, names=("edit", "inpaint", "ground"))
    parts = [split(bank, name) for name in reversed(list(bank.info.experts))]
    assert merge(parts).info == bank.info
    with pytest.raises(BankError, match="modulate their sources differently"):
        merge([parts[0], split(tiny_bank(flux, names=("subject",), time="shared"), "subject")])
