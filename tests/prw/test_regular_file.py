"""Only regular files are opened, and no more of them is read than they may have."""

import os
import re
import socket

import pytest
import torch
from cologen.prw.bank.importers import open_experts
from cologen.prw.files.errors import FileError
from cologen.prw.files.regular_file import open_regular, read_regular
from cologen.prw.files.safe_file import SafeFile, header_matches
from cologen.training.data.formats import json_lines, parquet, tar_files
from cologen.training.data.formats.picture_files import BrokenFile, read_bytes
from cologen.training.data.formats.plain_pickle import load_plain
from cologen.training.data.model_folder import read_config
from cologen.training.data.sets.coco_json import load_coco
from safetensors.torch import save_file

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes there")


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    place = os.getcwd()
    os.chdir(path.parent)  # the path of a socket must be short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(place)


def link_device(path):
    path.symlink_to("/dev/zero")


READERS = {
    "a.safetensors": SafeFile,
    "b.safetensors": open_experts,
    "adapter/adapter_config.json": lambda path: open_experts(path.parent),
    "a.png": read_bytes,
    "a.jsonl": lambda path: list(json_lines.read_rows((str(path), 0, 10))),
    "a.tar": lambda path: list(tar_files.read_rows(path)),
    "b.jsonl": lambda path: list(tar_files.read_lines(path)),
    "a.parquet": lambda path: list(parquet.read_rows(str(path), ["a"])),
    "a.p": load_plain,
    "a.json": load_coco,
    "model/config.json": lambda path: read_config(path.parent),
}


@pytest.mark.parametrize("make", [make_pipe, make_socket, link_device])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_regular_file_is_a_sentence(tmp_path, name, make):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    make(path)
    with pytest.raises((FileError, BrokenFile, ValueError, OSError)):
        READERS[name](path)
    assert not header_matches(path, re.compile(b"."), 10)


def test_no_more_is_read_than_a_file_may_have(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    assert read_regular(path, 10) == b"x" * 10
    with pytest.raises(OSError, match="it is larger than 9 bytes"):
        read_regular(path, 9)
    with open_regular(path) as file:
        assert file.read() == b"x" * 10


def test_what_was_read_of_a_file_outlives_its_being_cut(tmp_path):
    """Another program may take a mapped file's pages away: what is small is a copy."""
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.arange(1000.0), "b": torch.ones(3)}, path)
    file = SafeFile(path)
    a = file["a"]
    os.truncate(path, 16)
    assert torch.equal(a, torch.arange(1000.0))
    with pytest.raises(FileError, match="x.safetensors has changed since it was loaded"):
        file["b"]
