"""The sticker world as training from nothing sees it."""

from functools import partial
from pathlib import Path

from ..from_scratch.world import World
from .drawings import draw_captioned, draw_diptychs, draw_scenes, draw_typical
from .grounds import SIDE
from .references import draw_referenced
from .score import SCORERS
from .subject import SUBJECT
from .tasks import make_questions
from .text import LANGUAGE

STICKER_NAME = "sticker world (built in)"
"""How ComfyUI's users choose it where a file is."""
STICKERS = World(
    name="world",
    base="CoLoGen sticker FLUX",
    folder=Path(__file__).parent / "weights",
    side=SIDE,
    language=LANGUAGE,
    draw_typical=draw_typical,
    draw_scenes=draw_scenes,
    draw_captioned=draw_captioned,
    draw_diptychs=draw_diptychs,
    ask=make_questions,
    ask_held_out=partial(make_questions, unseen=True),
    scorers=SCORERS,
    choice=STICKER_NAME,
    subject=SUBJECT,
    guided_by_source=("control", "subject"),
    draw_referenced=draw_referenced,
)
