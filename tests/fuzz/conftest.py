"""Every fuzzer's counts stand at the end of the run."""

import pytest
from fuzzing import Fuzz


@pytest.fixture
def fuzz(record_property):
    return Fuzz(record_property)


def pytest_terminal_summary(terminalreporter):
    for reports in terminalreporter.stats.values():
        for report in reports:
            counts = dict(getattr(report, "user_properties", ())).get("fuzz")
            if counts and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid}: {counts}")
