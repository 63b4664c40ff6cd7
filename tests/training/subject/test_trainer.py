"""Fine-tuning a subject: what learns, what is left, what a stopped run ends with; against the same written out."""

import numpy as np
import pytest
import torch
from cologen.prw.base_model import Base
from cologen.prw.config import NAME
from cologen.prw.files.errors import FileError
from cologen.prw.personalization.concept import TOKENS, Concept, insert_vectors, make_residuals
from cologen.prw.personalization.low_rank_patch import apply_low_rank
from cologen.prw.personalization.marked_prompt import MarkedTokens
from cologen.training.checkpoint.checkpoints import TrainingError
from cologen.training.errors import RunStopped
from cologen.training.monitor.log import Log, read_log
from cologen.training.recipes.subject import OWN, PRIOR, load_recipe, make_subject_recipe
from cologen.training.subject.dataset import encode_prior
from cologen.training.subject.expert import make_expert_name
from cologen.training.subject.trainer import CONTEXTS
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stopped_run import StopAt, logged_iterations
from tiny_run import gradients, tiny_host
from tiny_subject import PICTURES, merge_concept, recipe, tiny_subject, trainer_of


def stirred(trainer, seed=3):
    """A trainer whose weights say something already."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in trainer.trained.values():
        tensor.data += 0.2 * torch.randn(tensor.shape, generator=generator)
    return trainer


@pytest.mark.parametrize("where", ["text", "all"])
@pytest.mark.parametrize("ico", [True, False])
def test_loss_and_what_learns_are_those_of_the_formula(where, ico):
    trainer = stirred(trainer_of(recipe(subject=dict(where=where, ico=ico), micro=3)))
    flux, tensors = merge_concept(trainer.host.flux, trainer.info, trainer.trained), trainer.trained
    assert any(".single" in name for name in tensors) is (where == "all") and (CONTEXTS in tensors) is ico
    before = {name: value.clone() for name, value in trainer.host.flux.state_dict().items()}
    total = 0.0
    for batch in trainer.draw_batches():
        own = [tensors[TOKENS].detach().expand(len(batch.ids), -1, -1)]
        if ico:
            own.append(
                torch.stack([tensors[CONTEXTS][list(trainer.places).index(name)] for name in batch.ids]).detach()
            )
        x0, t = (batch.target - 0.1159) * 0.3611, batch.times.view(-1, 1, 1, 1)
        text = torch.cat((batch.context, *own), 1)
        found = flux((1 - t) * x0 + t * batch.noise, batch.times, text, batch.pooled)
        total += ((found - (batch.noise - x0)) ** 2).flatten(1).mean(1).sum().item() / 4
    grads, step = gradients(trainer)
    assert step.task_loss == pytest.approx(total, rel=1e-4)
    assert {name for name in grads if not grads[name].abs().sum() > 0} == set(), "all that is trained learns"
    assert all(parameter.grad is None for parameter in trainer.host.flux.parameters())
    assert all(torch.equal(value, before[name]) for name, value in trainer.host.flux.state_dict().items())


def test_a_gradient_is_the_slope():
    trainer = stirred(trainer_of(recipe()))
    grads, _ = gradients(trainer)
    for name in (TOKENS, CONTEXTS, "transformer.single_transformer_blocks.0.attn.to_k.lora_B.weight"):
        tensor, where = trainer.trained[name].data.view(-1), grads[name].abs().argmax()
        sides = []
        for shift in (0.01, -0.02):
            tensor[where] += shift
            sides.append(gradients(trainer)[1].task_loss)
        tensor[where] += 0.01
        assert (sides[0] - sides[1]) / 0.02 == pytest.approx(grads[name].view(-1)[where].item(), rel=0.02)


def test_each_photo_learns_its_own_context_alone():
    trainer = stirred(trainer_of(recipe(batch=1)))
    (batch,) = trainer.draw_batches()
    grads, _ = gradients(trainer)
    learns = grads[CONTEXTS].abs().sum((1, 2)) > 0
    assert learns.tolist() == [name == batch.ids[0] for name in trainer.datasets[OWN].samples.ids]


def test_pictures_of_the_class_are_told_without_the_concept():
    trainer = stirred(trainer_of(recipe(replay=1.0)))
    grads, _ = gradients(trainer)
    assert not grads[TOKENS].any() and not grads[CONTEXTS].any()
    assert any(grad.any() for name, grad in grads.items() if name.endswith("lora_A.weight"))


def test_rates_are_the_recipe_s():
    trainer = trainer_of(recipe(subject=dict(token_rate=2.0, context_rate=10.0), rate=1e-3))
    of = {id(p): group["lr"] for group in trainer.weights.optimizer.param_groups for p in group["params"]}
    found = {name: of[id(tensor)] for name, tensor in trainer.trained.items()}
    assert found.pop(TOKENS) == pytest.approx(2e-3) and found.pop(CONTEXTS) == pytest.approx(1e-2)
    assert set(found.values()) == {1e-3}


@pytest.mark.slow
def test_checkpointing_and_the_size_of_pieces_change_nothing(tmp_path):
    whole = tiny_subject(tmp_path / "a", recipe()).train()
    twice = tiny_subject(tmp_path / "b", recipe(checkpointing=True)).train()
    parts = tiny_subject(tmp_path / "c", recipe(micro=1)).train()
    for name, tensor in whole.tensors.items():
        assert torch.equal(twice.tensors[name], tensor)
        assert torch.allclose(parts.tensors[name], tensor, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("crash", [None, KeyboardInterrupt()], ids=["stopped", "crashed"])
def test_what_goes_on_ends_with_the_same_file_to_the_bit(tmp_path, crash):
    wanted = recipe(replay=0.3, ema=0.9, schedule="cosine", validate_every=3, sample_every=3, sample_steps=2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tiny_subject(whole, wanted, listeners=[Log(whole)]).train()
    for iteration in (2, 3):
        with pytest.raises(type(crash or RunStopped())):
            tiny_subject(parts, wanted, listeners=[Log(parts), StopAt("mine", iteration, crash)]).train()
    assert not (parts / "mine.safetensors").exists()
    tiny_subject(parts, wanted, listeners=[Log(parts)]).train()
    assert (parts / "mine.safetensors").read_bytes() == (whole / "mine.safetensors").read_bytes()
    assert logged_iterations(parts) == logged_iterations(whole) and len(list(read_log(whole / "log.jsonl"))) == 8
    assert [path.stem for path in (parts / "checkpoints").glob("*.safetensors")] == ["1-mine-000000006"]


def test_the_file_has_no_context_and_loads_as_it_was(tmp_path):
    run = tiny_subject(tmp_path, recipe())
    made = run.train()
    found = Concept.open(run.concept_path)
    assert found.info == made.info and found.info.iterations == 6 and found.info.noun == "dog"
    assert found.tensors.keys() == made.tensors.keys() and CONTEXTS not in found.tensors
    assert all(torch.equal(found.tensors[name], made.tensors[name]) for name in made.tensors)
    again = tiny_subject(tmp_path, recipe()).train()
    assert all(torch.equal(again.tensors[name], made.tensors[name]) for name in made.tensors)


def test_another_photo_is_another_run(tmp_path):
    tiny_subject(tmp_path, recipe()).train()
    with pytest.raises(TrainingError, match=r"other settings \(photos not the same\): set them back, or choose"):
        tiny_subject(tmp_path, recipe(), pictures={**PICTURES, "photo1": PICTURES["photo2"]}).train()
    with pytest.raises(TrainingError, match=r"other settings \(subject.tokens was 2, is 3\)"):
        tiny_subject(tmp_path, recipe(subject=dict(tokens=3))).train()


def test_another_picture_of_the_class_is_another_run_and_other_samples_are_not(tmp_path):
    def train(prompt="a dog", colour=9, **subject):
        run = tiny_subject(tmp_path, recipe(replay=0.5, subject=subject))
        told = {f"{i}": (np.full((32, 32, 3), colour + i, np.uint8), prompt) for i in range(4)}
        run.datasets = {**run.datasets, PRIOR: encode_prior(run.encoders, told)}
        return run.train()

    train()
    for change in (dict(colour=10), dict(prompt="one dog")):
        with pytest.raises(TrainingError, match=r"other settings \(prior not the same\)"):
            train(**change)
    assert train(prompts=["a dog elsewhere"]).info.iterations == 6


@pytest.mark.parametrize("names", [("我的狗", "我的猫"), ("é" * 80, "ê" * 80)])
def test_runs_in_other_alphabets_name_experts_that_can_be_told_apart(names):
    assert make_expert_name("mine/my dog") == "my_dog"
    made = [make_expert_name(name) for name in names]
    assert len(set(made)) == 2 and all(NAME.fullmatch(name) for name in made)


def velocity_of(host, text, bends=()):
    g = torch.Generator().manual_seed(9)
    x, pooled = torch.randn(len(text), 16, 4, 4, generator=g), torch.randn(1, 4, generator=g).expand(len(text), -1)
    with torch.no_grad(), apply_low_rank(host.flux, dict(bends)):
        return host.flux(x, torch.full((len(text),), 0.4), text, pooled)


def test_where_the_concept_stands_in_the_text_does_not_matter():
    host, g = tiny_host(), torch.Generator().manual_seed(1)
    text, vectors = torch.randn(2, 5, 8, generator=g), torch.randn(2, 8, generator=g)
    before, words = insert_vectors(text, MarkedTokens((2, 3), 4), vectors)
    assert words == MarkedTokens((2, 3, 4, 5), 6)
    assert torch.equal(before[:, 2:4], vectors.expand(2, -1, -1)) and torch.equal(before[:, 4:], text[:, 2:])
    behind, none = insert_vectors(text, None, vectors)
    assert none is None and torch.equal(behind[:, :5], text)
    shuffled = behind[:, torch.randperm(7, generator=g)]
    for other in (behind, shuffled):
        assert torch.allclose(velocity_of(host, before), velocity_of(host, other), atol=1e-5)
    assert (velocity_of(host, before) - velocity_of(host, text)).abs().max() > 1e-3


def test_fresh_weights_add_nothing_and_leave_no_hook():
    trainer = trainer_of(recipe())
    text = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(1))
    plain = velocity_of(trainer.host, text)
    assert torch.equal(velocity_of(trainer.host, text, make_residuals(trainer.info, trainer.trained)), plain)
    assert not torch.equal(
        velocity_of(trainer.host, text, make_residuals(trainer.info, stirred(trainer).trained)), plain
    )
    assert torch.equal(velocity_of(trainer.host, text), plain)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in trainer.host.flux.modules())


def test_vectors_begin_as_words_and_differ():
    trainer = trainer_of(recipe(subject=dict(tokens=3)))
    rows, _ = tiny_subject(None, recipe()).encoders.encode_prompts(["photo of a dog"])
    concept, contexts = trainer.trained[TOKENS], trainer.trained[CONTEXTS]
    assert torch.allclose(concept, rows[0, 3].expand(3, -1), atol=0.1)
    assert torch.allclose(contexts, rows[0, :3].expand(3, -1, -1), atol=0.1)
    assert len({tuple(row.tolist()) for row in torch.cat((concept, contexts.flatten(0, 1)))}) == 12


def test_samples_show_photos_and_every_prompt(tmp_path):
    run = tiny_subject(tmp_path, recipe(sample_steps=1))
    assert run.make_sample_sheet(run.make_trainer(Base.of(run.host.flux))).shape == (2 * 32, 3 * 32, 3)


# mistakes


BAD = [
    (dict(subject=dict(noun=" ")), "noun is ' '"),
    (dict(subject=dict(caption="a photo")), "expected one {} for the noun"),
    (dict(subject=dict(where="picture")), "subject.where is 'picture', expected one of 'text', 'all'"),
    (dict(subject=dict(tokens=0)), "subject.tokens is 0"),
    (dict(text_drop=0.1), "text_drop is 0.1, expected 0"),
]


@pytest.mark.parametrize("changes, sentence", BAD, ids=[sentence for _, sentence in BAD])
def test_a_recipe_that_cannot_be_is_a_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        shared = dict(stages=[dict(name="mine")], subject={"noun": "dog", **changes.pop("subject", {})})
        make_subject_recipe({**shared, **changes})


def test_two_stages_are_one_too_many(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[subject]\nnoun = "dog"\n[[stages]]\nname = "a"\n[[stages]]\nname = "b"\n')
    with pytest.raises(ValueError, match="mine.toml cannot be used: a subject has 2 stages, expected one"):
        load_recipe(path)


def test_prior_preservation_needs_pictures(tmp_path):
    run = tiny_subject(tmp_path, recipe(replay=0.5))
    run.datasets = {OWN: run.datasets[OWN]}
    with pytest.raises(TrainingError, match="pictures of the class, of which there are none"):
        run.train()
    with pytest.raises(ValueError, match="The subject has no photos"):
        tiny_subject(tmp_path, recipe(), pictures={})


def damaged(concept, how, path):
    concept.save(path)
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    how(tensors, metadata)
    save_file(tensors, path, metadata)


def without_vectors(tensors, metadata):
    del tensors[TOKENS]


def wider(tensors, metadata):
    tensors[TOKENS] = torch.zeros(2, 9)


def stranger(tensors, metadata):
    tensors["more"] = torch.zeros(1)


def other_alpha(tensors, metadata):
    tensors[next(name for name in tensors if name.endswith(".alpha"))] = torch.tensor(5.0)


def newer(tensors, metadata):
    metadata["cologen_concept"] = metadata["cologen_concept"].replace('"version": 1', '"version": 2')


def nonsense(tensors, metadata):
    metadata["cologen_concept"] = metadata["cologen_concept"].replace('"rank": 2', '"rank": "two"')


def bankish(tensors, metadata):
    metadata["cologen_concept"] = metadata["cologen_concept"].replace("cologen-concept", "cologen-bank")


def bare(tensors, metadata):
    metadata.clear()
    metadata["a"] = "b"


@pytest.mark.parametrize("alpha", [0.1, 12.3])
def test_any_alpha_is_found_again(alpha, tmp_path):
    concept = trainer_of(recipe(alpha=alpha)).export_concept()
    assert Concept.open(concept.save(tmp_path / "mine.safetensors")).info == concept.info


FILES = [
    (without_vectors, "lacks the tensor concept.tokens"),
    (wider, r"concept.tokens has shape \(2, 9\), expected \(2, 8\)"),
    (stranger, "holds a tensor more"),
    (other_alpha, "another alpha than its metadata says"),
    (newer, "a concept of version 2, this pack reads up to 1: update the pack"),
    (nonsense, "metadata that cannot be used"),
    (bankish, "is no CoLoGen concept"),
    (bare, "is no CoLoGen concept"),
]


@pytest.mark.parametrize("how, sentence", FILES, ids=[how.__name__ for how, _ in FILES])
def test_bad_files_are_a_sentence(how, sentence, tmp_path):
    path = tmp_path / "mine.safetensors"
    damaged(trainer_of(recipe()).export_concept(), how, path)
    with pytest.raises(FileError, match=sentence) as said:
        Concept.open(path)
    assert str(said.value).startswith("mine.safetensors")


def test_a_concept_that_holds_no_numbers_is_a_sentence(tmp_path):
    concept = trainer_of(recipe()).export_concept()
    concept.vectors[0, 0] = torch.nan
    with pytest.raises(FileError, match="mine.safetensors: .* holds values that are not finite"):
        Concept.open(concept.save(tmp_path / "mine.safetensors"))


def test_a_file_that_is_cut_off_is_a_sentence(tmp_path):
    path = trainer_of(recipe()).export_concept().save(tmp_path / "mine.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FileError, match="not a whole safetensors file"):
        Concept.open(path)
