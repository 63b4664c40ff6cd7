"""Which FLUX a file of others was made for: it does not say as a rule, its layers mostly do."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from ...base_model import Base
from ...files.errors import FileError
from ...files.safe_file import SafeFile
from ...files.validate import check_choice
from ...flux.families import CHROMA, FAMILIES, FLUX1, FLUX2, Family

AUTO = "auto"
LABELS = {family.label: family for family in FAMILIES.values()}
"""What a user can say of a file."""
CHOICES = (AUTO, *LABELS)

PUBLIC = (
    Base(name="FLUX.1"),
    Base(128, 3072, 5, 20, guidance=False, name="FLUX.2 klein 4B", family=FLUX2.name),
    Base(128, 4096, 8, 24, guidance=False, name="FLUX.2 klein 9B", family=FLUX2.name),
    Base(128, 6144, 8, 48, guidance=True, name="FLUX.2 dev", family=FLUX2.name),
    Base(name="Chroma", family=CHROMA.name),
)
NOTES = ("modelspec.architecture", "ss_base_model_version")
"""Where trainers write which model it was, if they do."""
NOTED = {
    FLUX2.name: re.compile(r"flux[.\-_ ]?2|klein"),
    CHROMA.name: re.compile(r"chroma"),
    FLUX1.name: re.compile(r"flux[.\-_ ]?1"),
}


class Clue(NamedTuple):
    """A layer whose size, in widths of the model, is another one in each family."""

    layer: re.Pattern
    part: re.Pattern
    axis: int
    """Of the matrix that tells it."""
    widths: Callable[[Family], int]


UP, DOWN = re.compile(r"lora_B|\bup\b|lora_up"), re.compile(r"lora_A|\bdown\b|lora_down")
CLUES = (
    Clue(re.compile(r"single_blocks[._]\d+[._]linear1|to_qkv_mlp_proj"), UP, 0, lambda family: 3 + family.mlp_rows),
    Clue(
        re.compile(r"single_blocks[._]\d+[._]linear2|single_transformer_blocks\.\d+\.(?:proj_out|attn\.to_out)"),
        DOWN,
        1,
        lambda family: 1 + family.mlp_width,
    ),
    Clue(
        re.compile(r"(?:img|txt)_mlp[._]0|\.ff(?:_context)?\.(?:net\.0\.proj|linear_in)"),
        UP,
        0,
        lambda family: family.mlp_rows,
    ),
)
OF_FLUX1 = re.compile(
    r"(?:img|txt)_mod[._]lin|\.norm1(?:_context)?\.linear|single_transformer_blocks\.\d+\.(?:norm\.linear|attn\.to_[qkv]\.)"
    r"|single_blocks[._]\d+[._]modulation"
)
"""Layers that FLUX.1 alone has in every block: FLUX.2 has one modulation for all, and fuses its single blocks' q, k and v."""


def find_base(file: SafeFile, dim: int, counts: Mapping[str, int], choice: str = AUTO) -> Base:
    """Finds the base of a LoRA: a public one with all its blocks, however few of them the LoRA changes, or one of its
    own.

    `counts` are those of double and single blocks that the file names, `choice` one of CHOICES.
    """
    check_choice("family", choice, CHOICES)
    family = LABELS[choice] if choice != AUTO else _find_family(file, dim, counts)
    ours = [base for base in PUBLIC if base.family == family.name]
    own = replace(ours[0], hidden_size=dim, double_blocks=0, single_blocks=0, name=family.label)
    known = next((base for base in ours if base.hidden_size == dim), own)
    return replace(
        known,
        double_blocks=max(counts["double"], known.double_blocks),
        single_blocks=max(counts["single"], known.single_blocks),
    )


def _find_family(file: SafeFile, dim: int, counts: Mapping[str, int]) -> Family:
    """Finds a file's family by its layers, by what the file says, then by its width; our choice:
    FLUX.1 for a width that no public FLUX has."""
    from_metadata, from_layers = _read_notes(file.metadata), _find_clue(file, dim)
    if from_metadata and (from_layers is None or from_metadata.mlp_rows == from_layers.mlp_rows):
        return from_metadata  # Chroma's layers are FLUX.1's
    if from_layers:
        return from_layers
    fitting = [
        base for base in PUBLIC if base.hidden_size == dim and base.family != CHROMA.name and _fits(base, counts)
    ]
    if len(fitting) > 1:
        names = " and ".join(base.name for base in fitting)
        raise FileError(
            f"{file.name} changes only layers that {names} have alike, expected one that tells them apart: choose a "
            f"family where you import it (Import Experts)."
        )
    return FAMILIES[fitting[0].family] if fitting else FLUX1


def _fits(base: Base, counts: Mapping[str, int]) -> bool:
    return counts["double"] <= base.double_blocks and counts["single"] <= base.single_blocks


def _read_notes(metadata: Mapping[str, str]) -> Family | None:
    said = " ".join(metadata.get(key, "")[:100].lower() for key in NOTES)
    return next((FAMILIES[name] for name, pattern in NOTED.items() if pattern.search(said)), None)


def _find_clue(file: SafeFile, dim: int) -> Family | None:
    """Names FLUX.1 or FLUX.2, if the file has a layer that is of another size, or not there, in the other one."""
    for key in file:
        if OF_FLUX1.search(key):
            return FLUX1
        for clue in CLUES:
            if clue.layer.search(key) and clue.part.search(key) and len(file.shape(key)) == 2:
                size = file.shape(key)[clue.axis]
                found = [family for family in (FLUX1, FLUX2) if clue.widths(family) * dim == size]
                if found:
                    return found[0]
    return None
