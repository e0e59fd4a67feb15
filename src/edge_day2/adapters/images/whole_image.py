"""An image whose bytes are the slot's bytes."""

from __future__ import annotations

from edge_day2.adapters.images.regions import RegionWriter
from edge_day2.ports.failures import ImageUnusable


class WholeImageSink:
    """A `Sink` that writes everything to one place."""

    def __init__(self, writer: RegionWriter) -> None:
        self._writer = writer

    def write(self, piece: bytes) -> None:
        """See `Sink.write`."""
        self._writer.write(piece)

    def end(self) -> None:
        """See `Sink.end`."""
        if not self._writer.content.length:
            raise ImageUnusable("the image is empty")
        self._writer.flush()
