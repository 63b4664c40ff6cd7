"""Where banks live: models/cologen, and whatever extra_model_paths.yaml adds under that name."""

import os
from pathlib import Path

import folder_paths

FOLDER = "cologen"


def register_folder() -> None:
    """Adds the folder to the host's list, keeping paths that the user's configuration put there."""
    paths, _ = folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))
    ours = os.path.join(folder_paths.models_dir, FOLDER)
    folder_paths.folder_names_and_paths[FOLDER] = ([*paths, *([] if ours in paths else [ours])], {".safetensors"})


def bank_files() -> list[str]:
    register_folder()
    return folder_paths.get_filename_list(FOLDER)


def bank_path(name: str) -> str:
    return folder_paths.get_full_path_or_raise(FOLDER, name)


def new_bank_path(name: str) -> Path:
    """A free path in the first folder for a name that a user typed; never outside it."""
    register_folder()
    root = Path(folder_paths.get_folder_paths(FOLDER)[0]).resolve()
    wanted = (root / f"{name.removesuffix('.safetensors')}.safetensors").resolve()
    if not wanted.is_relative_to(root) or wanted.stem.strip(". ") == "":
        raise ValueError(f"The name {name!r} leads outside {root}, expected a name or sub-folder/name within it.")
    count = 1
    path = wanted
    while path.exists():
        count += 1
        path = wanted.with_stem(f"{wanted.stem}_{count:02}")
    return path
