"""What all tests share: no test fails because a machine is slow, and what was measured is printed at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from postgresql_server import PostgresqlServer, running

settings.register_profile("edge_day2", deadline=None)
settings.load_profile("edge_day2")

# `record_property(MEASURED, text)` puts `text` into the terminal summary, with and without xdist.
MEASURED = "measured"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A server for all tests of one worker, which takes seconds to start."""
    with running() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: PostgresqlServer) -> str:
    """An empty schema in the server's database."""
    return postgresql_server.new_schema()


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
