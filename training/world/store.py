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

SHIPPED = Path(__file__).parent / "weights"
STICKER_NAME = "sticker world (built in)"
"""How ComfyUI's users choose it where a file is."""
STICKERS = World(
    "world",
    "CoLoGen sticker FLUX",
    SHIPPED,
    SIDE,
    LANGUAGE,
    draw_typical,
    draw_scenes,
    draw_captioned,
    draw_diptychs,
    make_questions,
    partial(make_questions, unseen=True),
    SCORERS,
    choice=STICKER_NAME,
    subject=SUBJECT,
    draw_referenced=draw_referenced,
)
