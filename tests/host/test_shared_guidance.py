"""Sampling for personalisation in the real host, against the formula on naive predictions."""

import pytest
import torch
from naive import Naive
from naive_branches import NaiveBranch
from sampling import SIGMAS, add_sources, apply_bank, assert_close, conditioning, naive_source, sample
from tiny import host_model, source
from two_branches import CONCEPT, KEEP, TAKE, attach_branches, marked_conditioning

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture(scope="module")
def model(comfy, flux, bank):
    return apply_bank(host_model(flux), bank)


@pytest.fixture(scope="module")
def one_step(model):
    """The part of the sampling that ends between the first and the second step."""
    to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    return next(p / 1000 for p in range(1000) if to_sigma(p / 1000) < 0.9)


def concept(*sources):
    return add_sources(marked_conditioning(), *(sources or (source(),)))


def guided(model, switch=0.0, weight=1.0, area=1.0, cfg=1.0, positive=None, batch=1, sampler="euler", **prompts):
    import comfy.sample
    import comfy.samplers
    from cologen.nodes.personal_guider import CoLoGenPersonalGuider

    knobs = dict(switch=switch, weight=weight, area=area, cfg=cfg)
    guider = CoLoGenPersonalGuider.execute(model, positive or concept(), **knobs, **prompts).result[0]
    empty = torch.zeros(batch, 16, 8, 8)
    noise, kind = comfy.sample.prepare_noise(empty, 7), comfy.samplers.sampler_object(sampler)
    with torch.inference_mode():
        return guider.sample(noise, empty, kind, torch.tensor(SIGMAS), disable_pbar=True, seed=7)


def plain(model, positive, **how):
    return sample(model, positive, sigmas=torch.tensor(SIGMAS), **how)


def euler(velocity, batch=1):
    """x + (s' - s) v(x, s, step)"""
    import comfy.sample

    x = comfy.sample.prepare_noise(torch.zeros(batch, 16, 8, 8), 7)
    for i, (sigma, following) in enumerate(zip(SIGMAS, SIGMAS[1:])):
        x = x + (following - sigma) * velocity(x, torch.full((batch,), sigma), i)
    return x / 0.3611 + 0.1159


def predicted(naive, x, t, seed, given=(), bank=None):
    text, options = conditioning(seed)[0]
    rows = text.expand(len(x), -1, -1), options["pooled_output"].expand(len(x), -1)
    return naive(x, t, *rows, torch.full((len(x),), 3.5), given, bank)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m"])
def test_switching_at_the_first_step_is_the_concept_alone(model, sampler):
    assert torch.equal(guided(model, switch=0.0, sampler=sampler), plain(model, concept(), sampler=sampler))


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m"])
def test_switching_at_the_last_step_is_the_superclass_alone(model, sampler):
    how = dict(switch=1.0, sampler=sampler)
    assert torch.equal(guided(model, **how), plain(model, conditioning(4), sampler=sampler))
    other = guided(model, superclass=conditioning(6), **how)
    assert torch.equal(other, plain(model, conditioning(6), sampler=sampler))


def test_with_all_the_weight_on_one_it_is_that_one(model):
    assert torch.equal(guided(model, weight=1.0, batch=2), plain(model, concept(), batch=2))
    assert torch.equal(guided(model, weight=0.0, batch=2), plain(model, conditioning(4), batch=2))
    two = concept(source(), source("inpaint", seed=9))
    assert torch.equal(guided(model, positive=two), plain(model, two))


@pytest.mark.parametrize(
    "steps, weight, batch", [(1, 1.0, 1), (0, 0.5, 2), (1, 4 / 7, 1), (0, 2.0, 1)],
    ids=["switching", "mixed", "multi-stage", "source guidance"],
)  # fmt: skip
def test_predictions_are_shared_as_the_formula_says(model, flux, bank, one_step, steps, weight, batch):
    naive, given = Naive(flux.state_dict()), [naive_source(), naive_source("inpaint", 9)]

    def velocity(x, t, step):
        superclass = predicted(naive, x, t, 6)
        if step < steps:
            return superclass
        return superclass + weight * (predicted(naive, x, t, 4, given, bank) - superclass)

    positive = concept(source(), source("inpaint", seed=9))
    how = dict(switch=one_step * steps, weight=weight, batch=batch, superclass=conditioning(6))
    assert_close(guided(model, positive=positive, **how), euler(velocity, batch), 5e-4)


@pytest.mark.parametrize("weight, area, batch", [(0.5, 0.3, 2), (1.0, 0.5, 1)])
def test_the_concept_has_the_places_that_read_the_noun_most(model, flux, bank, weight, area, batch):
    def velocity(x, t, step):
        look = NaiveBranch(flux.state_dict(), "look", (CONCEPT.noun, CONCEPT.prompt_length), {})
        superclass = predicted(look, x, t, 4)
        own = predicted(Naive(flux.state_dict()), x, t, 4, [naive_source()], bank)
        out = superclass.clone()
        for b in range(len(x)):
            heats = torch.tensor([heat for number, heat in look.heat if number == b]).mean(0)
            level = torch.quantile(heats, 1 - area)
            for place in range(16):
                if heats[place] > level:
                    i, j = place // 4 * 2, place % 4 * 2
                    spot = (b, slice(None), slice(i, i + 2), slice(j, j + 2))
                    out[spot] = superclass[spot] + weight * (own[spot] - superclass[spot])
        return out

    assert_close(guided(model, weight=weight, area=area, batch=batch), euler(velocity, batch), 5e-4)


def test_cfg_leads_away_from_the_negative(model, flux, bank, one_step):
    naive = Naive(flux.state_dict())

    def velocity(x, t, step):
        superclass, negative = predicted(naive, x, t, 4), predicted(naive, x, t, 5)
        share = 0.6 if step else 0.0
        wanted = superclass + share * (predicted(naive, x, t, 4, [naive_source()], bank) - superclass)
        return negative + 2.5 * (wanted - negative)

    assert_close(guided(model, one_step, 0.6, cfg=2.5, negative=conditioning(5)), euler(velocity), 5e-4)
    all_concept = plain(model, concept(), negative=conditioning(5), cfg=2.5)
    assert torch.equal(guided(model, 0.0, 1.0, cfg=2.5, negative=conditioning(5)), all_concept)


@pytest.mark.parametrize("knobs, passes", [((0.5, 1.0, 1.0), 3), ((0.0, 0.5, 1.0), 6), ((0.0, 1.0, 0.5), 6)])
def test_switching_is_free_and_sharing_costs_a_second_pass(model, knobs, passes):
    calls = []
    hook = model.model.diffusion_model.final_layer.register_forward_hook(lambda *given: calls.append(1))
    guided(model, *knobs)
    hook.remove()
    assert len(calls) == passes


def test_what_other_packs_add_to_the_guider_stays(model):
    """Functions before and after cfg, as the host's own nodes set them."""
    seen = []

    def before(args):
        seen.append(len(args["conds_out"]))
        return args["conds_out"]

    other = model.clone()
    other.set_model_sampler_pre_cfg_function(before)
    other.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * 0.5)
    assert torch.equal(guided(other, weight=1.0), plain(other, concept()))
    seen.clear()
    guided(other, weight=0.5)
    assert seen == [2] * 3


def test_another_pack_s_way_to_ask_for_predictions_stays(model):
    import comfy.samplers

    def halved(args):
        assert len(args["conds"]) == 2
        found = comfy.samplers.calc_cond_batch(
            args["model"], args["conds"], args["input"], args["sigma"], args["model_options"]
        )
        return [found[0] * 0.5, found[1]]

    other = model.clone()
    other.model_options["sampler_calc_cond_batch_function"] = halved
    assert torch.equal(guided(other, weight=1.0), plain(other, concept()))
    both = guided(other, weight=1 - 1e-7)
    assert torch.allclose(both, plain(other, concept()), atol=1e-4)
    assert not torch.allclose(both, guided(model, weight=1 - 1e-7), atol=0.01)


def test_the_negative_comes_second_and_the_superclass_behind_it(model, monkeypatch):
    import comfy.samplers

    asked, calc = [], comfy.samplers.calc_cond_batch
    monkeypatch.setattr(
        comfy.samplers, "calc_cond_batch", lambda base, conds, *rest: asked.append(conds) or calc(base, conds, *rest)
    )
    guided(model, weight=0.5, cfg=2.0, superclass=conditioning(8), negative=conditioning(9))
    texts = [[cond[0]["model_conds"]["c_crossattn"].cond for cond in conds] for conds in asked]
    assert len(texts) == len(SIGMAS) - 1
    for _, negative, superclass in texts:
        assert torch.equal(negative, conditioning(9)[0][0]) and torch.equal(superclass, conditioning(8)[0][0])


def test_both_ways_of_personal_sampling_at_once(model):
    """The concept's text is blended while its prediction is mixed: at the strength that keeps it, nothing changes."""

    expected = guided(model, weight=0.5, area=0.5)
    assert torch.equal(guided(attach_branches(model, KEEP), weight=0.5, area=0.5), expected)
    assert not torch.allclose(guided(attach_branches(model, TAKE), weight=0.5, area=0.5), expected, atol=0.01)


def test_a_cancelled_run_leaves_nothing_behind(model):
    import comfy.model_management
    import comfy.samplers
    from cologen.nodes.personal_guider import CoLoGenPersonalGuider

    guider = CoLoGenPersonalGuider.execute(model, concept(), 0.0, 0.5, 0.5, 1.0).result[0]
    noise, sampler = torch.randn(1, 16, 8, 8), comfy.samplers.sampler_object("euler")

    def drawn(callback=None):
        with torch.inference_mode():
            return guider.sample(noise, noise * 0, sampler, torch.tensor(SIGMAS), callback=callback, disable_pbar=True)

    def cancel(*step):
        raise comfy.model_management.InterruptProcessingException

    expected, before = drawn(), plain(model, concept())
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        drawn(cancel)
    assert torch.equal(drawn(), expected) and torch.equal(plain(model, concept()), before)


def test_what_cannot_be_is_a_sentence(model):
    from comfy_extras.nodes_easycache import EasyCacheNode

    with pytest.raises(ValueError, match="The superclass has no marked words, expected its noun"):
        guided(model, area=0.5, superclass=conditioning())
    with pytest.raises(ValueError, match="cfg is 2.0 without a negative prompt, expected 1"):
        guided(model, cfg=2.0)
    other = model.clone()
    other.add_object_patch("diffusion_model", torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="FLUX"):
        guided(other, area=0.5, superclass=concept())
    with pytest.raises(ValueError, match="switch is 2.0, expected 0 to 1"):
        guided(model, switch=2.0)
    easy = EasyCacheNode.execute(model, 99.0, 0.0, 1.0, False).result[0]
    with pytest.raises(RuntimeError, match="nobody knows where its noun is: bypass EasyCache"):
        guided(easy, weight=0.5, area=0.5)
