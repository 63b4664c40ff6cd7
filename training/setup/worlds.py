"""The worlds that a program draws, by the names that recipes have for them."""

from ..toy.store import TOY
from ..world.store import STICKERS

WORLDS = {world.name: world for world in (TOY, STICKERS)}
