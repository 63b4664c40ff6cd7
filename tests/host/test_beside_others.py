"""Sources beside what others put on a MODEL, on FLUX.1 and FLUX.2: the naive formula with the same in its place, sampled by the host."""

import math

import pytest
import torch
from host_family import FAMILIES, HostFamily
from sampling import add_sources, apply_bank, assert_close

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.slow]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, comfy):
    return HostFamily(request.param)


def read(family, model=None, knobs=None, change=lambda prompt: prompt, **how):
    """A picture that reads one source, of a prompt that is changed by `change`."""
    prompt = add_sources(family.prompt(), family.source(**knobs or {}))
    return family.sample(apply_bank(model or family.model, family.bank), change(prompt), **how)


def with_values(prompt, **values):
    import node_helpers

    return node_helpers.conditioning_set_values(prompt, values)


def test_controlnet_residuals(family):
    import comfy.controlnet

    g = torch.Generator().manual_seed(6)
    residuals = {kind: [torch.randn(1, 16, 256, generator=g) for _ in range(2)] for kind in ("input", "output")}

    class Fixed(comfy.controlnet.ControlBase):
        def get_control(self, x, t, cond, batched_number, transformer_options):
            return {kind: [r.to(x) for r in tensors] for kind, tensors in residuals.items()}

        def get_models(self):
            return []

    def control(prompt):
        return with_values(prompt, control=Fixed(), control_apply_to_uncond=False)

    naive = family.naive({4: [family.naive_source()]})
    assert_close(read(family, change=control), family.sample(naive, control(family.prompt())))


def test_an_attention_override_sees_the_source_too(family):
    def halve(func, q, k, v, *args, **kwargs):
        return func(q, k, v * 0.5, *args, **kwargs)

    model = family.model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = halve
    naive = family.naive({4: [family.naive_source()]}, halve_attention=True)
    assert_close(read(family, model), family.sample(naive))


@pytest.mark.parametrize("kind", ["additive", "bool"])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_an_attention_mask_of_the_host_is_padded_to_our_keys(family, kind, strength):
    """Redux sends a mask over text and image; the source must stay readable."""
    rows = family.text_rows + 16
    mask = torch.randn(1, rows, rows, generator=torch.Generator().manual_seed(3))
    mask = mask if kind == "additive" else mask > -0.7
    additive = mask[0] if kind == "additive" else torch.zeros(rows, rows).masked_fill(~mask[0], -math.inf)
    model = family.model.clone()
    model.set_model_attn1_patch(lambda q, k, v, pe, attn_mask, extra_options: {"attn_mask": mask})
    bias = {} if strength == 1 else {"log_bias": torch.full((rows,), math.log(strength))}
    naive = family.naive({4: [family.naive_source(**bias)]}, extra_mask=additive)
    assert_close(read(family, model, dict(source_strength=strength)), family.sample(naive))


def test_references_of_the_host_stand_beside_our_source(family):
    def refer(prompt):
        return with_values(prompt, reference_latents=[family.latent(height=6, width=6, seed=12)])

    naive = family.naive({4: [family.naive_source()]})
    assert_close(read(family, change=refer), family.sample(naive, refer(family.prompt())))


def test_easycache_that_skips_steps(family):
    from comfy_extras.nodes_easycache import EasyCacheNode

    def skip(model):
        return EasyCacheNode.execute(model, 3.0, 0.1, 0.95, False).result[0]

    calls = []
    hook = family.model.model.diffusion_model.final_layer.register_forward_hook(lambda *a: calls.append(1))
    found = read(family, skip(family.model), steps=8)
    hook.remove()
    assert len(calls) < 8, "EasyCache should have skipped a step"
    naive = family.naive({4: [family.naive_source()]}, skip(family.model))
    assert_close(found, family.sample(naive, steps=8), 2e-3)


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m"])
def test_samplers(family, sampler):
    assert_close(
        family.weave(family.source(), sampler=sampler), family.expect(family.naive_source(), sampler=sampler), 2e-3
    )


def test_combined_and_area_prompts(family):
    def limit(prompt):
        return with_values(prompt, area=(*family.scale((4, 8)), family.scale((4, 0))[0], 0), strength=0.7)

    half = dict(height=4, width=8)
    naive = family.naive({4: [family.naive_source()], 6: [family.naive_source(**half)]})
    both = add_sources(family.prompt(4), family.source()) + limit(add_sources(family.prompt(6), family.source(**half)))
    found = family.sample(apply_bank(family.model, family.bank), both)
    assert_close(found, family.sample(naive, family.prompt(4) + limit(family.prompt(6))), 5e-4)


def test_differential_diffusion_draws_what_a_soft_mask_lets_it(family):
    from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion

    def soften(model):
        return DifferentialDiffusion.execute(model).result[0]

    rows, columns = family.latent().shape[-2:]
    mask = torch.linspace(0, 1, columns).expand(1, 1, rows, columns)
    naive = soften(family.naive({4: [family.naive_source()]}))
    found = read(family, soften(family.model), mask=mask, steps=4)
    assert_close(found, family.sample(naive, mask=mask, steps=4), 5e-4)
    assert not torch.allclose(found, read(family, mask=mask, steps=4), atol=0.01)


def test_blocks_that_are_compiled(family):
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from comfy_extras.nodes_torch_compile import skip_torch_compile_dict

    patched = apply_bank(family.load(), family.bank)
    kinds = {kind: len(getattr(family.flux, kind)) for kind in ("double_blocks", "single_blocks")}
    keys = [f"diffusion_model.{kind}.{i}" for kind, count in kinds.items() for i in range(count)]
    set_torch_compile_wrapper(patched, "eager", options={"guard_filter_fn": skip_torch_compile_dict}, keys=keys)
    found = family.sample(patched, add_sources(family.prompt(), family.source()))
    assert_close(found, family.expect(family.naive_source()))


def scale_to_fp8(weights):
    """As the host's own scaled files are (fp8 weights, a scale beside each, and a mark), and what they mean."""
    fp8 = torch.float8_e4m3fn
    stored, meant = {"scaled_fp8": torch.zeros(2, dtype=fp8)}, dict(weights)
    for name, weight in weights.items():
        stored[name] = weight
        if weight.ndim == 2 and "_blocks." in name:
            scale = weight.abs().max() / 448
            stored[name] = (weight / scale).to(fp8)
            stored[name.replace(".weight", ".scale_weight")] = scale
            meant[name] = stored[name].float() * scale
    return stored, meant


def test_scaled_fp8(family):
    import comfy.utils
    from cologen.training.comfyui.enter_host import load_model

    stored, meant = scale_to_fp8(family.flux.state_dict())
    converted, _ = comfy.utils.convert_old_quants(dict(stored), "", {})
    with torch.inference_mode():  # as the host's loader node runs
        model = load_model(converted, torch.float32)
    naive = family.naive({4: [family.naive_source()]}, weights=meant)
    assert_close(read(family, model), family.sample(naive), 1e-3)
    assert not torch.equal(read(family, model), family.sample(model))


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_stack_of_loras_as_little_memory_leaves_them(family, monkeypatch, order):
    """Weights that stay where they are and are cast and patched at each call, which is what low VRAM means."""
    import comfy.model_patcher

    generator, stack = torch.Generator().manual_seed(8), []
    for strength in (0.8, -0.5, 1.0):  # a style, its opposite, a turbo LoRA
        names = [f"{layer}.weight" for layer in ("double_blocks.0.img_attn.qkv", "single_blocks.1.linear1")]
        shapes = {name: family.flux.state_dict()[name].shape for name in names}
        deltas = {name: 0.2 * torch.randn(shape, generator=generator) * 256**-0.5 for name, shape in shapes.items()}
        stack.append(({f"diffusion_model.{name}": ("diff", (delta,)) for name, delta in deltas.items()}, strength))

    def draw():
        model = family.load()
        patched = model if order == "before" else apply_bank(model, family.bank)
        for deltas, strength in stack:
            patched = patched.clone()
            assert len(patched.add_patches(deltas, strength)) == len(deltas)
        patched = apply_bank(patched, family.bank) if order == "before" else patched
        return family.sample(patched, add_sources(family.prompt(), family.source())), patched.model.model_lowvram

    whole, is_spared = draw()
    assert not is_spared
    load = comfy.model_patcher.ModelPatcher.load

    def load_little(self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False):
        return load(self, device_to, 1, force_patch_weights, False)

    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "load", load_little)
    found, is_spared = draw()
    assert is_spared, "the host must have left weights where they were"
    assert_close(found, whole)
    assert (whole - family.weave(family.source())).abs().max() > 0.01
