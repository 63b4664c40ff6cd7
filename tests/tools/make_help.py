"""Writes the help pages in other languages: `python tests/tools/make_help.py`, whenever a page or a translation changes.

web/docs/NODE.md is written by hand; web/docs/NODE/LANGUAGE.md, where the frontend looks first, is the same page with each text looked
up by its English (tests/tools/help.json): one that was reworded stays English until somebody translates it, and a test names it.
Names of nodes between asterisks become those that the frontend shows in that language; the names of a node's inputs and outputs, which a
table begins its rows with, are followed by those that it shows.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import support_path  # noqa: F401
from pack import ROOT

FOLDER = ROOT / "web/docs"
TEXTS, NOTES, NAMES, PHRASES = (
    Path(__file__).with_name(f"{name}.json") for name in ("help", "notes", "host_names", "phrases")
)
LANGUAGES = {"zh": "“{}”", "ja": "「{}」"}
"""How each of them quotes a name."""
OWN_NAMES = {"zh": "中文", "ja": "日本語"}
CODE = re.compile(r"[-\s,:|]*(`[^`]*`[\s,]*)*[-\d.]*[-\s,:|]*")
"""A cell that says nothing in any language."""
NAME = re.compile(r" ?(?<!\*)\*([^*`]+)\*(?!\*) ?")
"""What stands between single asterisks, with the spaces that quotes make needless."""
ALONE = re.compile(r"[#|]|!\[|```|$")
"""Begins a line that no other line goes on with."""
EXAMPLES = re.compile(r"(In \*Templates → Extensions → CoLoGen\*): (`.*`)\.")


def read_json(path: Path) -> dict[str, dict[str, str]]:
    return json.loads(path.read_text(encoding="utf-8"))


def translate_page(page: str, say: Callable[[str], str], shown: Mapping[str, str]) -> str:
    """The page with each of its texts as `say` has it; a paragraph becomes one line. `shown`: how inputs and outputs are called."""
    return "\n".join(_translate_line(line, say, shown) for line in list_lines(page)) + "\n"


def list_lines(page: str) -> Iterator[str]:
    """A page's lines, with those of a paragraph, of a point of a list or of a block of code as one."""
    text = ""
    for line in page.splitlines():
        if text and (_is_open(text) or not ALONE.match(text) and not (ALONE.match(line) or line.startswith("- "))):
            text += f"\n{line}" if _is_open(text) else f" {line.strip()}"
            continue
        if text:
            yield text
        text = line
        if not line:
            yield ""
    yield text


def _is_open(text: str) -> bool:
    """Whether this is a block of code that has not ended."""
    return text.startswith("```") and not text.endswith("\n```")


def _translate_line(line: str, say: Callable[[str], str], shown: Mapping[str, str]) -> str:
    if not line or line.startswith("```"):
        return line
    if line.startswith("|"):
        start, name, *cells = line.split("|")
        texts = (cell if CODE.fullmatch(cell) else f" {say(cell.strip())} " for cell in cells)
        name = add_shown_names(name, shown) if CODE.fullmatch(name) else f" {say(name.strip())} "
        return "|".join((start, name, *texts))
    if picture := re.fullmatch(r"!\[(.*)\]\((.*)\)", line):
        return f"![{say(picture[1])}]({picture[2]})"
    if examples := EXAMPLES.fullmatch(line):
        return f"{say(examples[1])}{examples[2].replace(', ', '、')}。"
    start, text = re.match(r"(#+ |- |)(.*)", line).groups()
    return start + say(text)


def add_shown_names(cell: str, shown: Mapping[str, str]) -> str:
    """Puts behind each name of an input or output what the frontend shows in its place."""
    return re.sub(r"`([^`]+)`", lambda m: f"{m[0]}（{shown[m[1]]}）" if m[1] in shown else m[0], cell)


def list_texts(page: str) -> list[str]:
    """What is to be translated of a page."""
    texts = list[str]()
    translate_page(page, lambda text: texts.append(text) or text, {})
    return texts


def name_nodes(language: str) -> dict[str, str]:
    """English names of nodes, ours also without CoLoGen, and what they are called."""
    phrases, names = read_json(PHRASES), {name: texts[language] for name, texts in read_json(NAMES).items()}
    for page in FOLDER.glob("*.md"):
        title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        called = phrases[title][language]
        names |= {title: called, title.replace("CoLoGen ", "").replace(" (CoLoGen)", ""): called}
    return names


def list_shown_names(node: str, language: str) -> dict[str, str]:
    """Lists how the frontend calls a node's inputs and outputs, where that is not their English name."""
    english, other = (read_json(ROOT / f"locales/{each}/nodeDefs.json")[node] for each in ("en", language))
    outputs = {
        output.get("name"): other["outputs"][key].get("name") for key, output in english.get("outputs", {}).items()
    }
    shown = outputs | {name: entry["name"] for name, entry in other["inputs"].items()}
    return {name: text for name, text in shown.items() if name and text.lower() != name.lower()}


def make_speaker(language: str, file: Path = TEXTS) -> Callable[[str], str]:
    texts, names, quote = read_json(file), name_nodes(language), LANGUAGES[language]

    def say(text: str) -> str:
        if text in names:
            return names[text]
        said = texts.get(text, {}).get(language, text)
        return NAME.sub(lambda m: quote.format(names[m[1]]) if m[1] in names else m[0], said)

    return say


def add_languages(note: str) -> str:
    """A template's note, and below it the same in those languages that all of it is translated to (tests/tools/notes.json).

    The frontend shows a note as it was saved, whatever its language is set to.
    """
    title, *paragraphs = note.split("\n\n")
    texts, others = read_json(NOTES), list[str]()
    for language in OWN_NAMES:
        if all(language in texts.get(part, {}) for part in (title, *paragraphs)):
            say = make_speaker(language, NOTES)
            others.append("\n\n".join(["---", say(title), *map(say, paragraphs)]))
    hint = [f"*{' · '.join(OWN_NAMES.values())} ↓*"] if others else []
    return "\n\n".join([title, *hint, *paragraphs, *others])


def make_pages() -> dict[Path, str]:
    """File -> what it says."""
    speakers = {language: make_speaker(language) for language in LANGUAGES}
    return {
        page.with_suffix("") / f"{language}.md": translate_page(
            page.read_text(encoding="utf-8"), say, list_shown_names(page.stem, language)
        )
        for page in sorted(FOLDER.glob("*.md"))
        for language, say in speakers.items()
    }


def main() -> None:
    for path, text in make_pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
