"""A real process that writes a slot from a real server, and a real kill -9, again and again.

`EDGE_DAY2_KILLS` says how often for each way; more than 100 take an image of 200 MB instead of 30.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from image_server import ImageServer
from slot_writer import writer
from slots_bench import OLD, content

KILLS = int(os.environ.get("EDGE_DAY2_KILLS", "12"))
SIZE = 200_000_000 if KILLS > 100 else 30_000_000
PIECE = 4 << 20


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, str]]:
    """Yield a packed image, its digest, and the digest of what is in it."""
    path = tmp_path_factory.mktemp("image") / "edge.raw.gz"
    block, raw = content(10_000_000), hashlib.sha256()
    with gzip.open(path, "wb", 1) as file:
        for number in range(SIZE // len(block)):
            piece = bytes([number]) + block[1:]
            raw.update(piece)
            file.write(piece)
    with path.open("rb") as file:
        yield path, hashlib.file_digest(file, "sha256").hexdigest(), raw.hexdigest()


def digest(slot: Path) -> str:
    found, left = hashlib.sha256(), SIZE
    with slot.open("rb") as file:
        while left and (piece := file.read(min(PIECE, left))):
            found.update(piece)
            left -= len(piece)
    return found.hexdigest()


@pytest.mark.parametrize("ahead", [False, True], ids=["streamed", "downloaded ahead"])
def test_whenever_a_writer_is_killed_the_next_ones_bring_every_byte_into_the_slot(
    packed: tuple[Path, str, str], tmp_path: Path, ahead: bool
) -> None:
    file, sha256, raw = packed
    running, target = tmp_path / "slot-A", tmp_path / "slot-B"
    record = tmp_path / "records" / "slot-b.json"
    running.write_bytes(OLD)
    target.touch()
    os.truncate(target, SIZE + 1000)
    chance = random.Random(SIZE + ahead)
    killed = 0
    with ImageServer() as server, writer(f"{server.url}/edge.raw.gz", sha256, tmp_path, ahead=ahead) as process:
        server.files["/edge.raw.gz"] = file
        began = time.monotonic()
        process.order("write")
        assert (process.hear(), process.hear()) == ("done", "ended")
        longest = 1.2 * (time.monotonic() - began)
        while killed < KILLS:
            if record.exists():
                # Whoever died when: a record is never there without its slot.
                assert digest(target) == raw
                record.unlink()
                with target.open("r+b") as slot:
                    for at in range(0, SIZE, SIZE // 50):
                        slot.seek(at)
                        slot.write(b"something else")
            child = int(process.order("write"))
            # Not a wait for something: the moment of death is what is varied.
            time.sleep(chance.uniform(0.0, longest))
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                assert process.hear() == "done"
            answer = process.hear()
            if answer == "done":
                answer = process.hear()
            else:
                killed += 1
            assert answer == "ended"

        process.order("write")
        assert (process.hear(), process.hear()) == ("done", "ended")

    assert digest(target) == raw
    assert record.exists()
    assert running.read_bytes() == OLD
    assert list((tmp_path / "images").glob("*")) == []
    assert [path.name for path in target.parent.glob("*.new")] == []
