"""The curves of a run's log."""

from cologen.training.monitor.history import History
from cologen.training.monitor.plots import Curve


def test_a_history_lays_stages_end_to_end():
    lines = [
        {"stage": s, "iteration": i, "task": t, "used": 0.5, "usage": {s: 0.5}, "seconds": 2.0, "missed": 1}
        for s, i, t in (("a", 1, 3.0), ("a", 2, 2.0), ("b", 1, 5.0))
    ]
    check = {"stage": "b", "iteration": 1, "validation": {"a": {"loss": 0.5, "usage": {"a": 1.0}}}}
    found = History.from_log([*lines, {"stage": "b", "iteration": 1}, check, {**check, "validation": 3}])
    assert found.loss == {"a": Curve([1, 2], [3, 2]), "b": Curve([3], [5])}
    assert found.validation == {"a": Curve([3], [0.5])} and found.last == {"b": {"a": (0.5, {"a": 1.0})}}
    assert found.seconds == {"a": 4, "b": 2} and found.marks == {"a": 0, "b": 2}
