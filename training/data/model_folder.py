"""A folder of a transformers model (config.json, preprocessor_config.json, *.safetensors), opened without trust.

Nothing is fetched and no code of the folder runs; weights that are missing are not made up.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from ...prw.files.regular_file import read_regular_text
from ...prw.files.validate import shorten, shorten_error

MAX_CONFIG = 2**22
PROCESSOR_CONFIGS = ("preprocessor_config.json", "processor_config.json")
"""What transformers reads of a folder to make the model's processor, whichever is there."""
FETCH_KEYS = ("backbone", "attn_implementation", "_attn_implementation", "class_info_file")
"""Entries of a configuration by which transformers finds code, weights or names elsewhere; whole models have none."""
DETR_CONFIG = "decoder_config"
"""MaskFormer's: a DETR's configuration, of which no backbone is built."""
UNUSED_WEIGHTS = re.compile(r"fusion_stage\.layers\.0\.residual_layer1\.|\.num_batches_tracked$")
"""Weights that files may lack, because nothing ever reads them: some of DPT's, and how long a batch norm was trained."""
IMAGENET_MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of red, green and blue in ImageNet, of values from 0 to 1: what DINO's networks expect."""


def read_config(folder: Path) -> dict:
    """Reads the config.json; its one architecture stands as "architecture", too."""
    try:
        config = json.loads(read_regular_text(folder / "config.json", MAX_CONFIG))
        (config["architecture"],) = config["architectures"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(
            f"{folder.name} holds no config.json of a transformers model, expected one that names its architecture: "
            f"download the folder again."
        ) from None
    return config


def load_network(folder: Path, kind: str, **options) -> nn.Module:
    """Loads a frozen network by a class of transformers; `options` are for its from_pretrained."""
    network, report = _load(folder, kind, use_safetensors=True, output_loading_info=True, **options)
    if missing := sorted(name for name in report["missing_keys"] if not UNUSED_WEIGHTS.search(name)):
        raise ValueError(
            f"{folder.name} lacks {len(missing)} of its weights (such as {shorten(missing[0])}), expected all of them: "
            f"download it again."
        )
    return network.eval().requires_grad_(False)


def load_processor(folder: Path, kind: str = "AutoImageProcessor") -> Any:
    """Loads a tokenizer, an image processor or both, by a class of transformers."""
    return _load(folder, kind)


def _load(folder: Path, kind: str, **options) -> Any:
    import transformers

    check_trusted(folder)
    try:
        return getattr(transformers, kind).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:  # whatever a foreign configuration can provoke
        raise ValueError(
            f"{folder.name} is no model that transformers can open ({shorten_error(error)}), "
            f"expected its whole folder with config.json, preprocessor_config.json and model.safetensors: download it again."
        ) from None


def check_trusted(folder: Path) -> None:
    """Raises for weights in formats that can carry code, and for configurations by which transformers would fetch some."""
    _check_weights(folder)
    configs = {"config.json": read_config(folder)} | {name: _read_optional(folder / name) for name in PROCESSOR_CONFIGS}
    for name, config in configs.items():
        if fetched := next(_list_fetched(config), None):
            raise ValueError(
                f"The {name} of {folder.name} asks for {shorten(fetched)}, which would be fetched from the internet, "
                f"expected a folder that holds all: choose another model."
            )


def _read_optional(path: Path) -> Any:
    """Reads a configuration; nothing, where there is none."""
    if not path.exists():
        return {}
    try:
        return json.loads(read_regular_text(path, MAX_CONFIG))
    except (OSError, ValueError, RecursionError):
        raise ValueError(
            f"The {path.name} of {path.parent.name} is no JSON, expected what belongs to the model: download it again."
        ) from None


def _check_weights(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    others = ", ".join(sorted(path.name for path in folder.glob("*.bin"))) or "no weights"
    raise ValueError(
        f"{folder.name} holds {others}, expected model.safetensors (other formats can carry code): download that file of "
        f"the same model, or choose one that has it."
    )


def _list_fetched(part: Any) -> Iterator[str]:
    """Lists what transformers would look up by its name, in a part of a configuration."""
    if isinstance(part, dict):
        yield from (f"{key} {part[key]}" for key in FETCH_KEYS if isinstance(part.get(key), str))
        part = [inner for key, inner in part.items() if key != DETR_CONFIG]
    if isinstance(part, list):
        for inner in part:
            yield from _list_fetched(inner)
