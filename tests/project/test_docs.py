"""Links and pictures of the README and of docs/ lead somewhere; commands that they name exist."""

import re
import subprocess
import sys

import pytest
from pack import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """As GitHub names headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_commands_of_the_pages_exist():
    named = {
        tuple(match.split())
        for page in PAGES
        for match in re.findall(
            r"cologen ((?:bench|data|reproduce|bank|eval) [a-z]+)\b", page.read_text(encoding="utf-8")
        )
    }
    assert len(named) > 10
    for command in sorted({words[0] for words in named}):
        done = subprocess.run(
            [sys.executable, "-m", "cologen.training", command, "--help"], capture_output=True, text=True
        )
        for words in named:
            assert words[0] != command or words[1] in done.stdout, words
