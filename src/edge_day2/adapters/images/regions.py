"""Writes a run of bytes to a device or file and says what was written; reads it back from the medium."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from attrs import frozen

from edge_day2.adapters.images.read_ahead import ReadAhead
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import ImageTooLarge, NodeFailure

# Write-back is begun after so many bytes, so that the last flush is short and the page cache stays small.
_WRITE_BACK: Final = 8 << 20
_READ_BACK: Final = 4 << 20
_HOLE: Final = 64 << 10
_ZEROS: Final = bytes(_HOLE)
# linux/fs.h: write out and forget the page cache of a block device.
_BLKFLSBUF: Final = 0x1261


@frozen
class Content:
    """A run of bytes: how many, and their SHA-256."""

    length: int
    sha256: str


@contextlib.contextmanager
def failing_as(reason: FailureReason, doing: str) -> Iterator[None]:
    """Turn an OSError into a NodeFailure with this reason and the errno's words."""
    try:
        yield
    except OSError as error:
        raise NodeFailure(reason, f"{doing}: {error}") from error


class RegionWriter:
    """Writes in order from the first byte on, into a descriptor that stays the caller's.

    Args:
        name: for messages.
        capacity: how many bytes there is room for.
        sparse: leave holes where there are zeros; only for a file that was empty.
    """

    def __init__(self, descriptor: int, *, name: str, capacity: int, sparse: bool = False) -> None:
        self.name = name
        self.capacity = capacity
        self._descriptor = descriptor
        self._sparse = sparse
        self._digest = hashlib.sha256()
        self._length = 0
        self._written_back = 0

    @property
    def content(self) -> Content:
        """What was written so far."""
        return Content(self._length, self._digest.hexdigest())

    def write(self, piece: bytes | memoryview) -> None:
        """Write the next bytes.

        Raises:
            ImageTooLarge: there is no room for them. None of them is written.
            NodeFailure: the medium doesn't take them; the log has its words.
        """
        if self._length + len(piece) > self.capacity:
            raise ImageTooLarge(f"the image has more bytes than the {self.capacity} of {self.name}")
        with failing_as(FailureReason.UT_WRITE, f"writing {self.name} at byte {self._length}"):
            if self._sparse:
                self._write_sparsely(memoryview(piece))
            else:
                self._write_all(memoryview(piece), self._length)
            self._length += len(piece)
            self._begin_write_back()
        self._digest.update(piece)

    def flush(self) -> None:
        """Make what was written durable.

        Raises:
            NodeFailure: the medium says that it isn't.
        """
        with failing_as(FailureReason.UT_WRITE, f"flushing {self.name}"):
            if self._sparse:
                os.ftruncate(self._descriptor, self._length)
            os.fsync(self._descriptor)

    def _write_all(self, piece: memoryview, offset: int) -> None:
        while piece:
            done = os.pwrite(self._descriptor, piece, offset)
            piece, offset = piece[done:], offset + done

    def _write_sparsely(self, piece: memoryview) -> None:
        for start in range(0, len(piece), _HOLE):
            block = piece[start : start + _HOLE]
            if block != _ZEROS[: len(block)]:
                self._write_all(block, self._length + start)

    def _begin_write_back(self) -> None:
        fresh = self._length - self._written_back
        if fresh >= _WRITE_BACK:
            # Begins to write what is dirty and forgets what is written; it doesn't wait.
            os.posix_fadvise(self._descriptor, self._written_back, fresh, os.POSIX_FADV_DONTNEED)
            self._written_back = self._length


def read_back(descriptor: int, length: int, *, name: str, advance: Callable[[int], None]) -> Content:
    """Return what the medium holds in the first `length` bytes; fewer where it ends before.

    The medium itself is asked, past the page cache (O_DIRECT); where the file system knows no such thing, the page
    cache is emptied first.

    Raises:
        NodeFailure: it can't be read.
    """
    digest, done = hashlib.sha256(), 0
    with failing_as(FailureReason.UT_WRITE, f"reading {name} back"):
        os.fsync(descriptor)
        with (
            _uncached(descriptor),
            # What reads has to be at its end before the descriptor is used for something else.
            ReadAhead(
                _pieces(descriptor, length), most_bytes=2 * _READ_BACK, name="read back", patience_seconds=None
            ) as pieces,
        ):
            for piece in pieces:
                digest.update(piece)
                done += len(piece)
                advance(done)
    return Content(done, digest.hexdigest())


def _pieces(descriptor: int, length: int) -> Iterator[bytes]:
    done = 0
    # Aligned to pages, as O_DIRECT needs it; so are the offsets. Only the last piece is cut.
    with mmap.mmap(-1, _READ_BACK) as room:
        while done < length and (got := os.preadv(descriptor, [room], done)):
            piece = room[: min(got, length - done)]
            done += len(piece)
            yield piece


@contextlib.contextmanager
def _uncached(descriptor: int) -> Iterator[None]:
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    if stat.S_ISBLK(os.fstat(descriptor).st_mode):
        # Only root may; without it the advice above has to do.
        with contextlib.suppress(PermissionError):
            fcntl.ioctl(descriptor, _BLKFLSBUF)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
    except OSError:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        yield
        return
    try:
        yield
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
