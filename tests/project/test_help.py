"""Every node has its help page in every language: the same page, up to date, with nothing left in English."""

import json
import re

import pytest
from make_help import FOLDER, LANGUAGES, OWN_NAMES, TEXTS, list_texts, make_pages, name_nodes, read_json
from pack import ROOT

PAGES = sorted(FOLDER.glob("*.md"))


def read(page, language: str = "en") -> str:
    return (page if language == "en" else page.with_suffix("") / f"{language}.md").read_text(encoding="utf-8")


def outline(text: str) -> list:
    """What a page has in any language: levels of headings, rows of tables by their names, pictures, points, code."""
    found = list[tuple]()
    for line in text.splitlines():
        if line.startswith("#"):
            found.append(("heading", len(line) - len(line.lstrip("#"))))
        elif line.startswith("|"):
            found.append(("row", line.count("|"), *re.findall(r"`[^`]+`", line.split("|")[1])))
        elif line.startswith("!"):
            found.append(("picture", line[line.rindex("(") :]))
        elif line.startswith(("- ", "```")):
            found.append((line[:2],))
    return found


def test_every_node_has_a_page():
    nodes = read_json(ROOT / "locales/en/nodeDefs.json")
    assert {page.stem for page in PAGES} == set(nodes)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_has_the_same_parts_in_every_language(page, language):
    assert outline(read(page, language)) == outline(read(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_inputs_and_outputs_are_the_node_s(page):
    """All inputs and named outputs have a row, in every language."""
    node = read_json(ROOT / "locales/en/nodeDefs.json")[page.stem]
    rows = {name for kind, *rest in outline(read(page)) if kind == "row" for name in rest[1:]}
    named = [output["name"] for output in node.get("outputs", {}).values() if "name" in output]
    for name in [*node["inputs"], *named]:
        assert f"`{name}`" in rows or name.startswith(("experts_", "control")), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_left_in_english(language):
    """A text that was added or reworded is translated in tests/tools/help.json."""
    texts, names = read_json(TEXTS), name_nodes(language)
    known = {text for text, said in texts.items() if language in said}
    used = {text for page in PAGES for text in list_texts(read(page))}
    assert used - known - set(names) == set()
    assert known - used == set(), "no page says these any more"


def test_the_pages_are_those_that_the_tool_makes():
    """`python tests/tools/make_help.py`."""
    made = make_pages()
    assert {path for path in FOLDER.glob("*/*.md")} == set(made)
    assert not [path for path, text in made.items() if path.read_text(encoding="utf-8") != text]


NOTES = [
    pytest.param(node["widgets_values"][0], id=path.stem)
    for path in sorted((ROOT / "example_workflows").glob("*.json"))
    for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]
    if node["type"] == "MarkdownNote"
]


@pytest.mark.parametrize("note", NOTES)
def test_a_template_s_note_speaks_all_languages(note):
    """A paragraph that was added or reworded is translated in tests/tools/notes.json, and the workflows are made again."""
    english, *others = note.split("\n\n---\n\n")
    title, hint, *paragraphs = english.split("\n\n")
    assert [other.count("\n\n") for other in others] == [len(paragraphs)] * len(LANGUAGES), title
    assert all(name in hint for name in OWN_NAMES.values())
    codes = re.findall(r"`[^`]+`", english)
    assert all(sorted(set(re.findall(r"`[^`]+`", other))) == sorted(set(codes)) for other in others)
