"""Dual Branch and Personal Guider on FLUX.2 in the real host, against the formula written out naively."""

import pytest
import torch
from cologen.prw.personalization.marked_prompt import MARKED_TOKENS, MarkedTokens
from host_family import HostFamily
from naive_branches import NaiveBranchFlux2
from sampling import SIGMAS, add_sources, apply_bank, assert_close
from tiny_flux2 import TEXT_WIDTH
from two_branches import CONCEPT, OTHER, attach_branches

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.slow]


class Family(HostFamily):
    """FLUX.2 with prompts as long as klein's, whose text encoder pads them on the right."""

    def prompt(self, seed=4, words: MarkedTokens | None = None):
        text = torch.randn(1, 512, TEXT_WIDTH, generator=torch.Generator().manual_seed(seed))
        return [[text, {} if words is None else {MARKED_TOKENS: words}]]


@pytest.fixture(scope="module")
def family(comfy):
    return Family("flux2")


def draw_by_euler(family, velocity):
    """x + (s' - s) v(x, s, step)"""
    import comfy.sample

    x = comfy.sample.prepare_noise(torch.zeros_like(family.latent()), 7)
    for i, (sigma, following) in enumerate(zip(SIGMAS, SIGMAS[1:])):
        x = x + (following - sigma) * velocity(x, torch.tensor([sigma]), i)
    return family.model.model.latent_format.process_out(x)


@pytest.fixture(scope="module")
def two_steps(family):
    """The part of the sampling that ends between the second and the third step."""
    to_sigma = family.model.get_model_object("model_sampling").percent_to_sigma
    return next(p / 1000 for p in range(1000) if to_sigma(p / 1000) < 0.65)


@pytest.mark.parametrize("blend_sources", [False, True])
def test_a_picture_of_two_branches_is_the_naive_formula(family, two_steps, blend_sources):
    blocks = (0, 4)
    how = dict(strength=0.7, blocks=blocks, sources=blend_sources)
    both = attach_branches(
        apply_bank(family.model, family.bank), end=two_steps, auxiliary=family.prompt(6, OTHER), **how
    )
    prompt = add_sources(family.prompt(4, CONCEPT), family.source())
    found = family.sample(both, prompt, sigmas=torch.tensor(SIGMAS))
    y = torch.randn(family.latent().shape, generator=torch.Generator().manual_seed(11))

    def velocity(x, t, step):
        nonlocal y
        left, role = {}, "concept" if step < 2 else None
        if step < 2:
            auxiliary = NaiveBranchFlux2(family.flux.state_dict(), "auxiliary", OTHER, left, **how)
            y = y + (SIGMAS[step + 1] - SIGMAS[step]) * auxiliary(y, t, family.prompt(6)[0][0])
        own = NaiveBranchFlux2(family.flux.state_dict(), role, CONCEPT, left, **how)
        return own(x, t, family.prompt(4)[0][0], sources=[family.naive_source()], bank=family.bank)

    assert_close(found, draw_by_euler(family, velocity), 1e-3)
    assert not torch.allclose(
        found, family.sample(apply_bank(family.model, family.bank), prompt, sigmas=torch.tensor(SIGMAS)), atol=0.01
    )


@pytest.mark.parametrize("weight, area", [(0.5, 1.0), (1.0, 0.5)])
def test_predictions_are_shared_as_the_formula_says(family, weight, area):
    import comfy.sample
    import comfy.samplers
    from cologen.nodes.personal_guider import CoLoGenPersonalGuider

    model, words = apply_bank(family.model, family.bank), (CONCEPT.noun, CONCEPT.prompt_length)
    positive = add_sources(family.prompt(4, CONCEPT), family.source())
    guider = CoLoGenPersonalGuider.execute(model, positive, 0.0, weight, area, 1.0).result[0]
    empty, kind = torch.zeros_like(family.latent()), comfy.samplers.sampler_object("euler")
    noise = comfy.sample.prepare_noise(empty, 7)
    with torch.inference_mode():
        found = guider.sample(noise, empty, kind, torch.tensor(SIGMAS), disable_pbar=True, seed=7)

    def velocity(x, t, step):
        look = NaiveBranchFlux2(family.flux.state_dict(), "look", words, {}, blocks=(0, 4))
        superclass = look(x, t, family.prompt(4)[0][0])
        own = family.formula(family.flux.state_dict())(
            x, t, family.prompt(4)[0][0], None, None, [family.naive_source()], family.bank
        )
        heats = torch.tensor([heat for _, heat in look.heat]).mean(0).reshape(x.shape[-2:])
        here = (heats > torch.quantile(heats, 1 - area)) | (area == 1.0)
        return torch.where(here, superclass + weight * (own - superclass), superclass)

    assert_close(found, draw_by_euler(family, velocity), 1e-3)
