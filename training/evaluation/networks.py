"""The networks that metrics need, from folders that the user has."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from ...prw.files.errors import show_as_ours
from ...prw.files.validate import check_choice
from ..data.model_folder import load_network, load_processor
from ..data.tasks.line_network import LINES_FILE

T = TypeVar("T")


@show_as_ours
class MetricUnavailable(ValueError):
    """Says why a metric cannot be measured; others can."""


class Checkpoint(NamedTuple):
    """Where a network is published."""

    name: str
    """The folder's or file's name."""
    url: str
    note: str = ""
    """How it differs from what the paper, or the benchmark's own script, measures with."""


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
    "lines": Checkpoint(LINES_FILE, HUB + "spaces/awacke1/Image-to-Line-Drawings (model.pth)"),
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
class MetricNetworks:
    """Opens each network of CHECKPOINTS when it is first needed, and keeps it."""

    root: Path
    """The folder that holds them."""
    chosen: Mapping[str, Path] = field(default_factory=dict)
    """Others than those of CHECKPOINTS, by their keys."""
    device: str = "cpu"
    opened: dict[str, Any] = field(default_factory=dict)
    """By key."""

    def __post_init__(self):
        for key in self.chosen:
            check_choice("--model", key, tuple(CHECKPOINTS))

    def path(self, key: str) -> Path:
        """Gives where a network should lie."""
        return self.chosen.get(key, self.root / CHECKPOINTS[key].name)

    def check_path(self, key: str) -> Path:
        """Returns its path; raises MetricUnavailable if nothing lies there."""
        if not (path := self.path(key)).exists():
            raise MetricUnavailable(
                f"There is no {path.name} in {path.parent}, which this needs: download it from {CHECKPOINTS[key].url}."
            )
        return path

    def load(self, key: str, opener: Callable[[Path, str], T]) -> T:
        """Returns a network, opened by `opener` (path, device) if it is not yet."""
        if key not in self.opened:
            self.opened[key] = opener(self.check_path(key), self.device)
        return self.opened[key]


PACKAGES = {"cleanfid": "clean-fid"}
"""Where a package has another name than its module."""


def import_library(name: str) -> ModuleType:
    """Imports a module of an extra package; raises MetricUnavailable if that is not installed."""
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        package = PACKAGES.get(package, package)
        raise MetricUnavailable(f"{package} is not installed: pip install {package}.") from None


def open_network(folder: Path, kind: str, device: str = "cpu", **options: Any) -> Any:
    """Opens a folder by a class of transformers; `options` are for its from_pretrained."""
    import_library("transformers")
    with report_unavailable():
        return load_network(folder, kind, **options).to(device)


def open_processor(folder: Path, kind: str) -> Any:
    """Opens a tokenizer, an image processor or both by a class of transformers."""
    import_library("transformers")
    with report_unavailable():
        return load_processor(folder, kind)


@contextmanager
def report_unavailable() -> Generator[None, None, None]:
    """Raises MetricUnavailable instead of other ValueErrors: a network that cannot be opened leaves its metrics out."""
    try:
        yield
    except ValueError as error:
        raise MetricUnavailable(str(error)) from None
