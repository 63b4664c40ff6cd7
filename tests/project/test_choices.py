"""What the paper does not say and the code decides is marked "our choice" in the code, and listed in docs/method.md."""

import ast
import re
from collections import Counter

from pack import ROOT

MARK = re.compile(r"\bour\s+(?:#\s+)?choices?\b", re.IGNORECASE)
ROW = re.compile(r"^\| `([^`]+)` \| .", re.MULTILINE)
ROOMS = ("prw", "training", "nodes")


def name_target(node) -> str:
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
    return ", ".join(part.id for part in getattr(target, "elts", [target]))


def locate(body: list[ast.stmt], line: int) -> str:
    """The dotted name of what a line belongs to: a docstring to what stands before it, or to all of the body."""
    for i, node in enumerate(body):
        if not node.lineno <= line <= node.end_lineno:
            continue
        if isinstance(node, ast.ClassDef):
            return ".".join(filter(None, (node.name, locate(node.body, line))))
        if isinstance(node, ast.FunctionDef):
            return node.name
        if isinstance(node, ast.Expr) and i:
            node = body[i - 1]
        return name_target(node) if isinstance(node, (ast.Assign, ast.AnnAssign)) else ""
    return ""


def locate_key(lines: list[str], line: int) -> str:
    """The key of a recipe's line; of a comment's the next one, of the first line none: it stands over all."""
    keys = (text.split("=")[0].strip() for text in lines[line - 1 :] if not text.startswith("#"))
    return "" if line == 1 else next(keys)


def list_marks() -> Counter:
    marks = Counter()
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*")):
        if path.suffix not in (".py", ".toml"):
            continue
        text, name = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
        for found in MARK.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            where = locate(ast.parse(text).body, line) if path.suffix == ".py" else locate_key(text.splitlines(), line)
            marks[f"{name}: {where}" if where else name] += 1
    return marks


def test_every_mark_is_listed_and_every_row_is_a_mark():
    page = (ROOT / "docs/method.md").read_text(encoding="utf-8")
    listed = Counter(ROW.findall(page[page.index("## Our choices") :]))
    marks = list_marks()
    assert sum(marks.values()) > 40
    assert not marks - listed, "marked in the code, and not in docs/method.md"
    assert not listed - marks, "in docs/method.md, and not marked in the code"


def test_the_recipe_says_which_of_its_lines_are_the_papers():
    """Each line of the paper's recipe is a number of Table 1 and section 3.1, or marked."""
    own = {"rank", "alpha", "rate", "name", "data", "iterations", "batch", "rho", "veteran"}
    own |= {"unlabelled"}  # refuses data that are not the paper's
    lines = (ROOT / "training/recipes/paper.toml").read_text(encoding="utf-8").splitlines()
    keys = {
        i + 1: line.split("=")[0].strip() for i, line in enumerate(lines) if "=" in line and not line.startswith("#")
    }
    marked = {mark.partition(": ")[2] for mark in list_marks() if mark.startswith("training/recipes/paper.toml")}
    assert {key for key in keys.values() if key not in own} == marked
