"""Two branches in the real host: its pictures against the formula written out naively."""

from dataclasses import replace

import pytest
import torch
from naive_branches import NaiveBranch
from sampling import SIGMAS, add_sources, apply_bank, assert_close, conditioning, naive_source, sample
from tiny import host_model, latent, source, tiny_flux
from two_branches import CONCEPT, KEEP, OTHER, TAKE, attach_branches, marked_conditioning

pytestmark = pytest.mark.usefixtures("comfy")


def branches(model):
    from cologen.prw.comfyui.dual_branch_sampling import find_dual_branch

    return find_dual_branch(model)


@pytest.fixture(scope="module")
def model(comfy, flux):
    return host_model(flux)


def naive_pictures(flux, sigmas, steps, bank=None, given=(), batch=1, seed=11, strength=0.7, **how):
    """Both branches by Euler; in the first `steps` the concept is blended with what the auxiliary leaves."""
    import comfy.sample

    noise = comfy.sample.prepare_noise(torch.zeros(batch, 16, 8, 8), 7)
    x, y = noise, torch.randn(noise.shape, generator=torch.Generator().manual_seed(seed))
    prompts = [conditioning(number)[0] for number in (4, 6)]
    (own, own_pooled), (other, other_pooled) = ((text, options["pooled_output"]) for text, options in prompts)

    def velocity(role, words, left, x, t, text, pooled, *more):
        naive = NaiveBranch(flux.state_dict(), role, words, left, strength, **how)
        rows = (tensor.expand(batch, *tensor.shape[1:]) for tensor in (text, pooled))
        return naive(x, t.expand(batch), *rows, torch.full((batch,), 3.5), *more)

    for i, (sigma, following) in enumerate(zip(sigmas, sigmas[1:])):
        left, role = {}, "concept" if i < steps else None
        if i < steps:
            v = velocity("auxiliary", OTHER, left, y, sigma, other, other_pooled)
            y = y + (following - sigma) * v
        x = x + (following - sigma) * velocity(role, CONCEPT, left, x, sigma, own, own_pooled, given, bank)
    return x / 0.3611 + 0.1159


@pytest.fixture(scope="module")
def two_steps(model):
    """The part of the sampling that ends between the second and the third step."""
    to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    return next(p / 1000 for p in range(1000) if to_sigma(p / 1000) < 0.65)


@pytest.mark.parametrize(
    "how",
    [
        dict(strength=0.7),
        dict(strength=1.0, blocks=(1, 2)),
        dict(strength=1.3, batch=2),
    ],
    ids=str,
)
def test_a_picture_of_two_branches_is_the_naive_formula(model, flux, two_steps, how):
    batch = how.pop("batch", 1)
    found = sample(
        attach_branches(model, end=two_steps, **how), marked_conditioning(), sigmas=torch.tensor(SIGMAS), batch=batch
    )
    wanted = naive_pictures(flux, torch.tensor(SIGMAS), 2, batch=batch, **how)
    assert_close(found, wanted, 2e-4)
    assert not torch.allclose(
        found, sample(model, conditioning(4), sigmas=torch.tensor(SIGMAS), batch=batch), atol=0.05
    )


@pytest.mark.parametrize("blend_sources", [False, True])
@pytest.mark.parametrize("order", ["bank first", "branches first"])
def test_two_sources_act_in_the_concept_branch_alone(model, flux, bank, two_steps, order, blend_sources):
    how = dict(end=two_steps, sources=blend_sources)
    both = (
        attach_branches(apply_bank(model, bank), **how)
        if order == "bank first"
        else apply_bank(attach_branches(model, **how), bank)
    )
    prompt = add_sources(marked_conditioning(), source(), source("inpaint", seed=9))
    found = sample(both, prompt, sigmas=torch.tensor(SIGMAS))
    sources = [naive_source(), naive_source("inpaint", 9)]
    assert_close(found, naive_pictures(flux, torch.tensor(SIGMAS), 2, bank, sources, sources=blend_sources), 2e-4)


@pytest.mark.parametrize("order", ["bank first", "branches first"])
def test_the_auxiliary_s_sources_are_fitted_once(model, bank, two_steps, order):
    from cologen.prw.comfyui.patch import apply_bank

    def drawn(one):
        auxiliary = add_sources(marked_conditioning(6, OTHER), one)
        if order == "bank first":
            both = attach_branches(apply_bank(model, bank, 0.5), end=two_steps, auxiliary=auxiliary)
        else:
            both = apply_bank(attach_branches(model, end=two_steps, auxiliary=auxiliary), bank, 0.5)
        return sample(both, marked_conditioning(), sigmas=torch.tensor(SIGMAS))

    fitted = source("inpaint", seed=9)
    unfitted = replace(source(), fit=lambda info: (fitted.latent, fitted.routing))
    assert torch.equal(drawn(unfitted), drawn(fitted)) and not torch.equal(drawn(unfitted), drawn(source()))
    weaker = replace(fitted, routing=replace(fitted.routing, strength=0.5))
    both = attach_branches(
        apply_bank(model, bank), end=two_steps, auxiliary=add_sources(marked_conditioning(6, OTHER), weaker)
    )
    assert torch.equal(drawn(fitted), sample(both, marked_conditioning(), sigmas=torch.tensor(SIGMAS)))


@pytest.mark.parametrize(
    "how", [dict(), dict(sampler="dpmpp_2m", batch=2), dict(sampler="heun"), dict(cfg=2.5)], ids=str
)
def test_the_concept_s_text_alone_is_plain_sampling_of_the_concept(model, bank, how):
    prompt = add_sources(marked_conditioning(), source(), source("inpaint", seed=9))
    found = sample(attach_branches(apply_bank(model, bank), KEEP), prompt, steps=4, **how)
    assert torch.equal(found, sample(apply_bank(model, bank), prompt, steps=4, **how))


def test_without_a_phase_it_is_the_hosts_own_picture(model):
    plain = sample(model, conditioning())
    assert torch.equal(sample(attach_branches(model, end=0.0), conditioning()), plain)
    sample(attach_branches(model), marked_conditioning())
    assert torch.equal(sample(model, conditioning()), plain)
    assert torch.equal(sample(model, marked_conditioning()), plain), "the host should not mind the marks"


def test_only_the_first_part_of_the_steps_costs_twice(model):
    calls = []
    hook = model.model.diffusion_model.img_in.register_forward_hook(lambda module, given, out: calls.append(len(out)))
    sample(attach_branches(model, end=0.3), marked_conditioning(), steps=10, batch=2)
    hook.remove()
    assert calls == [2] * 13


def test_a_run_that_begins_after_the_phase_is_plain(model):
    sigmas, both = torch.tensor([0.5, 0.2, 0.0]), attach_branches(model, end=0.3)
    sample(both, marked_conditioning(), steps=10)
    assert branches(both).maps
    assert torch.equal(
        sample(both, marked_conditioning(), sigmas=sigmas), sample(model, marked_conditioning(), sigmas=sigmas)
    )
    assert not branches(both).maps, "those of the run before are not shown for this one"


def test_another_seed_of_the_auxiliary_is_another_picture(model):
    one, two = (sample(attach_branches(model, TAKE, seed=seed), marked_conditioning()) for seed in (1, 2))
    assert not torch.allclose(one, two, atol=0.05)
    assert torch.equal(one, sample(attach_branches(model, TAKE, seed=1), marked_conditioning()))


@pytest.mark.parametrize("what", ["mask", "image", "fill"])
def test_what_the_host_does_with_latents_stays(flux, what):
    """A noise mask, a picture to begin with, Fill's given image: two pictures, each with its own."""
    import comfy.sample
    import node_helpers

    model = host_model(tiny_flux(in_channels=384) if what == "fill" else flux)
    prompt, mask = marked_conditioning(), None
    start = latent(2, seed=20)
    if what == "mask":
        mask = (latent(2, seed=21)[:, :1] > 0).float()
    if what == "fill":
        given = {"concat_latent_image": latent(2, seed=22), "concat_mask": torch.ones(2, 1, 8, 8)}
        prompt = node_helpers.conditioning_set_values(prompt, given)

    def drawn(model):
        noise = comfy.sample.prepare_noise(start, 7)
        with torch.inference_mode():
            return comfy.sample.sample(
                model, noise, 4, 1.0, "euler", "simple", prompt, conditioning(5), start, noise_mask=mask,
                disable_pbar=True, seed=7, denoise=0.8 if what == "image" else 1.0,
            )  # fmt: skip

    assert torch.equal(drawn(attach_branches(model, KEEP, end=0.9)), drawn(model))


def test_kontext_references_are_not_blended(model):
    import node_helpers

    def kontext(cond):
        return node_helpers.conditioning_set_values(cond, {"reference_latents": [latent(height=6, width=6, seed=12)]})

    plain = sample(model, kontext(marked_conditioning()))
    both = attach_branches(model, KEEP, auxiliary=kontext(marked_conditioning(6, OTHER)))
    assert torch.equal(sample(both, kontext(marked_conditioning())), plain)
    assert not torch.allclose(sample(attach_branches(model, TAKE), kontext(marked_conditioning())), plain, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("what", [pytest.param("whole", marks=pytest.mark.long), "blocks"])
def test_torch_compile(model, flux, what):
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from comfy_extras.nodes_torch_compile import skip_torch_compile_dict

    expected = sample(attach_branches(model), marked_conditioning(), steps=4)
    both = attach_branches(host_model(flux))
    keys = ["diffusion_model"]
    if what == "blocks":
        keys = [f"diffusion_model.{kind}_blocks.{i}" for kind in ("double", "single") for i in range(2)]
    set_torch_compile_wrapper(both, "eager", options={"guard_filter_fn": skip_torch_compile_dict}, keys=keys)
    assert_close(sample(both, marked_conditioning(), steps=4), expected)


def test_an_attention_override_is_used_for_the_text_s_part_too(model):
    def halve(func, q, k, v, *args, **kwargs):
        return func(q, k, v * 0.5, *args, **kwargs)

    slow = model.clone()
    slow.model_options["transformer_options"]["optimized_attention_override"] = halve
    assert torch.equal(sample(attach_branches(slow, KEEP), marked_conditioning()), sample(slow, marked_conditioning()))


def test_the_stock_nodes_draw_the_same_from_ksampler_and_custom_sampler(model):
    import nodes
    from comfy_extras import nodes_custom_sampler as custom

    both, empty = attach_branches(model), {"samples": torch.zeros(1, 16, 8, 8)}
    with torch.inference_mode():
        (one,) = nodes.KSampler().sample(
            both, 7, 4, 1.0, "euler", "simple", marked_conditioning(), conditioning(5), empty
        )
        guider = custom.BasicGuider.execute(both, marked_conditioning()).result[0]
        sigmas = custom.BasicScheduler.execute(both, "simple", 4, 1.0).result[0]
        euler, noise = custom.KSamplerSelect.execute("euler").result[0], custom.RandomNoise.execute(7).result[0]
        two, denoised = custom.SamplerCustomAdvanced.execute(noise, guider, euler, sigmas, empty).result
    assert torch.equal(one["samples"], two["samples"])
    assert denoised["samples"].shape == two["samples"].shape


def test_easycache_may_skip_steps_after_the_phase(model):
    from comfy_extras.nodes_easycache import EasyCacheNode

    def calls(start):
        made = []
        hook = model.model.diffusion_model.img_in.register_forward_hook(lambda *given: made.append(1))
        try:
            sample(
                EasyCacheNode.execute(attach_branches(model), 99.0, start, 1.0, False).result[0],
                marked_conditioning(),
                steps=8,
            )
        finally:
            hook.remove()
        return len(made)

    assert 2 * 4 < calls(start=0.6) < 2 * 4 + 4
    with pytest.raises(RuntimeError, match="let EasyCache start after `end`"):
        calls(start=0.1)


def test_a_cancelled_run_leaves_nothing_behind(model):
    import comfy.model_management
    import comfy.samplers

    both = attach_branches(model)
    expected, maps = sample(both, marked_conditioning(), steps=4), branches(both).maps
    seen = []

    def cancel(step, denoised, x, total):
        seen.append((denoised.shape, x.shape))
        raise comfy.model_management.InterruptProcessingException

    guider = comfy.samplers.CFGGuider(both)
    guider.set_conds(marked_conditioning(), conditioning(5))
    noise = torch.randn(2, 16, 8, 8)
    with pytest.raises(comfy.model_management.InterruptProcessingException), torch.inference_mode():
        sampler = comfy.samplers.sampler_object("euler")
        guider.sample(noise, noise * 0, sampler, torch.tensor(SIGMAS), callback=cancel, disable_pbar=True)
    assert seen == [(noise.shape, noise.shape)], "previews should be of the concept's pictures"
    assert branches(both).maps is maps
    assert torch.equal(sample(both, marked_conditioning(), steps=4), expected)
    assert guider.original_conds.keys() == {"positive", "negative"}


def test_the_map_is_the_mean_share_of_blocks_and_heads(model, flux, two_steps):
    both = attach_branches(model, 1.0, two_steps, blocks=(1, 2))
    sample(both, marked_conditioning(), sigmas=torch.tensor(SIGMAS), batch=2)
    first, _ = branches(both).maps

    import comfy.sample

    noise = comfy.sample.prepare_noise(torch.zeros(2, 16, 8, 8), 7)
    other = torch.randn(noise.shape, generator=torch.Generator().manual_seed(11))
    left, kept = {}, None
    for role, words, seed, x in (("auxiliary", OTHER, 6, other), ("concept", CONCEPT, 4, noise)):
        naive = NaiveBranch(flux.state_dict(), role, words, left, 1.0, blocks=(1, 2))
        text, options = conditioning(seed)[0]
        rows = text.expand(2, -1, -1), options["pooled_output"].expand(2, -1)
        naive(x, torch.ones(2), *rows, torch.full((2,), 3.5))
        kept = naive.kept
    expected = torch.tensor([[kept[block, b, h] for block in (1, 2) for h in range(2)] for b in range(2)]).mean(1)
    assert torch.allclose(first, expected.reshape(2, 4, 4), atol=1e-4)
    assert first.min() < 0.4 and first.max() > 0.6


def test_the_map_node_draws_a_row_a_picture_and_a_column_a_step(model):
    from cologen.nodes.dual_branch import GAP, CoLoGenBranchMap

    both = attach_branches(model, end=0.5)
    found = sample(both, marked_conditioning(), steps=4, batch=3)
    picture = CoLoGenBranchMap.execute(both, {"samples": found}).result[0]
    tile = 128 + 2 * GAP
    assert picture.shape == (1, 3 * tile, 2 * tile, 3)
    for step, maps in enumerate(branches(both).maps):
        for b, places in enumerate(maps):
            corner = picture[0, b * tile + GAP + 40, step * tile + GAP + 70]
            assert torch.equal(corner, places[40 // 32, 70 // 32].expand(3))


def test_memory_of_what_the_auxiliary_leaves_is_announced(model):
    import comfy.sampler_helpers

    both, shape = attach_branches(model, blocks=(0, 2)), (2, 16, 64, 64)
    plain, minimum = comfy.sampler_helpers.estimate_memory(model, shape, {})
    found, least = branches(both).reserve_memory(comfy.sampler_helpers.estimate_memory, model, shape, {})
    exact = 2 * 1024 * 256 * 4 * 3  # 2 pictures of 1024 tokens, width 256, fp32, 3 blocks
    column = model.model.memory_required([2, 16, 64, 1])
    assert exact <= least - minimum <= exact + column


# sentences


def test_a_prompt_without_marks_is_a_sentence(model):
    with pytest.raises(ValueError, match="prompt of the sampler has no marked words"):
        sample(attach_branches(model), conditioning())
    with pytest.raises(ValueError, match="1 parts and 0 with marked words, expected one"):
        attach_branches(model, auxiliary=conditioning())
    with pytest.raises(ValueError, match="2 parts and 2 with marked words, expected one"):
        attach_branches(model, auxiliary=marked_conditioning() + marked_conditioning())


def test_a_marked_area_is_a_sentence(model):
    import node_helpers

    area = node_helpers.conditioning_set_values(marked_conditioning(), {"area": (4, 8, 4, 0)})
    with pytest.raises(ValueError, match="has an area of the picture, expected all of it"):
        sample(attach_branches(model), area)


def test_a_second_auxiliary_branch_is_a_sentence(model):
    with pytest.raises(ValueError, match="already has two branches"):
        attach_branches(attach_branches(model))


def test_blocks_that_are_not_there_are_a_sentence(model):
    with pytest.raises(ValueError, match="The first block is 4, expected one of the model's 4"):
        attach_branches(model, blocks=(4, 9))
    with pytest.raises(ValueError, match="The blocks are 3 to 2, expected"):
        attach_branches(model, blocks=(3, 2))


def test_an_auxiliary_prompt_with_a_window_is_a_sentence(model):
    import node_helpers

    late = node_helpers.conditioning_set_values(
        marked_conditioning(6, OTHER), {"start_percent": 0.4, "end_percent": 1.0}
    )
    with pytest.raises(RuntimeError, match="The auxiliary branch was not drawn in this step"):
        sample(attach_branches(model, auxiliary=late), marked_conditioning(), steps=4)


def test_no_run_to_show_is_a_sentence(model):
    from cologen.nodes.dual_branch import CoLoGenBranchMap

    for one in (model, attach_branches(model)):
        with pytest.raises(ValueError, match="There is no run with two branches to show"):
            CoLoGenBranchMap.execute(one, {})
