"""Files and folders by the names that nodes offer: banks, concepts, features, training pictures and runs.

Banks live in models/cologen and what extra_model_paths.yaml adds under that name.
"""

import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path

import folder_paths

from ...prw.bank.importers.easycontrol import looks_like_easycontrol
from ...prw.bank.importers.template import looks_like_template
from ...prw.coredi.features import SUFFIX, looks_like_features
from ...prw.learned_keys import looks_like_learned_keys
from ...prw.personalization.concept import looks_like_concept
from ..from_scratch.store import BANK
from .built_in import BUILT_IN, list_built_in

FOLDER = "cologen"
LORAS = "loras/"
"""Prefix of the names of files from models/loras, in the nodes' lists."""
MODELS = "diffusion_models/"
"""The same of files from models/diffusion_models."""
RUNS = "runs/"
"""Prefix of the names of runs that trained a subject."""
SUBJECT = "subject"
"""Name of a concept's file in its run's folder."""
CONNECTED = "the one that is connected"
"""Choice in a list of files: take what is connected to the node."""
FILE = ".safetensors"
PART = re.compile(r"\w(?:[\w .-]{0,98}[\w-])?")
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}
"""Device names of Windows, which no file or folder may have there."""


def register_folder() -> None:
    """Adds the folder to the host's list, keeping paths that the user's configuration put there."""
    paths, _ = folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))
    ours = os.path.join(folder_paths.models_dir, FOLDER)
    folder_paths.folder_names_and_paths[FOLDER] = ([*paths, *([] if ours in paths else [ours])], {".safetensors"})


def list_banks() -> list[str]:
    """Lists banks, the built-in worlds', EasyControl's files among the LoRAs, and templates wherever they lie."""
    register_folder()
    others = {*list_bank_features(), *list_learned_keys()}
    banks = [name for name in folder_paths.get_filename_list(FOLDER) if name not in others]
    loras = [LORAS + name for name in _select_files(LORAS, looks_like_easycontrol, looks_like_template)]
    return [*banks, *list_built_in(BANK), *(name for name in (*loras, *_list_model_templates()) if name not in banks)]


def list_importable() -> list[str]:
    """Lists LoRAs, and templates of the other folders."""
    register_folder()
    banks = [f"{FOLDER}/{name}" for name in _select_files(FOLDER + "/", looks_like_template)]
    loras = list_loras()
    return [*loras, *(name for name in (*banks, *_list_model_templates()) if name not in loras)]


def _list_model_templates() -> list[str]:
    return [MODELS + name for name in _select_files(MODELS, looks_like_template)]


def _select_files(prefix: str, *tests: Callable[[str], bool]) -> list[str]:
    """Selects files of a folder of models that one of the tests is true of."""
    kind = prefix[:-1]
    files = ((name, folder_paths.get_full_path(kind, name)) for name in folder_paths.get_filename_list(kind))
    return [name for name, path in files if path and any(test(path) for test in tests)]


def bank_path(name: str) -> str:
    if world := BUILT_IN.get(name):
        return str(world.folder / BANK)
    register_folder()
    own = name in folder_paths.get_filename_list(FOLDER)
    return folder_paths.get_full_path_or_raise(FOLDER, name) if own else _find_path(name, FOLDER)


def import_path(name: str) -> str:
    """Gives a file of `list_importable`."""
    return lora_path(name) if name in list_loras() else _find_path(name, LORAS[:-1])


def _find_path(name: str, folder: str) -> str:
    """Finds a file by a name that begins with its folder, else one in `folder`."""
    for prefix in (LORAS, MODELS, FOLDER + "/"):
        if name.startswith(prefix):
            return folder_paths.get_full_path_or_raise(prefix[:-1], name.removeprefix(prefix))
    return folder_paths.get_full_path_or_raise(folder, name)


def list_loras() -> list[str]:
    return folder_paths.get_filename_list(LORAS[:-1])


def lora_path(name: str) -> str:
    return folder_paths.get_full_path_or_raise(LORAS[:-1], name)


def new_bank_path(name: str) -> Path:
    """Gives a free path in the first folder for a name that a user typed; never outside it, on no system."""
    register_folder()
    path = resolve_path(Path(folder_paths.get_folder_paths(FOLDER)[0]), name.removesuffix(".safetensors"))
    numbered = (f"{path.name}_{count:02}" for count in itertools.count(2))
    names = itertools.chain([path.name], numbered)
    return next(path for path in (path.with_name(f"{one}.safetensors") for one in names) if not path.exists())


def run_folder(name: str) -> Path:
    """Gives where a training run of this name lives: output/cologen/NAME."""
    return resolve_path(Path(folder_paths.get_output_directory()) / FOLDER, name)


def list_concepts() -> list[str]:
    """Lists concepts among the LoRAs, and those that runs have trained."""
    register_folder()
    runs = Path(folder_paths.get_output_directory()) / FOLDER
    trained = sorted(path.parent.relative_to(runs).as_posix() for path in runs.glob(f"**/{SUBJECT}.safetensors"))
    return [*_select_files(LORAS, looks_like_concept), *(RUNS + name for name in trained)]


def concept_path(name: str) -> str:
    if name.startswith(RUNS):
        return str(run_folder(name.removeprefix(RUNS)) / f"{SUBJECT}.safetensors")
    return lora_path(name)


def list_learned_keys() -> list[str]:
    """Lists files of keys that were learned for a number, in the banks' folders."""
    register_folder()
    return _select_files(FOLDER + "/", looks_like_learned_keys)


def list_features() -> list[str]:
    """Lists features files: put beside banks, and in runs."""
    register_folder()
    runs = Path(folder_paths.get_output_directory()) / FOLDER
    trained = (path.relative_to(runs).as_posix() for path in runs.glob(f"**/stages/*{SUFFIX}{FILE}"))
    return [*list_bank_features(), *(RUNS + name for name in sorted(trained))]


def list_bank_features() -> list[str]:
    """Lists features files in the banks' folders, whatever a bank is called."""
    ending = SUFFIX + FILE
    named = {name: folder_paths.get_full_path(FOLDER, name) for name in folder_paths.get_filename_list(FOLDER)}
    return [name for name, path in named.items() if name.endswith(ending) and path and looks_like_features(path)]


def feature_path(name: str) -> str:
    if name.startswith(RUNS):
        path = run_folder(name.removeprefix(RUNS).removesuffix(FILE))
        return str(path.with_name(path.name + FILE))
    return folder_paths.get_full_path_or_raise(FOLDER, name)


def read_stamp(path: str) -> tuple[int, int]:
    """Returns size and time of a file, which change when it does."""
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


def list_networks(kind: str) -> dict[str, Path]:
    """Lists folders of transformers' networks within models/KIND, by the names that nodes offer."""
    files = (
        (Path(name).parent, folder_paths.get_full_path(kind, name)) for name in folder_paths.get_filename_list(kind)
    )
    folders = {name.as_posix(): Path(path).parent for name, path in files if name.name and path}
    return {name: folder for name, folder in folders.items() if (folder / "config.json").is_file()}


def data_folder(name: str) -> Path:
    """Gives a folder of training pictures: input/cologen/NAME, which may be named as its owner likes."""
    root = Path(folder_paths.get_input_directory()) / FOLDER
    folder = root / name.strip()
    try:
        is_inside = "\0" not in name and folder.resolve().is_relative_to(root.resolve())
    except ValueError:  # half a character, which no file system takes
        is_inside = False
    if not is_inside:
        raise ValueError(f"The folder {name[:80]!r} leads outside {root}, expected one in it: put the pictures there.")
    return folder


def resolve_path(root: Path, name: str) -> Path:
    """Resolves a path below `root` for a name that a user typed."""
    *folders, stem = name.split("/")
    for part in (*folders, stem):
        if not PART.fullmatch(part) or part.split(".")[0].lower() in RESERVED:
            raise ValueError(
                f"The name {name[:80]!r} cannot be used, expected a name or sub-folder/name of letters, digits, "
                f"spaces, dots, _ and -: type another."
            )
    folder = root.joinpath(*folders)
    if not all(path.resolve().is_relative_to(root.resolve()) for path in (folder, folder / stem)):  # by a link there
        raise ValueError(f"The folder {name} leads outside {root}, expected one in it: choose another.")
    return folder / stem
