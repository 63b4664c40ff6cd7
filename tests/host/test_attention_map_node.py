"""The attention map as its node gives it: sizes, scales, which source, and words."""

import pytest
import torch
from cologen.training.monitor.heat_map import colour_heat, lay_over
from host_family import FAMILIES, HostFamily
from sampling import add_sources, apply_bank

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture(scope="module", params=FAMILIES)
def family(comfy, request):
    return HostFamily(request.param)


def show(family, drawn, *sources, source=0, **knobs):
    from cologen.nodes.attention_map import CoLoGenAttentionMap

    model, positive = apply_bank(family.model, family.bank), add_sources(family.prompt(), *sources)
    with torch.inference_mode():
        return CoLoGenAttentionMap.execute(model, positive, {"samples": drawn}, source, 1, **knobs).result


def test_a_map_a_source_and_picture_in_colours_grey_and_as_a_mask(family):
    drawn, image = family.latent(batch=2, height=7, width=10, seed=9), torch.rand(2, 40, 60, 3)
    heat, grey, mask, words = show(family, drawn, family.source(), family.source("inpaint", seed=6))
    assert heat.shape == grey.shape and mask.shape == (
        4,
        *(16 * n if family.is_flux2 else 8 * n for n in drawn.shape[2:]),
    )
    assert torch.equal(heat, colour_heat(mask)) and torch.equal(grey, mask[..., None].expand_as(heat))
    assert words.count("\n") == 1 and words.startswith("control, source 1: ") and "inpaint, source 2: " in words
    for number in (1, 2):
        one = show(family, drawn, family.source(), family.source("inpaint", seed=6), source=number)
        assert torch.equal(one[2], mask[2 * number - 2 : 2 * number]) and one[3] == words.split("\n")[number - 1]
    over = show(family, drawn, family.source(), family.source("inpaint", seed=6), image=image)
    assert over[0].shape == (4, 40, 60, 3) and torch.equal(
        over[0], lay_over(colour_heat(over[2]), image.repeat(2, 1, 1, 1))
    )


def test_scales_say_what_is_brightest(family):
    from cologen.prw.comfyui.source_attention import record_attention

    drawn, sources = family.latent(seed=9), (family.source(), family.source("inpaint", seed=6, source_strength=0.1))
    model, positive = apply_bank(family.model, family.bank), add_sources(family.prompt(), *sources)
    shares = torch.cat([one.shares for one in record_attention(model, positive, {"samples": drawn}, 1)])
    tops = shares.amax((1, 2), keepdim=True)
    for scale, wanted in (("each", shares / tops), ("common", shares / tops.max()), ("share", shares)):
        mask = show(family, drawn, *sources, scale=scale)[2]
        assert torch.allclose(mask[:, :8, :8].amin((1, 2)), wanted[:, 0, 0], atol=1e-6)  # smooth only between centres
    off = show(family, drawn, family.source(source_strength=0.0))
    assert not off[2].any() and "0.0% of the attention" in off[3]


def test_a_source_that_the_prompt_does_not_have_is_a_sentence(family):
    with pytest.raises(
        ValueError, match="The source is 3, expected 1 to 1 as the prompt has: choose one of these, or 0 for all"
    ):
        show(family, family.latent(seed=9), family.source(), source=3)
