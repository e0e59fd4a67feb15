"""Port: where images come from, byte by byte.

A source never judges what it hands out: digests are checked by who reads. It is safe to use from several threads; a
stream belongs to one thread, but for `abort`.
"""

from __future__ import annotations

from typing import Protocol

from edge_day2.errors import EdgeDay2Error


class SourceInterrupted(EdgeDay2Error):
    """The source broke off, or has no time now. The same may be asked for again.

    `retry_after_seconds` is how long the source wants to be left alone, None where it doesn't say.
    """

    def __init__(self, log: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(log)
        self.retry_after_seconds = retry_after_seconds


class SourceChanged(EdgeDay2Error):
    """The rest of what was begun can't be had: the file is another one now, or only comes whole. Begin at zero."""


class ImageStream(Protocol):
    """The bytes of one file, from an offset to its end."""

    @property
    def total(self) -> int | None:
        """Length of the whole file in bytes, whatever the offset; None where the source doesn't say."""
        ...

    @property
    def validator(self) -> str:
        """What tells this file from a later one at the same address; "" where the source has nothing."""
        ...

    def read(self) -> bytes:
        """Return the next bytes, at most 1 MiB, as soon as there are any; b"" at the end.

        Raises:
            SourceInterrupted: the source broke off, sends too slowly, or stopped before the file's end.
        """
        ...

    def abort(self) -> None:
        """Let a `read` that waits end soon, anyhow. From any thread, at any time."""
        ...

    def close(self) -> None:
        """Release everything. Safe to call twice."""
        ...


class ImageSource(Protocol):
    """Files by address."""

    def open(self, url: str, *, offset: int = 0, validator: str = "") -> ImageStream:
        """Return the file from `offset` on, as long as it is the one of `validator` ("": whichever is there).

        Raises:
            SourceInterrupted: it can't be had now.
            SourceChanged: it can't be had from `offset` on; never where that is 0.
            UntrustedSource: the address, or one that it leads to, isn't allowed.
            NodeFailure: it can't be had.
        """
        ...
