"""A disk image as it passes: finds the partitions in its GPT and hands their bytes on. UEFI 2.10, section 5.3."""

from __future__ import annotations

import binascii
import itertools
import struct
from typing import Final, Protocol
from uuid import UUID

from attrs import field, frozen

from edge_day2.errors import InvalidValue
from edge_day2.ports.failures import ImageTooLarge, ImageUnusable

EFI_SYSTEM_PARTITION: Final = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")

_SECTORS: Final = (512, 4096)
_SIGNATURE: Final = b"EFI PART"
_HEADER: Final = struct.Struct("<8s4sIIIQQQQ16sQIII")
_ENTRY: Final = struct.Struct("<16s16sQQQ72s")
# So much of the image is kept while the table is looked for. Ordinary tables end within 34 sectors.
_LONGEST_TABLE: Final = 1 << 20


@frozen(kw_only=True)
class Partition:
    """One entry of the table. `start` and `length` are bytes, `number` counts entries from 1."""

    number: int
    type_guid: UUID
    label: str
    start: int
    length: int


@frozen(kw_only=True)
class PartitionChoice:
    """How a partition is found: by exactly one of type GUID, label and number (from 1).

    Raises:
        InvalidValue: none of them is given, or several are.
    """

    type_guid: UUID | None = field(default=None)
    label: str | None = None
    number: int | None = None

    def __attrs_post_init__(self) -> None:
        given = [one for one in (self.type_guid, self.label, self.number) if one is not None]
        if len(given) != 1:
            raise InvalidValue("PartitionChoice", given, "one of type_guid, label and number")

    def __str__(self) -> str:
        if self.type_guid is not None:
            return f"type {self.type_guid}"
        return f"label {self.label!r}" if self.label is not None else f"number {self.number}"

    def pick(self, partitions: tuple[Partition, ...]) -> Partition:
        """Return the one partition that is meant.

        Raises:
            ImageUnusable: there is none, or there are several.
        """
        found = [one for one in partitions if self._means(one)]
        if len(found) != 1:
            raise ImageUnusable(f"the disk image has {len(found)} partitions of {self}, 1 was expected")
        return found[0]

    def _means(self, partition: Partition) -> bool:
        if self.type_guid is not None:
            return partition.type_guid == self.type_guid
        return partition.label == self.label if self.label is not None else partition.number == self.number


class PartitionSink(Protocol):
    """Takes the bytes of one partition, in order."""

    @property
    def name(self) -> str: ...
    @property
    def capacity(self) -> int: ...
    def write(self, piece: bytes | memoryview) -> None: ...
    def flush(self) -> None: ...


class DiskImageSink:
    """A `Sink` for a disk image: the bytes of the chosen partitions go to their sinks, the rest goes nowhere.

    Both sizes are checked before the first byte is written.
    """

    def __init__(self, *targets: tuple[PartitionChoice, PartitionSink]) -> None:
        self._targets = targets
        self._head = b""
        self._position = 0
        self._open: list[tuple[Partition, PartitionSink]] | None = None

    def write(self, piece: bytes) -> None:
        """See `Sink.write`."""
        if self._open is None:
            self._head += piece
            partitions = parse_table(self._head)
            if partitions is None:
                return
            self._open = self._chosen(partitions)
            piece, self._head = self._head, b""
        view = memoryview(piece)
        for partition, sink in self._open:
            start = max(partition.start - self._position, 0)
            stop = min(partition.start + partition.length - self._position, len(view))
            if start < stop:
                sink.write(view[start:stop])
        self._position += len(piece)

    def end(self) -> None:
        """See `Sink.end`."""
        if self._open is None:
            raise ImageUnusable(f"the disk image ends after {len(self._head)} bytes, before its partition table does")
        for partition, _ in self._open:
            if self._position < partition.start + partition.length:
                log = f"partition {partition.number} goes on to byte {partition.start + partition.length}"
                raise ImageUnusable(f"the disk image ends after {self._position} bytes, {log}")
        for _, sink in self._targets:
            sink.flush()

    def _chosen(self, partitions: tuple[Partition, ...]) -> list[tuple[Partition, PartitionSink]]:
        chosen = [(choice.pick(partitions), sink) for choice, sink in self._targets]
        for partition, sink in chosen:
            if partition.length > sink.capacity:
                log = f"partition {partition.number} of the disk image has {partition.length} bytes"
                raise ImageTooLarge(f"{log}, there are {sink.capacity} in {sink.name}")
        in_order = sorted((partition for partition, _ in chosen), key=lambda one: one.start)
        for one, following in itertools.pairwise(in_order):
            if following.start < one.start + one.length:
                raise ImageUnusable(f"partitions {one.number} and {following.number} of the disk image overlap")
        return chosen


def parse_table(head: bytes) -> tuple[Partition, ...] | None:
    """Return the partitions of the disk that begins with `head`, None where `head` is too short to tell.

    Raises:
        ImageUnusable: there is no GPT with a right checksum, for sectors of 512 or of 4,096 bytes.
    """
    if len(head) < 2 * max(_SECTORS):
        return None
    for sector in _SECTORS:
        if head[sector : sector + len(_SIGNATURE)] == _SIGNATURE:
            return _parse_table(head, sector)
    raise ImageUnusable("the image is no disk image: it has no GPT header")


def _parse_table(head: bytes, sector: int) -> tuple[Partition, ...] | None:
    (
        _, _, header_size, header_crc, _, own_lba, _, first_usable, last_usable, _,
        table_lba, count, entry_size, table_crc,
    ) = _HEADER.unpack_from(head, sector)  # fmt: skip
    if not _HEADER.size <= header_size <= sector:
        raise ImageUnusable(f"the disk image's GPT header says that it has {header_size} bytes")
    header = bytearray(head[sector : sector + header_size])
    header[16:20] = bytes(4)
    if binascii.crc32(header) != header_crc:
        raise ImageUnusable("the checksum of the disk image's GPT header is wrong")
    start, stop = table_lba * sector, table_lba * sector + count * entry_size
    if own_lba != 1 or start < 2 * sector or stop > _LONGEST_TABLE or entry_size < _ENTRY.size or entry_size % 8:
        log = f"{count} entries of {entry_size} bytes at sector {table_lba}, header at sector {own_lba}"
        raise ImageUnusable(f"the disk image's GPT is none that can be read in passing: {log}")
    if len(head) < stop:
        return None
    if binascii.crc32(head[start:stop]) != table_crc:
        raise ImageUnusable("the checksum of the disk image's partition table is wrong")
    partitions = []
    for number in range(1, count + 1):
        kind, _, first, last, _, label = _ENTRY.unpack_from(head, start + (number - 1) * entry_size)
        if kind == bytes(16):
            continue
        if not max(first_usable, 1) <= first <= last <= last_usable or first * sector < stop:
            raise ImageUnusable(f"partition {number} of the disk image lies at sectors {first} to {last}")
        partitions.append(
            Partition(
                number=number,
                type_guid=UUID(bytes_le=kind),
                label=label.decode("utf-16-le", "replace").partition("\0")[0],
                start=first * sector,
                length=(last - first + 1) * sector,
            )
        )
    return tuple(partitions)
