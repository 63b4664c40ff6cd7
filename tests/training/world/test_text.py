"""What the sticker world's sentences state is read off them, fact by fact."""

import numpy as np
from cologen.training.from_scratch.text import MAX_WORDS, UNKNOWN, TextEncoder, number_facts, split_words
from cologen.training.world.drawings import draw_captioned, draw_diptychs
from cologen.training.world.stickers import NAMED
from cologen.training.world.tasks import QUESTION_MAKERS, make_questions
from cologen.training.world.text import LANGUAGE, draw_text, read_facts
from cologen.training.world.words import call_thing, describe_scene

STATED = {
    "a small blue apple at the top left, on a beach": [
        {"thing": "apple", "size": "small", "hue": "blue", "row": "top", "column": "left"},
        {"ground": "beach"},
    ],
    "replace the left fox with an ice cream": [
        {"verb": "replace", "thing": "fox", "column": "left"},
        {"thing": "ice cream"},
    ],
    "make the blue apple red": [{"verb": "make", "thing": "apple", "hue": "blue", "last": "red"}],
    "put a crown left of the dog": [{"verb": "put", "thing": "crown", "side": "left of"}, {"thing": "dog"}],
    "Draw a box in magenta around the animal.": [
        {"verb": "draw", "form": "box", "last": "magenta"},
        {"thing": "animal"},
    ],
    "the upper thing, now small and at the bottom, at night, and a cat in the middle": [
        {"thing": "thing", "row": "upper"},
        {"verb": "now", "size": "small"},
        {"row": "bottom"},
        {"ground": "night"},
        {"thing": "cat", "row": "middle"},
    ],
    "": [],
}


def test_facts_are_read_off_sentences():
    for text, facts in STATED.items():
        assert read_facts(text) == facts


def test_captions_state_what_scenes_show():
    for question in make_questions("inpaint", 30, 3):
        scene, rng = question.scene, np.random.default_rng(0)
        facts = read_facts(describe_scene(rng, scene, keep=1.0, share=1.0))
        found = sorted(f"{fact.get('hue', '')} {fact['thing']}".strip() for fact in facts if "thing" in fact)
        assert found == sorted(call_thing(thing) for thing in scene.things)
        places = {f"{fact.get('row', '')} {fact.get('column', '')}".strip() for fact in facts if "thing" in fact}
        assert places == {thing.place for thing in scene.things}
        assert [fact["ground"] for fact in facts if "ground" in fact] == [scene.ground]


def test_every_word_is_known_and_every_word_belongs_to_a_fact():
    rng, reader = np.random.default_rng(0), TextEncoder(LANGUAGE)
    texts = [draw_text(rng) for _ in range(300)] + draw_captioned(rng, 100)[1] + draw_diptychs(rng, 30)[1]
    texts += [question.example.prompt for task in QUESTION_MAKERS for question in make_questions(task, 30, 5)]
    for text in texts:
        assert (reader.tokenize([text]) != UNKNOWN).all(), text
        facts, words = number_facts(text, LANGUAGE), split_words(text)
        assert len(words) == len(facts) <= MAX_WORDS and max(facts, default=0) <= LANGUAGE.max_facts
    assert len(NAMED) < len(LANGUAGE.vocabulary) < 200
