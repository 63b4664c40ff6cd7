"""Every sentence of prw/ is quoted by a test that provokes it; those that no other test provokes are provoked here."""

import ast
import os
import re
from collections import Counter
from dataclasses import replace

import pytest
import torch
from cologen.prw.bank.edit import merge
from cologen.prw.base_model import Base
from cologen.prw.config import BankInfo, ExpertInfo
from cologen.prw.files.errors import BankError, FileError
from cologen.prw.files.safe_file import SafeFile
from cologen.prw.find_experts import find_router
from cologen.prw.flux.checkpoint import build_flux
from cologen.prw.source import Routing
from cologen.prw.weaving import append_sources
from pack import ROOT
from tiny import host_model, tiny_bank, tiny_flux
from tiny_flux2 import tiny_flux2

LEAST = 9
"""Letters in a row that count as a quotation."""


def fixed_parts(text: ast.expr) -> list[str]:
    """A sentence without what is filled in."""
    values = text.values if isinstance(text, ast.JoinedStr) else [text]
    return [part.value for part in values if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def sentences() -> dict[str, list[str]]:
    found = {}
    for path in sorted((ROOT / "prw").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                parts = [part for part in fixed_parts(node.exc.args[0]) if len(part) >= LEAST]
                if parts:
                    found[f"{path.relative_to(ROOT)}:{node.lineno}"] = parts
    return found


def quotations() -> str:
    """The tests' strings, read as patterns."""
    found = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"\\(.)", r"\1", node.value))
    return "\n".join(found)


def test_every_sentence_is_quoted():
    """By letters in a row that no other sentence has: "expected" alone tells nothing."""
    said, quoted = sentences(), quotations()
    assert len(said) > 100
    pieces = {place: {piece for part in parts for piece in cut(part)} for place, parts in said.items()}
    often = Counter(piece for own in set(map(frozenset, pieces.values())) for piece in own)
    own = {place: {piece for piece in some if often[piece] == 1} or some for place, some in pieces.items()}
    assert not [place for place, some in own.items() if not any(piece in quoted for piece in some)]


def cut(part: str) -> list[str]:
    return [part[i : i + LEAST] for i in range(len(part) - LEAST + 1)]


def test_banks_of_two_shapes_do_not_merge():
    with pytest.raises(BankError, match="These banks are for FLUX models of different shapes, expected one"):
        merge([tiny_bank(tiny_flux()), tiny_bank(tiny_flux(depth=1))])


def test_banks_of_two_families_do_not_merge():
    with pytest.raises(
        BankError, match="These banks are for FLUX.1 and FLUX.2, expected one family: merge banks for the"
    ):
        merge([tiny_bank(tiny_flux()), tiny_bank(tiny_flux2())])


def test_two_experts_for_a_task_without_a_router():
    bank = tiny_bank(tiny_flux(), names=("one", "two"))
    experts = {name: replace(expert, task="edit") for name, expert in bank.info.experts.items()}
    with pytest.raises(BankError, match="The bank has several experts for edit .one, two., expected one that is named"):
        find_router(replace(bank.info, experts=experts, routers={}), Routing(task="edit"))


def test_a_file_of_somebody_else(tmp_path, monkeypatch):
    path = tiny_bank(tiny_flux()).save(tmp_path / "bank.safetensors")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    with pytest.raises(FileError, match="bank.safetensors may not be read by this user: change its permissions"):
        SafeFile(path)


def test_half_a_flux():
    weights = tiny_flux().state_dict()
    del weights["img_in.bias"]
    with pytest.raises(FileError, match=r"half lacks img_in.bias \(1 tensors in all\), expected a whole FLUX.1 file"):
        build_flux(weights, "half")


@pytest.mark.usefixtures("comfy")
def test_a_map_of_a_model_without_a_bank():
    from cologen.prw.comfyui.routes import compute_routes

    with pytest.raises(ValueError, match="This MODEL has no CoLoGen bank, expected one: put CoLoGen Apply before"):
        compute_routes(host_model(tiny_flux()), [], None)


@pytest.mark.usefixtures("comfy")
def test_a_relative_of_flux_1():
    from cologen.prw.comfyui.check_host import check_flux

    flux = host_model(tiny_flux()).model.diffusion_model
    del flux.vector_in
    with pytest.raises(ValueError, match="The model is a Flux of another family, expected FLUX.1 or FLUX.2"):
        check_flux(flux)


@pytest.mark.usefixtures("comfy")
def test_blocks_of_another_pack(monkeypatch):
    import comfy.ldm.flux.layers
    from cologen.prw.comfyui.check_host import check_host

    monkeypatch.setattr(comfy.ldm.flux.layers.DoubleStreamBlock, "forward", lambda *args, **kwargs: None)
    with pytest.raises(RuntimeError, match="FLUX's blocks have been replaced by .*, expected ComfyUI's own"):
        check_host()


def test_positions_that_do_not_cover_the_keys():
    keys = torch.zeros(1, 2, 5, 8)
    with pytest.raises(RuntimeError, match="Positions cover 9 keys, expected 10: please report this graph"):
        append_sources(keys, keys, torch.zeros(1, 1, 9, 4, 2, 2), [(keys, keys)])


def test_an_output_projection_that_single_blocks_do_not_have():
    with pytest.raises(
        ValueError, match="proj changes all blocks, expected double: only they have a projection of their"
    ):
        ExpertInfo(targets={"proj": "all"})


def test_two_experts_for_a_task_that_no_router_knows():
    info = BankInfo(Base(), {"one": ExpertInfo(task="edit"), "two": ExpertInfo(task="edit")})
    with pytest.raises(BankError, match="The bank has several experts for edit .one, two., expected one that is named"):
        find_router(info, Routing(task="edit"))
