"""PRW in the real host: every picture against the naive formula sampled by the same host."""

import math

import pytest
import torch
from naive import Naive
from sampling import add_sources, apply_bank, assert_close, conditioning, naive_model, naive_source, sample
from tiny import host_model, latent, source, tiny_bank

pytestmark = pytest.mark.usefixtures("comfy")

SAMPLERS = ("euler", "heun", "dpmpp_2m", "dpmpp_sde")


@pytest.fixture(scope="module")
def model(comfy, flux):
    return host_model(flux)


def patch():
    from cologen.prw.comfyui import patch as flux_patch

    return flux_patch


def woven(model, bank, *sources, seed=4, **how):
    return sample(apply_bank(model, bank), add_sources(conditioning(seed), *sources), **how)


def expected(model, flux, bank, *sources, **how):
    return sample(naive_model(model, flux.state_dict(), bank, {4: list(sources)}), conditioning(4), **how)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_woven_picture_is_the_naive_formula(model, flux, bank, sampler):
    found = woven(model, bank, source(), sampler=sampler)
    assert_close(found, expected(model, flux, bank, naive_source(), sampler=sampler), 2e-3)
    assert not torch.allclose(found, sample(model, conditioning(4), sampler=sampler), atol=0.1)


@pytest.mark.parametrize("batch, size", [(2, (7, 10)), (3, (6, 5))])
def test_woven_batches_of_odd_sizes_are_the_naive_formula(model, flux, bank, batch, size):
    how = dict(batch=batch, size=size)
    one = source(height=size[0], width=size[1])
    assert_close(
        woven(model, bank, one, **how), expected(model, flux, bank, naive_source(height=size[0], width=size[1]), **how)
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_source_is_the_hosts_own_picture(model, bank, sampler):
    plain = sample(model, conditioning(), sampler=sampler)
    assert torch.equal(sample(apply_bank(model, bank), conditioning(), sampler=sampler), plain)
    woven(model, bank, source(), sampler=sampler)
    assert torch.equal(sample(model, conditioning(), sampler=sampler), plain)


def test_no_source_is_the_hosts_own_picture_on_a_turbo_schedule(model, bank):
    sigmas = torch.tensor([1.0, 0.7, 0.35, 0.1, 0.0])
    plain = sample(model, conditioning(), sampler="lcm", sigmas=sigmas)
    assert torch.equal(sample(apply_bank(model, bank), conditioning(), sampler="lcm", sigmas=sigmas), plain)
    off = add_sources(conditioning(), source(source_strength=0.0))
    assert torch.equal(sample(apply_bank(model, bank), off, sampler="lcm", sigmas=sigmas), plain)


def test_cached_is_uncached(model, bank):
    cached, uncached = apply_bank(model, bank), apply_bank(model, bank)
    patch().find_attachment(uncached).cached = False
    positive = add_sources(conditioning(), source(), source("inpaint", seed=9))
    assert torch.equal(sample(cached, positive), sample(uncached, positive))


def test_the_source_runs_once_a_picture_and_is_freed_afterwards(model, bank, flux):
    patched, calls = apply_bank(model, bank), []
    hook = model.model.diffusion_model.double_blocks[0].img_attn.qkv.register_forward_hook(lambda *a: calls.append(1))
    sample(patched, add_sources(conditioning(), source()), steps=5)
    hook.remove()
    assert len(calls) == 5 + 1
    cache = patch().find_attachment(patched).cache
    assert not cache.entries and not cache.kept


def test_knobs_reach_the_host(model, flux, bank):
    region = torch.rand(4, 4, generator=torch.Generator().manual_seed(5))
    bias = torch.cat([torch.full((5,), math.log(0.5)), (0.5 * region.flatten()).log()])
    found = woven(model, bank, source(strength=0.4, source_strength=0.5, region=region))
    assert_close(found, expected(model, flux, bank, naive_source(strength=0.4, log_bias=bias)), 5e-4)


def test_two_sources_in_any_order_are_the_naive_formula(model, flux, bank):
    a, b = source("control"), source("inpaint", seed=9)
    wanted = expected(model, flux, bank, naive_source(), naive_source("inpaint", 9))
    assert_close(woven(model, bank, a, b), wanted)
    assert_close(woven(model, bank, b, a), wanted)


def test_start_and_end_window(model, flux, bank):
    sigmas = torch.tensor([1.0, 0.8, 0.5, 0.2, 0.0])
    to_percent = model.get_model_object("model_sampling").percent_to_sigma
    start = next(p / 1000 for p in range(1000) if to_percent(p / 1000) < 0.65)
    patched = apply_bank(model, bank)
    late = sample(patched, add_sources(conditioning(), source(start=start)), sigmas=sigmas)
    early = sample(patched, add_sources(conditioning(), source(end=start)), sigmas=sigmas)

    def euler(models):
        """x_{i+1} = x_i + (s_{i+1} - s_i) v, with v from the naive formula or plain."""
        import comfy.sample

        naive = Naive(flux.state_dict())
        x = comfy.sample.prepare_noise(torch.zeros(1, 16, 8, 8), 7).float()
        text, options = conditioning()[0]
        for i, found in enumerate(models):
            t = sigmas[i : i + 1]
            v = naive(x, t, text, options["pooled_output"], torch.tensor([3.5]), found, bank)
            x = x + (sigmas[i + 1] - sigmas[i]) * v
        return x / 0.3611 + 0.1159

    one = [naive_source()]
    assert_close(late, euler([[], [], one, one]))
    assert_close(early, euler([one, one, [], []]))


def test_cond_and_uncond_in_one_pass_and_in_two(model, flux, bank, monkeypatch):
    patched = apply_bank(model, bank)
    both = dict(cfg=2.5, negative=add_sources(conditioning(5), source()))
    positive = add_sources(conditioning(4), source())
    naive = naive_model(model, flux.state_dict(), bank, {4: [naive_source()], 5: [naive_source()]})
    wanted = sample(naive, conditioning(4), conditioning(5), cfg=2.5)
    sizes = []
    hook = model.model.diffusion_model.img_in.register_forward_hook(lambda m, a, out: sizes.append(len(out)))
    assert_close(sample(patched, positive, **both), wanted, 5e-4)
    assert 2 in sizes[1:]
    sizes.clear()
    monkeypatch.setattr(model.model, "memory_required", lambda *a, **k: 1e18)
    assert_close(sample(patched, positive, **both), wanted, 5e-4)
    hook.remove()
    assert set(sizes) == {1}


def test_chunking_that_changes_between_steps(model, flux, bank, monkeypatch):
    patched, step, sizes = apply_bank(model, bank), [0], []

    def memory(*args, **kwargs):
        step[0] += 1
        return 1e18 if step[0] % 3 == 0 else 0

    conds = (add_sources(conditioning(4), source()), add_sources(conditioning(5), source()))
    steady = sample(patched, *conds, cfg=2.5, batch=2, steps=6)
    monkeypatch.setattr(model.model, "memory_required", memory)
    hook = model.model.diffusion_model.txt_in.register_forward_hook(lambda m, a, out: sizes.append(len(out)))
    assert_close(sample(patched, *conds, cfg=2.5, batch=2, steps=6), steady, 2e-4)
    hook.remove()
    assert {2, 4} <= set(sizes)


def test_guided_batches_with_batches_of_two_sources(model, flux, bank):
    """Three pictures, two conds in one pass, a batch of three and one of two images."""
    pixels = {3: latent(3, seed=3), 9: latent(2, seed=9)}
    ours = [source(latent_=pixels[3]), source("inpaint", latent_=pixels[9])]
    repeated = [dict(naive_source(), latent=pixels[3]), dict(naive_source("inpaint"), latent=pixels[9][[0, 1, 0]])]
    naive = naive_model(model, flux.state_dict(), bank, {4: repeated, 5: repeated})
    wanted = sample(naive, conditioning(4), conditioning(5), cfg=2.0, batch=3)
    conds = [add_sources(conditioning(seed), *ours) for seed in (4, 5)]
    assert_close(sample(apply_bank(model, bank), *conds, cfg=2.0, batch=3), wanted, 5e-4)


@pytest.mark.parametrize("sigmas", [[1.0, 0.6, 0.2, 0.0]])
def test_a_bank_of_the_shared_timestep(model, flux, sigmas):
    shared = tiny_bank(flux, time="shared")
    patched = apply_bank(model, shared)
    rows = []
    hook = model.model.diffusion_model.final_layer.register_forward_hook(
        lambda *a: rows.append(len(patch().find_attachment(patched).cache.entries))
    )
    found = sample(patched, add_sources(conditioning(), source(keep=True)), sigmas=torch.tensor(sigmas))
    hook.remove()
    naive = naive_model(model, flux.state_dict(), shared, {4: [naive_source()]}, shared_time=True)
    assert_close(found, sample(naive, conditioning(), sigmas=torch.tensor(sigmas)))
    assert set(rows) == {0} and not patch().find_attachment(patched).cache.kept


def test_scaled_positions_of_the_host_move_an_aligned_source_along(model, flux, bank):
    patched = apply_bank(model, bank)
    scale = {"scale_y": 0.5, "shift_y": 3.0, "scale_x": 2.0, "shift_x": 1.0}
    moved = patched.clone()
    moved.model_options["transformer_options"]["rope_options"] = scale
    found = sample(moved, add_sources(conditioning(), source()))
    grid = torch.tensor([[0.0, 3 + 0.5 * i, 1 + 2.0 * j] for i in range(4) for j in range(4)])
    naive = naive_model(model, flux.state_dict(), bank, {4: [naive_source(positions=grid)]}, image_positions=grid)
    assert_close(found, sample(naive, conditioning()))


@pytest.mark.parametrize("size", [(12, 12), (16, 12)])
def test_a_source_of_512_covers_a_picture_of_768_or_1024(model, flux, bank, size):
    """In the same proportions: a source that is smaller than the picture is stretched over it, pixel centre over centre."""
    down, right = (side / 8 for side in size)
    grid = torch.tensor([[0.0, (i + 0.5) * down - 0.5, (j + 0.5) * right - 0.5] for i in range(4) for j in range(4)])
    found = sample(apply_bank(model, bank), add_sources(conditioning(), source()), size=size)
    naive = naive_model(model, flux.state_dict(), bank, {4: [naive_source(positions=grid)]})
    assert_close(found, sample(naive, conditioning(), size=size))


def test_a_control_lora_widens_img_in_for_the_source_too(flux, bank):
    """Canny and depth LoRAs of FLUX give img_in 128 channels: the source repeats itself as the given image."""
    import node_helpers

    model, weights = host_model(flux), flux.state_dict()
    g = torch.Generator().manual_seed(11)
    delta = 0.1 * torch.randn(256, 128, generator=g)
    wide = torch.nn.functional.pad(weights["img_in.weight"], (0, 64)) + delta
    model.add_patches({"diffusion_model.img_in.weight": ("diff", (delta, {"pad_weight": True}))}, 1.0)
    hint = latent(seed=13)
    control = node_helpers.conditioning_set_values(add_sources(conditioning(), source()), {"concat_latent_image": hint})
    found = sample(apply_bank(model, bank), control)
    naive = naive_model(
        host_model(flux), {**weights, "img_in.weight": wide}, bank,
        {4: [dict(naive_source(), latent=latent(seed=3).repeat(1, 2, 1, 1))]},
        concat=(hint - 0.1159) * 0.3611,
    )  # fmt: skip
    assert_close(found, sample(naive, conditioning()))


def test_source_on_the_positive_only(model, flux, bank):
    naive = naive_model(model, flux.state_dict(), bank, {4: [naive_source()]})
    found = woven(model, bank, source(), cfg=2.5)
    assert_close(found, sample(naive, conditioning(4), conditioning(5), cfg=2.5), 5e-4)


def test_source_batches_follow_the_picture_batch(model, flux, bank):
    found = woven(model, bank, source(batch=2), batch=2)
    assert_close(found, expected(model, flux, bank, naive_source(batch=2), batch=2))


def test_a_lora_on_the_base_reaches_the_source(flux, bank):
    model = host_model(flux)
    weights, patches, g = flux.state_dict(), {}, torch.Generator().manual_seed(8)
    for name in ("double_blocks.0.img_attn.qkv", "single_blocks.1.linear1", "double_blocks.1.img_mlp.0"):
        delta = 0.2 * torch.randn(weights[name + ".weight"].shape, generator=g) * 256**-0.5
        patches[f"diffusion_model.{name}.weight"] = ("diff", (delta,))
        weights[name + ".weight"] = weights[name + ".weight"] + 0.8 * delta
    for order in (0, 1):
        lora = model.clone() if order == 0 else apply_bank(model, bank)
        assert len(lora.add_patches(patches, 0.8)) == 3
        patched = apply_bank(lora, bank) if order == 0 else lora
        found = sample(patched, add_sources(conditioning(), source()))
        wanted = sample(naive_model(model, weights, bank, {4: [naive_source()]}), conditioning())
        assert_close(found, wanted)
    # and off again: the same MODEL without the LoRA must not see what the LoRA left
    assert_close(woven(model, bank, source()), expected(model, flux, bank, naive_source()))


def test_an_fp8_base(flux, bank):
    model = host_model(flux, torch.float8_e4m3fn)
    weights = {k: v.to(torch.float8_e4m3fn).float() if v.ndim > 1 else v for k, v in flux.state_dict().items()}
    held = {k: v.dtype for k, v in model.model.diffusion_model.state_dict().items()}
    assert torch.float8_e4m3fn in held.values()
    weights = {k: v.float() for k, v in model.model.diffusion_model.state_dict().items()}
    weights = {k.replace("norm.weight", "norm.scale"): v for k, v in weights.items()}
    found = woven(model, bank, source())
    wanted = sample(naive_model(model, weights, bank, {4: [naive_source()]}), conditioning())
    assert (found - wanted).abs().mean() < 0.02 * wanted.abs().mean()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["whole", "blocks"])
def test_torch_compile(flux, bank, what):
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from comfy_extras.nodes_torch_compile import skip_torch_compile_dict

    model = host_model(flux)
    patched = apply_bank(model, bank)
    keys = ["diffusion_model"]
    if what == "blocks":
        keys = [f"diffusion_model.{kind}_blocks.{i}" for kind in ("double", "single") for i in range(2)]
    set_torch_compile_wrapper(patched, "eager", options={"guard_filter_fn": skip_torch_compile_dict}, keys=keys)
    found = sample(patched, add_sources(conditioning(), source()))
    assert_close(found, expected(model, flux, bank, naive_source()))


def test_a_mask_that_changes_from_block_to_block(model, flux, bank):
    g = torch.Generator().manual_seed(3)
    masks = [torch.randn(1, 21, 21, generator=g) for _ in range(4)]

    def masked(q, k, v, pe, attn_mask, extra_options):
        index = extra_options["block_index"] + 2 * (extra_options["block_type"] == "single")
        return {"attn_mask": masks[index].clone()}

    first = model.clone()
    first.set_model_attn1_patch(masked)
    found = sample(apply_bank(first, bank), add_sources(conditioning(), source()))
    naive = naive_model(model, flux.state_dict(), bank, {4: [naive_source()]}, extra_mask=[m[0] for m in masks])
    assert_close(found, sample(naive, conditioning()))


def test_a_source_without_a_bank_is_a_sentence(model):
    with pytest.raises(ValueError, match="put CoLoGen Apply between"):
        sample(model, add_sources(conditioning(), source()))


def test_a_second_bank_is_a_sentence(model, bank):
    with pytest.raises(ValueError, match="already has a CoLoGen bank"):
        apply_bank(apply_bank(model, bank), bank)


def test_a_model_without_our_hooks_is_a_sentence(model, bank):
    class ComfyFluxWrapper(torch.nn.Module):  # Nunchaku's name; it has no double_blocks
        pass

    alien = model.clone()
    alien.add_object_patch("diffusion_model", ComfyFluxWrapper())
    with pytest.raises(ValueError, match="ComfyFluxWrapper, expected ComfyUI's own FLUX"):
        apply_bank(alien, bank)


def test_a_replaced_forward_is_a_sentence(model, bank, monkeypatch):
    patched = apply_bank(model, bank)

    def teacache_forward(*args, **kwargs):
        raise AssertionError("must not run")

    monkeypatch.setattr(model.model.diffusion_model, "forward_orig", teacache_forward)
    with pytest.raises(ValueError, match="forward has been replaced"):
        sample(patched, add_sources(conditioning(), source()))


@pytest.mark.parametrize("batch", [1, 4])
def test_memory_of_keys_and_values_is_announced(model, bank, batch):
    """Through the host's own estimate: at least what is needed, at most what two conds would need."""
    import comfy.sampler_helpers

    attachment = patch().find_attachment(apply_bank(model, bank))
    shape = (batch, 16, 64, 64)

    def estimate(*sources):
        conds = {"positive": comfy.sampler_helpers.convert_cond(add_sources(conditioning(), *sources))}
        return attachment.reserve_memory(comfy.sampler_helpers.estimate_memory, model, shape, conds)

    (plain, plain_minimum), (found, minimum) = estimate(), estimate(source(height=64, width=64))
    exact = 2 * 4 * 1024 * 256 * 4  # K and V, 4 blocks, 1024 tokens, width 256, fp32
    column = model.model.memory_required([batch, 16, 64, 1])
    assert exact <= minimum - plain_minimum <= exact + column
    assert exact <= found - plain <= 2 * (exact + column)
