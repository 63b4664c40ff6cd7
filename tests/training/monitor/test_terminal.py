"""Progress in a terminal and in a file."""

from types import SimpleNamespace

from cologen.training.monitor.terminal import ProgressLine, Terminal
from cologen.training.stage_length import StageLength
from tiny_run import tiny_curriculum


class Screen:
    """What a terminal has been sent."""

    def __init__(self, live):
        self.live, self.text = live, ""

    def isatty(self):
        return self.live

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def told(live, seconds):
    """What a terminal shows of a stage of ten iterations that take so long each."""
    screen, clock = Screen(live), SimpleNamespace(now=0.0)
    terminal = Terminal(tiny_curriculum(10).stages, ProgressLine(screen, lambda: clock.now))
    trainer = SimpleNamespace(
        stage=tiny_curriculum(10).stages[1],
        expert_names=("inpaint", "ground"),
        iteration=0,
        skipped=0,
        length=StageLength(tiny_curriculum(10).stages[1], tiny_curriculum(10).settings),
    )
    terminal.on_stage_begin(trainer)
    for trainer.iteration in range(1, 11):
        clock.now += seconds
        trainer.finished, trainer.skipped = trainer.iteration == 10, trainer.iteration // 5
        terminal.on_iteration(trainer, SimpleNamespace(task_loss=float(trainer.iteration), usage=(0.25, 0.75)))
    terminal.on_stage_end(trainer.stage, None)
    return screen.text


def test_a_terminal_sees_one_line_that_changes(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = told(True, 30.0).replace("\x1b[K", "").split("\r")[1:]
    assert shown[0] == "ground (2 of 3)  1/10  0:04:30 left  loss 1.0000  usage inpaint 25% ground 75%"
    weights = [0.98**age for age in range(4, -1, -1)]
    mean = sum(weight * loss for weight, loss in zip(weights, range(1, 6))) / sum(weights)
    assert shown[4].startswith("ground (2 of 3)  5/10  0:02:30 left  ") and f"loss {mean:.4f}" in shown[4]
    assert shown[4].endswith("  1 did not fit into memory")
    assert len(shown) == 10 and shown[9].endswith("2 did not fit into memory\nground is done after 0:05:00.\n")
    assert all("\n" not in line for line in shown[:9])
    monkeypatch.setenv("COLUMNS", "20")
    assert all(len(line) < 20 for line in told(True, 30.0).replace("\x1b[K", "").split("\r")[1:10])
    assert told(True, 0.01).count("\r") == 2  # the first and the last


def test_a_file_gets_a_line_now_and_then():
    lines = told(False, 25.0).splitlines()
    assert [line.split()[4] for line in lines[:-1]] == ["1/10", "4/10", "7/10", "10/10"]
    assert "\r" not in told(False, 25.0) and "\x1b" not in told(False, 25.0)
