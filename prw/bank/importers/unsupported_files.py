"""Files that look like experts but cannot become any, each with its reason."""

from collections.abc import Collection
from typing import NamedTuple

from ...files.errors import FileError


class Stranger(NamedTuple):
    part: str
    """Of a tensor's name."""
    never: tuple[str, ...]
    """Parts that no tensor of such a file has."""
    what: str


STRANGERS = (
    Stranger(
        ".lora_route.",
        (),
        "ICEdit's mixture of LoRAs, which routes every token of the picture itself in layers that no source passes; use "
        "its normal LoRA with the stock LoRA loader",
    ),
    Stranger(
        ".norm1.linear.lora_",
        ("_context", ".add_"),
        "an OminiControl file (or one of the same layers, as ICEdit's LoRA), whose condition reads the noise and so changes "
        "at every step; a source here never does, and the weights would not mean the same",
    ),
    *(
        Stranger(part, (), "a DoRA, which divides by the base's weights, expected a LoRA: choose another")
        for part in (".dora_scale", ".lora_magnitude_vector")
    ),
)


def refuse_strangers(names: Collection[str], file: str) -> None:
    for part, never, what in STRANGERS:
        if any(part in name for name in names) and not any(word in name for name in names for word in never):
            raise FileError(f"{file} is {what}.")
