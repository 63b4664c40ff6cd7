"""Translations: English is the schemas' own, the others say all of it, and names, numbers and choices survive."""

import json
import re
from collections.abc import Iterator

import pytest
from make_locales import FOLDER, LANGUAGES, english, locale, phrases, text_of

needs_host = pytest.mark.usefixtures("comfy")

OTHERS = [language for language in LANGUAGES if language != "en"]
KEPT = re.compile(
    r"`[^`]*`"  # code
    r"|[\w.-]*\w[/_][\w/]*\w"  # paths and names of files
    r"|[A-Za-z]\w*\.(?:\w+\.)*(?:png|txt|safetensors)"
    r"|\d+(?:\.\d+)*",
    re.ASCII,
)
NAME = "display_name"
SYNTAX = set("{}@|")
"""What the frontend's message compiler reads as more than text."""


@pytest.fixture(scope="module")
def nodes(comfy) -> dict:
    return english()["nodeDefs"]


def leaves(tree: dict, path: tuple = ()) -> Iterator[tuple[tuple, str]]:
    for key, value in tree.items():
        if isinstance(value, str):
            yield (*path, key), value
        else:
            yield from leaves(value, (*path, key))


def said(language: str) -> dict[tuple, str]:
    """Everything in the files of a language, by where it stands."""
    files = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (FOLDER / language).glob("*.json")}
    return dict(leaves(files))


@needs_host
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_files_are_what_schemas_and_phrases_say(language):
    """After a change to either: `python tests/tools/make_locales.py`."""
    written = {path.stem: path.read_text(encoding="utf-8") for path in (FOLDER / language).glob("*.json")}
    assert written == {name: text_of(tree) for name, tree in locale(language).items()}


def test_english_is_what_the_host_tells_the_frontend(nodes):
    """Against the host's own description of each node."""
    from cologen.nodes import NODES

    told = {cls.define_schema().node_id: cls.GET_NODE_INFO_V1() for cls in NODES}
    assert nodes.keys() == told.keys()
    for name, info in told.items():
        given = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        assert {key: spec[1]["tooltip"] for key, spec in given.items()} == {
            key: item["tooltip"] for key, item in nodes[name]["inputs"].items() if "tooltip" in item
        }
        assert [info["display_name"], info["description"]] == [nodes[name][NAME], nodes[name]["description"]]
        outputs = list(nodes[name].get("outputs", {}).values())
        assert list(info.get("output_tooltips") or []) == [item["tooltip"] for item in outputs]
        names = [(item.get("name"), kind) for item, kind in zip(outputs, info["output"])]
        assert list(info["output_name"]) == [name or kind for name, kind in names]


@needs_host
def test_every_phrase_is_translated_and_no_other():
    wanted = {text for tree in english().values() for _, text in leaves(tree)}
    assert wanted == phrases().keys()
    assert all(found.keys() == set(OTHERS) for found in phrases().values())


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_says_everything_in_its_own_words(language):
    ours, theirs = said("en"), said(language)
    assert ours.keys() == theirs.keys()
    assert not [path for path in ours if not theirs[path].strip() or theirs[path] == ours[path]]


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_reads_as_syntax_to_the_frontend(language):
    assert not [text for text in said(language).values() if SYNTAX & set(text)]


@pytest.mark.parametrize("language", OTHERS)
def test_numbers_files_and_code_survive(language):
    for text, found in ((text, found) for text, found in phrases().items() if " " in text):
        assert sorted(KEPT.findall(found[language])) == sorted(KEPT.findall(text)), text


@needs_host
@pytest.mark.parametrize("language", OTHERS)
def test_choices_are_called_as_the_widget_shows_them(language):
    from cologen.nodes import NODES

    for item in (item for node in NODES for item in node.define_schema().inputs):
        for choice in map(str, getattr(item, "options", None) or ()):
            if re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", item.tooltip):
                assert choice in phrases()[item.tooltip][language], (item.id, choice)


@pytest.mark.parametrize("language", OTHERS)
def test_nodes_are_called_by_their_translated_names(language, nodes):
    names = sorted((node[NAME] for node in nodes.values()), key=len, reverse=True)
    known = phrases()
    for text, found in known.items():
        for name in names:
            if name in text:
                text = text.replace(name, "")
                assert known[name][language] in found[language], (name, found[language])
