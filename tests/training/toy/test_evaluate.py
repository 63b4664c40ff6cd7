"""What reads the sources when a bank is asked: its experts, the base's own weights, or nothing."""

from dataclasses import replace

import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.prw.embedded_host import EmbeddedHost
from cologen.prw.flux.flux1 import stretch_positions
from cologen.prw.flux.inputs import EncodedPrompt
from cologen.prw.flux.sampling import make_timesteps, sample_euler
from cologen.training.from_scratch.evaluate import CFG, HELD_OUT_SEED, STEPS, Evaluation, answer_questions, evaluate
from cologen.training.from_scratch.store import BANK, open_models
from cologen.training.toy.large import enlarge
from cologen.training.toy.score import SCORERS
from cologen.training.toy.store import TOY
from cologen.training.toy.tasks import make_questions

pytestmark = pytest.mark.slow
ASKED = Evaluation(TOY, count=2, tasks=["edit"])


@pytest.fixture(scope="module")
def toy():
    return open_models(TOY)


@pytest.fixture(scope="module")
def shipped():
    return Bank.open(TOY.folder / BANK)


def ask(toy, bank, reads):
    host = EmbeddedHost(toy.flux, torch.float32)
    return evaluate(host, toy.encoders, bank, replace(ASKED, reads=reads))["edit"]


def test_the_base_s_own_weights_are_experts_that_add_nothing(toy, shipped):
    tensors = {name: shipped.tensors[name] for name in shipped.tensors}
    silent = {name: 0 * tensor if name.endswith(".up") else tensor for name, tensor in tensors.items()}
    found = ask(toy, shipped, "base")
    assert found == ask(toy, Bank(shipped.info, silent), "experts")
    assert found != ask(toy, shipped, "experts")


def test_without_a_source_the_picture_is_the_prompt_s_alone(toy, shipped):
    questions = make_questions("edit", 2, HELD_OUT_SEED)
    told, none = (toy.encoders.encode_prompts(texts) for texts in ([q.example.prompt for q in questions], ["", ""]))
    shape = toy.encoders.encode([q.example.source for q in questions]).shape
    host = EmbeddedHost(toy.flux, torch.float32)

    def predict(x, t, progress):
        one, other = (toy.flux(x, t, *EncodedPrompt(*each), torch.ones_like(t)) for each in (told, none))
        return other + CFG * (one - other)

    with torch.no_grad():
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        latents = sample_euler(predict, noise, make_timesteps(STEPS))
        pictures = toy.encoders.decode(host.unscale_latent(latents))
    scores = [SCORERS["edit"](question, picture) for question, picture in zip(questions, pictures)]
    found = ask(toy, shipped, "nothing")
    for name in scores[0]:
        assert found[name] == pytest.approx(sum(score[name] for score in scores) / 2, abs=1e-3)


def test_larger_pictures_lie_over_the_places_of_training_unless_asked_otherwise(toy, shipped):
    seen = {}
    for side in (64, 80):
        (question,) = enlarge(side).ask_held_out("edit", 1, HELD_OUT_SEED)
        for step in (1.0, 64 / side):
            host = EmbeddedHost(stretch_positions(toy.flux, step), torch.float32)
            seen[side, step] = answer_questions(host, toy.encoders, shipped, [question], 0)
    assert seen[64, 1.0].shape[1] == 64 and seen[80, 1.0].shape[1] == 80
    assert (seen[80, 0.8] != seen[80, 1.0]).any()
