"""Choices by name that stand for numbers: a table says which, and the tooltip says the table.

The numbers stay inputs of their own. Where a name is chosen, it is they that are not read: graphs without the choice keep theirs.
"""

from collections.abc import Mapping, Sequence

from comfy_api.latest import io

NUMBERS = "as the numbers say"


def preset_knob(
    name: str, table: Mapping[str, Sequence[float]], tooltip: str, otherwise: str = NUMBERS
) -> io.Combo.Input:
    """Makes a choice among a table's names; the first is none of them."""
    return io.Combo.Input(
        name, options=[otherwise, *table], optional=True, tooltip=f"{tooltip} {describe_table(table)}."
    )


def describe_table(table: Mapping[str, Sequence[float]]) -> str:
    """Names and their numbers: "mixed: 0, 0.5; masked: 0.06, 0.5"."""
    return "; ".join(f"{name}: {', '.join(format(number, 'g') for number in row)}" for name, row in table.items())
