"""Storage: the Inventory in memory, in an SQLite file or in PostgreSQL, chosen by a URL.

The adapters do transactions, constraints and look-ups. What may follow what is the domain's, in
`edge_day2.domain.resources`.
"""

from __future__ import annotations

from typing import Final

from edge_day2.adapters.clock import SystemClock
from edge_day2.errors import InvalidValue, MissingExtra
from edge_day2.ports.clock import Clock
from edge_day2.ports.inventory import Inventory

__all__ = ["open_inventory"]

_KNOWN: Final = "memory://, sqlite:///file.db or postgresql+psycopg://user@host/database"
_SQL: Final = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")


def open_inventory(url: str, *, lock_timeout_seconds: float = 10.0, clock: Clock | None = None) -> Inventory:
    """Open the Inventory that `url` names, create it where it doesn't exist, and bring its schema up to date.

    Args:
        url: `memory://` (private to the object that is returned), `sqlite:///file.db` (relative; four slashes for an
            absolute path) or `postgresql+psycopg://user@host/database`.
        lock_timeout_seconds: how long a transaction waits for another one that is in its way.
        clock: says when an event of the change feed was recorded; None: the machine's clock.

    Raises:
        InvalidValue: the URL names no kind of storage that exists here, or SQLite without a file.
        MissingExtra: SQLAlchemy, Alembic or psycopg isn't installed.
        NewerFormat: a newer version of edge_day2 made the database's schema.
        StorageError: the database can't be opened, or the file is none.
    """
    clock = clock or SystemClock()
    # A URL may hold a password: only its scheme is ever shown.
    scheme, separator, rest = url.partition("://")
    if scheme == "memory" and separator and not rest:
        from edge_day2.adapters.storage.memory import MemoryInventory

        return MemoryInventory(lock_timeout_seconds=lock_timeout_seconds, clock=clock)
    if scheme not in _SQL or not separator:
        raise InvalidValue("url", f"{scheme}{separator}…", _KNOWN)
    try:
        from edge_day2.adapters.storage.sql import SqlInventory
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "sqlalchemy":
            raise
        raise MissingExtra("SQLAlchemy", "sql") from error
    return SqlInventory(url, lock_timeout_seconds=lock_timeout_seconds, clock=clock)
