"""An image file from its first byte to its last: what was downloaded ahead, then the rest from its source."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edge_day2.adapters.images.download import Download
from edge_day2.adapters.images.prefetch import Held, pieces_of


class ImageFile:
    """See `FilePieces`.

    Args:
        held: what is on the node of the file, None for nothing.
        begin: returns the download from an offset on, with the validator of what is there before it.
    """

    def __init__(self, held: Held | None, begin: Callable[[int, str], Download]) -> None:
        self._held = held
        self._begin = begin
        self._read = 0
        self._download: Download | None = None
        self._stopped = False

    @property
    def position(self) -> int:
        """See `FilePieces.position`."""
        return self._read if self._download is None else self._download.position

    @property
    def total(self) -> int | None:
        """See `FilePieces.total`."""
        if self._download is not None:
            return self._download.total
        return self._held.length if self._held is not None and self._held.whole else None

    @property
    def pieced(self) -> bool:
        """Whether it didn't come at once: from what lay on the node, or over several connections."""
        return self._held is not None or (self._download is not None and self._download.resumed)

    def stop(self) -> None:
        """See `FilePieces.stop`."""
        self._stopped = True
        if (download := self._download) is not None:
            download.stop()

    def __iter__(self) -> Iterator[bytes]:
        validator = ""
        if self._held is not None:
            validator = self._held.validator
            for piece in pieces_of(self._held):
                self._read += len(piece)
                yield piece
            if self._held.whole:
                return
        if not self._stopped:
            self._download = self._begin(self._read, validator)
            yield from self._download
