"""Recipes: the paper's numbers, a sixth stage, and mistakes as sentences."""

import pytest
from cologen.prw.tasks import TASKS
from cologen.training.recipes.curriculum import list_recipes, load_curriculum

# the paper's Table 1 and section 3.1: iterations, batch, rho, alpha of eq. 9
PAPER = {
    "inpaint": (200_000, 256, 1.0, 0.0),
    "ground": (200_000, 256, 0.8, 0.5),
    "control": (400_000, 128, 0.8, 0.5),
    "subject": (50_000, 128, 0.8, 0.5),
    "edit": (200_000, 128, 0.8, 0.5),
}


def test_the_papers_recipe_holds_the_papers_numbers():
    paper = load_curriculum("paper")
    assert {s.name: (s.iterations, s.batch, s.rho, s.veteran) for s in paper.stages} == PAPER
    assert sum(s.iterations for s in paper.stages) == 1_050_000
    assert (paper.settings.rank, paper.settings.alpha, paper.settings.rate) == (128, 256, 1e-4)
    *earlier, last = paper.stages
    assert last.replay_from == {"subject": 1.0} and last.replay == pytest.approx(200e3 / (200e3 + 1.6e6), abs=2e-3)
    assert not any(stage.replay for stage in earlier)


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_trains_the_tasks_in_the_papers_order(name):
    recipe = load_curriculum(name)
    assert [stage.task for stage in recipe.stages] == list(TASKS)
    assert recipe.experts("control") == ("inpaint", "ground", "control")
    assert recipe.settings.alpha == 2 * recipe.settings.rank
    assert recipe.stages[0].rho == 1 and recipe.stages[0].veteran == 0


def test_a_sixth_stage_is_a_sixth_table(tmp_path):
    from cologen.training.recipes.curriculum import RECIPES

    path = tmp_path / "mine.toml"
    extra = '\n[[stages]]\nname = "relight"\ntask = "edit"\ndata = ["mine"]\niterations = 10\nbatch = 2\n'
    path.write_text((RECIPES / "small.toml").read_text() + extra)
    recipe = load_curriculum(path)
    assert recipe.stages[-1].task == "edit" and recipe.experts("relight")[-2:] == ("edit", "relight")


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("rank = 4\n", "expected one or more, each once"),
        ('[[stages]]\nname = "a"\n[[stages]]\nname = "a"\n', "expected one or more, each once"),
        ("[[stages]]\nbatch = 3\n", "a stage has no name"),
        ('[[stages]]\nname = "a"\nrho = 2.0\n', "a.rho is 2.0, expected 0 to 1"),
        ('[[stages]]\nname = "a"\niterations = "many"\n', "stage 1.iterations is 'many', expected a whole number"),
        ('[[stages]]\nname = "a"\nstep = 1\n', "stage 1 has an unknown entry 'step'"),
        ('optimiser = "adamw"\n[[stages]]\nname = "a"\n', "the recipe has an unknown entry 'optimiser'"),
        ('optimizer = "sgd"\n[[stages]]\nname = "a"\n', "optimizer is 'sgd', expected one of"),
        ('resolution = 520\n[[stages]]\nname = "a"\n', "resolution is 520, expected a multiple of 16: set it to 512"),
        ('[[stages]]\nname = "a"\nroute = "block"\n', "a.route is 'block', expected one of '', 'sample', 'token'"),
        (
            'source_time = "late"\n[[stages]]\nname = "a"\n',
            "source_time is 'late', expected one of '', 'zero', 'shared'",
        ),
        (
            '[[stages]]\nname = "a"\n[[stages]]\nname = "b"\nreplay = 0.1\nreplay_from = {c = 1}\n',
            "expected tasks of ear",
        ),
        ('[[stages]]\nname = "a"\n[[stages]]\nname = "b"\nreplay_from = {a = 1}\n', "but replay is 0: set the share"),
        ('[[stages]]\nname = "a"\nreplay = 0.1\nreplay_from = {b = 0}\n', "a.replay_from.b is 0, expected 1e-06"),
        ('[[stages]]\nname = "a"\nreplay_from = {b = "x"}\n', "stage 1.replay_from.b is 'x', expected a number"),
        ("rate = nan\n[[stages]]\nname = 'a'\n", "rate is nan"),
        ("stages = 3\n", "stages is '3', expected a list"),
        ("rank = \n", "cannot be used"),
        (f"rank = {'[' * 2000}", "cannot be used: it has lists within lists without end, expected TOML"),
    ],
)
def test_a_broken_recipe_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_curriculum(path)
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there_names_those_that_are():
    with pytest.raises(FileNotFoundError, match="give a TOML file or one of klein, paper, small"):
        load_curriculum("papre")
