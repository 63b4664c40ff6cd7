"""What help pages show: pictures that are there, workflows with the node, a recipe that can be read; and that the registry gets them."""

import json
import re
import subprocess

import pytest
from make_pictures import FOLDER as PICTURES
from make_workflows import FOLDER as WORKFLOWS
from pack import ROOT
from pictures_toy import PICTURES as DRAWN

PAGES = ROOT / "web" / "docs"
IDS = sorted(path.stem for path in PAGES.glob("*.md"))
LARGEST = 60 * 1024


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def section(name: str, heading: str) -> str:
    parts = re.split(r"^## (.+)\n", page(name), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2])).get(heading, "")


def pictures(name: str) -> list[tuple[str, str]]:
    return re.findall(r"!\[(.*?)\]\((.*?)\)", page(name))


@pytest.mark.parametrize("name", IDS)
def test_a_page_shows_pictures_that_are_there_and_small(name):
    for says, path in pictures(name):
        assert says, "what it shows, for those who cannot see it"
        assert 0 < (PAGES / path).stat().st_size <= LARGEST


def test_every_picture_is_drawn_by_the_script_and_shown_by_its_page():
    shown = {f"{name}: {path}" for name in IDS for _, path in pictures(name)}
    assert shown == {f"{name}: pictures/{name}.png" for name in DRAWN}
    assert {path.name for path in PICTURES.iterdir()} == {f"{name}.png" for name in DRAWN}


@pytest.mark.parametrize("name", IDS)
def test_a_page_leads_to_workflows_with_its_node(name):
    named = re.findall(r"`(\w+)`", section(name, "Example"))
    saved = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in WORKFLOWS.glob("*.json")}
    using = [workflow for workflow, graph in saved.items() if any(node["type"] == name for node in graph["nodes"])]
    assert named and set(named) <= set(using or saved)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_the_registry_s_archive_has_pages_translations_and_blueprints():
    """.comfyignore is read as git reads .gitignore."""
    listing = [
        "git",
        "-C",
        str(ROOT),
        "ls-files",
        "-i",
        "-c",
        "--exclude-from=.comfyignore",
        "web",
        "locales",
        "subgraphs",
    ]
    assert subprocess.run(listing, check=True, capture_output=True, text=True).stdout == ""


def test_the_recipe_that_a_page_shows_is_one(comfy):
    from cologen.nodes.inputs.recipe import read_recipe

    (recipe,) = re.findall(r"```toml\n(.*?)```", page("CoLoGenTrainCurriculum"), flags=re.S)
    assert [stage.name for stage in read_recipe(recipe).stages] == ["control", "edit"]
