"""How much memory a process takes to bring a large image into a slot."""

from __future__ import annotations

import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from conftest import MEASURED
from image_server import ImageServer
from slot_writer import writer
from slots_bench import PACKERS, content, image_of

LIMIT = 64 << 20
RAW = content(40_000_000)
TIMES = 2


def large_dictionary(raw: bytes) -> bytes:
    """Return an xz file that takes the largest dictionary that is allowed, as `xz -8` does."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 32 << 20}]
    return lzma.compress(raw, filters=filters)


def long_window(raw: bytes) -> bytes:
    """Return a Zstandard file that takes the longest window that is allowed."""
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 25, zstd.CompressionParameter.content_size_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    return packer.compress(raw) + packer.flush()


CASES = {
    "gzip": (PACKERS["gz"], False),
    "gzip, downloaded ahead": (PACKERS["gz"], True),
    "nothing": (PACKERS["raw"], False),
    "xz with a dictionary of 32 MiB": (large_dictionary, False),
    "Zstandard with a window of 32 MiB": (long_window, False),
}


@pytest.mark.parametrize("case", CASES)
def test_it_stays_within_64_mib(tmp_path: Path, case: str, record_property: Callable[[str, object], None]) -> None:
    pack, ahead = CASES[case]
    # Several files in a row are one: so it needn't be packed for long.
    file = pack(RAW) * TIMES
    for name in ("slot-A", "slot-B"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, TIMES * len(RAW))
    with ImageServer() as server:
        server.files["/edge"] = file
        with writer(f"{server.url}/edge", image_of(file, "").sha256, tmp_path, ahead=ahead) as process:
            grown = int(process.order("memory"))

    record_property(MEASURED, f"image pipeline, memory, packed with {case}: {grown >> 20} MiB")
    assert grown < LIMIT
