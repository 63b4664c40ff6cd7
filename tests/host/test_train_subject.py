"""One's own subject on the host: trained as headless, and back in a prompt and on a MODEL as an ordinary LoRA."""

import copy
from dataclasses import replace

import pytest
import torch
from cologen.prw.embedded_host import EmbeddedHost
from cologen.prw.personalization.concept import Concept
from cologen.prw.personalization.marked_prompt import MARKED_TOKENS, MarkedTokens
from cologen.training.forward import EMBEDDED_CHECKPOINTING
from cologen.training.recipes.subject import OWN, PRIOR
from cologen.training.subject.dataset import encode_photos
from cologen.training.subject.run import SubjectRun
from host_subject import ENCODERS, RECIPE, CancelAtTwo, WordyClip, photo_datasets, random_concept, random_photos
from host_training import BLOCKS, TinyVae
from sampling import conditioning, sample
from tiny import host_model, tiny_flux
from tiny_subject import merge_concept

pytestmark = pytest.mark.usefixtures("comfy")


def trained(model, out, given=None, recipe=RECIPE, listeners=()) -> Concept:
    from cologen.training.comfyui.run import NodeRun
    from cologen.training.comfyui.subject import train_concept

    with torch.inference_mode():
        return train_concept(model, ENCODERS, given or photo_datasets(), recipe, NodeRun(out, 7, listeners))


@pytest.fixture
def model(comfy):
    with torch.inference_mode():
        return host_model(tiny_flux(**BLOCKS))


def add_concept(concept, seed=4, **options):
    from cologen.prw.comfyui.apply_concept import insert_concept

    ((text, known),) = conditioning(seed)
    return insert_concept([[text, {**known, **options}]], concept)


def test_the_node_trains_the_concept_that_a_headless_run_trains(model, tmp_path):
    given = photo_datasets()
    flux = EmbeddedHost(tiny_flux(**BLOCKS), torch.float32)
    headless = SubjectRun(flux, RECIPE, given, ENCODERS, tmp_path / "a", 7, "", (), EMBEDDED_CHECKPOINTING).train()
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    found = trained(model, tmp_path / "b", given)
    twice = replace(
        RECIPE, curriculum=replace(RECIPE.curriculum, settings=replace(RECIPE.curriculum.settings, checkpointing=True))
    )
    spared = trained(model, tmp_path / "c", given, twice)
    for name, tensor in headless.tensors.items():
        assert torch.allclose(found.tensors[name], tensor, atol=1e-4), name
        assert torch.allclose(spared.tensors[name], tensor, atol=1e-4), name
        assert not name.endswith("lora_B.weight") or tensor.abs().max() > 1e-3, "it should have learned"
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.model.modules())


def test_cancel_saves_and_the_next_run_goes_on(model, tmp_path):
    import comfy.model_management

    whole = trained(model, tmp_path / "a")
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        trained(model, tmp_path / "b", listeners=[CancelAtTwo()])
    trained(model, tmp_path / "b")
    assert (tmp_path / "b/subject.safetensors").read_bytes() == (tmp_path / "a/subject.safetensors").read_bytes()
    again = trained(model, tmp_path / "b", listeners=[CancelAtTwo()])
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in whole.tensors.items())


@pytest.mark.parametrize("where", ["text", "all"])
def test_the_picture_is_that_of_merged_weights_and_longer_text(where):
    from cologen.prw.comfyui.apply_concept import apply_concept_lora

    flux, concept = tiny_flux(), random_concept(where=where)
    model = host_model(flux)
    tensors = {name: 0.7 * tensor if ".lora_B." in name else tensor for name, tensor in concept.tensors.items()}
    expected = sample(host_model(merge_concept(flux, concept.info, tensors)), add_concept(concept))
    found = sample(apply_concept_lora(model, concept, 0.7), add_concept(concept))
    assert torch.allclose(found, expected, atol=1e-4)
    assert (found - sample(model, add_concept(concept))).abs().max() > 0.01, "the weights should be seen"
    assert (found - sample(apply_concept_lora(model, concept, 0.7), conditioning())).abs().max() > 0.01, (
        "and the vectors"
    )
    ((text, _),) = add_concept(concept)
    assert torch.equal(text[:, -2:], concept.vectors[None]) and torch.equal(text[:, :-2], conditioning()[0][0])


def test_a_file_is_read_back_through_the_node_and_by_the_stock_loader(tmp_path, monkeypatch):
    import comfy.sd
    import comfy.utils
    import folder_paths
    from cologen.nodes import CoLoGenConceptTokens
    from cologen.prw.comfyui.apply_concept import apply_concept_lora
    from cologen.training.comfyui.folders import CONNECTED, list_concepts

    loras = tmp_path / "loras"
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(loras)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path / "output"))
    concept, model = random_concept(), host_model(tiny_flux())
    path = concept.save(loras / "mine.safetensors")
    concept.save(tmp_path / "output/cologen/my run/subject.safetensors")
    (loras / "other.safetensors").write_bytes(b"no concept")
    assert list_concepts() == ["mine.safetensors", "runs/my run"]
    expected = sample(apply_concept_lora(model, concept, 1.0), add_concept(concept))
    for name in list_concepts():
        patched, prompt = CoLoGenConceptTokens.execute(conditioning(), name, 1.0, model).result
        assert torch.equal(sample(patched, prompt), expected)
    none, prompt = CoLoGenConceptTokens.execute(conditioning(), CONNECTED, 1.0, None, concept).result
    assert none is None and torch.equal(prompt[0][0], add_concept(concept)[0][0])
    stock = comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(str(path)), 1.0, 0)[0]
    assert torch.equal(sample(stock, add_concept(concept)), expected)


def test_strength_0_is_the_plain_picture():
    from cologen.nodes import CoLoGenConceptTokens
    from cologen.training.comfyui.folders import CONNECTED

    model = host_model(tiny_flux())
    patched, prompt = CoLoGenConceptTokens.execute(conditioning(), CONNECTED, 0.0, model, random_concept()).result
    assert torch.equal(sample(patched, prompt), sample(model, conditioning()))


def test_marked_words_find_the_concept_before_their_noun():
    concept = random_concept()
    ((text, options),) = add_concept(concept, **{MARKED_TOKENS: MarkedTokens((2,), 4)})
    assert options[MARKED_TOKENS] == MarkedTokens((2, 3, 4), 6)
    assert torch.equal(text[:, 2:4], concept.vectors[None])
    model = host_model(tiny_flux())
    assert torch.allclose(sample(model, [[text, options]]), sample(model, add_concept(concept)), atol=1e-5)


def test_two_branches_take_a_concept():
    from cologen.prw.comfyui.apply_concept import apply_concept_lora
    from cologen.prw.comfyui.dual_branch_sampling import DualBranch
    from cologen.prw.personalization.dual_branch import BlendSettings

    concept, mark = random_concept(), {MARKED_TOKENS: MarkedTokens((2,), 4)}
    model = apply_concept_lora(host_model(tiny_flux()), concept, 1.0)
    ((text, options),) = conditioning(6)
    auxiliary = [[text, {**options, **mark}]]
    both = DualBranch(auxiliary, 3, BlendSettings(0.5, 0.5, 0, 3)).attach(model)
    drawn, alone = sample(both, add_concept(concept, **mark)), sample(model, add_concept(concept, **mark))
    assert drawn.isfinite().all() and (drawn - alone).abs().max() > 1e-3


def test_photos_of_all_sizes_through_the_node(model, tmp_path, monkeypatch):
    import folder_paths
    from cologen.nodes import CoLoGenTrainSubject

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    schema = CoLoGenTrainSubject.define_schema()
    knobs = {entry.id: [entry.default] for entry in schema.inputs if getattr(entry, "default", None) is not None}
    knobs |= {entry.id: [entry.options[0]] for entry in schema.inputs if hasattr(entry, "options")}
    knobs |= dict(
        model=[model], vae=[TinyVae()], clip=[WordyClip()], run=["mine"], iterations=[2], rank=[2], resolution=[64]
    )
    knobs |= dict(prompts=["a dog there\n\n dog "], sample_steps=[1], where=["text"])
    images = [torch.rand(2, 70, 64, 3), torch.rand(1, 64, 100, 4)]
    with torch.inference_mode():
        knobs |= dict(photos=images, class_photos=[torch.rand(2, 64, 64, 3)])
        result = CoLoGenTrainSubject.execute(**knobs).result
    concept, loss, shown, experts = result
    assert concept.info.iterations == 2 and len(loss["loss"]) == 2 and shown.shape == (1, 128, 192, 3)
    assert experts is None
    assert Concept.open(tmp_path / "cologen/mine/subject.safetensors").info == concept.info
    with torch.inference_mode():
        longer = CoLoGenTrainSubject.execute(**{**knobs, "iterations": [3]}).result[0]
        assert longer.info.iterations == 3, "a finished run goes on to more"
        with pytest.raises(
            RuntimeError, match=r"\(subject.noun was dog, is cat, photos not the same, .*another name as run"
        ):
            CoLoGenTrainSubject.execute(**{**knobs, "noun": ["cat"], "photos": images[:1]})


def test_pictures_of_the_class_are_told_by_the_caption():
    given = photo_datasets()
    assert set(given[PRIOR].samples.prompts) == {"photo of a dog"} and len(given[OWN]) == given[OWN].train_count == 3
    alone = replace(RECIPE.subject, ico=False)
    plain = encode_photos(ENCODERS, {"a": copy.copy(random_photos(1, (64, 64))[0])}, alone).samples
    assert torch.equal(plain.context, ENCODERS.encode_prompts(["photo of a dog"])[0])
    assert torch.equal(given[OWN].samples.context[:1], ENCODERS.encode_prompts(["dog"])[0])
    assert torch.equal(given[OWN].samples.pooled, ENCODERS.encode_prompts(["photo of a dog"])[1].expand(3, -1))
