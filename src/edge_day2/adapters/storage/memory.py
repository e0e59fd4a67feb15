"""The Inventory in memory: for tests, simulations and trying things out. Nothing here reaches a disk.

All content hangs from one immutable root (`Content`). A reader keeps the root that it found, a writer makes a new one
and swaps it in when it ends well; so readers never wait, and undoing is forgetting. One writer at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self

from edge_day2.adapters.storage.memory_content import Content
from edge_day2.adapters.storage.memory_reading import MemoryUnitOfWork
from edge_day2.adapters.storage.memory_writing import MemoryWritingUnitOfWork
from edge_day2.adapters.storage.turns import MemoryTurns
from edge_day2.errors import StorageError
from edge_day2.ports.clock import Clock


class MemoryInventory:
    """An Inventory that lives as long as this object; see `edge_day2.ports.inventory.Inventory`."""

    def __init__(self, *, lock_timeout_seconds: float, clock: Clock) -> None:
        self._clock = clock
        self._content: Content | None = Content()
        self._writer = threading.Lock()
        self._timeout = lock_timeout_seconds
        self._turns = MemoryTurns()

    def _open(self) -> Content:
        if self._content is None:
            raise StorageError("this Inventory is closed")
        return self._content

    @contextmanager
    def reading(self) -> Iterator[MemoryUnitOfWork]:
        """See `Inventory.reading`."""
        unit = MemoryUnitOfWork(self._open())
        try:
            yield unit
        finally:
            unit.end()

    @contextmanager
    def writing(self) -> Iterator[MemoryUnitOfWork]:
        """See `Inventory.writing`."""
        if not self._writer.acquire(timeout=self._timeout):
            raise StorageError(f"another transaction has been writing for {self._timeout:g} s; repeat")
        try:
            unit = MemoryWritingUnitOfWork(self._open(), self._clock)
            try:
                yield unit
            except BaseException:
                unit.end()
                raise
            if unit.failed is not None:
                raise unit.failed
            self._content = unit.end()
        finally:
            self._writer.release()

    def turn(self, name: str) -> AbstractContextManager[bool]:
        """See `Inventory.turn`."""
        self._open()
        return self._turns.turn(name)

    def close(self) -> None:
        """See `Inventory.close`."""
        self._content = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
