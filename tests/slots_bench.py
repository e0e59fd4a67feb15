"""A node's slots as plain files in a folder, and images for them."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field

from edge_day2.adapters.images import FolderImageSource, PrefetchFolder, Progress, RetryLimits, RunningSystem
from edge_day2.adapters.slots import PartitionSlots
from edge_day2.domain.immutable_events import Image
from edge_day2.domain.observation import Slot
from edge_day2.ports.image_source import ImageSource

QUICK = RetryLimits(attempts=4, first_wait_seconds=0.01, longest_wait_seconds=0.05)
OLD = b"what was there before " * 1000


def content(length: int, seed: int = 0) -> bytes:
    """Return something like a file system: random bytes and zeros by turns."""
    chance = random.Random(seed)
    parts, left = [], length
    while left > 0:
        size = min(left, chance.randrange(1, 200_000))
        parts.append(chance.randbytes(size) if chance.random() < 0.5 else bytes(size))
        left -= size
    return b"".join(parts)


def zstandard(raw: bytes) -> bytes:
    """Return the content packed as Zstandard does."""
    from backports import zstd

    return zstd.compress(raw)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda raw: gzip.compress(raw, 1, mtime=0),
    "xz": lambda raw: lzma.compress(raw, preset=0),
    "zst": zstandard,
    "raw": bytes,
}


def image_of(file: bytes, url: str, **changes: str) -> Image:
    """Return the image whose file has this content."""
    said = {"profile_name": "edge", "image_id": "3.0.2", "sha256": hashlib.sha256(file).hexdigest(), "url": url}
    return Image(**{**said, **changes})


@define(kw_only=True)
class SlotsBench:
    """Two slots in `folder`, or where `places` says; A runs. `settings`: what else `PartitionSlots` is made with."""

    folder: Path
    source: ImageSource
    size: int = 4 << 20
    running: Slot = Slot.A
    places: dict[Slot, Path] = field(factory=dict)
    settings: dict[str, Any] = field(factory=dict)
    told: list[Progress] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        for slot in Slot:
            self.path(slot).write_bytes(OLD.ljust(self.size, b"."))
        self.say("3.0.1")

    def path(self, slot: Slot) -> Path:
        """Return where a slot is."""
        return self.places.get(slot, self.folder / f"slot-{slot.value}")

    def say(self, version: str) -> None:
        """Let the running system say that it is of this version."""
        (self.folder / "os-release").write_text(f'NAME="Edge"\nIMAGE_VERSION="{version}"\n')

    @property
    def prefetched(self) -> Path:
        """The folder of what was downloaded ahead."""
        return self.folder / "images"

    def slots(self, **changes: Any) -> PartitionSlots:
        """Return the adapter as a process that has just begun makes it."""
        settings: dict[str, Any] = {
            "source": self.source,
            "running_slot": lambda: self.running,
            "records": self.folder / "records",
            "prefetched": PrefetchFolder(self.prefetched, reserve_bytes=0),
            "running_system": RunningSystem([self.folder / "os-release"]),
            "retry": QUICK,
            "progress": self.told.append,
        }
        return PartitionSlots({slot: self.path(slot) for slot in Slot}, **{**settings, **self.settings, **changes})

    def holds(self, raw: bytes, slot: Slot = Slot.B) -> bool:
        """Return whether the slot begins with this, and follows on with what was there before."""
        return self.path(slot).read_bytes() == raw + OLD.ljust(self.size, b".")[len(raw) :]


def folder_bench(folder: Path, **changes: Any) -> SlotsBench:
    """Return a bench whose images are files in `folder/source`."""
    source = folder / "source"
    source.mkdir(exist_ok=True)
    return SlotsBench(folder=folder, source=FolderImageSource(source), **changes)
