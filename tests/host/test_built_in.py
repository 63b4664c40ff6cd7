"""A built-in world whose FLUX lies in several files, in the host: loaded as one, and the same to 1e-4."""

from dataclasses import replace

import pack  # noqa: F401
import pytest
import torch
from cologen.training.from_scratch.evaluate import HELD_OUT_SEED
from cologen.training.from_scratch.pretrain import init_flux
from cologen.training.from_scratch.recipe import ScratchRecipe
from cologen.training.from_scratch.store import (
    BANK,
    FLUX,
    TEXT,
    VAE,
    find_parts,
    open_models,
    save_module,
    save_weights,
)
from cologen.training.from_scratch.text import TextEncoder
from cologen.training.from_scratch.vae import Components, SmallVAE, make_principal_encoder, to_tensor
from cologen.training.toy.store import TOY, TOY_NAME
from cologen.training.world.store import STICKER_NAME, STICKERS

TEXTS = ["a small red car at the top left, on a beach", "replace the left fox with a cat", ""]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The sticker world with models of its layout that nobody has trained."""
    import numpy as np

    folder = tmp_path_factory.mktemp("weights")
    flux = init_flux(0, ScratchRecipe(flux_width=128, flux_double=1, flux_single=1).shape(STICKERS))
    torch.nn.init.normal_(flux.final_layer.linear.weight, std=0.05)
    save_weights(flux.state_dict(), folder / FLUX, STICKERS.dtype, max_shard_size=2**19)
    vae = SmallVAE()
    pictures = STICKERS.draw_scenes(np.random.default_rng(0), 16)
    vae.taesd_encoder = make_principal_encoder(Components.fit(to_tensor(pictures)))
    save_module(vae, folder / VAE)
    save_module(TextEncoder(STICKERS.language), folder / TEXT)
    return replace(STICKERS, folder=folder)


@pytest.mark.usefixtures("comfy")
class TestInTheHost:
    def test_flux_in_several_files_is_one(self, world):
        from cologen.training.comfyui.built_in import load_model

        assert len(find_parts(world.folder / FLUX)) > 2
        model, own = load_model(world, {"dtype": torch.float32}), open_models(world)
        x, times = torch.randn(3, 16, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.2, 0.5, 0.9])
        with torch.inference_mode():
            expected = own.flux(x, times, *own.encoders.encode_prompts(TEXTS))
            found = model.model.diffusion_model(x, times, *own.encoders.encode_prompts(TEXTS))
        assert expected.abs().max() > 0.1 and torch.allclose(found, expected, atol=1e-4)

    def test_a_copy_for_another_device_is_loaded_from_all_files(self, world):
        from cologen.training.comfyui.built_in import load_model

        model = load_model(world, {"dtype": torch.float32})
        load, arguments = model.cached_patcher_init
        first, second = (each.model.diffusion_model.state_dict() for each in (model, load(*arguments)))
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)

    def test_words_and_pictures_are_the_same(self, world):
        from cologen.training.comfyui.built_in import load_clip, load_vae

        clip, vae, encoders = load_clip(world), load_vae(world), open_models(world).encoders
        for text in TEXTS:
            found, pooled = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
            wanted, wanted_pooled = encoders.encode_prompts([text])
            assert torch.allclose(found, wanted, atol=1e-5) and torch.allclose(pooled, wanted_pooled, atol=1e-5)
        picture = STICKERS.ask_held_out("edit", 1, 0)[0].example.target
        latent = vae.encode(torch.from_numpy(picture)[None].float() / 255)
        assert torch.allclose(latent, encoders.encode([picture]), atol=5e-3)

    def test_only_worlds_with_models_are_offered(self, world, monkeypatch):
        from cologen.training.comfyui import built_in

        offered = {STICKER_NAME: world, "elsewhere": replace(world, folder=world.folder / "none")}
        monkeypatch.setattr(built_in, "BUILT_IN", offered)
        assert built_in.list_built_in() == [STICKER_NAME]
        assert built_in.list_built_in(BANK) == [], "its FLUX alone"
        monkeypatch.setattr(built_in, "BUILT_IN", {TOY_NAME: TOY, **offered})
        assert built_in.list_built_in(BANK) == [TOY_NAME]

    def test_questions_are_those_of_the_world_that_is_chosen(self):
        from cologen.nodes.toy_question import CoLoGenToyQuestion as Node

        for chosen, world in ({}, TOY), ({"world": TOY_NAME}, TOY), ({"world": STICKER_NAME}, STICKERS):
            source, prompt, answer, mask = Node.execute("edit", 5, **chosen).args
            example = world.ask_held_out("edit", 1, HELD_OUT_SEED + 5)[0].example
            assert prompt == example.prompt and source.shape == (1, world.side, world.side, 3)
            for image, pixels in ((source, example.source), (answer, example.target)):
                assert (image[0].mul(255).round().numpy() == pixels).all()
            assert (mask[0].numpy() == (example.source != example.target).any(-1)).all()

    def test_training_s_examples_are_those_of_the_world_that_is_chosen(self):
        from cologen.training.comfyui.example_sources import EXAMPLE_SOURCES

        for source, world in ("built-in world", TOY), ("sticker world", STICKERS):
            examples = EXAMPLE_SOURCES[source]("", "ground", 512, 3, 7)
            wanted = [question.example for question in world.ask("ground", 3, 7)]
            assert [examples.example(i).prompt for i in range(examples.count)] == [each.prompt for each in wanted]
            assert all((examples.example(i).target == each.target).all() for i, each in enumerate(wanted))
