"""How to reach a database: URLs, connections, and what each database must be told so that the port's promises hold.

SQLite: WAL, so that readers and the one writer don't wait for each other; synchronous=FULL, because in WAL mode NORMAL
may lose the last transactions in a power cut, and `writing` promises that they are durable; BEGIN IMMEDIATE for
writers, because a reader that becomes a writer can fail in the middle. PostgreSQL: REPEATABLE READ, a snapshot per
transaction.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from edge_day2.adapters.storage.failures import translated
from edge_day2.errors import InvalidValue, MissingExtra, StorageError

_WRITING: Final = "edge_day2_writing"
_POLL_SECONDS: Final = 0.02
# Any number will do that other applications in the same database don't use.
_MIGRATION_LOCK: Final = int.from_bytes(b"edgeday2") >> 1


def open_engine(url: str, lock_timeout_seconds: float) -> Engine:
    """Return an engine for a `sqlite:///` or `postgresql+psycopg://` URL, with every connection set up.

    Raises:
        InvalidValue: the URL can't be read, or names no file.
        MissingExtra: psycopg isn't installed.
        StorageError: the database can't be opened.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        # The value stays out of the message: it may hold a password.
        raise InvalidValue("url", url.partition(":")[0], "a database URL such as sqlite:///file.db") from error
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed, lock_timeout_seconds)
    return _open_postgresql(parsed, lock_timeout_seconds)


def _open_sqlite(url: URL, lock_timeout_seconds: float) -> Engine:
    if not url.database or ":memory:" in url.database or url.database.startswith("file:"):
        raise InvalidValue("url", str(url), "sqlite:///file.db, or memory:// for an Inventory in memory")
    engine = create_engine(
        url.set(drivername="sqlite+pysqlite"),
        poolclass=QueuePool,
        # Readers never wait for each other, so neither for a free connection.
        max_overflow=-1,
        hide_parameters=True,
        connect_args={"timeout": lock_timeout_seconds, "isolation_level": None, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: ConnectionPoolEntry) -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get(_WRITING, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    _use_write_ahead_log(engine, lock_timeout_seconds)
    return engine


def _use_write_ahead_log(engine: Engine, lock_timeout_seconds: float) -> None:
    """Switch the file to WAL, which lasts. SQLite doesn't always wait for other processes here, so this does."""
    deadline = time.monotonic() + lock_timeout_seconds
    with translated(), closing(engine.raw_connection()) as connection:
        cursor = connection.cursor()
        while True:
            try:
                cursor.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)
        (mode,) = cursor.fetchall()[0]
    if mode != "wal":
        raise StorageError(f"SQLite can't keep a write-ahead log for this file (journal mode {mode!r})")


def _open_postgresql(url: URL, lock_timeout_seconds: float) -> Engine:
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            isolation_level="REPEATABLE READ",
            max_overflow=-1,
            hide_parameters=True,
        )
    except ImportError as error:
        raise MissingExtra("psycopg", "postgresql") from error

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: ConnectionPoolEntry) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {round(lock_timeout_seconds * 1000)}")
        connection.commit()

    return engine


def reading(engine: Engine) -> Connection:
    """Return a connection whose transactions only read."""
    return engine.connect().execution_options(postgresql_readonly=True)


def writing(engine: Engine) -> Connection:
    """Return a connection whose transactions may write; on SQLite only one at a time begins."""
    return engine.connect().execution_options(**{_WRITING: True})


@contextmanager
def migrating(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a transaction that no other process shares with a migration of its own."""
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            # A snapshot taken before the lock would hide what the other process has just made.
            connection = connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            yield connection
