"""Files that look like experts but cannot become any, each with its reason."""

from collections.abc import Collection
from typing import NamedTuple

from ...files.errors import FileError


class UnsupportedFile(NamedTuple):
    """A kind of file by its tensors' names."""

    has: str
    """A part of one of its tensors' names."""
    lacks: tuple[str, ...]
    """Parts that none of its tensors' names has."""
    reason: str


NO_TEMPLATE = (
    "a Diffusion Template ({kind}), expected one that is a whole model (ControlNet, Edit, Upscaler): its Python file, which "
    "is never run here, says how its weights are used"
)
UNSUPPORTED_FILES = (
    UnsupportedFile(
        ".prefer_value_embedder.",
        (),
        "a Diffusion Template of learned keys from a number (as Brightness), which is no expert; put it into models/cologen and "
        "choose it in Learned Keys (CoLoGen)",
    ),
    UnsupportedFile("img_to_qkv.lora_", (), NO_TEMPLATE.format(kind="a LoRA of one")),
    UnsupportedFile(
        ".proj_residual.proj_out.",
        (),
        "an image-to-LoRA model (i2L), which writes a LoRA for pictures that it is shown; load a LoRA that it wrote with the "
        "stock LoRA loader",
    ),
    UnsupportedFile(
        ".lora_route.",
        (),
        "ICEdit's mixture of LoRAs, which routes every token of the picture itself in layers that no source passes; use "
        "its normal LoRA with the stock LoRA loader",
    ),
    UnsupportedFile(
        ".norm1.linear.lora_",
        ("_context", ".add_"),
        "an OminiControl file (or one of the same layers, as ICEdit's LoRA), whose condition reads the noise and so changes "
        "at every step; a source here never does, and the weights would not mean the same",
    ),
    *(
        UnsupportedFile(part, (), "a DoRA, which divides by the base's weights, expected a LoRA: choose another")
        for part in (".dora_scale", ".lora_magnitude_vector")
    ),
)


def check_supported(names: Collection[str], file: str) -> None:
    """Raises if tensors of these names are of a kind that cannot be imported; `file` stands in the message."""
    for has, lacks, reason in UNSUPPORTED_FILES:
        if any(has in name for name in names) and not any(part in name for name in names for part in lacks):
            raise FileError(f"{file} is {reason}.")
