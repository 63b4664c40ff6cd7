"""A folder of one's own.

    NAME.png           the picture to draw (png, jpg, jpeg or webp, here and below)
    NAME.txt           its prompt; an empty file is an empty prompt
    NAME.source.png    what the model is given: ground, control, subject, edit
    NAME.mask.png      inpaint: white is the hole; without it random holes are drawn

Sub-folders, hidden and other files are left alone. How these files become an example depends on the task:
tasks/folder_layouts.py.
"""

from pathlib import Path
from typing import NamedTuple

from ..formats.picture_files import SUFFIXES, BrokenFile, open_picture, read_prompt

ROLES = {".source": "source", ".mask": "mask"}
ENDINGS = {"target": ".png", "prompt": ".txt", "source": ".source.png", "mask": ".mask.png"}
Files = dict[str, Path]
"""Role -> file."""


class PictureFiles(NamedTuple):
    """Files of one name, which become an example once the task is known."""

    root: Path
    id: str
    files: Files

    def check(self, companion: str, required: bool) -> None:
        """Opens, but does not decode, what an example takes; `companion` is the role of the file beside the picture."""
        for role in ("target", "prompt", companion) if required else ("target", "prompt"):
            if role not in self.files:
                raise BrokenFile(f"there is no {self.id}{ENDINGS[role]}")
        if "twin" in self.files:
            raise BrokenFile(f"{self.files['twin'].name} has another suffix, but stands for the same as another file")
        read_prompt(self.files["prompt"], self.root)
        for role in ("target", companion):
            if role in self.files:
                open_picture(self.files[role], self.root).close()


def list_files(root: Path) -> dict[str, Files]:
    """Lists name -> role -> file, for every name that has more than a prompt.
    A second file for one role is a "twin"."""
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}: give one with pictures NAME.png and prompts NAME.txt.")
    by_name: dict[str, Files] = {}
    for path in sorted(root.iterdir()):
        name, role = parse_name(path)
        if role and not path.is_dir():
            files = by_name.setdefault(name, {})
            files["twin" if role in files else role] = path
    return {name: by_name[name] for name in sorted(by_name) if by_name[name].keys() != {"prompt"}}


def parse_name(path: Path) -> tuple[str, str]:
    """Splits "cat.source.png" into "cat" and "source"; the role is empty for what is no part of the layout."""
    stem, suffix = Path(path.stem), path.suffix.lower()
    if path.name.startswith(".") or suffix not in {".txt", *SUFFIXES}:
        return "", ""
    if suffix == ".txt":
        return path.stem, "prompt"
    role = ROLES.get(stem.suffix.lower())
    return (stem.stem, role) if role else (path.stem, "target")
