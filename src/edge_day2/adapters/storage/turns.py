"""Turns: one holder at a time for a name, given back by whatever ends the holder. Here: in memory, and beside a file.

What lives here: how these storages exclude. What never will: what a turn is taken for.

Nothing here expires: the kernel takes a lock back when the open file that it belongs to is closed, which the end of a
process does, also by kill -9. A child that was forked meanwhile has a copy of that open file; it puts it away at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Final

from edge_day2.errors import StorageError

# struct flock of a 64-bit Linux: type, whence, start, length, process (0 for this kind of lock).
_FLOCK: Final = "hhqqi4x"
_OFFSET_BITS: Final = 62

# The descriptors behind the turns that this process holds.
_held: Final[set[int]] = set()


def _put_copies_away() -> None:
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in _held:
        # In its place, because whoever believes to own the number will still close it.
        os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)
    _held.clear()


os.register_at_fork(after_in_child=_put_copies_away)


@contextmanager
def not_inherited(descriptor: int) -> Iterator[None]:
    """Keep what is open under `descriptor` from outliving this process in a child that is forked meanwhile."""
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)


def turn_digest(name: str) -> bytes:
    """Return 32 bytes that stand for the name of a turn, whatever characters it has."""
    return hashlib.sha256(name.encode(errors="surrogatepass")).digest()


class MemoryTurns:
    """Turns within one process."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, name: str) -> Iterator[bool]:
        """See `Inventory.turn`."""
        with self._lock:
            free = name not in self._taken
            self._taken.add(name)
        try:
            yield free
        finally:
            if free:
                with self._lock:
                    self._taken.discard(name)


class FileTurns:
    """Turns of those who use one SQLite file: each a lock on one byte of a file beside it.

    These are open file description locks (fcntl(2)), which unlike POSIX locks also exclude other threads and aren't
    lost when another descriptor of the file is closed. The bytes lie far beyond the file's end; nothing is written.
    """

    def __init__(self, database: str | os.PathLike[str]) -> None:
        """`database` counts by its real path: who reaches it by a link excludes the others."""
        self._database = Path(database).resolve()
        self._path = self._database.with_name(f"{self._database.name}-turns")

    @contextmanager
    def turn(self, name: str) -> Iterator[bool]:
        """See `Inventory.turn`."""
        try:
            descriptor = self._open()
        except OSError as error:
            raise StorageError(f"the file for turns can't be opened: {error}") from error
        try:
            with not_inherited(descriptor):
                yield _lock(descriptor, name)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Do nothing: only turns keep the file open."""

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, self._mode)

    @cached_property
    def _mode(self) -> int:
        """The database's: whoever may write to it may take a turn."""
        return self._database.stat().st_mode & 0o666


def _lock(descriptor: int, name: str) -> bool:
    place = int.from_bytes(turn_digest(name)[:8]) >> (64 - _OFFSET_BITS)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0))
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: somebody holds it
        return False
    except OSError as error:
        raise StorageError(f"the turn {name!r} can't be taken: {error}") from error
    return True
