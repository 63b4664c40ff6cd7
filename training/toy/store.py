"""The toy world as training from nothing sees it, and the set that ships."""

from functools import partial
from pathlib import Path

import torch

from ..from_scratch.store import open_encoders, open_models
from ..from_scratch.world import World
from .drawings import draw_captioned, draw_diptychs, draw_scenes, draw_typical
from .scene import SIDE
from .score import SCORERS
from .subject import SUBJECT
from .tasks import make_questions
from .text import LANGUAGE

SHIPPED = Path(__file__).parent / "weights"
NAME = "CoLoGen toy FLUX"
"""The base's name in banks that are trained on it."""
TOY_NAME = "toy world (built in)"
"""How ComfyUI's users choose it where a file is."""
TOY = World(
    name="toy",
    base=NAME,
    folder=SHIPPED,
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
open_toy_models, open_toy_encoders = partial(open_models, TOY), partial(open_encoders, TOY)
