"""One's own subject as one more expert: pairs of all photos, an ordinary stage, and a small file that merges back."""

from dataclasses import replace

import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.prw.bank.edit import make_random_bank, merge
from cologen.prw.base_model import Base
from cologen.training.add_expert import add_expert
from cologen.training.base.random_models import bank_info
from cologen.training.recipes.curriculum import Stage
from cologen.training.recipes.subject import OWN
from cologen.training.subject.expert import find_start, make_expert_stage, make_photo_pairs
from host_subject import ENCODERS, RECIPE, CancelAtTwo, photo_datasets
from host_training import BLOCKS, default_inputs, largest_difference, train_on_host
from tiny import host_model, tiny_flux


@pytest.fixture
def model(comfy):
    with torch.inference_mode():
        return host_model(tiny_flux(**BLOCKS))


@pytest.fixture(scope="module")
def bank():
    return make_random_bank(bank_info(Base.of(tiny_flux(**BLOCKS)), rank=4), up=0.3, router=0.3)


def grown(model, bank, out, listeners=()) -> Bank:
    from cologen.training.comfyui.run import NodeRun
    from cologen.training.comfyui.subject import train_subject_expert

    stage, settings = make_expert_stage(RECIPE, bank, "people/my dog")
    with torch.inference_mode():
        pairs = make_photo_pairs(ENCODERS, photo_datasets()[OWN].samples, RECIPE.subject)
        return train_subject_expert(model, ENCODERS, pairs, bank, stage, settings, NodeRun(out, 7, listeners))


@pytest.mark.usefixtures("comfy")
def test_every_photo_is_drawn_from_every_other():
    own = photo_datasets()[OWN].samples
    pairs, (context, pooled) = (
        make_photo_pairs(ENCODERS, own, RECIPE.subject),
        ENCODERS.encode_prompts(["photo of a dog"]),
    )
    wanted = [(i, j) for i in range(3) for j in range(3) if i != j]
    assert len(pairs) == pairs.train_count == 6 and pairs.task == "subject"
    for row, (i, j) in enumerate(wanted):
        assert torch.equal(pairs.samples.source[row], own.target[i]) and torch.equal(
            pairs.samples.target[row], own.target[j]
        )
        assert torch.equal(pairs.samples.context[row], context[0]) and torch.equal(pairs.samples.pooled[row], pooled[0])
    with pytest.raises(ValueError, match="has 1 photo, expected 2 or more"):
        make_photo_pairs(ENCODERS, own.rows([0]), RECIPE.subject)


def test_it_begins_as_the_bank_s_last_expert_for_subjects_that_it_can(bank):
    stage, settings = make_expert_stage(RECIPE, bank, "people/my dog")
    old = bank.info.experts["subject"]
    assert (stage.name, stage.task, stage.start, stage.iterations) == ("my_dog", "subject", "subject", 4)
    assert (settings.rank, settings.alpha) == (old.rank, old.alpha) != (2, 2.0)
    more = {**bank.info.experts, "anna": old, "other": replace(old, targets={"q": "all"})}
    assert find_start(more) == "anna" and find_start({}) == ""
    with pytest.raises(ValueError, match="has an expert subject already"):
        make_expert_stage(RECIPE, bank, "people/subject")


def test_it_begins_as_one_that_adds_to_another_beside_it(bank):
    old = replace(bank.info.experts["subject"], parent=next(iter(bank.info.experts)))
    tree = Bank(replace(bank.info, experts={**bank.info.experts, "subject": old}), bank.tensors)
    stage, settings = make_expert_stage(RECIPE, tree, "my dog")
    found = add_expert(tree, stage, settings, 0)
    assert stage.start == "subject" and found.info.experts[stage.name].parent == old.parent
    for block in bank.info.base.blocks():
        mine, theirs = (found.expert(name, block)["k"] for name in (stage.name, "subject"))
        assert torch.equal(mine.down, theirs.down) and torch.allclose(mine.up, theirs.up)


def test_the_bank_has_a_column_more_and_its_file_alone_merges_back(model, bank, tmp_path):
    found = grown(model, bank, tmp_path / "a")
    stage, settings = make_expert_stage(RECIPE, bank, "my dog")
    router = found.info.routers["my_dog"]
    assert router.experts == (*bank.info.routers["edit"].experts, "my_dog") and len(router.experts) == 6
    assert all(torch.equal(found.tensors[name], bank.tensors[name]) for name in bank.tensors), "nothing older moved"
    start = {
        name: name.replace(".my_dog.", ".subject.") for name in found.tensors if name.startswith("experts.my_dog.")
    }
    assert start and all((found.tensors[a] - bank.tensors[b]).abs().max() > 1e-5 for a, b in start.items())

    small = Bank.open(tmp_path / "a/expert.safetensors")
    again = merge([bank, small])
    assert again.info == found.info and all(
        torch.equal(again.tensors[name], found.tensors[name]) for name in found.tensors
    )

    import comfy.model_management

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        grown(model, bank, tmp_path / "b", listeners=[CancelAtTwo()])
    assert largest_difference(grown(model, bank, tmp_path / "b"), found) == 0


@pytest.mark.slow
def test_the_node_trains_the_concept_and_then_that_stage(model, bank, tmp_path, monkeypatch):
    import folder_paths
    from cologen.nodes.train_subject import CoLoGenTrainSubject
    from cologen.training.comfyui.run import extend_curriculum
    from cologen.training.comfyui.training_data import TrainingData

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    g = torch.Generator().manual_seed(0)
    photos = torch.rand(3, 64, 64, 3, generator=g)
    knobs = dict(run="dogs/rex", iterations=3, batch=2, rank=2, alpha=2.0, resolution=64, noun="dog", where="all")
    knobs = default_inputs(CoLoGenTrainSubject, **knobs, run_seed=7, sample_steps=1)
    lists = {name: [value] for name, value in knobs.items()}
    given = dict(model=[model], vae=[ENCODERS.vae], clip=[ENCODERS.clip], photos=[photos])
    with torch.inference_mode():
        concept, _, _, found = CoLoGenTrainSubject.execute(**given, experts=[bank], **lists).result
        alone = CoLoGenTrainSubject.execute(**given, **lists).result
    assert alone[3] is None and all(
        torch.equal(alone[0].tensors[name], concept.tensors[name]) for name in concept.tensors
    )
    own = tmp_path / "cologen/dogs/rex"
    assert (own / "subject.safetensors").is_file() and Bank.open(own / "expert.safetensors").info.experts.keys() == {
        "rex"
    }

    from cologen.nodes.inputs.images import split_images
    from cologen.nodes.inputs.subject import make_subject_recipe
    from cologen.training.comfyui.subject import make_subject_datasets

    recipe = make_subject_recipe(knobs, False)
    pairs = make_photo_pairs(
        ENCODERS, make_subject_datasets(ENCODERS, split_images([photos]), [], recipe)[OWN].samples, recipe.subject
    )
    old = bank.info.experts["subject"]
    settings = replace(recipe.curriculum.settings, rank=old.rank, alpha=old.alpha, router_rate=1e-3)
    stage = Stage(name="rex", task="subject", iterations=3, batch=2, start="subject")
    data = TrainingData(ENCODERS, {"subject": pairs})
    expected = train_on_host(
        model, tmp_path / "b", extend_curriculum(bank, stage, settings), data, bank=bank, only="rex"
    )
    assert largest_difference(found, expected) == 0
