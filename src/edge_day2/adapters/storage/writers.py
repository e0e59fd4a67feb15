"""Who writes next in one SQLite file: who has waited goes before who comes back at once.

SQLite lets one writer in at a time, and those who wait look again every now and then (up to 0.1 s). A writer that ends
one transaction and begins the next, as linking a fleet in batches does, would come first nearly every time, and a
status report wait for the whole of it. So the writers of a process queue up, and the first of them passes a gate among
processes that stays closed until it has begun: while it waits to begin, the others wait at the gate.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from edge_day2.adapters.storage.turns import FileTurns
from edge_day2.errors import StorageError

_GATE: Final = "\0writers"
_POLL_SECONDS: Final = 0.001


class Writers:
    """The writers of one process. The gate is a courtesy: where it can't be had this goes on without it."""

    def __init__(self, turns: FileTurns, timeout_seconds: float) -> None:
        self._turns = turns
        self._timeout = timeout_seconds
        self._lock = threading.Lock()
        self._writing = False
        self._waiting: deque[threading.Lock] = deque()

    @property
    def waiting(self) -> int:
        """How many threads wait for their turn."""
        return len(self._waiting)

    @contextmanager
    def alone(self) -> Iterator[Callable[[], None]]:
        """Wait for those who came before; yield what is to be called when the transaction has begun.

        Raises:
            StorageError: others of this process have been writing for too long.
        """
        if not self._acquire():
            raise StorageError(f"another transaction has been writing for {self._timeout:g} s; repeat")
        try:
            with ExitStack() as gate:
                with suppress(StorageError):
                    self._pass(gate)
                yield gate.close
        finally:
            self._release()

    def _pass(self, gate: ExitStack) -> None:
        until = time.monotonic() + self._timeout
        while not gate.enter_context(self._turns.turn(_GATE)) and time.monotonic() < until:
            gate.close()
            time.sleep(_POLL_SECONDS)

    def _acquire(self) -> bool:
        with self._lock:
            if not self._writing:
                self._writing = True
                return True
            called = threading.Lock()
            called.acquire()
            self._waiting.append(called)
        if called.acquire(timeout=self._timeout):
            return True
        with self._lock:
            # Called in the last moment.
            if called not in self._waiting:
                return True
            self._waiting.remove(called)
            return False

    def _release(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._writing = False
