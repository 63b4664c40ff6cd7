"""CoLoGen's nodes on FLUX.2 in the real host: loader, tasks, sampler and decoder; latents have 128 channels at a sixteenth."""

import pytest
import torch
from cologen.prw.comfyui.conditioning import list_sources
from naive_flux2 import NaiveFlux2
from safetensors.torch import save_file
from sampling import apply_bank, assert_close, naive_model
from tiny import host_model, latent, tiny_flux
from tiny_flux2 import TEXT_WIDTH, tiny_flux2
from tiny_server import make_tiny_vae

pytestmark = pytest.mark.usefixtures("comfy")


def prompt(seed=4, width=TEXT_WIDTH):
    return [[torch.randn(1, 5, width, generator=torch.Generator().manual_seed(seed)), {}]]


def picture(height, width, seed=0):
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def nodes(comfy):
    import cologen.nodes

    return cologen.nodes


@pytest.fixture(scope="module")
def model(comfy):
    from cologen.training.comfyui.enter_host import load_model

    return load_model(tiny_flux2().state_dict(), torch.float32)


@pytest.fixture(scope="module")
def vae(comfy):
    """The host's small autoencoder of FLUX.2, with random weights."""
    import comfy.sd

    return comfy.sd.VAE(sd=make_tiny_vae(128), metadata={"tae_latent_channels": 128})


def sample(model, positive, negative, latent, steps=2):
    from nodes import common_ksampler

    with torch.inference_mode():
        (out,) = common_ksampler(model, 1, steps, 1.0, "euler", "simple", positive, negative, latent)
    return out["samples"]


OPTIONS = dict(
    strength=1.0, expert_strength=1.0, start=0.0, end=1.0, size=128, position="auto", shift_right=1.0, shift_down=0.0,
    keep_on="gpu", keep_between_runs=False,
)  # fmt: skip
SIZES = [(64, 48), (100, 1000), (33, 47)]


@pytest.mark.parametrize("height, width", SIZES)
def test_an_edit_is_drawn_at_its_pictures_size(nodes, model, vae, height, width):
    options = nodes.CoLoGenSourceOptions.execute(**OPTIONS | dict(strength=0.7))[0]
    given = dict(positive=prompt(), vae=vae, image=picture(height, width), options=options)
    positive, negative, empty = nodes.CoLoGenEdit.execute(**given).args
    (source,) = [source for _, options in positive for source in list_sources(options)]
    assert empty["samples"].shape == source.latent.shape and source.latent.shape[1] == 128
    drawn = sample(nodes.CoLoGenApply.execute(model)[0], positive, negative, empty)
    decoded = vae.decode(drawn)
    assert decoded.shape[1:3] == tuple(16 * side for side in empty["samples"].shape[-2:])
    plain = sample(model, prompt(), prompt(), empty)
    assert torch.isfinite(drawn).all() and (drawn - plain).abs().max() > 1e-3


def test_source_and_edit_are_one_source(nodes, model, vae):
    knobs = dict(task="edit", strength=1.0, expert_strength=1.0, start=0.0, end=1.0, size=1024, position="reference")
    knobs |= dict(
        shift_right=1.0, shift_down=0.0, lean=0.0, expert="", router="", keep_on="gpu", keep_between_runs=False
    )
    image, patched = picture(48, 64), nodes.CoLoGenApply.execute(model)[0]
    (told,) = nodes.CoLoGenSource.execute(conditioning=prompt(), vae=vae, image=image, **knobs).args
    positive, negative, empty = nodes.CoLoGenEdit.execute(positive=prompt(), vae=vae, image=image).args
    assert_close(sample(patched, told, negative, empty), sample(patched, positive, negative, empty), 1e-6)


@pytest.mark.parametrize("keep_rest", [True, False])
def test_an_inpainting_leaves_the_rest_as_it_was(nodes, model, vae, keep_rest):
    mask = torch.zeros(1, 64, 96)
    mask[:, 16:48, 32:64] = 1
    given = dict(positive=prompt(), vae=vae, image=picture(64, 96), mask=mask, grow=0, keep_rest=keep_rest)
    positive, negative, empty = nodes.CoLoGenInpaint.execute(**given).args
    assert empty["samples"].shape == (1, 128, 4, 6) and ("noise_mask" in empty) is keep_rest
    drawn = sample(nodes.CoLoGenApply.execute(model)[0], positive, negative, empty)
    if keep_rest:
        assert empty["noise_mask"].shape == (1, 1, 64, 96)
        changed = (drawn - empty["samples"]).abs().amax(1)[0] > 1e-4
        assert changed[1:3, 2:4].all() and changed.sum() == 4


def test_subjects_add_up(nodes, model, vae):
    first = nodes.CoLoGenSubject.execute(positive=prompt(), vae=vae, image=picture(32, 32)).args
    both = nodes.CoLoGenSubject.execute(
        positive=first[0], negative=first[1], vae=vae, image=picture(48, 32, 1), mask=torch.ones(1, 48, 32)
    ).args
    (options,) = [options for _, options in both[0]]
    assert [source.number for source in list_sources(options)] == [1, 2]
    drawn = sample(nodes.CoLoGenApply.execute(model)[0], *both, {"samples": torch.zeros(1, 128, 3, 3)})
    assert torch.isfinite(drawn).all()


def test_pictures_that_are_not_together_are_the_naive_formula(nodes, model, vae):
    """Each is alone in the formula; together they are another picture (tests/host/test_flux2.py has it as diffusers')."""

    def draw(**knobs):
        prompts = dict(positive=prompt(), negative=prompt(5))
        for seed in (0, 1):
            options = nodes.CoLoGenSourceOptions.execute(**OPTIONS, **knobs)[0]
            given = dict(vae=vae, image=picture(48, 32, seed), options=options)
            prompts = dict(zip(prompts, nodes.CoLoGenSubject.execute(**prompts, **given).args))
        empty = {"samples": torch.zeros(1, 128, 4, 6)}
        ((_, told),) = prompts["positive"]
        return sample(apply_bank(model, None), *prompts.values(), empty), list_sources(told), empty

    apart, sources, empty = draw(together=False)
    alone = [dict(latent=source.latent, number=source.number, position="reference") for source in sources]
    weights = model.model.diffusion_model.state_dict()
    weights = {key.replace("_norm.weight", "_norm.scale"): value for key, value in weights.items()}
    naive = naive_model(model, weights, None, {4: alone}, formula=NaiveFlux2, make_conditioning=prompt)
    assert_close(apart, sample(naive, prompt(), prompt(5), empty))
    together, others, _ = draw()
    assert [source.together for source in (*sources, *others)] == [False, False, True, True]
    assert (apart - together).abs().max() > 2e-3  # twenty times what the formula may differ by
    assert torch.equal(draw(together=True)[0], together)


@pytest.mark.parametrize("guided", [False, True], ids=["klein", "dev"])
def test_a_route_map_without_a_bank_says_so(nodes, vae, guided):
    from cologen.prw.comfyui.routes import compute_routes
    from cologen.training.comfyui.enter_host import load_model

    model = load_model(tiny_flux2(guidance_embed=guided).state_dict(), torch.float32)
    positive, _, empty = nodes.CoLoGenEdit.execute(positive=prompt(), vae=vae, image=picture(32, 32)).args
    patched = nodes.CoLoGenApply.execute(model)[0]
    assert compute_routes(patched, positive, empty["samples"]) == [
        ("edit, source 1: no experts, read with FLUX's own weights", (), {}, {})
    ]
    drawn = nodes.CoLoGenRouteMap.execute(patched, positive, empty)[0]
    assert drawn.shape[0] == 1 and drawn.std() > 0.01


def test_a_wrong_text_encoder_is_named_by_its_width(nodes, model, vae):
    patched = nodes.CoLoGenApply.execute(model)[0]
    positive, negative, empty = nodes.CoLoGenEdit.execute(
        positive=prompt(width=4096), vae=vae, image=picture(32, 32)
    ).args
    sentence = "rows are 4096 wide .T5-XXL, FLUX.1's and Chroma's., the model expects 48 wide: encode the prompt"
    with pytest.raises(ValueError, match=sentence):
        sample(patched, positive, negative, empty)
    with pytest.raises(ValueError, match=sentence):
        sample(patched, prompt(width=4096), prompt(), empty)


def test_a_wrong_vae_is_named_by_its_channels(nodes, model, vae):
    from cologen.prw.comfyui.conditioning import add_source
    from cologen.prw.source import Source

    empty = {"samples": torch.zeros(1, 128, 2, 2)}
    with pytest.raises(
        ValueError, match="has 16 channels .the VAE of FLUX.1., expected 128 for FLUX.2: connect the VAE"
    ):
        sample(apply_bank(model, None), add_source(prompt(), Source(latent())), prompt(), empty)
    flux1 = apply_bank(host_model(tiny_flux()), None)
    text = [[torch.zeros(1, 5, 32), {"pooled_output": torch.zeros(1, 16)}]]
    wrong = add_source(text, Source(torch.randn(1, 128, 2, 2)))
    with pytest.raises(
        ValueError, match="has 128 channels .the VAE of FLUX.2., expected 16 for FLUX.1: connect the VAE"
    ):
        sample(flux1, wrong, text, {"samples": torch.zeros(1, 16, 4, 4)})


@pytest.fixture
def files(comfy, tmp_path, monkeypatch):
    import folder_paths

    save_file(tiny_flux2().state_dict(), tmp_path / "flux2.safetensors")
    save_file(tiny_flux().state_dict(), tmp_path / "flux1.safetensors")
    save_file(make_tiny_vae(), tmp_path / "vae.safetensors")
    for name in ("qwen", "t5"):
        save_file({}, tmp_path / f"{name}.safetensors")
    for folder in ("diffusion_models", "vae", "text_encoders"):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, folder, ([str(tmp_path)], {".safetensors"}))


def load(nodes, unet, *encoders):
    names = [f"{name}.safetensors" if name != "none" else name for name in encoders]
    return nodes.CoLoGenLoadFlux.execute(f"{unet}.safetensors", "default", *names, "vae.safetensors").args


def test_the_loader_takes_flux_2_with_one_text_encoder(nodes, files, monkeypatch):
    import comfy.sd

    asked = []
    monkeypatch.setattr(comfy.sd, "load_clip", lambda **given: asked.append(given) or "clip")
    model, clip, _ = load(nodes, "flux2", "qwen", "none")
    assert type(model.model).__name__ == "Flux2" and clip == "clip"
    assert asked[0]["clip_type"] is comfy.sd.CLIPType.FLUX2 and len(asked[0]["ckpt_paths"]) == 1
    assert load(nodes, "flux2", "none", "none")[1] is None
    assert load(nodes, "flux1", "qwen", "t5")[1] == "clip"
    assert asked[1]["clip_type"] is comfy.sd.CLIPType.FLUX and len(asked[1]["ckpt_paths"]) == 2


@pytest.mark.parametrize(
    "unet, encoders, sentence",
    [
        ("flux2", ("qwen", "t5"), "The model is a FLUX.2 with two text encoders, expected one"),
        ("flux1", ("t5", "none"), "The model is a FLUX.1 with one text encoder, expected CLIP-L and T5-XXL"),
        ("flux2", ("none", "qwen"), "One of FLUX's two text encoders is none"),
    ],
)
def test_the_loader_counts_text_encoders(nodes, files, unet, encoders, sentence):
    with pytest.raises(ValueError, match=sentence):
        load(nodes, unet, *encoders)
