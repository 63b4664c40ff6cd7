"""The toy world as training from nothing sees it, and the set that ships."""

from pathlib import Path

import torch

from ..from_scratch.world import World
from .drawings import draw_captioned, draw_diptychs, draw_scenes, draw_typical
from .scene import SIDE
from .score import SCORERS
from .subject import SUBJECT
from .tasks import make_questions
from .text import LANGUAGE

TOY_NAME = "toy world (built in)"
"""How ComfyUI's users choose it where a file is."""
TOY = World(
    name="toy",
    base="CoLoGen toy FLUX",
    folder=Path(__file__).parent / "weights",
    side=SIDE,
    language=LANGUAGE,
    draw_typical=draw_typical,
    draw_scenes=draw_scenes,
    draw_captioned=draw_captioned,
    draw_diptychs=draw_diptychs,
    ask=make_questions,
    ask_held_out=make_questions,
    scorers=SCORERS,
    dtype=torch.float16,
    shard=0,
    choice=TOY_NAME,
    subject=SUBJECT,
)
