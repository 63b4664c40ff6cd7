"""The subject experiment trains, samples in all its ways and measures; what is finished is not done again."""

import pytest
from cologen.training.experiments import subject
from cologen.training.experiments.subject import ROWS, SubjectExperiment, draw_curves, summarize
from cologen.training.from_scratch.store import open_models
from cologen.training.toy.store import TOY

pytestmark = pytest.mark.slow


def test_the_subject_experiment_runs_once(tmp_path, monkeypatch):
    monkeypatch.setitem(subject.BUDGETS, "tiny", 2 / 400)
    monkeypatch.setattr(subject, "STEPS", 2)
    said = []
    reports = SubjectExperiment(TOY, open_models(TOY), tmp_path, "tiny", 4, said.append).run(1)
    assert reports.keys() == ROWS.keys() and len(said) == 2
    for curves in (report[0] for report in reports.values()):
        assert curves and all(0 <= value <= 1 for scores in curves.values() for value in scores.values())
    assert draw_curves(reports).size[0] > 100 and len(summarize(reports)) == len(ROWS)
    again = SubjectExperiment(TOY, open_models(TOY), tmp_path, "tiny", 4, said.append).run(1)
    assert again == reports and len(said) == 2
