"""What a database's error means to a caller: one of the library's errors. The only place that knows driver errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from edge_day2.errors import Conflict, EdgeDay2Error, StorageError

# SQLSTATE, see "PostgreSQL Error Codes": serialization_failure and deadlock_detected.
_IN_THE_WAY: Final = frozenset({"40001", "40P01"})


def translate(error: SQLAlchemyError | sqlite3.Error) -> EdgeDay2Error:
    """Return what to raise instead of `error`. Statements and their values stay out of the message."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    reason = " ".join(str(cause).split())
    if getattr(cause, "sqlstate", None) in _IN_THE_WAY:
        return Conflict(f"somebody else's transaction was in the way; repeat this one: {reason}")
    if isinstance(error, IntegrityError):
        return Conflict(f"somebody else's transaction broke a rule together with this one; repeat it: {reason}")
    return StorageError(f"the database failed: {reason}")


@contextmanager
def translated() -> Iterator[None]:
    """Let the database's errors out as the library's.

    Raises:
        Conflict: another transaction was in the way.
        StorageError: anything else that a database can say.
    """
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise translate(error) from error
