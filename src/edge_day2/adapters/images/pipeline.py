"""One pass from an image file to where it belongs: fetch, hash, unpack and write, all at once.

Three threads: one reads and hashes the file, one unpacks, and the caller's writes. What waits between them is bounded;
so is what each holds. Only the caller's thread writes: when it returns or raises, nothing is written any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from attrs import frozen

from edge_day2.adapters.images.decompression import decompress
from edge_day2.adapters.images.read_ahead import ReadAhead
from edge_day2.adapters.images.watch import Phase, Watch
from edge_day2.ports.failures import ImageCorrupt, ImageTooLarge, ImageUnusable

_FETCHED_BYTES: Final = 4 << 20
_UNPACKED_BYTES: Final = 4 << 20


@frozen(kw_only=True)
class ImageLimits:
    """What an image may take. Beyond it is `ImageTooLarge`.

    Attributes:
        file_bytes: length of the image file.
        unpacked_bytes: all that is in it, also what isn't written.
        decoder_memory_bytes: an unpacker's dictionary or window: `xz -8` and Zstandard windows of 32 MiB fit.
    """

    file_bytes: int = 16 << 30
    unpacked_bytes: int = 64 << 30
    decoder_memory_bytes: int = 40 << 20


class FilePieces(Protocol):
    """The bytes of an image file, from its first to its last, wherever they come from."""

    @property
    def position(self) -> int:
        """How many there were so far."""
        ...

    @property
    def total(self) -> int | None:
        """How many there are, None where that isn't known."""
        ...

    def stop(self) -> None:
        """Let the thread that iterates come to its end soon. From any thread."""
        ...

    def __iter__(self) -> Iterator[bytes]: ...


class Sink(Protocol):
    """Takes an unpacked image in order."""

    def write(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            ImageTooLarge, ImageUnusable: the content can't be what this sink is for.
            NodeFailure: it couldn't be written.
        """
        ...

    def end(self) -> None:
        """There is nothing more. Makes everything durable.

        Raises:
            ImageUnusable, NodeFailure: as `write`.
        """
        ...


def convey(file: FilePieces, sink: Sink, *, sha256: str, limits: ImageLimits, watch: Watch) -> None:
    """Bring an image file into `sink`, and check its digest on the way.

    Where the content turns out to be of no use, the rest of the file is hashed all the same: with the right digest the
    image itself is bad, and the error conclusive; with another one the way here is to blame.

    Raises:
        ImageCorrupt: another digest than `sha256`. Everything may have been written before that is known.
        ImageUnusable, ImageTooLarge: conclusive.
        OutOfTime: see `Watch.look`.
        SourceChanged, NodeFailure: as `file` and `sink` raise.
    """
    digest = hashlib.sha256()
    watch.begin(Phase.WRITING, file.total)
    with ReadAhead(
        _hashed(file, digest.update), most_bytes=_FETCHED_BYTES, name="image fetch", look=watch.look, stop=file.stop
    ) as fetched:
        trouble = _unpack(fetched, file, sink, limits, watch)
        if trouble is not None:
            for _ in fetched:
                watch.advance(file.position, file.total)
    if (found := digest.hexdigest()) != sha256:
        raise ImageCorrupt("the image file isn't the one that was asked for", expected=sha256, found=found) from trouble
    if trouble is not None:
        trouble.conclusive = True
        raise trouble
    watch.end(file.position)
    watch.begin(Phase.FLUSHING)
    try:
        sink.end()
    except ImageUnusable as error:
        error.conclusive = True
        raise


def _unpack(
    fetched: ReadAhead, file: FilePieces, sink: Sink, limits: ImageLimits, watch: Watch
) -> ImageUnusable | None:
    pieces = decompress(fetched, memory_bytes=limits.decoder_memory_bytes)
    with ReadAhead(pieces, most_bytes=_UNPACKED_BYTES, name="image unpack", look=watch.look) as unpacked:
        length = 0
        try:
            for piece in unpacked:
                length += len(piece)
                if length > limits.unpacked_bytes:
                    return ImageTooLarge(f"unpacked, the image has more than {limits.unpacked_bytes} bytes")
                sink.write(piece)
                watch.advance(file.position, file.total)
        except ImageUnusable as error:
            return error
    return None


def _hashed(pieces: Iterable[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    for piece in pieces:
        update(piece)
        yield piece
