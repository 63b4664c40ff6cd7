"""The toy world's own subject, what is asked about it, and two branches on our own FLUX as on the host's."""

import json
from pathlib import Path

import numpy as np
import pack  # noqa: F401
import pytest
import torch
from cologen.prw.embedded_host import EmbeddedHost
from cologen.prw.flux.inputs import EncodedPrompt
from cologen.prw.personalization.concept import Concept
from cologen.prw.personalization.dual_branch import BlendSettings
from cologen.prw.personalization.marked_prompt import MARKED_TOKENS, MarkedTokens, remove_marks
from cologen.prw.personalization.shared_guidance import SharedStepSettings
from cologen.training.cli.main import main
from cologen.training.experiments.dual_branch import Branch, sample_two_branches
from cologen.training.experiments.shared_guidance import sample_shared
from cologen.training.experiments.subject import (
    ROWS,
    SHARED_STEPS,
    ConceptEvaluator,
    average_seeds,
    draw_curves,
    list_evaluated_iterations,
    summarize,
)
from cologen.training.from_scratch.store import open_encoders
from cologen.training.from_scratch.text import UNKNOWN, TextEncoder
from cologen.training.recipes.curriculum import SUBJECT
from cologen.training.recipes.subject import OWN, PRIOR, SubjectRecipe, load_recipe
from cologen.training.sampling import SamplingSettings
from cologen.training.subject.dataset import open_subject_datasets, read_captioned, read_pictures
from cologen.training.toy.oracle import read_scene
from cologen.training.toy.render import render
from cologen.training.toy.scene import COLOURS, GROUNDS, PLACES, TEXTURES, Item, Scene, draw_scene
from cologen.training.toy.store import TOY
from cologen.training.toy.subject import (
    PHOTO_SCENES,
    QUESTION_GROUNDS,
    draw_photos,
    draw_prior,
    draw_subject,
    make_questions,
    measure_likeness,
    score_answer,
)
from cologen.training.toy.text import LANGUAGE
from PIL import Image


def test_true_answers_are_right_also_through_the_decoder():
    questions = make_questions(24, 3)
    pictures = [draw_subject(question.place, question.scene) for question in questions]
    encoders = open_encoders(TOY)
    for question, picture, decoded in zip(questions, pictures, encoders.decode(encoders.encode(pictures))):
        found, blurred = score_answer(question, picture), score_answer(question, decoded)
        assert found["fidelity"] > 0.999 and found["editability"] == 1
        assert blurred["fidelity"] > 0.75 and blurred["editability"] > 0.6


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("texture", TEXTURES)
def test_what_words_can_say_is_not_the_subject(colour, texture):
    for ground in GROUNDS:
        circle = Item("circle", colour, texture, "big", "top left")
        assert measure_likeness(render(Scene(ground, (circle,)))) == 0


def test_half_of_it_is_not_the_whole():
    picture = draw_subject("top left", Scene("white"))
    mirrored = picture[:, ::-1].copy()
    assert measure_likeness(mirrored) == 0
    rubbed = picture.copy()
    rubbed[: rubbed.shape[0] // 4] = GROUNDS["white"]
    assert measure_likeness(rubbed) < 0.3
    assert measure_likeness(render(Scene("black"))) == 0
    assert measure_likeness(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)) == 0


def test_each_part_of_a_question_counts():
    question = next(each for each in make_questions(20, 1) if each.scene.items)
    other = next(place for place in PLACES if place not in (question.place, question.scene.items[0].place))
    ground = next(name for name in GROUNDS if name != question.scene.ground)
    wrong = [
        draw_subject(question.place, Scene(ground, question.scene.items)),
        draw_subject(question.place, Scene(question.scene.ground)),
        render(question.scene),
        draw_subject(other, Scene(question.scene.ground, question.scene.items)),
    ]
    found = [round(3 * score_answer(question, picture)["editability"]) for picture in wrong]
    assert found == [2, 2, 2, 1]


def test_photos_share_what_questions_never_ask_for():
    photos, reader = draw_photos(), TextEncoder(LANGUAGE)
    assert [read_scene(picture).scene.ground for picture in photos.values()] == [
        ground for _, ground, _ in PHOTO_SCENES
    ]
    assert {ground for _, ground, _ in PHOTO_SCENES}.isdisjoint(QUESTION_GROUNDS)
    assert all(measure_likeness(picture) > 0.99 for picture in photos.values())
    questions = make_questions(40, 0)
    assert {question.scene.ground for question in questions} == set(QUESTION_GROUNDS)
    assert {question.place for question in questions} == set(PLACES)
    assert not any(UNKNOWN in reader.tokenize([remove_marks(question.prompt)]) for question in questions)


def test_the_class_is_circles_of_one_colour():
    told = draw_prior(30)
    assert all("circle" in prompt and measure_likeness(picture) == 0 for picture, prompt in told.values())
    assert len(told) == 30 and np.array_equal(told["class 1"][0], draw_prior(2)["class 1"][0])


def test_a_recipe_s_lessons_come_from_the_toy_world_or_from_folders(tmp_path):
    recipe, encoders = load_recipe(SUBJECT), open_encoders(TOY)
    assert isinstance(recipe, SubjectRecipe) and recipe.curriculum.base == "toy"
    found = open_subject_datasets(recipe, encoders, 0, TOY)
    assert len(found[OWN]) == found[OWN].train_count == 4 and set(found) == {OWN, PRIOR}
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(render(draw_scene(rng)).repeat(2, 1)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.txt").write_text("a red circle")
    assert list(read_pictures(tmp_path, 64)) == ["a", "b"] and read_pictures(tmp_path, 64)["a"].shape == (64, 64, 3)
    assert {name: prompt for name, (_, prompt) in read_captioned(tmp_path, 64).items()} == {"b": "a red circle"}
    changes = (f"subject.photos={json.dumps(str(tmp_path))}", "mine.replay=0.0", "rank=2")
    changed = load_recipe(SUBJECT, changes)
    assert changed.curriculum.settings.rank == 2
    given = open_subject_datasets(changed, encoders, 0, TOY)
    assert set(given) == {OWN} and [name[0] for name in given[OWN].samples.ids] == ["a", "b"]


@pytest.mark.usefixtures("comfy")
@pytest.mark.parametrize("end", [0.0, 0.5, 1.0])
def test_two_branches_draw_what_the_host_s_samplers_draw(end):
    from cologen.prw.comfyui.dual_branch_sampling import DualBranch
    from sampling import conditioning, sample
    from tiny import host_model, tiny_flux

    flux = tiny_flux()
    model, host, blend = host_model(flux), EmbeddedHost(flux, torch.float32), BlendSettings(0.7, end, 0, 3)
    prompts = [(conditioning(4), MarkedTokens((1, 2), 4)), (conditioning(6), MarkedTokens((3,), 5))]
    positive, auxiliary = ([[text, {**rest, MARKED_TOKENS: words}]] for ((text, rest),), words in prompts)
    times = [1.0, 0.8, 0.45, 0.2, 0.0]
    expected = sample(DualBranch(auxiliary, 11, blend).attach(model), positive, sigmas=torch.tensor(times))
    noises = [torch.randn(1, 16, 8, 8, generator=torch.manual_seed(seed)) for seed in (7, 11)]
    noises[1] = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(11))
    branches = [
        Branch(EncodedPrompt(text, rest["pooled_output"]), words, noise)
        for (((text, rest),), words), noise in zip(prompts, noises)
    ]  # fmt: skip
    found = sample_two_branches(host, *branches, blend, SamplingSettings(times, guidance=3.5))
    assert torch.allclose(found, expected, atol=2e-4)


@pytest.mark.usefixtures("comfy")
@pytest.mark.parametrize("plan", SHARED_STEPS.values(), ids=SHARED_STEPS)
def test_a_shared_step_draws_what_the_host_s_guider_draws(plan):
    import comfy.samplers
    from cologen.prw.comfyui.personal_guider import PersonalGuider
    from sampling import conditioning
    from tiny import host_model, tiny_flux

    flux = tiny_flux()
    model, times = host_model(flux), [1.0, 0.9, 0.8, 0.45, 0.2, 0.0]
    (concept, its), (plain, other) = conditioning(4)[0], conditioning(6)[0]
    words = MarkedTokens((1, 2), 5)
    guider = PersonalGuider(model, plan)
    guider.set_conds([[concept, its]], [[plain, {**other, MARKED_TOKENS: words}]])
    guider.set_cfg(1.0)
    latent, noise = torch.zeros(1, 16, 8, 8), torch.randn(1, 16, 8, 8, generator=torch.manual_seed(7))
    sampler, sigmas = comfy.samplers.sampler_object("euler"), torch.tensor(times)
    expected = guider.sample(noise, latent, sampler, sigmas, seed=7)
    superclass = Branch(EncodedPrompt(plain, other["pooled_output"]), words, noise)
    host = EmbeddedHost(flux, torch.float32)
    told, settings = EncodedPrompt(concept, its["pooled_output"]), SamplingSettings(times, guidance=3.5)
    found = sample_shared(host, told, superclass, plan, settings)
    assert torch.allclose(found, expected, atol=2e-4)
    alone = sample_shared(host, told, superclass, SharedStepSettings(0, 1, 1), settings)
    assert not torch.allclose(found, alone, atol=2e-3)


def test_the_terminal_trains_a_subject(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["mine.iterations=2", "mine.batch=2", "rank=1", "validate_every=0", "sample_steps=1", "--device", "cpu"]

    def train(*words):
        code = main(["train", "subject", *small, *words])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    code, said, error = train()
    assert code == 0 and said[-2:] == ["out/train/subject/mine.safetensors", "out/train/subject/report.html"], error
    made = Concept.open("out/train/subject/mine.safetensors")
    assert made.info.noun == "circle" and made.info.iterations == 2 and made.info.base.name == TOY.base
    page = Path("out/train/subject/report.html").read_text()
    assert "some of the photos; below, what the prompts give" in page
    assert train()[2].endswith("go on there with --resume, or choose another with --out.\n")
    before = Path("out/train/subject/mine.safetensors").read_bytes()
    assert train("--resume")[0] == 0 and Path("out/train/subject/mine.safetensors").read_bytes() == before
    assert train("--resume", "subject.ico=false")[2].startswith(
        "cologen: The run in out/train/subject began with other settings (subject.ico was True, is False)"
    )
    assert train("--out", "b", "--bank", "x")[2].startswith(
        "cologen: --bank is x, but a subject begins with no experts"
    )
    assert train("--out", "b", "subject.noun=[x]")[2].startswith("cologen: subject.toml cannot be used: ")


class Answers:
    """An experiment whose answers are numbers."""

    count = 3

    def evaluate(self, concept, way, seed):
        return {"fidelity": concept / 10, "editability": len(way) / 100}


class Training:
    def __init__(self, iterations):
        self.stage, self.iteration = type("Stage", (), {"iterations": iterations}), 0

    def export_concept(self):
        return self.iteration


def test_an_exam_goes_on_where_it_was(tmp_path):
    ways = ("alone", "two branches", "mixed")
    evaluator, training = ConceptEvaluator(tmp_path / "exam.json", Answers(), 0, ways), Training(8)
    evaluator.on_stage_begin(training)
    for training.iteration in range(1, 9):
        evaluator.on_iteration(training, None)
        if training.iteration == 3:
            assert not evaluator.is_finished(8)
            evaluator = ConceptEvaluator(tmp_path / "exam.json", Answers(), 0, ways)
    assert evaluator.is_finished(8) and list_evaluated_iterations(8) == {0, 1, 2, 4, 6, 8} == set(
        map(int, evaluator.report["alone"])
    )
    assert evaluator.report["alone"]["6"] == {"fidelity": 0.6, "editability": 0.05}
    assert evaluator.report["mixed"] == {"8": {"fidelity": 0.8, "editability": 0.05}}
    more = ConceptEvaluator(tmp_path / "exam.json", Answers(), 0, (*ways, "masked"))
    assert not more.is_finished(8) and more.report["alone"] == evaluator.report["alone"]
    found = {name: {0: evaluator.report[row.way]} for name, row in ROWS.items() if row.way in ways}
    assert average_seeds(found["plain"], "fidelity").y == [0.0, 0.1, 0.2, 0.4, 0.6, 0.8]
    assert summarize(found)["ICO, two branches"] == {"fidelity": (0.8, 0.0), "editability": (0.12, 0.0)}
    assert draw_curves(found).size[1] > 900
