"""A stage whose expert adds to an older one: what it begins with, what it trains, and what it leaves as it is."""

from dataclasses import replace

import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.training.add_expert import add_expert, check_stages, list_trained, make_empty_bank
from cologen.training.checkpoint.run_record import fingerprint, list_deciding
from cologen.training.errors import RunStopped
from cologen.training.recipes.curriculum import Settings, Stage, make_curriculum
from cologen.training.stage_context import StageContext
from stopped_run import StopAt, saved_files
from tiny import tiny_bank, tiny_flux
from tiny_run import REAL_HEADS, gradients, tiny_curriculum, tiny_host, tiny_run, tiny_trainer
from tiny_tree import NaiveTree, tree_bank

CHILD = Stage(name="mine", task="edit", parent="control", rank=2)


def tree_curriculum(**changes):
    """Its last stage's expert, of rank 1, adds to the second's, of rank 2."""
    curriculum = tiny_curriculum(**changes)
    *older, last = curriculum.stages
    return replace(curriculum, stages=(*older, replace(last, parent="ground", rank=1)))


def read_expert(bank, name):
    return {key: tensor for key, tensor in bank.tensors.items() if key.startswith(f"experts.{name}.")}


@pytest.mark.parametrize("alpha", [8.0, 20.0])
def test_a_child_begins_as_its_parent(alpha):
    bank = tiny_bank(tiny_flux())
    found = add_expert(bank, CHILD, Settings(rank=4, alpha=alpha), 0)
    mine = found.info.experts["mine"]
    assert (mine.rank, mine.alpha, mine.parent) == (2, alpha / 2, "control")
    for block in bank.info.base.blocks():
        for target, pair in found.expert("mine", block).items():
            x = torch.randn(3, len(pair.up))
            assert len(pair.down) == 6 and found.own_pairs("mine", block)[target].down.any()
            expected = bank.expert("control", block)[target](x)
            assert (pair(x) - expected).abs().max() < 1e-6 * expected.abs().max()


def test_its_router_chooses_it_in_its_parent_s_place():
    bank = tiny_bank(tiny_flux())
    found = add_expert(bank, CHILD, Settings(rank=4), 0, dict.fromkeys(bank.info.base.blocks(), 2))
    assert found.info.routers["mine"].experts == ("inpaint", "ground", "mine") and found.info.last_router == "mine"
    again = add_expert(found, replace(CHILD, name="next"), Settings(rank=4), 0)
    assert again.info.routers["next"].experts == ("inpaint", "ground", "mine", "next")
    for block in bank.info.base.blocks():
        old, new = (
            one.tensors[f"routers.{stage}.{block}.weight"] for one, stage in ((bank, "control"), (found, "mine"))
        )
        assert torch.equal(new[:, :2], old[:, :2]) and torch.allclose(new[:, 2], old[:, 2], atol=0.1 * float(old.std()))


def test_gradients_are_the_naive_ones_and_the_child_s_alone():
    host = tiny_host(REAL_HEADS)
    trainer = tiny_trainer(host, stage=1, batch=3, clip=0.0, veteran=0.0)
    stage = replace(trainer.stage, name="child", parent="ground", rank=1)
    bank = add_expert(trainer.bank, stage, trainer.settings, 3)
    for key, tensor in bank.tensors.items():
        if key.startswith(("experts.child.", "routers.child.")):
            bank.tensors[key] = 0.3 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(len(key)))
    trainer = replace_bank(trainer, stage, bank)
    trainer.make_router_noise = lambda batch: lambda block, like: torch.zeros_like(like)
    assert {name.split(".")[1] for name in trainer.trained} == {"child"}
    (batch,) = trainer.draw_batches()
    flux, x0, t = NaiveTree(host.flux.state_dict(), depth=1, single=2), None, batch.times.view(-1, 1, 1, 1)
    x0 = (batch.target - 0.1159) * 0.3611
    source = dict(latent=batch.source, stage="child", names=("inpaint", "child"))
    velocity = flux(
        (1 - t) * x0 + t * batch.noise, batch.times, batch.context, batch.pooled, None, [source], trainer.bank
    )
    loss = ((velocity - (batch.noise - x0)) ** 2).mean()
    expected = torch.autograd.grad(loss, list(trainer.trained.values()), allow_unused=True)
    found, step = gradients(trainer)
    assert step.task_loss == pytest.approx(loss.item(), rel=1e-5) and 0 < step.usage_of_newest < 1
    largest = max(float(gradient.abs().max()) for gradient in expected if gradient is not None)
    for gradient, name in zip(expected, trainer.trained):
        gradient = torch.zeros_like(trainer.trained[name]) if gradient is None else gradient
        assert torch.allclose(found[name], gradient, rtol=0, atol=1e-4 * largest), name


def replace_bank(trainer, stage, bank):
    """A trainer of another stage on the same host and data."""
    context = StageContext(
        trainer.host,
        stage,
        2,
        trainer.settings,
        trainer.datasets,
        trainer.empty_prompt,
        7,
        trainer.checkpointing_options,
    )
    return type(trainer)(context, bank)


def test_a_run_goes_on_to_the_same_file_and_leaves_the_parent_as_it_was(tmp_path):
    recipe, whole, parts = tree_curriculum(replay=0.3), tmp_path / "whole", tmp_path / "parts"
    tiny_run(whole, recipe).train()
    with pytest.raises(RunStopped):
        tiny_run(parts, recipe, listeners=[StopAt("edit", 3)]).train()
    tiny_run(parts, recipe).train()
    assert saved_files(parts) == saved_files(whole) and len(saved_files(whole)) == 4
    before, after = (Bank.open(whole / f"stages/{label}.safetensors") for label in ("2-ground", "3-edit"))
    parent = read_expert(before, "ground")
    assert parent and all(torch.equal(after.tensors[key], tensor) for key, tensor in parent.items())
    started = add_expert(before, recipe.stages[2], recipe.settings, 9)
    child, fresh = read_expert(after, "edit"), read_expert(started, "edit")
    assert all(len(child[key]) == 1 or child[key].shape[1] == 1 for key in child)
    assert all(child[key].any() and not torch.equal(child[key], fresh[key]) for key in child)
    assert after.info.routers["edit"].experts == ("inpaint", "edit") == recipe.experts("edit")


def test_a_stage_without_parent_and_rank_is_trained_as_before(tmp_path):
    plain = tiny_curriculum()
    assert fingerprint(plain, 7) != fingerprint(tree_curriculum(), 7)
    assert list_deciding(Settings())["rank"] and "rank" not in list_deciding(Stage(name="a")), "as runs of old have it"
    tables = dict(rank=2, stages=[dict(name="edit", parent="ground", rank=1)])
    assert make_curriculum(tables).stages[0].parent == "ground"


@pytest.mark.parametrize(
    "change, sentence",
    [
        (
            dict(parent="nobody"),
            "mine adds to nobody, but the bank has no such expert on k and v \\(inpaint, control, ca",
        ),
        (dict(start="inpaint", rank=4), "starts as inpaint, whose parent is none, expected control"),
        (dict(start="canny", parent="", rank=2), "starts as canny, whose parent is control, expected none"),
        (dict(along=("control",)), "trains control along, which (canny|depth) adds to: train"),
    ],
)
def test_what_no_tree_can_be_is_refused_before_the_first_stage(change, sentence):
    bank = tree_bank(tiny_flux())
    with pytest.raises(ValueError, match=sentence):
        check_stages(bank.info, [replace(CHILD, **change)], Settings(rank=4))
    check_stages(bank.info, [replace(CHILD, start="canny")], Settings(rank=4))


@pytest.mark.parametrize("change", [dict(parent="../x"), dict(rank=-1), dict(rank=20000)])
def test_settings_that_cannot_be_are_a_sentence(change):
    with pytest.raises(ValueError, match="mine.(parent|rank) is .*, expected"):
        replace(CHILD, **change)


def test_a_first_stage_has_nothing_to_add_to():
    empty = make_empty_bank(tiny_bank(tiny_flux()).info.base, Settings())
    with pytest.raises(ValueError, match="the bank has no such expert on k and v \\(none at all\\)"):
        add_expert(empty, CHILD, Settings(), 0)
    assert list_trained(tree_bank(tiny_flux()), replace(CHILD, name="canny"))
