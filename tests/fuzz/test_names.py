"""Hostile names wherever a name is taken: none leads out of its folder, runs into another's, or turns a terminal round."""

from pathlib import Path

import pytest
from cologen.prw.bank.bank import Bank
from cologen.prw.bank.edit import rename
from cologen.prw.bank.importers.names import make_expert_name
from cologen.prw.bank.summary import describe_bank
from cologen.training.data.formats.picture_files import join_below, resolve_inside
from cologen.training.data.sets import open_dataset
from cologen.training.recipes.curriculum import make_curriculum
from layouts import folder
from mutate import WORDS, pick
from tiny import tiny_bank, tiny_info
from tiny_run import SMALL, random_flux

PIECES = (
    *WORDS,
    "..",
    "../",
    "/",
    "\\",
    "\\..\\",
    "a",
    "ok",
    ".",
    " ",
    "\t",
    "\r",
    "con.txt",
    "nul",
    "x:y",
    "~",
    "%2e%2e/",
    "..;/",
)


def make_name(rng):
    """Pieces of what has gone wrong elsewhere."""
    return "".join(str(pick(rng, PIECES)) for _ in range(rng.integers(1, 5)))


def test_names_of_experts_and_stages(tmp_path, fuzz):
    bank, path = tiny_bank(random_flux(**SMALL), names=("ground",)), tmp_path / "bank.safetensors"

    def attempt(rng):
        name, way = make_name(rng), rng.integers(4)
        if way == 0:
            found = rename(bank, {"ground": name})
            assert name in found.info.experts and "/" not in name and name.isascii()
            assert describe_bank(Bank.open(found.save(path)), "x").replace("\n", "").isprintable()
        elif way == 1:
            shown = describe_bank(with_texts(bank, name), "x")
            assert shown.replace("\n", "").isprintable()
        elif way == 2:
            assert make_expert_name(name).isascii() and "/" not in make_expert_name(name)
        else:
            (stage,) = make_curriculum({"stages": [{"name": name, "task": "edit"}]}).stages
            assert stage.name == name and name.isascii() and "." not in name

    fuzz.run(500, attempt)


def with_texts(bank, text):
    info = tiny_info(random_flux(**SMALL), names=("ground",), triggers=(text,), licence=text, data=text)
    return Bank(info, bank.tensors)


@pytest.mark.usefixtures("comfy")
def test_names_of_the_host_s_files(folders, fuzz, monkeypatch):
    import folder_paths
    from cologen.training.comfyui import folders as names

    models = folders / "models"
    models.mkdir()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, names.FOLDER, ([str(models)], {".safetensors"}))
    monkeypatch.setattr(names, "register_folder", lambda: None)
    outside = folders / "output" / "cologen" / "link"
    outside.parent.mkdir()
    outside.symlink_to("/tmp")
    makers = {
        names.new_bank_path: models,
        names.run_folder: folders / "output" / "cologen",
        names.data_folder: folders / "input" / "cologen",
        names.feature_path: folders / "output",
        names.concept_path: folders / "output",
    }

    def attempt(rng):
        make, root = pick(rng, list(makers.items()))
        prefix = pick(rng, ("", "runs/", "link/", "runs/link/"))
        name = prefix + pick(rng, (make_name(rng), "link", "ok"))
        if make in (names.feature_path, names.concept_path) and not name.startswith("runs/"):
            name = "runs/" + name
        assert Path(make(name)).resolve().is_relative_to(root.resolve())

    fuzz.run(500, attempt)


def test_names_of_pictures_in_lists(tmp_path, fuzz):
    root = tmp_path / "set"
    folder(root)
    (tmp_path / "secret.png").write_bytes((root / "pic0.png").read_bytes())
    (root / "link.png").symlink_to(tmp_path / "secret.png")

    def attempt(rng):
        name = pick(rng, ("", "link.png", "pic0.png/", "./")) + make_name(rng)
        if rng.random() < 0.5:
            assert join_below(root, name).is_relative_to(root) and ".." not in join_below(root, name).parts
        else:
            assert resolve_inside(root / name.replace("\0", ""), root).is_relative_to(root.resolve())

    fuzz.run(500, attempt)


def test_names_of_sets(tmp_path, fuzz):
    folder(tmp_path)

    def attempt(rng):
        name = make_name(rng)
        found = open_dataset(name, {"set": "folder", "path": str(tmp_path)})
        assert found.name == name and not set("/\\\0:") & set(name) and name not in (".", "..")

    fuzz.run(300, attempt)
