"""Which FLUX a LoRA was made for: its file does not say, its shapes mostly do."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from ...base_model import Base
from ...flux.families import FAMILIES, FLUX1, FLUX2, Family

PUBLIC = (
    Base(name="FLUX.1"),
    Base(128, 3072, 5, 20, guidance=False, name="FLUX.2 klein 4B", family=FLUX2.name),
    Base(128, 4096, 8, 24, guidance=False, name="FLUX.2 klein 9B", family=FLUX2.name),
    Base(128, 6144, 8, 48, guidance=True, name="FLUX.2 dev", family=FLUX2.name),
)


def find_base(dim: int, counts: Mapping[str, int], rows: Collection[int]) -> Base:
    """The base of a LoRA: a public one with all its blocks, however few of them the LoRA changes, or one of its own.

    `counts` are those of double and single blocks that the file names, `rows` what first layers of single blocks
    give.
    """
    family = _find_family(dim, rows)
    ours = [base for base in PUBLIC if base.family == family.name]
    own = replace(ours[0], hidden_size=dim, double_blocks=0, single_blocks=0, name=family.label)
    known = next((base for base in ours if base.hidden_size == dim), own)
    return replace(
        known,
        double_blocks=max(counts["double"], known.double_blocks),
        single_blocks=max(counts["single"], known.single_blocks),
    )


def _find_family(dim: int, rows: Collection[int]) -> Family:
    """Our choice: FLUX.1 where a file leaves it open, as one of klein 4B's double blocks alone does."""
    for family in FAMILIES.values():
        if (3 + family.mlp_rows) * dim in rows:
            return family
    return next((FAMILIES[base.family] for base in PUBLIC if base.hidden_size == dim), FLUX1)
