"""The terminal, end to end in this process."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.training.cli.main import main
from naive_easycontrol import random_file
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import tiny_flux
from tiny_flux2 import tiny_flux2
from tiny_template import save_template
from tiny_tree import tree_bank


def run(capsys, *argv):
    code = main([str(word) for word in argv])
    captured = capsys.readouterr()
    return code, captured.out.strip(), captured.err.strip()


@pytest.fixture
def bank(capsys, tmp_path):
    path = tmp_path / "bank.safetensors"
    assert run(capsys, "bank", "new", path, "--base", "tiny", "--rank", 4, "--up", 0.1)[0] == 0
    return path


def test_a_new_bank_of_the_real_shape_promises_what_the_paper_says():
    from cologen.prw.bank.shapes import list_shapes
    from cologen.training.base.known_models import find_base
    from cologen.training.base.random_models import bank_info

    shapes = list_shapes(bank_info(find_base("flux1")))
    expert = sum(a * b for name, (a, b) in shapes.items() if name.startswith("experts.inpaint."))
    assert expert == 57 * 4 * 128 * 3072  # 89.7 M parameters an expert
    assert sum(a * b for name, (a, b) in shapes.items() if name.startswith("routers.edit.")) == 57 * 2 * 3072 * 5


def test_a_klein_s_name_is_its_shape():
    from cologen.prw.base_model import Base
    from cologen.prw.flux.flux2 import Flux2, Flux2Params
    from cologen.training.base.known_models import find_base

    wide = dict(hidden_size=4096, num_heads=32, depth=8, depth_single_blocks=24, context_in_dim=12288)
    for name, shape, parameters in (("4b", {}, 3_875_544_576), ("9b", wide, 9_078_581_248)):
        with torch.device("meta"):
            flux = Flux2(Flux2Params(**shape))
        assert sum(parameter.numel() for parameter in flux.parameters()) == parameters
        for kind in (f"klein-{name}", f"klein-base-{name}"):
            assert replace(find_base(kind), name="") == Base.of(flux) and find_base(kind).name.lower().endswith(kind)
        # what is trained on the base runs on the distilled one
        assert not find_base(f"klein-base-{name}").describe_incompatibility(find_base(f"klein-{name}"))
    assert find_base("klein-base-4b").describe_incompatibility(find_base("klein-9b"))


def test_a_new_bank_routes_and_reads_sources_as_it_is_told(capsys, tmp_path):
    path = tmp_path / "bank.safetensors"
    words = ("--base", "tiny", "--rank", 4, "--experts", "inpaint,edit", "--route", "token", "--source-time", "shared")
    assert run(capsys, "bank", "new", path, *words)[0] == 0
    info = Bank.open(path).info
    assert info.source.time == "shared" and {router.per for router in info.routers.values()} == {"token"}
    _, shown, _ = run(capsys, "bank", "inspect", path)
    assert "time shared (runs in every step)" in shown and "edit     edit     token  inpaint, edit" in shown


def test_inspect_shows_experts_and_routers(capsys, bank):
    _, shown, _ = run(capsys, "bank", "inspect", bank)
    assert "5 experts, 5 routers" in shown and "localisation" in shown
    _, text, _ = run(capsys, "bank", "inspect", bank, "--json")
    assert json.loads(text)["routers"]["control"]["experts"] == ["inpaint", "ground", "control"]


def test_a_bank_for_a_flux_2_file_goes_out_to_peft_and_comes_back(capsys, tmp_path):
    files = {name: tmp_path / f"{name}.safetensors" for name in ("flux1", "flux2", "new", "back")}
    for name, flux in (("flux1", tiny_flux()), ("flux2", tiny_flux2())):
        save_file(flux.state_dict(), files[name])
    run(capsys, "bank", "new", files["new"], "--base", files["flux2"], "--rank", 4, "--up", 0.1, "--experts", "edit")
    assert "(FLUX.2): width 256, 2 double and 3 single" in run(capsys, "bank", "inspect", files["new"])[1]
    assert "made for this base" in run(capsys, "bank", "verify", files["new"], "--base", files["flux2"])[1]
    refused = run(capsys, "bank", "verify", files["new"], "--base", files["flux1"])
    assert refused[0] and "The model is a FLUX.1, the bank was made for FLUX.2" in refused[2]
    _, folder, _ = run(capsys, "bank", "export", files["new"], "--peft", tmp_path / "peft")
    run(capsys, "bank", "import", folder, "--out", files["back"])
    back, bank = Bank.open(files["back"]), Bank.open(files["new"])
    assert back.info.base == bank.info.base and back.info.experts == bank.info.experts
    assert all(torch.equal(back.tensors[name], bank.tensors[name]) for name in back.tensors)


def test_split_and_merge_give_the_bank_back(capsys, bank, tmp_path):
    _, parts, _ = run(capsys, "bank", "split", bank, "--out", tmp_path / "parts")
    assert len(parts.splitlines()) == 5
    run(capsys, "bank", "merge", *parts.splitlines(), "--out", tmp_path / "again.safetensors")
    again, whole = Bank.open(tmp_path / "again.safetensors"), Bank.open(bank)
    assert again.info == whole.info
    assert all(torch.equal(again.tensors[name], whole.tensors[name]) for name in whole.tensors)


def test_import_change_export_and_import_again(capsys, bank, tmp_path):
    save_file(random_file(), tmp_path / "canny.safetensors")
    save_file(random_file(1), tmp_path / "subject.safetensors")
    files = {name: tmp_path / f"{name}.safetensors" for name in ("all", "less", "named", "low", "one", "fp8", "back")}
    code, shown, _ = run(capsys, "bank", "import", *sorted(tmp_path.glob("[cs]*")), "--out", files["all"])
    assert code == 0 and "canny: sources of 512 x 512, stretch" in shown and "prompt with: SKS" in shown
    assert "expert subject" in run(capsys, "bank", "merge", files["all"], bank, "--out", tmp_path / "both.st")[2]
    run(capsys, "bank", "drop", bank, "subject", "--out", files["less"])
    run(capsys, "bank", "rename", files["less"], "edit=mine", "--out", files["named"])
    for action, file, word in (("rerank", "low", "--rank"), ("share", "one", "--rank"), ("convert", "fp8", "--dtype")):
        value = "fp8" if action == "convert" else 2
        code, shown, _ = run(capsys, "bank", action, files["named"], word, value, "--out", files[file])
        assert code == 0 and "error " in shown and "MiB, before" in shown
    table = run(capsys, "bank", "inspect", files["one"])[1]
    assert "down shared in shared" in table and "inpaint, ground, control, mine" in table
    folders = run(capsys, "bank", "export", files["named"], "--peft", tmp_path / "peft")[1].splitlines()
    assert len(folders) == 4
    run(capsys, "bank", "import", folders[-1], "--out", files["back"])
    found, whole = Bank.open(files["back"]), Bank.open(files["named"])
    assert list(found.info.experts) == ["mine"] and found.info.experts["mine"] == whole.info.experts["mine"]
    assert all(torch.equal(found.tensors[name], whole.tensors[name]) for name in found.tensors)


def test_verify_against_a_base(capsys, bank, tmp_path):
    for depth, ok in ((2, True), (1, False)):
        save_file(tiny_flux(depth=depth).state_dict(), tmp_path / "flux.safetensors")
        code, said, error = run(capsys, "bank", "verify", bank, "--base", tmp_path / "flux.safetensors")
        assert (code == 0) is ok
        assert "is whole" in said if ok else "double_blocks 1, the bank was made for 2" in error
    base = tmp_path / "flux.safetensors"
    assert run(capsys, "bank", "new", tmp_path / "own.safetensors", "--base", base, "--experts", "edit")[0] == 0
    assert run(capsys, "bank", "verify", tmp_path / "own.safetensors", "--base", base)[0] == 0
    save_file(tiny_flux(depth=1, seed=9).state_dict(), base)
    assert "trained on other weights" in run(capsys, "bank", "verify", tmp_path / "own.safetensors", "--base", base)[2]


def test_verify_finds_values_that_are_not_finite(capsys, bank):
    whole = Bank.open(bank)
    tensors = {name: tensor.clone() for name, tensor in whole.tensors.items()}
    tensors["experts.edit.double_blocks.0.k.up"][0, 0] = torch.nan
    Bank(whole.info, tensors).save(bank)
    code, _, error = run(capsys, "bank", "verify", bank)
    assert code == 1 and "experts.edit.double_blocks.0.k.up holds values that are not finite" in error


@pytest.mark.parametrize(
    "argv, sentence",
    [
        (["bank", "inspect", "nowhere.safetensors"], "There is no file nowhere.safetensors"),
        (
            ["bank", "new", "x.safetensors", "--base", "sdxl"],
            "There is no base sdxl, expected flux1, flux1-fill, klein-4b, klein-base-4b",
        ),
        (["bank", "new", "x.safetensors", "--experts", "a/b"], "not made of 1 to 64 letters"),
        (["bank", "new", "x.safetensors", "--rank", "0"], "rank is 0"),
        (["bank", "new", "x.safetensors", "--base", "tiny", "--up", "nan"], "--up is nan"),
        (["bank", "new", "x.safetensors", "--base", "tiny", "--alpha", "1e308"], "alpha is 1e+308"),
        (["bank", "new", ".", "--base", "tiny"], "is there already"),
        (["bank", "inspect", "."], ". is a folder without adapter_model.safetensors"),
    ],
)
def test_mistakes_are_one_sentence(capsys, argv, sentence):
    code, _, error = run(capsys, *argv)
    assert code == 1 and sentence in error and "\n" not in error


def test_room_is_looked_for_where_the_file_shall_lie(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2**29 if path == tmp_path else 2**60))
    code, _, error = run(capsys, "bank", "new", tmp_path / "a" / "b" / "x.safetensors")  # 5 experts of 179 MB in bf16
    assert code == 1 and error == "cologen: This bank takes 0.9 GiB and 0.5 GiB are free: lower --rank."
    assert not list(tmp_path.iterdir())


def test_an_expert_gets_one_new_name(capsys, bank, tmp_path):
    for names in (["edit=a", "edit=b"], ["edit"], ["edit=a=b"]):
        code, _, error = run(capsys, "bank", "rename", bank, *names, "--out", tmp_path / "x.safetensors")
        assert code == 1 and "expected OLD=NEW, each expert once" in error


def test_the_size_of_an_adapter_s_folder_is_that_of_its_weights(capsys, bank, tmp_path):
    folder = run(capsys, "bank", "export", bank, "--peft", tmp_path / "peft")[1].splitlines()[0]
    _, shown, _ = run(capsys, "bank", "convert", folder, "--dtype", "float32", "--out", tmp_path / "x.safetensors")
    weights = Path(folder) / "adapter_model.safetensors"
    assert shown.endswith(f"before {weights.stat().st_size / 2**20:.1f}")


def test_nothing_is_written_over(capsys, bank, tmp_path):
    before = bank.read_bytes()
    for argv in (["bank", "new", bank, "--base", "tiny"], ["bank", "merge", bank, "--out", bank]):
        code, _, error = run(capsys, *argv)
        assert code == 1 and "is there already, expected a new file" in error
    assert bank.read_bytes() == before


@pytest.mark.slow
def test_demo_runs_the_five_tasks(capsys, tmp_path):
    code, path, _ = run(capsys, "demo", "--out", tmp_path)
    assert code == 0
    assert Image.open(path).height > 5 * 128


def test_a_template_is_extracted_and_its_error_is_that_of_every_block(capsys, tmp_path):
    path, weights = save_template(tmp_path, seed=1)
    save_file(base := tiny_flux2().state_dict(), tmp_path / "base.safetensors")
    where = ("--base", tmp_path / "base.safetensors", "--out", tmp_path / "out.safetensors")
    code, shown, _ = run(capsys, "bank", "extract", path, *where, "--rank", 16, "--dtype", "float32")
    lines = dict(line.split() for line in shown.splitlines()[:-1])
    assert code == 0 and len(lines) == 5 + 3 + 2 and "out.safetensors: error" in shown
    tensors = load_file(tmp_path / "out.safetensors")
    off = of = 0.0
    for name in (name for name in base if name.startswith("single_blocks.1.")):
        learned, layer = weights[name] - base[name], name.rpartition(".")[0]
        kept = tensors.get(f"{layer}.difference")
        kept = tensors[f"{layer}.up"] @ tensors[f"{layer}.down"] if kept is None else kept
        off, of = off + (learned - kept).square().sum(), of + learned.square().sum()
    assert float(lines["single_blocks.1"].rstrip("%")) == pytest.approx(100 * float(off / of) ** 0.5, abs=0.01)


@pytest.mark.parametrize(
    "changes, base, sentence",
    [
        (
            dict(context_in_dim=56),
            {},
            r"txt_in.weight has shape \(256, 56\) in the template and \(256, 48\) in the base",
        ),
        ({}, dict(depth=1), "The template has double_blocks.1.* the base has not: choose the base"),
        ({}, None, "base.safetensors looks like another model"),
    ],
)
def test_a_template_and_a_base_that_do_not_belong_together_are_a_sentence(capsys, tmp_path, changes, base, sentence):
    path, _ = save_template(tmp_path, **changes)
    weights = {"x": torch.zeros(1)} if base is None else tiny_flux2(**base).state_dict()
    save_file(weights, tmp_path / "base.safetensors")
    where = ("--base", tmp_path / "base.safetensors", "--out", tmp_path / "out.safetensors")
    code, _, said = run(capsys, "bank", "extract", path, *where)
    assert code and re.search(sentence, said) and not (tmp_path / "out.safetensors").exists()


def test_a_template_is_inspected_and_verified_and_never_written(capsys, tmp_path):
    path, _ = save_template(tmp_path, "Template-X")
    _, shown, _ = run(capsys, "bank", "inspect", path)
    assert "0 experts, 0 routers, 1 whole models" in shown and "Template-X/model.safetensors" in shown
    assert json.loads(run(capsys, "bank", "inspect", path, "--json")[1])["models"].keys() == {"Template-X"}
    assert "model.safetensors is whole" in run(capsys, "bank", "verify", path)[1]
    for words in (("split", path), ("import", path), ("merge", path, path), ("rerank", path, "--rank", 2)):
        code, _, error = run(capsys, "bank", *words, "--out", tmp_path / "out.safetensors")
        assert code and error.count("\n") == 0 and "Template-X" in error
    assert not (tmp_path / "out.safetensors").exists()


def test_a_tree_is_shown_checked_and_made_flat(capsys, tmp_path):
    path, folder = tree_bank(tiny_flux()).save(tmp_path / "tree.safetensors"), tmp_path / "parts"
    shown = run(capsys, "bank", "inspect", path)[1].splitlines()
    assert [line.split()[0] for line in shown if line.startswith("  ")] == ["canny", "depth"]
    assert "is whole" in run(capsys, "bank", "verify", path)[1]
    assert run(capsys, "bank", "split", path, "--out", folder)[0] == 0
    code, _, error = run(capsys, "bank", "verify", folder / "canny.safetensors")
    assert code and "Expert canny adds to control, which the bank lacks: merge it" in error
    code, said, _ = run(capsys, "bank", "flatten", path, "--experts", "canny", "--out", tmp_path / "flat.safetensors")
    flat = Bank.open(tmp_path / "flat.safetensors")
    assert code == 0 and "flat.safetensors" in said
    assert {name: (e.rank, e.parent) for name, e in flat.info.experts.items()} == {
        "inpaint": (4, ""),
        "control": (4, ""),
        "canny": (6, ""),
        "depth": (2, "control"),
    }
