"""The curves of a whole run from its log.jsonl, stage after stage along one axis."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ..stage_length import LIMIT, STILL
from .plots import Curve, draw_chart

SMOOTH = 50
"""Parts of a stage; the loss's moving average covers one."""


@dataclass
class History:
    """Curves over the iterations of a run."""

    loss: dict[str, Curve] = field(default_factory=dict)
    """By stage."""
    usage: dict[str, Curve] = field(default_factory=dict)
    """By expert: its share of the blocks in whatever stage was trained."""
    newest: dict[str, Curve] = field(default_factory=dict)
    """By stage: its own expert's share."""
    validation: dict[str, Curve] = field(default_factory=dict)
    """By task: what later stages do to earlier tasks shows here."""
    last: dict[str, dict[str, tuple[float, dict[str, float]]]] = field(default_factory=dict)
    """A stage's last validation: loss and usage of every task."""
    starts: dict[str, int] = field(default_factory=dict)
    """By stage: where it begins on the axis."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage."""
    standing: dict[str, Curve] = field(default_factory=dict)
    """By stage of length "auto": the held-out loss by which it decides its end."""
    ends: dict[str, tuple[int, str, int]] = field(default_factory=dict)
    """By such a stage: where on the axis its end was decided, why, and which iteration it is."""
    missed: dict[str, int] = field(default_factory=dict)
    """By stage: iterations that did not fit into memory."""

    @classmethod
    def from_log(cls, lines: Iterable[Mapping[str, Any]]) -> "History":
        """Collects the log's lines; one that lacks something is skipped."""
        history, end = cls(), 0
        for line in lines:
            stage = line["stage"]
            start = history.starts.setdefault(stage, end)
            end = max(end, start + line["iteration"])
            try:
                history._add(stage, start + line["iteration"], line)
            except (KeyError, TypeError, AttributeError, ValueError):
                continue
        return history

    def _add(self, stage: str, x: int, line: Mapping[str, Any]) -> None:
        if "validation" in line:
            losses = {task: (float(part["loss"]), dict(part["usage"])) for task, part in line["validation"].items()}
            for task, (loss, _) in losses.items():
                _append(self.validation, task, x, loss)
            self.last[stage] = losses
            return
        if "length" in line:
            self._add_check(stage, x, line["length"])
            return
        loss, used, seconds, missed = (float(line[key]) for key in ("task", "used", "seconds", "missed"))
        for expert, share in line["usage"].items():
            _append(self.usage, expert, x, float(share))
        _append(self.loss, stage, x, loss)
        _append(self.newest, stage, x, used)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self.missed[stage] = int(missed)

    def _add_check(self, stage: str, x: int, check: Mapping[str, Any]) -> None:
        verdict, end = str(check["verdict"]), int(check["end"])
        if "loss" in check:
            _append(self.standing, stage, x, float(check["loss"]))
        if verdict in (STILL, LIMIT):
            self.ends[stage] = x, verdict, end

    @property
    def marks(self) -> dict[str, float]:
        """Where stages begin, if there is more than one."""
        return dict(self.starts) if len(self.starts) > 1 else {}

    def draw_charts(self) -> dict[str, Image.Image]:
        """Draws charts of loss, validation and usage, by name."""
        longest = max((len(curve.x) for curve in self.loss.values()), default=1)
        smooth = max(1, longest // SMOOTH)
        ends = {stage: float(x) for stage, (x, *_) in self.ends.items()}
        decided = {
            "length": draw_chart("loss by which stages end, and where that was decided", self.standing, marks=ends)
        }
        return {
            "loss": draw_chart("training loss, by stage", self.loss, smooth=smooth),
            "validation": draw_chart("loss on what is held out, by task", self.validation, marks=self.marks),
            "usage": draw_chart(
                "share of the blocks that takes each expert", self.usage, smooth=smooth, low=0, high=1, marks=self.marks
            ),
            **(decided if self.standing or self.ends else {}),
        }


def _append(curves: dict[str, Curve], name: str, x: int, y: float) -> None:
    xs, ys = curves.setdefault(name, Curve([], []))
    assert isinstance(xs, list) and isinstance(ys, list)
    xs.append(x)
    ys.append(y)
