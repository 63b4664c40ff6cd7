"""The networks that measure, from folders that the user has; each is opened when first asked for, and kept."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from ...prw.files.validate import one_of
from ..data.model_folder import network_in, preparation_in

T = TypeVar("T")


class Unmeasured(ValueError):
    """Why a metric cannot be had; the others can."""


class Checkpoint(NamedTuple):
    name: str
    """Of its folder or file."""
    home: str
    note: str = ""
    """Where it is not what the paper, or the benchmark's own script, measures with."""


HUB = "https://huggingface.co/"
UNSTATED = "the paper names none: this is what MagicBrush's script takes"
CHECKPOINTS = {
    "clip": Checkpoint("clip-vit-base-patch32", HUB + "openai/clip-vit-base-patch32", UNSTATED),
    "clip_score": Checkpoint("clip-vit-base-patch16", HUB + "openai/clip-vit-base-patch16"),
    # the same weights as torch.hub's dino_vits16; dino_vits8 or DINOv2 give other numbers
    "dino": Checkpoint("dino-vits16", HUB + "facebook/dino-vits16", UNSTATED),
    "depth": Checkpoint("dpt-large", HUB + "Intel/dpt-large"),
    "ade20k": Checkpoint(
        "mask2former-swin-large-ade-semantic",
        HUB + "facebook/mask2former-swin-large-ade-semantic",
        "ControlNet++ takes mmsegmentation's training of the same network",
    ),
    "cocostuff": Checkpoint(
        "maskformer-resnet101-coco-stuff",
        HUB + "facebook/maskformer-resnet101-coco-stuff",
        "ControlNet++ takes mmsegmentation's DeepLabV3-R101-d8, which transformers cannot open: not comparable",
    ),
    "lines": Checkpoint("image-to-line-drawings.pth", HUB + "spaces/awacke1/Image-to-Line-Drawings (model.pth)"),
    "inception": Checkpoint(
        "inception-2015-12-05.pt",
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    ),
    "judge": Checkpoint(
        "Qwen2.5-VL-7B-Instruct",
        HUB + "Qwen/Qwen2.5-VL-7B-Instruct",
        "the benchmark's judges are GPT-4.1 and Qwen2.5-VL-72B, with VIEScore's own wording: not comparable",
    ),
}


@dataclass(frozen=True)
class Shelf:
    root: Path
    chosen: Mapping[str, Path] = field(default_factory=dict)
    """Others than those of CHECKPOINTS, by their keys."""
    device: str = "cpu"
    opened: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for key in self.chosen:
            one_of("--model", key, tuple(CHECKPOINTS))

    def path(self, key: str) -> Path:
        return self.chosen.get(key, self.root / CHECKPOINTS[key].name)

    def found(self, key: str) -> Path:
        if not (path := self.path(key)).exists():
            raise Unmeasured(
                f"There is no {path.name} in {path.parent}, which this needs: download it from {CHECKPOINTS[key].home}."
            )
        return path

    def take(self, key: str, opener: Callable[[Path, str], T]) -> T:
        if key not in self.opened:
            self.opened[key] = opener(self.found(key), self.device)
        return self.opened[key]


PACKAGES = {"cleanfid": "clean-fid"}
"""Where a package has another name than its module."""


def library(name: str) -> ModuleType:
    """A module of one of the extra packages."""
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        package = PACKAGES.get(package, package)
        raise Unmeasured(f"{package} is not installed: pip install {package}.") from None


def network(folder: Path, kind: str, device: str = "cpu", **more):
    library("transformers")
    with unmeasured():
        return network_in(folder, kind, **more).to(device)


def preparation(folder: Path, kind: str):
    library("transformers")
    with unmeasured():
        return preparation_in(folder, kind)


@contextmanager
def unmeasured() -> Iterator[None]:
    """Why a folder cannot be opened is why its metric cannot be had."""
    try:
        yield
    except ValueError as error:
        raise Unmeasured(str(error)) from None
