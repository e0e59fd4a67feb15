"""Disk images with a GPT, made byte by byte, so that they can also be made wrong. UEFI 2.10, section 5.3."""

from __future__ import annotations

import binascii
import struct
from uuid import UUID, uuid5

from attrs import frozen

from edge_day2.adapters.images.disk_image import EFI_SYSTEM_PARTITION

LINUX = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
_NAMESPACE = UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")


@frozen
class Part:
    """A partition: what is in it, its type and its label. `at` is its first sector, None for the next one."""

    content: bytes
    kind: UUID = LINUX
    label: str = ""
    at: int | None = None


def disk_image(esp: bytes, root: bytes, *, sector: int = 512) -> bytes:
    """Return an image with an EFI system partition, then the root, then something else."""
    return disk_of(
        Part(esp, EFI_SYSTEM_PARTITION, "boot"), Part(root, label="rootfs"), Part(b"data" * 512), sector=sector
    )


def disk_of(
    *parts: Part,
    sector: int = 512,
    entries: int = 128,
    entry_size: int = 128,
    table_lba: int = 2,
    own_lba: int = 1,
    first_usable: int | None = None,
    damage_header: bool = False,
    damage_table: bool = False,
) -> bytes:
    """Return a disk image. Contents are filled up with zeros to whole sectors."""
    table_sectors = -(-entries * entry_size // sector)
    start = table_lba + table_sectors if first_usable is None else first_usable
    position, table, body = start, b"", {}
    for number, part in enumerate(parts):
        first = position if part.at is None else part.at
        sectors = max(-(-len(part.content) // sector), 1)
        label = part.label.encode("utf-16-le").ljust(72, b"\0")
        entry = struct.pack(
            "<16s16sQQQ", part.kind.bytes_le, uuid5(_NAMESPACE, str(number)).bytes_le, first, first + sectors - 1, 0
        )
        table += (entry + label).ljust(entry_size, b"\0")
        body[first] = part.content
        position = max(position, first + sectors)
    table = table.ljust(entries * entry_size, b"\0")
    last = position + table_sectors + 1
    header = struct.pack(
        "<8s4sIIIQQQQ16sQIII", b"EFI PART", b"\0\0\1\0", 92, 0, 0, own_lba, last, start, position - 1,
        _NAMESPACE.bytes_le, table_lba, entries, entry_size, binascii.crc32(table),
    )  # fmt: skip
    header = header[:16] + struct.pack("<I", binascii.crc32(header) ^ damage_header) + header[20:]
    image = bytearray((last + 1) * sector)
    image[sector : sector + len(header)] = header
    if damage_table:
        table = b"\1" + table[1:]
    image[table_lba * sector : table_lba * sector + len(table)] = table
    for first, content in body.items():
        image[first * sector : first * sector + len(content)] = content
    return bytes(image)
