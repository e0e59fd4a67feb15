"""Who holds the locks of apt and dpkg, without taking them."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from datetime import datetime
from pathlib import Path
from typing import Final

from edge_day2.adapters.apt_commands import process_name
from edge_day2.adapters.apt_settings import AptSettings
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.clock import Clock
from edge_day2.ports.failures import NodeFailure, OutOfTime

# dpkg takes the second one itself, so it tells of a dpkg whose apt was killed.
_DATABASE: Final = ("var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock")
_ARCHIVES: Final = "var/cache/apt/archives/lock"
_LISTS: Final = "var/lib/apt/lists/lock"
# struct flock of 64-bit Linux: type, whence, start, length, pid.
_FLOCK: Final = "@hhqqi4x"
_POLL_SECONDS: Final = 0.2


class AptLocks:
    """The locks below `settings.root`."""

    def __init__(self, settings: AptSettings, clock: Clock) -> None:
        self._paths = tuple(settings.root / name for name in (*_DATABASE, _ARCHIVES, _LISTS))
        self._limit = settings.lock_wait
        self._clock = clock

    def holder(self) -> str:
        """Return which process holds which of the locks, "" where none is held."""
        for path in self._paths:
            pid = _holder(path)
            if pid is not None:
                return f"{process_name(pid)} holds {path}"
        return ""

    def wait(self, until: datetime | None) -> None:
        """Return when nobody holds a lock.

        Raises:
            OutOfTime: the window closed before.
            NodeFailure: the window is open, and somebody holds a lock for longer than `lock_wait`.
        """
        deadline = time.monotonic() + self._limit.total_seconds()
        while True:
            holder = self.holder()
            if until is not None and self._clock.now() >= until:
                raise OutOfTime(f"the window closed; {holder}" if holder else "the window closed")
            if not holder:
                return
            if time.monotonic() > deadline:
                raise NodeFailure(FailureReason.UPDATE_TOOL, f"{holder} for longer than {self._limit}")
            time.sleep(_POLL_SECONDS)

    def seconds_to_wait(self, until: datetime | None) -> int:
        """Return how long apt itself may wait for a lock that somebody takes in the meantime."""
        limit = self._limit.total_seconds()
        left = limit if until is None else (until - self._clock.now()).total_seconds()
        return max(0, int(min(limit, left)))


def _holder(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else int(pid)
