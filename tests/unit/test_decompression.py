"""Unpacking: what it is, its ends, its limits."""

from __future__ import annotations

import gzip
import lzma
import sys
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator

import pytest
from backports import zstd

from edge_day2.adapters.images.decompression import decompress
from edge_day2.errors import MissingExtra
from edge_day2.ports.failures import ImageTooLarge, ImageUnusable
from slots_bench import PACKERS, content

RAW = content(2_000_000)
MEMORY = 40 << 20
PACKED = [name for name in PACKERS if name != "raw"]
# RFC 8878 section 3.1.2: magic number, length, content.
SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"


@pytest.fixture(params=["isal", "zlib"])
def gzip_decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)


def unpacked(file: bytes, step: int = 100_000, memory: int = MEMORY) -> bytes:
    pieces = (file[start : start + step] for start in range(0, len(file), step))
    return b"".join(decompress(pieces, memory_bytes=memory))


@pytest.mark.usefixtures("gzip_decoder")
@pytest.mark.parametrize("step", [1, 7, 100_000, 10**9])
@pytest.mark.parametrize("packer", PACKERS)
def test_it_is_told_by_its_first_bytes_and_unpacked_whatever_the_pieces(packer: str, step: int) -> None:
    raw = RAW if step > 7 else RAW[:30_000]

    assert unpacked(PACKERS[packer](raw), step) == raw


@pytest.mark.usefixtures("gzip_decoder")
@pytest.mark.parametrize("step", [1, 13, 100_000])
@pytest.mark.parametrize("packer", PACKED)
def test_several_in_a_row_are_one(packer: str, step: int) -> None:
    pack = PACKERS[packer]

    assert unpacked(pack(RAW[:5000]) + pack(b"") + pack(RAW[5000:9000]), step) == RAW[:9000]


def test_frames_of_a_parallel_zstandard_compressor_are_skipped() -> None:
    assert unpacked(SKIPPABLE + zstd.compress(RAW) + SKIPPABLE) == RAW


@pytest.mark.usefixtures("gzip_decoder")
@pytest.mark.parametrize("step", [1, 100_000, 10**9])
@pytest.mark.parametrize("packer", PACKED)
@pytest.mark.parametrize("garbage", [b"\0", bytes(512), b"garbage " * 10])
def test_what_follows_is_refused(packer: str, garbage: bytes, step: int) -> None:
    with pytest.raises(ImageUnusable, match=r"comes something else|ends too early"):
        unpacked(PACKERS[packer](RAW[:2000]) + garbage, step)


@pytest.mark.usefixtures("gzip_decoder")
@pytest.mark.parametrize("packer", PACKED)
@pytest.mark.parametrize("left", [6, 20, -100_000, -9, -1])
def test_a_file_that_ends_too_early_is_refused(packer: str, left: int) -> None:
    with pytest.raises(ImageUnusable, match="ends too early"):
        unpacked(PACKERS[packer](RAW)[:left])


@pytest.mark.usefixtures("gzip_decoder")
@pytest.mark.parametrize("packer", ["gz", "xz"])
def test_a_damaged_file_is_refused(packer: str) -> None:
    file = bytearray(PACKERS[packer](RAW))
    file[len(file) // 2 : len(file) // 2 + 20] = bytes(20)

    with pytest.raises(ImageUnusable, match="damaged"):
        unpacked(bytes(file))


def test_a_wrong_checksum_is_refused() -> None:
    for position in (-1, -5):
        file = bytearray(gzip.compress(RAW))
        file[position] ^= 1
        with pytest.raises(ImageUnusable):
            unpacked(bytes(file))


@pytest.mark.parametrize(
    ("dictionary", "fits"), [(8 << 20, True), (32 << 20, True), (64 << 20, False), (1 << 30, False)]
)
def test_xz_with_a_big_dictionary_is_refused_before_the_memory_is_taken(dictionary: int, fits: bool) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 1 << 20}]
    file = lzma.compress(RAW[:10_000], filters=filters)
    # The dictionary's size is one byte in the block header, which has a CRC-32 of its own; section 3.1 of the format.
    header = bytearray(file[12 : 12 + (file[12] + 1) * 4])
    bits = dictionary.bit_length() - 1
    assert header[2:4] == b"\x21\x01"
    header[4] = 2 * (bits - 12)
    header[-4:] = zlib.crc32(header[:-4]).to_bytes(4, "little")
    file = file[:12] + bytes(header) + file[12 + len(header) :]

    if fits:
        assert unpacked(file) == RAW[:10_000]
        return
    with pytest.raises(ImageTooLarge, match="memory"):
        unpacked(file)


@pytest.mark.parametrize(("window", "fits"), [(23, True), (25, True), (26, False), (27, False)])
def test_zstandard_with_a_long_window_is_refused_before_the_memory_is_taken(window: int, fits: bool) -> None:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: window,
        zstd.CompressionParameter.content_size_flag: 0,
    }
    packer = zstd.ZstdCompressor(options=options)
    file = packer.compress(RAW) + packer.flush()

    if fits:
        assert unpacked(file) == RAW
        return
    with pytest.raises(ImageTooLarge, match="memory"):
        unpacked(file)


@pytest.mark.usefixtures("gzip_decoder")
@pytest.mark.parametrize("packer", PACKED)
def test_a_bomb_goes_off_in_small_pieces(packer: str) -> None:
    file = PACKERS[packer](bytes(200 << 20))
    tracemalloc.start()
    try:
        total = 0
        for piece in decompress(iter([file]), memory_bytes=MEMORY):
            total += len(piece)
            assert len(piece) <= 1 << 20
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert total == 200 << 20
    assert peak < 8 << 20


def test_nothing_is_read_before_it_is_needed() -> None:
    file, asked = gzip.compress(RAW), 0

    def pieces() -> Iterator[bytes]:
        nonlocal asked
        for start in range(0, len(file), 1000):
            asked += 1
            yield file[start : start + 1000]

    next(iter(decompress(pieces(), memory_bytes=MEMORY)))

    assert asked < 100


def test_without_the_extra_zstandard_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    file = PACKERS["zst"](RAW)
    monkeypatch.setitem(sys.modules, "backports", None)

    with pytest.raises(MissingExtra, match=r"edge_day2\[image\]"):
        unpacked(file)


def test_an_empty_file_holds_nothing() -> None:
    nothing: Iterable[bytes] = ()

    assert list(decompress(nothing, memory_bytes=MEMORY)) == []
