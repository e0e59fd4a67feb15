"""What all tests share: no test fails because a machine is slow, and what was measured is printed at the end."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("edge_day2", deadline=None)
settings.load_profile("edge_day2")

# `record_property(MEASURED, text)` puts `text` into the terminal summary, with and without xdist.
MEASURED = "measured"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured."""
    lines = [
        str(value)
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == MEASURED
    ]
    if lines:
        terminalreporter.section("measured")
        for line in sorted(lines):
            terminalreporter.write_line(line)
