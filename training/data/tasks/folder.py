"""A folder of one's own (sets/folder.py) as the examples of one task, for training in ComfyUI.

What cannot be used is left out and listed in `FolderExamples.skipped`, links that lead out of the folder among it.
"""

import logging
from pathlib import Path

import numpy as np

from ....prw.files.validate import check_choice, check_range
from ....prw.tasks import TASKS
from ..formats.picture_files import BrokenFile
from ..geometry import Crop, centre_crop, draw_crop
from ..sample import Example
from ..sets.folder import ENDINGS, Files, PictureFiles, list_files
from . import find_layout
from .folder_layouts import FolderLayout

log = logging.getLogger(__name__)


class FolderExamples:
    """The examples of a folder, by index: each index always means the same picture."""

    def __init__(
        self,
        path: str | Path,
        task: str,
        size: int,
        centre: bool = False,
        flip: float = 0.0,
        layout: FolderLayout | None = None,
    ):
        """`flip` is a probability, 0 unless asked for: mirroring spoils lettering and faces that one knows."""
        check_choice("task", task, tuple(TASKS))
        check_range("size", size, 16, 8192)
        self.root, self.task, self.size, self.centre, self.flip = Path(path), task, size, centre, flip
        self.layout = layout or find_layout(task)
        self.skipped: dict[str, str] = {}
        """Name -> why. A file may turn out broken as late as when it is read."""
        self.entries: list[tuple[str, Files]] = []
        """Sorted by name."""
        for name, files in list_files(self.root).items():
            try:
                PictureFiles(self.root, name, files).check(self.layout.companion, self.layout.required)
                self.entries.append((name, files))
            except BrokenFile as error:
                self._skip(name, error)
        if not self.entries:
            raise ValueError(self._describe_lack())

    def __len__(self) -> int:
        return len(self.entries)

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """Reads the example at an index, or the next one that can be read."""
        if not 0 <= index < len(self):
            raise IndexError(f"There is no example {index} in {self.root}, which has {len(self)}.")
        for step in range(len(self)):
            name, files = self.entries[(index + step) % len(self)]
            try:
                entry = PictureFiles(self.root, name, files)
                return self.layout.make_example(self.task, entry, lambda pixels: self._choose_crop(rng, pixels), rng)
            except BrokenFile as error:
                self._skip(name, error)
        raise ValueError(self._describe_lack())

    def _choose_crop(self, rng: np.random.Generator, pixels: np.ndarray) -> Crop:
        """Chooses the largest square, in the middle or anywhere."""
        size, out = pixels.shape[:2], (self.size, self.size)
        return centre_crop(size, out) if self.centre else draw_crop(rng, size, out, min_share=1.0, flip=self.flip)

    def _skip(self, name: str, error: BrokenFile) -> None:
        if name not in self.skipped:
            log.warning("%s: %s is left out: %s", self.root, name, error)
        self.skipped[name] = str(error)

    def _describe_lack(self) -> str:
        name, why = next(iter(self.skipped.items()), ("", ""))
        content = f"{len(self.skipped)} pictures, of which none can be used ({name}: {why})" if name else "no picture"
        beside = f" and NAME{ENDINGS[self.layout.companion]}" if self.layout.required else ""
        return (
            f"The folder {self.root} has {content}, expected NAME.png with NAME.txt{beside} for the task {self.task}."
        )
