"""Damaged recipes: each is refused in a sentence, or is a recipe."""

import json

import pytest
from cologen.training.recipes.curriculum import RECIPES, Curriculum
from cologen.training.recipes.subject import SubjectRecipe, load_recipe
from mutate import NUMBERS, WORDS, dump, mutate_bytes, pick

WHOLE = [path.read_bytes() for path in sorted(RECIPES.glob("*.toml"))]
LINES = sorted({line for text in WHOLE for line in text.splitlines() if b"=" in line})


def mutate_recipe(rng, text: bytes) -> bytes:
    """Bytes, lines or values that changed."""
    lines, way = text.splitlines(), rng.integers(5)
    at = int(rng.integers(len(lines)))
    if way == 0:
        return mutate_bytes(rng, text)
    if way == 1:
        del lines[at]
    elif way == 2:
        lines.insert(at, pick(rng, LINES))
    else:
        setting = pick(rng, [i for i, line in enumerate(lines) if b" = " in line])
        key = lines[setting].partition(b" = ")[0]
        value = pick(rng, (dump(pick(rng, WORDS)), repr(pick(rng, NUMBERS)).encode(), b"[" * 2000, b"{}", b"[1, 'a']"))
        lines[setting] = key + b" = " + value
    return b"\n".join(lines)


def test_damaged_recipes(tmp_path, fuzz):
    path = tmp_path / "recipe.toml"

    def attempt(rng):
        path.write_bytes(mutate_recipe(rng, pick(rng, WHOLE)))
        assert isinstance(load_recipe(path), (Curriculum, SubjectRecipe))

    fuzz.run(500, attempt)


@pytest.mark.parametrize("name", ["toy", "subject"])
def test_changes_from_the_terminal(fuzz, name):
    keys = [line.partition(b" = ")[0].decode() for line in LINES]

    def attempt(rng):
        where = pick(rng, ("", "", "toy.", "encoders.", "data.own.", "subject.", "edit.", "data..", ".", "[["))
        value = pick(rng, (str(pick(rng, WORDS)), json.dumps(pick(rng, NUMBERS)), "[" * 2000, "a = 1\nb = 2"))
        change = where + str(pick(rng, (*keys, *WORDS))) + pick(rng, ("=", "=", "=", "", "==")) + value
        assert isinstance(load_recipe(name, (change,)), (Curriculum, SubjectRecipe))

    fuzz.run(200, attempt, 0.3)
