"""The Inventory in an SQL database: SQLite or PostgreSQL, with the same tables, statements and promises.

Here is how a transaction begins and ends. What happens in one is in `sql_reading` and `sql_writing`, how a database is
reached in `databases`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine, RootTransaction
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import Pool

from edge_day2.adapters.storage import databases
from edge_day2.adapters.storage.failures import translated
from edge_day2.adapters.storage.migrations import migrate
from edge_day2.adapters.storage.server_turns import ServerTurns
from edge_day2.adapters.storage.sql_reading import SqlUnitOfWork
from edge_day2.adapters.storage.sql_writing import SqlWritingUnitOfWork
from edge_day2.adapters.storage.turns import FileTurns
from edge_day2.adapters.storage.writers import Writers
from edge_day2.errors import StorageError
from edge_day2.ports.clock import Clock


class SqlInventory:
    """An Inventory in a database; see `edge_day2.ports.inventory.Inventory`."""

    def __init__(self, url: str, *, lock_timeout_seconds: float, clock: Clock) -> None:
        """Open the database and bring its schema up to date.

        Raises:
            InvalidValue, MissingExtra: as `open_inventory`.
            NewerFormat: a newer version of edge_day2 made the schema.
            StorageError: the database can't be opened.
        """
        self._timeout = lock_timeout_seconds
        self._clock = clock
        self._engine: Engine | None = databases.open_engine(url, lock_timeout_seconds)
        self._process = os.getpid()
        self._inherited: list[Pool] = []
        self._turns = _turns(self._engine)
        self._writers = self._new_writers()
        try:
            with translated():
                migrate(self._engine)
        except BaseException:
            self.close()
            raise

    def _open(self) -> Engine:
        if self._engine is None:
            raise StorageError("this Inventory is closed")
        if self._process != os.getpid():
            # A connection may not be carried across a fork: both processes would speak on it, and closing it here would
            # tell the server, or SQLite's files, that the parent is done.
            self._inherited.append(self._engine.pool)
            self._engine.dispose(close=False)
            self._writers, self._process = self._new_writers(), os.getpid()
        return self._engine

    @contextmanager
    def reading(self) -> Iterator[SqlUnitOfWork]:
        """See `Inventory.reading`."""
        engine = self._open()
        with translated():
            connection = databases.reading(engine)
        with _transaction(connection):
            unit = SqlUnitOfWork(connection)
            try:
                yield unit
            finally:
                unit.end()

    @contextmanager
    def writing(self) -> Iterator[SqlUnitOfWork]:
        """See `Inventory.writing`."""
        engine = self._open()
        with self._writers.alone() if self._writers else nullcontext(_nothing) as has_begun:
            with translated():
                connection = databases.writing(engine)
            with _transaction(connection):
                has_begun()
                unit = SqlWritingUnitOfWork(connection, self._clock)
                try:
                    yield unit
                finally:
                    unit.end()
                if unit.failed is not None:
                    raise unit.failed
                unit.store_events()

    def _new_writers(self) -> Writers | None:
        return Writers(self._turns, self._timeout) if isinstance(self._turns, FileTurns) else None

    def turn(self, name: str) -> AbstractContextManager[bool]:
        """See `Inventory.turn`."""
        self._open()
        return self._turns.turn(name)

    def close(self) -> None:
        """See `Inventory.close`."""
        if self._engine is not None:
            self._engine.dispose(close=self._process == os.getpid())
            self._engine = None
            self._turns.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _turns(engine: Engine) -> FileTurns | ServerTurns:
    if engine.dialect.name != "sqlite":
        return ServerTurns(engine)
    assert engine.url.database is not None
    return FileTurns(engine.url.database)


def _nothing() -> None:
    pass


@contextmanager
def _transaction(connection: Connection) -> Iterator[RootTransaction]:
    """Commit at the end, roll back after an exception, and give the connection back in any case.

    Raises:
        StorageError, Conflict: as `translated`. The body's own exceptions pass unchanged.
    """
    try:
        with translated():
            transaction = connection.begin()
        try:
            yield transaction
        except BaseException:
            # Where even this fails the connection is gone, and the database rolls back by itself.
            with suppress(SQLAlchemyError):
                transaction.rollback()
            raise
        with translated():
            transaction.commit()
    finally:
        with suppress(SQLAlchemyError):
            connection.close()
