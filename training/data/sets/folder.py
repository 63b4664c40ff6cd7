"""A folder of one's own as training data.

    NAME.png           the picture to draw (png, jpg, jpeg or webp, here and below)
    NAME.txt           its prompt; an empty file is an empty prompt
    NAME.source.png    what the model is given: ground, control, subject, edit
    NAME.mask.png      inpaint: white is the hole; without it random holes are drawn

Sub-folders, hidden and other files are left alone. What cannot be used is left out and listed in `Folder.skipped`,
links that lead out of the folder among it (files.py).
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ....prw.files.validate import between, one_of
from ....prw.tasks import TASKS
from ..formats.picture_files import SUFFIXES, Broken, opened, read_picture, read_prompt
from ..geometry import View, centre_view, draw_view, view_example, whole_view
from ..sample import Example
from ..tasks.inpaint import emptied
from ..tasks.masks import scene_hole

log = logging.getLogger(__name__)
ROLES = {".source": "source", ".mask": "mask"}
ASPECT = 0.02
"""A source or mask may differ this much from the picture's aspect, as sizes get rounded; it is stretched."""
Files = dict[str, Path]
Look = Callable[[np.ndarray], View]


class Folder:
    def __init__(self, path: str | Path, task: str, size: int, centre: bool = False, flip: float = 0.0):
        """`flip` is a probability, 0 unless asked for: mirroring spoils lettering and faces that one knows."""
        one_of("task", task, tuple(TASKS))
        between("size", size, 16, 8192)
        self.root, self.task, self.size, self.centre, self.flip = Path(path), task, size, centre, flip
        self.layout = layout_of(task)
        self.skipped: dict[str, str] = {}
        """Name -> why. A file may turn out broken as late as when it is read."""
        self.entries: list[tuple[str, Files]] = []
        """Sorted by name, so that an index always means the same picture."""
        for name, files in listing(self.root).items():
            try:
                Entry(self.root, name, files).check(self.layout)
                self.entries.append((name, files))
            except Broken as error:
                self._skip(name, error)
        if not self.entries:
            raise ValueError(self._nothing())

    def __len__(self) -> int:
        return len(self.entries)

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """The example at this place; the next one that can be read, if this one cannot."""
        if not 0 <= index < len(self):
            raise IndexError(f"There is no example {index} in {self.root}, which has {len(self)}.")
        for step in range(len(self)):
            name, files = self.entries[(index + step) % len(self)]
            try:
                return Entry(self.root, name, files).example(self.task, lambda pixels: self._look(rng, pixels), rng)
            except Broken as error:
                self._skip(name, error)
        raise ValueError(self._nothing())

    def _look(self, rng: np.random.Generator, pixels: np.ndarray) -> View:
        """As much as a square shows of the picture."""
        size, out = pixels.shape[:2], (self.size, self.size)
        return centre_view(size, out) if self.centre else draw_view(rng, size, out, least=1.0, flip=self.flip)

    def _skip(self, name: str, error: Broken) -> None:
        if name not in self.skipped:
            log.warning("%s: %s is left out: %s", self.root, name, error)
        self.skipped[name] = str(error)

    def _nothing(self) -> str:
        name, why = next(iter(self.skipped.items()), ("", ""))
        found = f"{len(self.skipped)} pictures, of which none can be used ({name}: {why})" if name else "no picture"
        beside = f" and NAME{ENDINGS[self.layout.beside]}" if self.layout.needed else ""
        return f"The folder {self.root} has {found}, expected NAME.png with NAME.txt{beside} for the task {self.task}."


class Entry(NamedTuple):
    """Files that belong together, which become an example once it is known of what task."""

    root: Path
    id: str
    files: Files

    def check(self, layout: "Layout") -> None:
        beside = layout.beside
        for role in ("target", "prompt", beside) if layout.needed else ("target", "prompt"):
            if role not in self.files:
                raise Broken(f"there is no {self.id}{ENDINGS[role]}")
        if "twin" in self.files:
            raise Broken(f"{self.files['twin'].name} has another suffix, but stands for the same as another file")
        read_prompt(self.files["prompt"], self.root)
        for role in ("target", beside):
            if role in self.files:
                opened(self.files[role], self.root).close()

    def example(self, task: str, look: Look, rng: np.random.Generator) -> Example:
        layout = layout_of(task)
        target = read_picture(self.files["target"], self.root)
        path = self.files.get(layout.beside)
        beside = read_picture(path, self.root) if path else None
        # no source yet: its target stands there
        bare = Example(self.id, task, read_prompt(self.files["prompt"], self.root), target, target)
        return layout.make(look, rng, bare, beside)


def over(look: Look, rng: np.random.Generator, bare: Example, source: np.ndarray) -> Example:
    """The source lies over the picture: one view for both."""
    return view_example(look(bare.target), replace(bare, source=fitted(source, bare.target)))


def apart(look: Look, rng: np.random.Generator, bare: Example, source: np.ndarray) -> Example:
    """The source is another picture: each has a view of its own."""
    return view_example(look(bare.target), replace(bare, source=source), look(source))


def holed(look: Look, rng: np.random.Generator, bare: Example, mask: np.ndarray | None) -> Example:
    """The mask's hole; random ones if there is none, or none left in view."""
    view = look(bare.target)
    seen, hole, kind = view_example(view, bare), None, "mask"
    if mask is not None:
        white = mask.mean(-1) > 127
        if not white.any():
            raise Broken(f"the mask of {bare.id} has no white, which stands for the hole")
        hole = view.mask(fitted(white.astype(np.uint8), bare.target, labels=True))
    if hole is None or not hole.any():
        hole, kind = scene_hole(rng, (), seen.target.shape[:2]), "random"
    return replace(seen, source=emptied(seen.target, hole), kind=kind)


def fitted(pixels: np.ndarray, target: np.ndarray, labels: bool = False) -> np.ndarray:
    """At the target's size, which must have the same aspect."""
    (height, width), size = pixels.shape[:2], target.shape[:2]
    if abs(height * size[1] / (width * size[0]) - 1) > ASPECT:
        raise Broken(f"beside a picture of {size[1]} x {size[0]} stands a file of {width} x {height}, another aspect")
    view = whole_view((height, width), size)
    return view.labels(pixels) if labels else view.picture(pixels)


class Layout(NamedTuple):
    beside: str
    """The file that is read beside the picture."""
    needed: bool
    make: Callable[..., Example]


LAYOUTS = {
    "inpaint": Layout("mask", False, holed),
    "aligned": Layout("source", True, over),
    "shifted": Layout("source", True, apart),
}
"""By task; else by where its source lies."""
ENDINGS = {"target": ".png", "prompt": ".txt", "source": ".source.png", "mask": ".mask.png"}


def layout_of(task: str) -> Layout:
    return LAYOUTS.get(task) or LAYOUTS[TASKS[task].position]


def listing(root: Path) -> dict[str, Files]:
    """Name -> role -> file, for every name that has more than a prompt. A second file for one role is a "twin"."""
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}: give one with pictures NAME.png and prompts NAME.txt.")
    found: dict[str, Files] = {}
    for path in sorted(root.iterdir()):
        name, role = place(path)
        if role and not path.is_dir():
            files = found.setdefault(name, {})
            files["twin" if role in files else role] = path
    return {name: found[name] for name in sorted(found) if found[name].keys() != {"prompt"}}


def place(path: Path) -> tuple[str, str]:
    """ "cat.source.png" -> "cat", "source"; the role is empty for what is no part of the layout."""
    stem, suffix = Path(path.stem), path.suffix.lower()
    if path.name.startswith(".") or suffix not in {".txt", *SUFFIXES}:
        return "", ""
    if suffix == ".txt":
        return path.stem, "prompt"
    role = ROLES.get(stem.suffix.lower())
    return (stem.stem, role) if role else (path.stem, "target")
