"""The source stream on our own FLUX: cached = uncached = one masked attention call, and the knobs."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.embedded_host import velocity
from cologen.prw.flux import math as flux_math
from cologen.prw.flux.flux1 import stretch_positions
from naive import Naive
from tiny import inputs, latent, source, tiny_bank, tiny_flux

NAMES = ("inpaint", "ground", "control")


def run(flux, bank, sources, batch=1, cached=True, **size):
    attachment = Attachment(bank, cached=cached)
    return velocity(flux, *inputs(batch, **size), attachment, sources)


def naive_source(task="control", seed=3, batch=1, height=8, width=8, **rest):
    stage = NAMES.index(task)
    return dict(latent=latent(batch, height, width, seed), stage=task, names=NAMES[: stage + 1], **rest)


def close(a, b, tolerance=1e-4):
    assert (a - b).abs().max() < tolerance


@pytest.mark.parametrize("task", NAMES)
@pytest.mark.parametrize("batch, height, width", [(1, 8, 8), (2, 7, 10), (3, 6, 5)])
def test_woven_forward_is_the_naive_formula(flux, task, batch, height, width):
    bank = tiny_bank(flux)
    args = inputs(batch, height, width)
    found = velocity(flux, *args, Attachment(bank), [source(task, batch, height, width)])
    expected = Naive(flux.state_dict())(*args, [naive_source(task, 3, batch, height, width)], bank)
    close(found, expected)
    assert (found - flux(*args)).abs().max() > 1e-2


def test_cached_is_uncached(flux):
    bank = tiny_bank(flux)
    attachment, uncached = Attachment(bank), Attachment(bank, cached=False)
    x, t, *rest = inputs(2)
    for step in (0.9, 0.5, 0.1):
        args = (x * step, t * 0 + step, *rest)
        a = velocity(flux, *args, attachment, [source()])
        b = velocity(flux, *args, uncached, [source()])
        assert torch.equal(a, b)
    assert len(attachment.cache.entries) == 2  # two pooled vectors, one source: no more, whatever the step


def test_shared_time_recomputes_each_step_and_is_the_naive_formula(flux):
    bank = tiny_bank(flux, time="shared")
    attachment, naive = Attachment(bank), Naive(flux.state_dict())
    x, t, *rest = inputs(2)
    for step in (0.9, 0.2):
        time = t * 0 + step
        found = velocity(flux, x, time, *rest, attachment, [source()])
        close(found, naive(x, time, *rest, [naive_source()], bank, source_time=time))


def test_zero_experts_leave_the_base_keys_and_values(flux):
    zero, random = tiny_bank(flux, up=0.0), tiny_bank(flux)
    args = inputs()
    expected = Naive(flux.state_dict())(*args, [naive_source()], bank=None)
    close(run(flux, zero, [source()]), expected)
    close(run(flux, random, [source(strength=0.0)]), expected)


@pytest.mark.parametrize("curve", [(1.0, 0.0), (0.5, 2.0, -1.0), (0.3,)])
def test_a_curve_scales_each_block_s_residual(flux, curve):
    bank = tiny_bank(flux)
    blocks = bank.info.base.blocks()
    factors = []
    for i in range(len(blocks)):  # straight lines between the points
        place = i / (len(blocks) - 1) * (len(curve) - 1)
        left = min(int(place), max(len(curve) - 2, 0))
        right = min(left + 1, len(curve) - 1)
        factors.append(0.8 * (curve[left] + (place - left) * (curve[right] - curve[left])))
    expected = Naive(flux.state_dict())(*inputs(), [naive_source(strength=dict(zip(blocks, factors)))], bank)
    close(run(flux, bank, [source(strength=0.8, curve=curve)]), expected)


def test_expert_strength_scales_the_residual(flux):
    bank = tiny_bank(flux)
    expected = Naive(flux.state_dict())(*inputs(), [naive_source(strength=0.37)], bank)
    close(run(flux, bank, [source(strength=0.37)]), expected)


def test_one_expert_has_gate_one(flux):
    attachment = Attachment(tiny_bank(flux, names=("inpaint",)))
    velocity(flux, *inputs(), attachment, [source("inpaint")])
    routes = [route for entry in attachment.cache.entries.values() for route in entry.sample.routes.values()]
    assert len(routes) == 4 and all(float(route.gate) == 1 for route in routes)


def test_source_strength_is_a_log_bias_and_zero_is_no_source(flux):
    bank, args = tiny_bank(flux), inputs()
    rows = args[2].shape[1] + 16
    for strength in (0.3, 2.5):
        found = run(flux, bank, [source(source_strength=strength)])
        biased = naive_source(log_bias=torch.full((rows,), math.log(strength)))
        close(found, Naive(flux.state_dict())(*args, [biased], bank))
    assert torch.equal(run(flux, bank, [source(source_strength=0.0)]), flux(*args))
    close(run(flux, bank, [source(source_strength=1e-30)]), flux(*args))


def test_strength_one_uses_no_mask(flux, monkeypatch):
    masks = []
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(q, k, v, attn_mask=None, **rest):
        masks.append(attn_mask)
        return real(q, k, v, attn_mask, **rest)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    monkeypatch.setattr(flux_math, "FEW_KEYS", 0)
    run(flux, tiny_bank(flux), [source(), source(seed=9)])
    assert len(masks) == 4 + 2 * 4 and all(mask is None for mask in masks)
    masks.clear()
    run(flux, tiny_bank(flux), [source(source_strength=0.5)])
    assert sum(mask is not None for mask in masks) == 4


def test_two_sources_have_each_its_own_keys_and_order_does_not_matter(flux):
    bank, args = tiny_bank(flux), inputs()
    a, b = source("control"), source("inpaint", seed=9)
    together, alone = Attachment(bank), [Attachment(bank), Attachment(bank)]
    both = velocity(flux, *args, together, [a, b])
    for attachment, one in zip(alone, (a, b)):
        velocity(flux, *args, attachment, [one])
        for slot, entry in attachment.cache.entries.items():
            for block, pair in entry.sample.kv.items():
                assert all(map(torch.equal, pair, together.cache.entries[slot].sample.kv[block]))
    close(both, run(flux, bank, [b, a]), 1e-5)
    expected = [naive_source("control"), naive_source("inpaint", 9)]
    close(both, Naive(flux.state_dict())(*args, expected, bank))


def test_a_source_changes_nothing_outside_its_region_at_the_first_block(flux):
    region = torch.zeros(64, 64)
    region[:, :32] = 1
    outputs = []
    hook = flux.double_blocks[0].register_forward_hook(lambda *a: outputs.append(a[2][0]))
    run(flux, tiny_bank(flux), [source(region=region)])
    run(flux, tiny_bank(flux), [])
    hook.remove()
    changed = (outputs[0] - outputs[1]).abs().amax(-1).reshape(4, 4)
    assert changed[:, 2:].max() < 1e-4 and changed[:, :2].min() > 1e-2  # rounding, against a real change


def test_soft_region_is_a_log_bias_on_image_rows(flux):
    bank, args = tiny_bank(flux), inputs()
    region = torch.rand(4, 4, generator=torch.Generator().manual_seed(5))
    bias = torch.cat([torch.zeros(args[2].shape[1]), region.flatten().log()])
    expected = Naive(flux.state_dict())(*args, [naive_source(log_bias=bias)], bank)
    close(run(flux, bank, [source(region=region)]), expected)


def grid(rows, columns, y0=0.0, x0=0.0, step_y=1.0, step_x=1.0):
    return torch.tensor([[0.0, y0 + step_y * i, x0 + step_x * j] for i in range(rows) for j in range(columns)])


@pytest.mark.parametrize(
    "knobs, size, positions",
    [
        (dict(position="shifted"), (8, 8), grid(4, 4, x0=4)),
        (dict(position="shifted", shift=(2.0, 0.0)), (8, 8), grid(4, 4, y0=8)),
        (dict(position="shifted"), (4, 6), grid(2, 3, x0=4)),
        (dict(position="aligned"), (4, 16), grid(2, 8, 0.5, -0.25, 2.0, 0.5)),
    ],
)
def test_positions(flux, knobs, size, positions):
    bank = tiny_bank(flux)
    expected = naive_source(height=size[0], width=size[1], positions=positions)
    found = run(flux, bank, [source(height=size[0], width=size[1], **knobs)])
    close(found, Naive(flux.state_dict())(*inputs(), [expected], bank))


@pytest.mark.parametrize("position, task", [("aligned", "control"), ("shifted", "control")])
@pytest.mark.parametrize("side, step", [(12, 1.5), (16, 2.0), (6, 0.75)])
def test_a_source_of_another_size_than_the_picture(flux, side, step, position, task):
    """Aligned, 4 x 4 tokens cover the picture's, pixel centre over pixel centre; beside it they keep their size."""
    bank, args, tokens = tiny_bank(flux), inputs(1, side, side), side // 2
    lies = grid(4, 4, step / 2 - 0.5, step / 2 - 0.5, step, step) if position == "aligned" else grid(4, 4, x0=tokens)
    found = velocity(flux, *args, Attachment(bank), [source(task, position=position)])
    close(found, Naive(flux.state_dict())(*args, [naive_source(task, positions=lies)], bank))


@pytest.mark.parametrize("position", ["aligned", "shifted"])
def test_a_large_picture_lies_where_a_small_one_does(flux, position):
    """And its sources with it; the model that it was made of stays as it was."""
    bank, args, near = tiny_bank(flux), inputs(1, 16, 16), stretch_positions(flux, 0.5)
    place, beside = grid(8, 8, -0.25, -0.25, 0.5, 0.5), grid(8, 8, -0.25, -0.25 + 8 * 0.5, 0.5, 0.5)
    lies = place if position == "aligned" else beside
    seen = naive_source(height=16, width=16, positions=lies)
    found = velocity(near, *args, Attachment(bank), [source(height=16, width=16, position=position)])
    close(found, Naive(flux.state_dict())(*args, [seen], bank, image_positions=place))
    assert torch.equal(stretch_positions(flux, 1.0)(*args), flux(*args)) and flux.position_step == 1
    assert (near(*args) - flux(*args)).abs().max() > 1e-3


def test_position_auto_follows_the_task(flux):
    bank = tiny_bank(flux, names=("subject", "edit"))
    assert torch.equal(run(flux, bank, [source("subject")]), run(flux, bank, [source("subject", position="shifted")]))
    assert torch.equal(run(flux, bank, [source("edit")]), run(flux, bank, [source("edit", position="aligned")]))


def test_token_route_is_the_naive_formula(flux):
    bank, args = tiny_bank(flux, per="token"), inputs(2)
    naive = Naive(flux.state_dict())
    close(run(flux, bank, [source()], batch=2), naive(*args, [naive_source(per="token")], bank))
    assert any(len(route.unique()) > 1 for route in naive.routes.values())


def test_token_route_on_equal_tokens_is_the_sample_route(flux):
    flat = torch.full((1, 16, 8, 8), 0.7)
    per = {}
    for kind in ("token", "sample"):
        per[kind] = run(flux, tiny_bank(flux, per=kind), [source(latent_=flat)])
    # equal tokens stay equal although their positions differ: they average equal values
    close(per["token"], per["sample"], 1e-5)


def test_final_router_and_a_batch_of_sources(flux):
    bank, args = tiny_bank(flux), inputs(2)
    pixels = torch.cat([latent(seed=3), 1 - 2 * latent(seed=9)])
    found = velocity(flux, *args, Attachment(bank), [source("inpaint", latent_=pixels, router="final")])
    naive = Naive(flux.state_dict())
    expected = dict(latent=pixels, stage="control", names=NAMES)
    close(found, naive(*args, [expected], bank))
    routes = [route.flatten().tolist() for route in naive.routes.values()]
    assert any(first != second for first, second in routes), "the two samples should differ in their experts"


def test_bf16_is_within_rounding_of_fp32(flux):
    bank = tiny_bank(flux)
    half = tiny_flux(torch.bfloat16)
    found = velocity(half, *inputs(dtype=torch.bfloat16), Attachment(bank), [source()]).float()
    expected = run(flux, bank, [source()])
    plain = (half(*inputs(dtype=torch.bfloat16)).float() - flux(*inputs())).abs().mean()
    assert (found - expected).abs().mean() < 2 * plain


@pytest.mark.parametrize("placement, tolerance", [("gpu", 0.0), ("cpu", 0.0), ("fp8", 0.05)])
def test_placement_of_keys_and_values(flux, placement, tolerance):
    bank = tiny_bank(flux)
    expected, found = run(flux, bank, [source()]), run(flux, bank, [source(placement=placement)])
    assert (found - expected).abs().mean() <= tolerance * expected.abs().mean()
    if placement == "fp8":
        assert not torch.equal(found, expected)


def test_fp8_keeps_three_bits_whatever_the_size():
    """e4m3 rounds to 1 part in 16 at worst; without a scale small heads would vanish and large ones clip."""
    from cologen.prw.kv_cache import Packed

    x = torch.randn(1, 3, 64, 128) * torch.tensor([1e-4, 1.0, 3e4]).view(1, 3, 1, 1)
    found = Packed.pack(x).to(x.device)
    large = x.abs() > 0.05 * x.abs().amax(dim=(-2, -1), keepdim=True)
    assert ((found - x).abs() / x.abs())[large].max() <= 1 / 16


def test_a_changed_bank_is_not_read_from_the_cache(flux):
    bank = tiny_bank(flux)
    attachment = Attachment(bank)
    first = velocity(flux, *inputs(), attachment, [source()])
    for tensor in bank.tensors.values():
        tensor.mul_(0.5)
    halved = velocity(flux, *inputs(), attachment, [source()])
    assert torch.equal(halved, run(flux, bank, [source()])) and not torch.equal(halved, first)
    assert len(attachment.cache.entries) == 1


def test_changed_parameters_of_a_base_are_not_read_from_the_cache(flux):
    flux, bank = copy.copy(flux), tiny_bank(flux)
    attachment = Attachment(bank)
    first = velocity(flux, *inputs(), attachment, [source()])
    flux.params = replace(flux.params, theta=500.0)
    again = velocity(flux, *inputs(), attachment, [source()])
    assert torch.equal(again, run(flux, bank, [source()])) and not torch.equal(again, first)


def test_the_window_follows_the_progress(flux):
    bank, args = tiny_bank(flux), inputs()
    on, off = run(flux, bank, [source()]), flux(*args)
    for progress, expected in ((0.0, off), (0.3, on), (0.6, off)):
        assert torch.equal(velocity(flux, *args, Attachment(bank), [source(start=0.2, end=0.5)], progress), expected)


@pytest.mark.parametrize("kind", [dict(guidance_embed=False), dict(in_channels=384)])
def test_schnell_and_fill_read_a_source(kind):
    """Fill: the source is a finished picture, its own "given image", and nothing of it is masked."""
    flux = tiny_flux(**kind)
    bank = tiny_bank(flux)
    x, t, context, pooled, guidance = inputs(2)
    guidance = guidance if "in_channels" in kind else None
    wide = source()
    expected = naive_source()
    if "in_channels" in kind:
        x = torch.cat([x, x * 0.5, torch.ones(2, 64, 8, 8)], 1)
        given = latent(seed=3)
        # the naive formula scales all channels; the mask's must come out as 0
        expected["latent"] = torch.cat([given, given, torch.full((1, 64, 8, 8), 0.1159)], 1)
    found = velocity(flux, x, t, context, pooled, guidance, Attachment(bank), [wide])
    naive = Naive(flux.state_dict())
    close(found, naive(x, t, context, pooled, guidance, [expected], bank), 2e-4)


@pytest.mark.slow
def test_torch_compile_gives_the_naive_formula(flux):
    bank, args = tiny_bank(flux), inputs()
    compiled = torch.compile(flux, backend="eager")
    found = velocity(compiled, *args, Attachment(bank), [source()])
    close(found, Naive(flux.state_dict())(*args, [naive_source()], bank))
