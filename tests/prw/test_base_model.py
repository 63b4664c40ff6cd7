"""What is said of a base that experts do not fit: one sentence, whatever name a file gives it."""

from dataclasses import replace

import pytest
from cologen.prw.base_model import Base

EVIL = "\x1b]0;owned\x07\x1b[2J\nFAKE" + 99 * " and more"
HERE = Base(probe=(1.0,) * 32)


@pytest.mark.parametrize(
    "change",
    [
        dict(hidden_size=64),
        dict(double_blocks=1),
        dict(family="flux2", name=EVIL),
        dict(guidance=False),
        dict(probe=(9.0,) * 32),
    ],
)
def test_a_base_s_name_is_said_without_what_commands_a_terminal(change):
    made_for = replace(HERE, **{"name": EVIL, **change})
    said = made_for.describe_incompatibility(HERE) or made_for.describe_difference(HERE)
    assert said and said.isprintable() and len(said) < 400
