"""One file, over as many connections as it takes."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from threading import Event
from typing import Final

from attrs import frozen

from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import ImageTooLarge, NodeFailure
from edge_day2.ports.image_source import ImageSource, ImageStream, SourceChanged, SourceInterrupted

_log: Final = logging.getLogger(__name__)

# So much new after a broken connection, and its attempts are counted from the first again.
_PROGRESS: Final = 1 << 20


@frozen(kw_only=True)
class RetryLimits:
    """How often a connection is opened again, and how long is waited before.

    Attributes:
        attempts: without as much as 1 MiB between them.
        first_wait_seconds: before the second attempt at most; doubles with each further one. Waits are random.
        longest_wait_seconds: between two attempts at most, whatever the server asks for.
    """

    attempts: int = 6
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 60.0


class Download:
    """Yields the bytes of a file from `offset` on.

    Attributes:
        position: where in the file the next byte is.
        total: length of the file in bytes, None while it isn't known.
        validator: of the file, "" while there is none.
        resumed: whether the bytes so far came over several connections, or began in the middle.

    Args:
        most_bytes: a longer file is refused.

    Raises (while it is iterated):
        SourceChanged: the file has to be begun at zero.
        ImageTooLarge: it is longer than `most_bytes`.
        NodeFailure: it can't be had.
    """

    def __init__(
        self,
        source: ImageSource,
        url: str,
        *,
        most_bytes: int,
        retry: RetryLimits,
        offset: int = 0,
        validator: str = "",
    ) -> None:
        self.position = offset
        self.total: int | None = None
        self.validator = validator
        self.resumed = offset > 0
        self._source = source
        self._url = url
        self._most_bytes = most_bytes
        self._retry = retry
        self._stream: ImageStream | None = None
        self._stopped = Event()

    def stop(self) -> None:
        """Let the thread that iterates come to its end soon. From any thread."""
        self._stopped.set()
        if (stream := self._stream) is not None:
            stream.abort()

    def __iter__(self) -> Iterator[bytes]:
        failures, since = 0, self.position
        while not self._stopped.is_set():
            try:
                yield from self._connection()
                return
            except SourceInterrupted as error:
                failures = 1 if self.position - since >= _PROGRESS else failures + 1
                since = self.position
                if failures >= self._retry.attempts:
                    log = f"{error}; given up after {failures} attempts"
                    raise NodeFailure(FailureReason.DOWNLOAD_FAIL, log) from error
                self.resumed = self.position > 0
                seconds = self._wait_seconds(failures, error.retry_after_seconds)
                _log.info("%s; next attempt in %.1f seconds", error, seconds)
                self._stopped.wait(seconds)

    def _connection(self) -> Iterator[bytes]:
        stream = self._source.open(self._url, offset=self.position, validator=self.validator)
        self._stream = stream
        try:
            if stream.total is not None:
                if self.total not in (None, stream.total):
                    raise SourceChanged(f"{self._url} has {stream.total} bytes now, it had {self.total}")
                self._mind(stream.total)
            self.total, self.validator = stream.total, stream.validator
            while piece := stream.read():
                self.position += len(piece)
                self._mind(self.position)
                yield piece
        finally:
            self._stream = None
            stream.close()
        if not self.position:
            raise NodeFailure(FailureReason.DOWNLOAD_FAIL, f"{self._url}: the source sends an empty file")

    def _mind(self, length: int) -> None:
        if length > self._most_bytes:
            raise ImageTooLarge(f"the image file has {length} bytes, more than the {self._most_bytes} that are allowed")

    def _wait_seconds(self, failures: int, asked: float | None) -> float:
        longest = min(self._retry.first_wait_seconds * 2.0 ** (failures - 1), self._retry.longest_wait_seconds)
        # Random, so that a fleet doesn't come back in step.
        wait = secrets.SystemRandom().uniform(0.0, longest)
        return wait if asked is None else min(asked + wait, self._retry.longest_wait_seconds)
