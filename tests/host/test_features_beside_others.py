"""Features beside what else may be in a graph: other guiders, masks, caches, branches, late starts, half precision."""

import logging

import pytest
import torch
from cologen.prw.comfyui.conditioning import add_source
from cologen.prw.coredi.features import looks_like_features
from sampling import SIGMAS, apply_bank, assert_close, conditioning, sample
from tiny import host_model, source
from tiny_features import random_features, read_features, sample_sourced, sourced_conditioning
from two_branches import attach_branches, marked_conditioning

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.slow]
WAYS = pytest.mark.parametrize("way", ["coredi", "self"])


@pytest.fixture(scope="module")
def model(comfy, flux, bank):
    return apply_bank(host_model(flux), bank)


def pictured(model, positive, negative=None, **how):
    return sample(model, positive, negative or sourced_conditioning(6), sigmas=torch.tensor(SIGMAS), **how)


def test_what_a_source_may_not_do_it_does_not_do_by_features(model, flux):
    read = read_features(model, random_features(flux))

    def swapped(**how):
        one, other = (pictured(read, add_source(conditioning(4), source(seed=seed, **how))) for seed in (3, 33))
        return (one - other).abs().mean()

    assert swapped() > 0.5 and swapped(source_strength=1e-6) < 1e-3
    assert swapped(region=torch.zeros(8, 8)) < 0.5 * swapped()  # it still decides which experts bend them


def styled(seed):
    """With the host's own mask over text and picture, as Redux makes it."""
    ((text, options),) = sourced_conditioning(seed)
    bias = torch.randn(1, 21, 21, generator=torch.Generator().manual_seed(seed))
    return [[text, {**options, "attention_mask": bias, "attention_mask_img_shape": (4, 4)}]]


def test_a_host_s_mask_is_kept_for_every_prompt_of_a_batch(model, flux):
    read = read_features(model, random_features(flux))
    alone = [pictured(read, styled(4), styled(6), cfg=1.0), pictured(model, styled(6), styled(4), cfg=1.0)]
    both = pictured(read, styled(4), styled(6), cfg=2.0, batch=2)
    assert torch.isfinite(both).all() and not torch.allclose(*alone, atol=1e-2)
    assert torch.allclose(pictured(read, styled(4), styled(6), cfg=1.0001), alone[0], atol=1e-2)


@WAYS
def test_a_guidance_of_nothing_changes_nothing(model, flux, way):
    """Skip-layer guidance calls the model once more at the same time."""
    from comfy_extras.nodes_slg import SkipLayerGuidanceDiT

    read = read_features(model, random_features(flux, way))
    guided = SkipLayerGuidanceDiT.execute(read, 1e-9, 0.0, 1.0, "0", "0").result[0]
    assert_close(sample_sourced(guided, cfg=1.5), sample_sourced(read, cfg=1.5), 1e-3)


def test_two_of_them_go_on_as_one_when_a_weight_asks_for_another_call(model, flux):
    one, other = random_features(flux), random_features(flux, "self", "inpaint", seed=9)
    positive = add_source(sourced_conditioning(4), source("inpaint", seed=9))

    def drawn_by(weight, more):
        return pictured(read_features(read_features(model, one, weight), other, more), positive)

    usual = drawn_by(1.0, 1.0)
    assert_close(drawn_by(1.0001, 1.0), usual, 1e-2)
    assert_close(drawn_by(1.0, 1.0001), usual, 1e-2)


def test_every_prompt_but_the_negative_reads(model, flux):
    """The host's guider for two conds asks for the negative first."""
    import comfy.sample
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG

    def dual(model, first, second, negative):
        guider = Guider_DualCFG(model)
        guider.set_conds(first, second, negative)
        guider.set_cfg(1.0, 1.0)
        noise = comfy.sample.prepare_noise(torch.zeros(1, 16, 8, 8), 7)
        euler, sigmas = comfy.samplers.sampler_object("euler"), torch.tensor(SIGMAS)
        with torch.inference_mode():
            return guider.sample(noise, torch.zeros(1, 16, 8, 8), euler, sigmas, disable_pbar=True, seed=7)

    read = read_features(model, random_features(flux))
    prompts = conditioning(8), sourced_conditioning(6)
    assert_close(dual(read, sourced_conditioning(4), *prompts), pictured(read, sourced_conditioning(4)), 1e-3)


def test_easycache_may_pass_over_steps(model, flux, caplog):
    from comfy_extras.nodes_easycache import EasyCacheNode

    for threshold, same in ((1e-9, True), (3.0, False)):
        read = read_features(model, random_features(flux, "self"))
        skipping = EasyCacheNode.execute(read, threshold, 0.1, 0.95, False).result[0]
        found, whole = (
            sample(one, sourced_conditioning(), sourced_conditioning(6), steps=8) for one in (skipping, read)
        )
        assert torch.isfinite(found).all() and torch.equal(found, whole) == same


def test_a_run_that_heard_nothing_says_so(model, flux, caplog):
    from comfy.patcher_extension import WrappersMP

    deaf = read_features(model, random_features(flux, "self"))
    deaf.add_wrapper_with_key(
        WrappersMP.DIFFUSION_MODEL, "none", lambda executor, x, *args, **kwargs: torch.zeros_like(x)
    )
    with caplog.at_level(logging.WARNING):
        sample_sourced(deaf)
    assert "No model call used the features of control" in caplog.text


@WAYS
def test_whoever_looks_on_sees_the_features_keys(model, flux, way):
    """With all the weight on the concept's text, two branches are the concept alone."""
    read = read_features(model, random_features(flux, way))
    positive = add_source(marked_conditioning(), source())
    for one in (
        attach_branches(read, strength=-1e6, end=1.0),
        read_features(attach_branches(model, strength=-1e6, end=1.0), random_features(flux, way)),
    ):
        assert_close(pictured(one, positive), pictured(read, positive), 1e-3)


def test_a_bank_may_be_called_features(comfy, bank, flux, tmp_path, monkeypatch):
    import folder_paths
    from cologen.training.comfyui import folders

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "cologen", ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    bank.save(tmp_path / "dogs.features.safetensors")
    random_features(flux).save(tmp_path / "1-dogs.features.safetensors")
    assert (
        "dogs.features.safetensors" in folders.list_banks()
        and "1-dogs.features.safetensors" not in folders.list_banks()
    )
    assert "1-dogs.features.safetensors" in folders.list_features()
    assert looks_like_features(folders.feature_path("1-dogs.features.safetensors"))
