"""One's own subject on FLUX.2 klein in the host: trained as headless, and back in a prompt and on a MODEL as a LoRA."""

import pytest
import torch
from cologen.prw.base_model import Base
from cologen.prw.embedded_host import EmbeddedHost
from cologen.prw.personalization.concept import Concept, ConceptInfo
from cologen.prw.personalization.marked_prompt import MARKED_TOKENS, MarkedTokens
from cologen.training.forward import EMBEDDED_CHECKPOINTING
from cologen.training.recipes.subject import OWN
from cologen.training.subject.run import SubjectRun
from cologen.training.subject.trainer import init_concept
from host_subject import RECIPE, random_photos
from host_training_flux2 import BLOCKS, TEXT_ROWS, load_flux2, load_klein_clip, load_vae
from tiny_flux2 import TEXT_WIDTH, tiny_flux2
from tiny_subject import merge_concept

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.slow]
SHAPE = dict(depth=2, depth_single_blocks=3)


@pytest.fixture(scope="module")
def encoders(comfy):
    from cologen.training.comfyui.training_data import open_encoders

    return open_encoders(load_vae(), load_klein_clip())


def prompt(tokens=5, seed=4, **options):
    return [[torch.randn(1, tokens, TEXT_WIDTH, generator=torch.Generator().manual_seed(seed)), options]]


def sample(model, positive):
    import comfy.sample

    empty = torch.zeros(1, 128, 4, 5)
    noise = comfy.sample.prepare_noise(empty, 7)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, 2, 1.0, "euler", "simple", positive, prompt(), empty, disable_pbar=True, seed=7
        )


def random_concept(where="all") -> Concept:
    """A concept that is to be seen."""
    g = torch.Generator().manual_seed(5)
    info = ConceptInfo(Base.of(tiny_flux2(**SHAPE)), "dog", 2, TEXT_WIDTH, 4, 6.0, where)
    tensors = init_concept(info, torch.zeros(2, TEXT_WIDTH), 0).tensors
    return Concept(info, {name: torch.randn(tensor.shape, generator=g) * 0.3 for name, tensor in tensors.items()})


def test_the_node_trains_the_concept_that_a_headless_run_trains(encoders, tmp_path):
    from cologen.training.comfyui.run import NodeRun
    from cologen.training.comfyui.subject import make_subject_datasets, train_concept

    with torch.inference_mode(False):
        given = make_subject_datasets(encoders, random_photos(3), random_photos(2, (64, 80)), RECIPE)
    flux = EmbeddedHost(tiny_flux2(**BLOCKS), torch.float32)
    headless = SubjectRun(flux, RECIPE, given, encoders, tmp_path / "a", 7, "", (), EMBEDDED_CHECKPOINTING).train()
    with torch.inference_mode():
        found = train_concept(load_flux2(), encoders, given, RECIPE, NodeRun(tmp_path / "b", 7))
    assert found.info.base.family == "flux2" and given[OWN].samples.context.shape[1] == TEXT_ROWS
    for name, tensor in headless.tensors.items():
        assert torch.allclose(found.tensors[name], tensor, atol=1e-4), name
        assert not name.endswith("lora_B.weight") or tensor.abs().max() > 1e-3, "it should have learned"


@pytest.mark.parametrize("where", ["text", "all"])
def test_the_picture_is_that_of_merged_weights_and_longer_text(where):
    import comfy.sd
    from cologen.prw.comfyui.apply_concept import apply_concept_lora, insert_concept
    from cologen.training.comfyui.enter_host import load_model

    flux, concept, model = tiny_flux2(**SHAPE), random_concept(where), load_flux2(**SHAPE)
    merged = load_model(merge_concept(flux, concept.info, concept.tensors).state_dict(), torch.float32)
    longer = insert_concept(prompt(), concept)
    assert torch.equal(longer[0][0], torch.cat([prompt()[0][0], concept.vectors[None]], 1))
    expected = sample(merged, longer)
    found = sample(apply_concept_lora(model, concept, 1.0), longer)
    assert torch.allclose(found, expected, atol=1e-4) and (found - sample(model, longer)).abs().max() > 0.01
    stock = comfy.sd.load_lora_for_models(model, None, concept.make_lora(), 1.0, 0)[0]
    assert torch.equal(sample(stock, longer), found)


def test_vectors_stay_behind_a_marked_prompt_where_they_were_trained():
    from cologen.prw.comfyui.apply_concept import insert_concept

    concept, marked = random_concept(), MarkedTokens((2,), 4)
    ((text, options),) = insert_concept(prompt(**{MARKED_TOKENS: marked}), concept)
    assert torch.equal(text[:, -2:], concept.vectors[None]) and options[MARKED_TOKENS] == marked


def test_photos_train_klein_through_the_node(folders, encoders):
    from cologen.nodes import CoLoGenTrainSubject

    schema = CoLoGenTrainSubject.define_schema()
    knobs = {entry.id: [entry.default] for entry in schema.inputs if getattr(entry, "default", None) is not None}
    knobs |= {entry.id: [entry.options[0]] for entry in schema.inputs if hasattr(entry, "options")}
    knobs |= dict(model=[load_flux2()], vae=[encoders.vae], clip=[encoders.clip], photos=[torch.rand(2, 70, 64, 3)])
    knobs |= dict(run=["mine"], iterations=[2], rank=[2], resolution=[64], prompts=["a dog there"], sample_steps=[1])
    with torch.inference_mode():
        concept, loss, shown, _ = CoLoGenTrainSubject.execute(**knobs).result
    assert concept.info.iterations == 2 and len(loss["loss"]) == 2 and shown.shape == (1, 128, 128, 3)
    assert Concept.open(folders / "output/cologen/mine/subject.safetensors").info == concept.info
