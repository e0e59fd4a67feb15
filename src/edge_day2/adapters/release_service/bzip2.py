"""Files that may be packed with bzip2, unpacked piece by piece, so that a bomb is noticed before it goes off."""

from __future__ import annotations

import bz2
from collections.abc import Iterator
from typing import Final

from edge_day2.errors import Internal, shown

_PIECE: Final = 1 << 16
_BZIP2: Final = b"BZh"


def unpacked(content: bytes, url: str, at_most: int) -> Iterator[bytes]:
    """Yield `content`, unpacked where it is packed, in pieces. `url` is for messages.

    Raises:
        Internal: it has more than `at_most` bytes, or bzip2 didn't make it.
    """
    if not content.startswith(_BZIP2):
        if len(content) > at_most:
            raise Internal(f"{shown(url)}: more than {at_most} bytes")
        yield content
        return
    length = 0
    while content:
        unpacker = bz2.BZ2Decompressor()
        while not unpacker.eof:
            try:
                piece = unpacker.decompress(content if unpacker.needs_input else b"", max_length=_PIECE)
            except OSError as error:
                raise Internal(f"{shown(url)}: bzip2: {error}") from error
            length += len(piece)
            if length > at_most:
                raise Internal(f"{shown(url)}: more than {at_most} bytes, unpacked")
            if not piece and not unpacker.eof and unpacker.needs_input:
                raise Internal(f"{shown(url)}: bzip2: the file ends too early")
            content = b""
            yield piece
        # Packers that use several processors make several streams.
        content = unpacker.unused_data
