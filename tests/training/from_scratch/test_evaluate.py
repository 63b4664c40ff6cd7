"""What is measured is what the oracle says of pictures, and intervals are those of a naive resampling."""

import numpy as np
import pytest
import torch
from cologen.training.cli import demo
from cologen.training.comfyui.server_demo import make_prompt
from cologen.training.from_scratch.evaluate import HELD_OUT_SEED, Evaluation, bootstrap_interval, evaluate, summarize
from cologen.training.setup.worlds import WORLDS
from cologen.training.world.stickers import list_stickers
from cologen.training.world.store import STICKERS

BEST = {"hit": 1, "iou": 1, "right": 1, "kept": 1, "done": 1, "outside": 0, "rest": 0, "wrong": 0}


class PixelEncoders:
    """Pictures are their own latents, so that what is sampled is what is judged."""

    def encode(self, pictures):
        return torch.from_numpy(np.stack(pictures)).movedim(-1, 1).float()

    def decode(self, latents):
        return latents.movedim(1, -1).to(torch.uint8).numpy()

    def encode_prompts(self, prompts):
        return torch.zeros(len(prompts), 1, 1), torch.zeros(len(prompts), 1)


def draw_truth(world, seeds, count):
    """A sampler that answers with the true pictures, in the questions' order."""
    asked = [
        question.example.target
        for task in world.tasks
        for seed in seeds
        for question in world.ask_held_out(task, count, HELD_OUT_SEED + seed)
    ]

    def sample(host, bank, routing, source, noise, prompt, settings):
        answers, asked[:] = asked[: len(source)], asked[len(source) :]
        return PixelEncoders().encode(answers)

    return sample


@pytest.mark.parametrize("name", WORLDS)
def test_true_pictures_get_what_the_oracle_gives_them(name):
    world, seeds, count = WORLDS[name], (4, 5), 6
    asked = Evaluation(world, count, seeds[0], more_seeds=seeds[1:], chunk=4)
    found = evaluate(None, PixelEncoders(), None, asked, sampler=draw_truth(world, seeds, count))
    assert (found["n"], found["seed"], found["seeds"]) == (count, 4, [4, 5])
    for task in world.tasks:
        scores = [
            [world.scorers[task](question, question.example.target) for question in questions]
            for questions in (world.ask_held_out(task, count, HELD_OUT_SEED + seed) for seed in seeds)
        ]
        assert found[task] == summarize(*scores)
        for measure in BEST.keys() & found[task].keys():
            assert found[task][measure] == pytest.approx(BEST[measure], abs=0.1), (task, measure)


@pytest.mark.parametrize("name", WORLDS)
def test_evaluation_and_demo_are_guided_by_the_source_where_the_world_says_so(name, monkeypatch):
    world, evaluated, shown = WORLDS[name], {}, {}

    def sample(host, bank, routing, source, noise, prompt, settings):
        evaluated[routing.task] = settings.guided_by_source
        return source

    def answer(host, encoders, bank, questions, seed, guided_by_source):
        shown[questions[0].example.task] = guided_by_source
        return [question.example.target for question in questions]

    monkeypatch.setattr(demo, "answer_questions", answer)
    evaluate(None, PixelEncoders(), None, Evaluation(world, count=1), sampler=sample)
    questions = [question for task in world.tasks for question in world.ask_held_out(task, 1, 0)]
    demo.answer_embedded(world, questions)
    expected = {task: task in world.guided_by_source for task in world.tasks}
    assert evaluated == shown == expected
    for question in questions:
        prompt = make_prompt(world, question.example)
        negative = prompt[prompt["sample"]["inputs"]["negative"][0]]
        assert (negative["class_type"] == "CLIPTextEncode") == expected[question.example.task]


def test_evaluation_shows_what_training_never_did():
    pool, held_out = (set(list_stickers()[kind]) for kind in ("pool", "held out"))
    asked = STICKERS.ask_held_out("subject", 4, HELD_OUT_SEED)
    assert {question.scene.things[0].sticker for question in asked} <= held_out
    assert {question.scene.things[0].sticker for question in STICKERS.ask("subject", 4, 0)} <= pool


def test_intervals_of_several_seeds_are_hierarchical():
    rng = np.random.default_rng(1)
    groups = [rng.normal(mean, 0.1, 40) for mean in (0, 1, 2, 3)]
    means = []
    for _ in range(4000):
        chosen = [groups[i] for i in rng.integers(4, size=4)]
        means.append(np.mean([rng.choice(values, len(values)).mean() for values in chosen]))
    assert bootstrap_interval(*groups) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.12)
    low, high = bootstrap_interval(np.concatenate(groups))
    assert high - low < 0.5, "as if questions of different seeds had nothing in common"
    uneven = summarize([{"hit": 1.0}] * 3, [{"hit": 0.0}], [{"rest": 0.5}])
    assert uneven["hit"] == 0.5 and uneven["rest_ci"] == [0.5, 0.5]
