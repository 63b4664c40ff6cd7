"""report.html needs nothing beside it."""

import html.parser
import json
import re
from dataclasses import replace

from cologen.training.monitor.log import read_log
from cologen.training.monitor.report import write_report
from cologen.training.monitor.samples import Samples
from tiny_run import tiny_curriculum, tiny_run


class Page(html.parser.HTMLParser):
    """What a browser would make of a page: its words, its tags, and what it would load."""

    def __init__(self, text):
        super().__init__()
        self.words, self.tags, self.loads = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "data")]

    def handle_data(self, data):
        self.words.append(data.strip())


def test_the_report_needs_nothing_beside_it_and_escapes_what_it_is_given(tmp_path):
    recipe = replace(tiny_curriculum(3, validate_every=3, sample_every=3, sample_steps=1), base="toy")
    recipe.toy["<script>alert(1)</script>"] = "</td><img src=http://example.org>"
    from cologen.training.monitor.log import Log

    tiny_run(tmp_path, recipe, listeners=[Log(tmp_path), Samples(tmp_path)]).train()
    write_report(tmp_path / "report.html", recipe, 123456, "<b>mine</b>")
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags and "b" not in page.tags and "link" not in page.tags
    assert "toy.<script>alert(1)</script>" in page.words and "CoLoGen training: <b>mine</b>" in page.words
    assert len(page.loads) == 6 and all(load.startswith("data:image/png;base64,") for load in page.loads)
    assert "url(" not in text and "@import" not in text
    assert "123456" in page.words and "0.003" in page.words
    last = [line for line in read_log(tmp_path / "log.jsonl") if "validation" in line][-1]
    for task, found in last["validation"].items():
        assert any(word.startswith(f"{found['loss']:.4f} (inpaint ") for word in page.words), task
    assert not list(tmp_path.glob(".*"))


def test_the_report_of_a_run_without_a_log_is_a_page_too(tmp_path):
    (tmp_path / "log.jsonl").write_text(json.dumps({"stage": "inpaint", "iteration": 1, "task": "<i>"}) + "\n")
    write_report(tmp_path / "report.html", tiny_curriculum(1), 0, "r")
    assert "No validation yet." in Page((tmp_path / "report.html").read_text()).words
    assert not re.search("<i>", (tmp_path / "report.html").read_text())
