"""A safetensors file as a mapping of memory-mapped tensors."""

import json
import os
import re
import struct
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .errors import FileError
from .lazy_tensors import LazyTensors
from .regular_file import open_regular
from .validate import shorten

COPIED = 1 << 20
"""Bytes of the largest tensor that is copied: another program that cuts a file takes the pages of mapped ones away."""
FLOATS = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""Types of numbers that weights are kept in, by safetensors' names."""


class SafeFile(LazyTensors):
    """The tensors of a safetensors file as a mapping; each look-up maps one, none reads ahead."""

    def __init__(self, path: str | os.PathLike, name: str = ""):
        self.path = Path(path)
        self.name = name or self.path.name
        """What people call it."""
        if not self.path.is_file():
            raise FileError(f"There is no file {shorten(path)}: check the name.")
        if not os.access(self.path, os.R_OK):
            raise FileError(f"{self.name} may not be read by this user: change its permissions.")
        try:
            self._file = safe_open(self.path, framework="pt")
            super().__init__(dict.fromkeys(sorted(self._file.keys())))
            check_keys_once(self.path)
        except (SafetensorError, OSError, ValueError, RecursionError) as error:
            raise FileError(
                f"{self.name} is not a whole safetensors file ({shorten(error)}): download or save it again."
            ) from None
        self.metadata = self._file.metadata() or {}
        self._opened = self._stamp()

    def _stamp(self) -> tuple:
        stat = self.path.stat()
        return (stat.st_ino, stat.st_size, stat.st_mtime_ns)

    def _check_unchanged(self) -> None:
        """Raises if the file was written over in place: its mapped pages may be gone, which kills a process.

        Replaced or deleted files stay whole for whoever has them open.
        """
        try:
            now = self._stamp()
        except OSError:
            return
        if now != self._opened and now[0] == self._opened[0]:
            raise FileError(f"{self.name} has changed since it was loaded: load it again.")

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        self._check_unchanged()
        tensor = self._file.get_tensor(name)
        return tensor.clone() if tensor.nbytes <= COPIED else tensor

    def state(self) -> tuple:
        """Returns what identifies the file's content as it was opened: reading refuses a file that has changed since."""
        return self._opened

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        return self._file.get_slice(name).get_dtype()


def check_keys_once(path: Path) -> None:
    """Raises ValueError if a header names anything twice: which of the two counts, readers do not agree about."""

    def check_pairs(pairs: list[tuple[str, Any]]) -> None:
        if repeated := next((key for key, count in Counter(key for key, _ in pairs).items() if count > 1), None):
            raise ValueError(f"its header names {shorten(repeated)!r} twice")

    with open_regular(path) as file:
        (length,) = struct.unpack("<Q", file.read(8))
        json.loads(file.read(length), object_pairs_hook=check_pairs)


def check_tensors(file: SafeFile, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises if the file's tensors are not exactly those of these names and shapes."""
    for key in expected.keys() - file.keys():
        raise FileError(f"{file.name} lacks the tensor {key} that its metadata promises: download or save it again.")
    for key in file.keys() - expected.keys():
        raise FileError(
            f"{file.name} holds a tensor {shorten(key)} that its metadata does not name: download or save it again."
        )
    for key in file:
        shape, dtype = file.shape(key), file.dtype(key)
        if shape != expected[key]:
            raise FileError(
                f"{file.name}: {key} has shape {shape}, expected {expected[key]}: download or save it again."
            )
        if dtype not in FLOATS:
            raise FileError(f"{file.name}: {key} is of type {dtype}, expected one of {', '.join(sorted(FLOATS))}.")


def check_numbers(name: str, tensors: Mapping[str, Tensor]) -> None:
    """Raises if a tensor of the file called `name` holds anything but numbers; reads all of them."""
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor.float()).all():
            raise FileError(f"{name}: {key} holds values that are not finite: train or download it again.")


def header_matches(path: str | os.PathLike, pattern: re.Pattern, length: int) -> bool:
    """Says whether a pattern is found in a file's first bytes; they are read once for each state of a file."""
    try:
        stat = os.stat(path)
        return _header_matches(os.fspath(path), stat.st_size, stat.st_mtime_ns, pattern, length)
    except OSError:
        return False


@lru_cache(4096)
def _header_matches(path: str, size: int, changed: int, pattern: re.Pattern, length: int) -> bool:
    with open_regular(path) as file:
        return pattern.search(file.read(length)) is not None
