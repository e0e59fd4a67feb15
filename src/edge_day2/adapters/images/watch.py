"""Minds the time and orders to stop while an image is on its way, and tells how far it is."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from datetime import datetime
from threading import Event
from typing import Final

from attrs import frozen

from edge_day2.ports.clock import Clock
from edge_day2.ports.failures import Interrupted, OutOfTime

_TELL_SECONDS: Final = 0.5


class Phase(enum.Enum):
    """What is being done with an image."""

    DOWNLOADING = "downloading ahead"
    WRITING = "writing"
    FLUSHING = "flushing"
    READING_BACK = "reading back"


@frozen(kw_only=True)
class Progress:
    """How far one phase is.

    Attributes:
        done_bytes: of the image file where it is downloaded or written, of the slot where it is read back.
        total_bytes: of the same; None where it isn't known.
        bytes_per_second: since the phase began.
    """

    phase: Phase
    done_bytes: int
    total_bytes: int | None
    bytes_per_second: float


class Watch:
    """Watches over one image. For one thread.

    Args:
        clock: what `until` is measured by.
        until: when writing has to end, None for never.
        cancel: set by anybody, it ends everything.
        tell: is told at the begin and end of each phase, and about twice a second.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        until: datetime | None = None,
        cancel: Event | None = None,
        tell: Callable[[Progress], None] | None = None,
    ) -> None:
        self._clock = clock
        self._until = until
        self._cancel = cancel
        self._tell = tell
        self._phase = Phase.WRITING
        self._began = self._told = time.monotonic()
        self._first_bytes = 0

    def look(self) -> None:
        """Return where the work may go on.

        Raises:
            OutOfTime: it is `until`.
            Interrupted: it was cancelled.
        """
        if self._cancel is not None and self._cancel.is_set():
            raise Interrupted("told to stop")
        if self._until is not None and self._phase is Phase.WRITING and self._clock.now() >= self._until:
            raise OutOfTime(f"the maintenance window closed at {self._until.isoformat()}")

    def begin(self, phase: Phase, total_bytes: int | None = None, *, done_bytes: int = 0) -> None:
        """Begin a phase, of which so much is done already. `until` counts while writing alone."""
        self._phase = phase
        self._first_bytes = done_bytes
        self._began = time.monotonic()
        self._say(done_bytes, total_bytes, self._began)
        self.look()

    def advance(self, done_bytes: int, total_bytes: int | None) -> None:
        """Note how far it is, and `look`."""
        self.look()
        if (now := time.monotonic()) - self._told >= _TELL_SECONDS:
            self._say(done_bytes, total_bytes, now)

    def end(self, done_bytes: int) -> None:
        """End a phase."""
        self._say(done_bytes, done_bytes, time.monotonic())

    def _say(self, done_bytes: int, total_bytes: int | None, now: float) -> None:
        self._told = now
        if self._tell is None:
            return
        seconds = now - self._began
        rate = (done_bytes - self._first_bytes) / seconds if seconds > 0 else 0.0
        self._tell(Progress(phase=self._phase, done_bytes=done_bytes, total_bytes=total_bytes, bytes_per_second=rate))
