"""Turns of those who use one schema of a PostgreSQL database. What a turn is: `turns`.

Each is an advisory lock of a transaction that does nothing else, on a connection of its own. Of a transaction, not of a
session, so that it also holds behind a pooler that gives each transaction another session (PgBouncer in transaction
mode), where a session's lock would stay with a stranger. The transaction is READ COMMITTED and has written nothing: it
keeps no snapshot, so VACUUM goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from edge_day2.adapters.storage.failures import translated
from edge_day2.adapters.storage.turns import not_inherited, turn_digest

_TAKE: Final = text(
    "SELECT pg_try_advisory_xact_lock("
    "hashtextextended('edge_day2 turn ' || current_schema() || ' ' || CAST(:name AS text), 0))"
)
# A server may be set to end transactions that do nothing for long, which is all that this one is for. As the last
# statement it also ends the cursor of the one before, which would keep its snapshot.
_KEEP: Final = text("SET LOCAL idle_in_transaction_session_timeout = 0")

# A child's copies of its parent's connections: to drop one would be to speak on it.
_inherited: Final[list[Connection]] = []


class ServerTurns:
    """Turns that a PostgreSQL server gives; it takes one back when the connection ends."""

    def __init__(self, engine: Engine) -> None:
        # No pool: a connection that was open before a fork would live on in the child.
        self._engine = create_engine(
            engine.url, poolclass=NullPool, isolation_level="READ COMMITTED", hide_parameters=True
        )

    @contextmanager
    def turn(self, name: str) -> Iterator[bool]:
        """See `Inventory.turn`."""
        owner = os.getpid()
        with translated():
            connection = self._engine.connect()
        try:
            with not_inherited(_descriptor(connection)):
                with translated():
                    (taken,) = connection.execute(_TAKE, {"name": turn_digest(name).hex()}).one()
                    connection.execute(_KEEP)
                yield taken
        finally:
            if os.getpid() == owner:
                # Where even this fails the connection is gone, and with it the lock.
                with suppress(SQLAlchemyError):
                    connection.close()
            else:
                _inherited.append(connection)

    def close(self) -> None:
        """Close what no turn uses."""
        self._engine.dispose()


def _descriptor(connection: Connection) -> int:
    driver: Any = connection.connection.driver_connection
    descriptor: int = driver.fileno()
    return descriptor
