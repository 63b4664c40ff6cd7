"""Links and pictures of the README and of docs/ lead somewhere; files, names and commands that they quote exist."""

import ast
import re

import pytest
from cologen.training.cli.main import main
from pack import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")


def name_of(path) -> str:
    return str(path.relative_to(ROOT))


def anchors(text: str) -> set[str]:
    """As GitHub names headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in map("".join, LINK.findall(page.read_text(encoding="utf-8"))):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_commands_of_the_pages_exist(capsys):
    named = {
        tuple(match.split())
        for page in PAGES
        for match in re.findall(
            r"cologen ((?:bench|data|reproduce|bank|eval) [a-z]+)\b", page.read_text(encoding="utf-8")
        )
    }
    assert len(named) > 10
    for command in sorted({words[0] for words in named}):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        known = capsys.readouterr().out
        for words in named:
            assert words[0] != command or words[1] in known, words


COMMAND = re.compile(r"cologen(?:\.training)? ((?:bench|data|bank|eval) [a-z0-9]+|train|reproduce|demo)\b([^`\n]*)")


def test_options_of_the_pages_exist(capsys):
    options: dict[str, set[str]] = {}
    for page in PAGES:
        for command, rest in COMMAND.findall(page.read_text(encoding="utf-8").replace("\\\n", " ")):
            options.setdefault(command, set()).update(re.findall(r"--[a-z-]+", rest))
    assert len(options) > 20
    for command, named in options.items():
        with pytest.raises(SystemExit):
            main([*command.split(), "--help"])
        known = capsys.readouterr().out
        assert not [option for option in named if option not in known], command


QUOTED = re.compile(r"`([\w/.]+\.(?:py|toml))(?:: ?([\w.]+))?`")
"""`path/file.py`, or `path/file.py: Class.method`."""


def names_of(path) -> set[str]:
    """What a file defines, methods and fields by Class.name; a recipe its keys."""
    if path.suffix == ".toml":
        return set(re.findall(r"^(\w+) = ", path.read_text(encoding="utf-8"), flags=re.M))
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names.update(defined(node))
        if isinstance(node, ast.ClassDef):
            names.update(f"{node.name}.{name}" for member in node.body for name in defined(member))
    return names


def defined(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_files_and_names_that_the_pages_quote_exist(page):
    for path, name in QUOTED.findall(page.read_text(encoding="utf-8")):
        if "/" not in path:
            continue
        assert (ROOT / path).is_file(), path
        assert not name or name in names_of(ROOT / path), f"{path}: {name}"


def test_the_architecture_lists_the_rooms_in_their_order():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    order = (ROOT / "tests" / "project" / "test_boundaries.py").read_text(encoding="utf-8")
    (rooms,) = (node.value for node in ast.parse(order).body if "ROOMS" in defined(node))
    assert re.findall(r"^\| `([\w/]+)` \|", text, flags=re.M) == list(ast.literal_eval(rooms))


def test_every_node_is_in_the_list_of_nodes_and_every_workflow_in_theirs():
    nodes = (ROOT / "docs" / "nodes.md").read_text(encoding="utf-8")
    assert all(f"](../web/docs/{path.name})" in nodes for path in (ROOT / "web" / "docs").glob("*.md"))
    workflows = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:toy|sticker|flux_dev|flux2_klein|chroma)_\w+", workflows))
    assert named == {path.stem for path in (ROOT / "example_workflows").glob("*.json")}
    blueprints = set(re.findall(r"^\| (CoLoGen [^|]+?) \|", workflows, flags=re.M))
    assert blueprints == {path.stem for path in (ROOT / "subgraphs").glob("*.json")}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("[!R]*.md")), ids=name_of)
def test_a_page_begins_with_its_result(page):
    """A table stands before the first heading below the title."""
    text = page.read_text(encoding="utf-8")
    assert "\n|" in text.split("\n## ")[0]
