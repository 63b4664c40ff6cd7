"""HED and line art by networks, as the paper draws them, for training: where their files are in a folder; else classical maps.

Each example is drawn once and then encoded, in random crops that never repeat; so there is no cache of maps, and no batch.
"""

import hashlib
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ..sample import Sample
from .control import repeat_channels
from .hed_network import HED_FILE, open_hed
from .line_network import LINES_FILE, draw_lines, open_lines


class MapNetwork(NamedTuple):
    """A network that draws a kind of map."""

    file: str
    """Its name in the folder."""
    open: Callable[[Path], nn.Module]
    draw: Callable[[Any, np.ndarray], np.ndarray]
    """Draws a map, uint8 (height, width, 3), of the network and a picture."""


NETWORKS = {
    "hed": MapNetwork(HED_FILE, open_hed, lambda network, picture: network(picture)),
    "lineart": MapNetwork(
        LINES_FILE,
        open_lines,
        lambda network, picture: repeat_channels(draw_lines(network, picture)),
    ),
}


class LearnedMaps:
    """The networks of a folder; each is opened when it first draws, on a GPU where there is one."""

    def __init__(self, folder: str):
        paths = {kind: Path(folder) / network.file for kind, network in NETWORKS.items()} if folder else {}
        self.folder = folder
        self.paths = {kind: path for kind, path in paths.items() if path.is_file()}
        self._opened: dict[str, nn.Module] = {}

    @cached_property
    def identity(self) -> dict[str, str]:
        """What drawn maps depend on: kind -> a hash of the network's file; empty: there is none."""
        return {
            kind: hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest() for kind, path in self.paths.items()
        }

    def describe(self, kinds: Sequence[str]) -> str:
        """Says what draws those of these kinds that a network could draw; empty: none of them."""

        def explain(kind: str) -> str:
            return (
                f" (no {NETWORKS[kind].file} in {self.folder})"
                if self.folder
                else " (maps names no folder of networks)"
            )

        return describe_drawers(kinds, self.paths, explain)

    def draw(self, kind: str, picture: np.ndarray) -> np.ndarray:
        if kind not in self._opened:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self._opened[kind] = NETWORKS[kind].open(self.paths[kind]).to(device)
        with torch.no_grad():
            return NETWORKS[kind].draw(self._opened[kind], picture)

    def add_to(self, sample: Sample) -> Sample:
        """Gives the sample with maps that are drawn when they are asked for; those that it brings stay."""
        return replace(sample, maps=DrawnMaps(sample, self)) if self.paths else sample


def describe_drawers(
    kinds: Sequence[str], with_network: Container[str], explain: Callable[[str], str] = lambda kind: ""
) -> str:
    """Says which of these kinds networks draw, of those that one could; `explain` says why another has none."""
    parts = [
        f"{kind} by {NETWORKS[kind].file}" if kind in with_network else f"{kind} without a network{explain(kind)}"
        for kind in kinds
        if kind in NETWORKS
    ]
    return f"maps are drawn: {', '.join(parts)}" if parts else ""


class DrawnMaps(dict[str, np.ndarray]):
    """A sample's maps, and those that networks can draw of it."""

    def __init__(self, sample: Sample, networks: LearnedMaps):
        super().__init__(sample.maps)
        self.picture, self.networks = sample.picture, networks

    def __contains__(self, kind: object) -> bool:
        return super().__contains__(kind) or kind in self.networks.paths

    def __missing__(self, kind: str) -> np.ndarray:
        if kind not in self.networks.paths:
            raise KeyError(kind)
        self[kind] = self.networks.draw(kind, self.picture)
        return self[kind]
