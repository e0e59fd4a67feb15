"""Lets an iterator run in a thread of its own, a bounded number of bytes ahead of who consumes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from threading import Condition, Thread
from types import TracebackType
from typing import Final, Self

# So often a consumer that waits looks around; an order to stop is heard this soon.
_LOOK_SECONDS: Final = 0.2


class _Closed(BaseException):
    """The consumer has gone. Not an Exception, so that no step in between handles it."""


class ReadAhead:
    """Yields the pieces of `pieces`, which a thread makes. An error of theirs is raised where they are consumed.

    For one consumer. Use it as a context manager: at its end the thread is told to stop.

    Args:
        pieces: iterated in the thread, once.
        most_bytes: so many bytes may wait for the consumer, or one piece.
        look: called now and then while the consumer waits; what it raises ends the waiting.
        stop: called when the consumer leaves, to wake a thread that waits for something else.
        patience_seconds: how long the thread is waited for then. One that can't end in time is left behind: it must
            have nothing but its source. None: until it ends.
    """

    def __init__(
        self,
        pieces: Iterable[bytes],
        *,
        most_bytes: int,
        name: str,
        look: Callable[[], None] | None = None,
        stop: Callable[[], None] | None = None,
        patience_seconds: float | None = 0.2,
    ) -> None:
        self._pieces = pieces
        self._most_bytes = most_bytes
        self._look = look
        self._stop = stop
        self._patience_seconds = patience_seconds
        self._changed = Condition()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self._next()) is not None:
            yield piece

    def close(self) -> None:
        """Take nothing more, and let the thread end."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        if self._stop is not None:
            self._stop()
        self._thread.join(self._patience_seconds)

    def _next(self) -> bytes | None:
        while True:
            with self._changed:
                if not self._waiting and not self._ended and not self._closed:
                    self._changed.wait(_LOOK_SECONDS)
                if self._waiting:
                    piece = self._waiting.popleft()
                    self._waiting_bytes -= len(piece)
                    self._changed.notify_all()
                    return piece
                if self._closed:
                    raise _Closed
                if self._ended:
                    if self._error is not None:
                        raise self._error
                    return None
            if self._look is not None:
                self._look()

    def _run(self) -> None:
        error: BaseException | None = None
        pieces = iter(self._pieces)
        try:
            for piece in pieces:
                self._put(piece)
        except _Closed:
            pass
        except BaseException as raised:  # it belongs to the consumer, whatever it is
            error = raised
        finally:
            if (close := getattr(pieces, "close", None)) is not None:
                close()
            with self._changed:
                self._ended, self._error = True, error
                self._changed.notify_all()

    def _put(self, piece: bytes) -> None:
        with self._changed:
            while self._waiting and self._waiting_bytes + len(piece) > self._most_bytes and not self._closed:
                self._changed.wait()
            if self._closed:
                raise _Closed
            self._waiting.append(piece)
            self._waiting_bytes += len(piece)
            self._changed.notify_all()
