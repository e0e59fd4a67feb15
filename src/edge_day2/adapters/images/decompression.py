"""Unpacks gzip, xz and Zstandard, or passes through what is none of them, in bounded memory and bounded pieces."""

from __future__ import annotations

import itertools
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from edge_day2.errors import MissingExtra
from edge_day2.ports.failures import ImageTooLarge, ImageUnusable

_PIECE: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"
_XZ: Final = b"\xfd7zXZ\x00"
_ZSTANDARD: Final = b"\x28\xb5\x2f\xfd"
# RFC 8878 section 3.1.2: a skippable frame, as parallel compressors put in front.
_ZSTANDARD_SKIPPABLE: Final = b"\x2a\x4d\x18"
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


class _Decoder(Protocol):
    """As lzma.LZMADecompressor: gives at most `max_length` bytes a call, and keeps what it didn't use."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def decompress(pieces: Iterable[bytes], *, memory_bytes: int) -> Iterator[bytes]:
    """Yield what is in the stream `pieces`, at most 1 MiB at once. The first bytes decide what it is.

    Files that are several of their kind in a row are one: RFC 1952 section 2.2 for gzip, likewise xz and Zstandard.

    Args:
        pieces: consumed to the end.
        memory_bytes: what a decoder may take for its window or dictionary.

    Raises:
        ImageUnusable: the stream is damaged, ends too early, or something follows it.
        ImageTooLarge: unpacking it takes more memory.
        MissingExtra: it is Zstandard and no decoder is installed.
    """
    source = iter(pieces)
    head = b""
    while len(head) < len(_XZ) and (piece := next(source, b"")):
        head += piece
    make = _decoder(head, memory_bytes)
    if make is None:
        yield from itertools.chain([head] if head else (), source)
        return
    decoder, members = make(), 1
    for piece in itertools.chain([head], source):
        pending = piece
        while pending or not (decoder.eof or decoder.needs_input):
            if decoder.eof:
                decoder, members = make(), members + 1
            try:
                unpacked = decoder.decompress(pending, _PIECE)
            except _errors() as error:
                raise _failure(error, members, memory_bytes) from error
            pending = decoder.unused_data if decoder.eof else b""
            if unpacked:
                yield unpacked
    if not decoder.eof:
        raise ImageUnusable("the compressed image ends too early")


def _decoder(head: bytes, memory_bytes: int) -> Callable[[], _Decoder] | None:
    if head.startswith(_GZIP):
        return _gzip_decoder()
    if head.startswith(_XZ):
        return lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=memory_bytes)
    if head.startswith(_ZSTANDARD) or (head[1:4] == _ZSTANDARD_SKIPPABLE and 0x50 <= head[0] <= 0x5F):
        return _zstandard_decoder(memory_bytes)
    return None


def _gzip_decoder() -> Callable[[], _Decoder]:
    try:
        from isal import igzip_lib
    except ImportError:
        return _ZlibDecoder
    return lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _zstandard_decoder(memory_bytes: int) -> Callable[[], _Decoder]:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        try:
            from backports import zstd
        except ImportError as error:
            raise MissingExtra("backports.zstd", "image") from error
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: memory_bytes.bit_length() - 1}
    return lambda: zstd.ZstdDecompressor(options=options)


def _errors() -> tuple[type[Exception], ...]:
    """Return the errors of those decoders that are in use."""
    found: list[type[Exception]] = [zlib.error, lzma.LZMAError, EOFError]
    for module, name in (
        ("isal.igzip_lib", "IsalError"),
        ("backports.zstd", "ZstdError"),
        ("compression.zstd", "ZstdError"),
    ):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def _failure(error: Exception, members: int, memory_bytes: int) -> ImageUnusable:
    words = str(error) or type(error).__name__
    # liblzma: "Memory usage limit exceeded"; libzstd: "Frame requires too much memory for decoding".
    if "emory" in words:
        return ImageTooLarge(f"unpacking the image takes more than {memory_bytes} bytes of memory: {words}")
    where = "the compressed image is damaged" if members == 1 else "after the compressed image comes something else"
    return ImageUnusable(f"{where}: {words}")


class _ZlibDecoder:
    """zlib in the shape of the other decoders."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(_GZIP_WINDOW)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        # Output that zlib holds back although it has taken all input comes with the next: a trailer always follows.
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        tail = self._zlib.unconsumed_tail
        return self._zlib.decompress(tail + data if tail else data, max(max_length, 0))
