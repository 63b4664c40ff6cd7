"""A safetensors file written tensor by tensor, whole or not at all.

The library's own writer holds a second copy of everything in memory. Here one tensor at a time is: the header, whose
length is known beforehand only roughly, is written last into room kept for it (the format allows spaces behind it).
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from .atomic_write import atomic_write
from .errors import FileError
from .lazy_tensors import LazyTensors, itemsize
from .safe_file import FLOATS
from .validate import shorten

DTYPE_NAMES = {dtype: name for name, dtype in FLOATS.items()}
ENTRY_BYTES = 160
"""Room for a tensor in the header, besides its name: more than two offsets, a type and a shape can take."""


def write_safetensors(path: str | os.PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Writes the file, tensor by tensor; it is there whole or not at all."""
    path = Path(path)
    try:
        with atomic_write(path) as partial, open(partial, "wb") as file:
            _write(file, tensors, dict(metadata))
    except OSError as error:
        raise FileError(
            f"{path.name} could not be written ({shorten(error)}): free some space or choose another folder."
        ) from None
    return path


def _write(file: BinaryIO, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    header: dict[str, Any] = {"__metadata__": metadata}
    room = len(json.dumps(header)) + sum(len(json.dumps(name)) + ENTRY_BYTES for name in tensors)
    room += -room % 8  # data begins where any number type may
    file.seek(8 + room)
    end = 0
    for name in _wide_first(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
    file.seek(0)
    file.write(room.to_bytes(8, "little"))
    file.write(json.dumps(header).encode().ljust(room))


def _wide_first(tensors: Mapping[str, Tensor]) -> list[str]:
    """Orders tensors as the library does, so that each begins at a multiple of its numbers' width; then by name.

    Lazy tensors are listed in the order in which they are cheap.
    """
    names = tensors if isinstance(tensors, LazyTensors) else sorted(tensors)
    return sorted(names, key=lambda name: -itemsize(tensors, name))
