"""Makes the world's stickers again: make_stickers.py PATH/emoji-datasource-google-16.0.0.tgz

The tarball is the npm package's (`npm pack emoji-datasource-google@16.0.0`); it is read, not unpacked.
"""

import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import support_path  # noqa: F401
from cologen.training.world.stickers import ATLAS, CELL, COLUMNS, KINDS, LIST, NAMED
from pack import ROOT
from PIL import Image

FOLDER = ROOT / "training" / "world" / "pictures"
SOURCES = {
    "fox": "fox_face", "panda": "panda_face", "lion": "lion_face", "doughnut": "doughnut", "ice cream": "icecream",
    "airplane": "airplane", "hat": "tophat", "lamp": "bulb", "tree": "evergreen_tree", "ball": "basketball",
    "sailboat": "boat",
}  # fmt: skip
"""The package's names of things that are called otherwise here."""
GROUPS = (
    "food-", "animal-", "sport", "game", "event", "clothing", "music", "light", "transport-air", "transport-ground",
    "transport-water", "place-building", "tool", "household", "plant", "drink", "dishware", "office", "science",
    "other-object", "book-paper", "phone", "computer", "medical", "mail", "lock", "award",
)  # fmt: skip
"""Subcategories of the package from which unnamed things come."""
HELD_OUT = 128
MIN_APART = 28.0
"""Root mean square difference, of 255, that two stickers must have: no two look alike."""


def read_package(path: Path) -> dict[str, tuple[str, Image.Image]]:
    """Gives each picture's subcategory and the picture, cropped to what it shows."""
    with tarfile.open(path) as package:
        listed = json.load(package.extractfile("package/emoji.json"))
        pictures = {}
        for row in listed:
            if row["has_img_google"]:
                data = package.extractfile(f"package/img/google/64/{row['image']}").read()
                picture = Image.open(io.BytesIO(data)).convert("RGBA")
                pictures[row["short_name"]] = row["subcategory"], picture.crop(picture.getbbox())
    return pictures


def look(picture: Image.Image) -> np.ndarray:
    """Gives a small version on grey, with which stickers are compared."""
    small = Image.new("RGBA", (64, 64), (128, 128, 128, 255))
    small.alpha_composite(picture, ((64 - picture.width) // 2, (64 - picture.height) // 2))
    return np.asarray(small.convert("RGB").resize((16, 16), Image.Resampling.BOX), float)


def choose_unnamed(pictures: dict[str, tuple[str, Image.Image]], taken: set[str], looks: list[np.ndarray]) -> list[str]:
    """Shuffles what may be unnamed, less what looks like a named thing or like another."""
    names = sorted(name for name, (group, _) in pictures.items() if group.startswith(GROUPS) and name not in taken)
    chosen = []
    for i in np.random.default_rng(0).permutation(len(names)):
        new = look(pictures[names[i]][1])
        if min(np.sqrt(((new - old) ** 2).mean()) for old in looks) >= MIN_APART:
            looks.append(new)
            chosen.append(names[i])
    return chosen


def main(path: Path) -> None:
    pictures = read_package(path)
    sources = {name: SOURCES.get(name, name) for name in NAMED}
    named = {name: pictures[source][1] for name, source in sources.items()}
    unnamed = choose_unnamed(pictures, set(sources.values()), [look(picture) for picture in named.values()])
    kinds = dict(zip(KINDS, (list(NAMED), unnamed[HELD_OUT:], unnamed[:HELD_OUT])))
    all_pictures = [*named.values(), *(pictures[name][1] for kind in KINDS[1:] for name in kinds[kind])]
    atlas = Image.new("RGBA", (COLUMNS * CELL, -(-len(all_pictures) // COLUMNS) * CELL))
    for i, picture in enumerate(all_pictures):
        atlas.paste(picture, (i % COLUMNS * CELL, i // COLUMNS * CELL))
    atlas.save(FOLDER / ATLAS, lossless=True, quality=100, method=6)
    (FOLDER / LIST).write_text(json.dumps(kinds, indent=0) + "\n")
    print({kind: len(names) for kind, names in kinds.items()}, (FOLDER / ATLAS).stat().st_size)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
