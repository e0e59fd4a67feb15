"""The disk of the firmware bench whose power can be cut, as QEMU speaks to it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from vm.volatile_disk import SECTOR, VolatileDisk

READ, WRITE, FLUSH = 0, 1, 3
OLD, NEW, NEWER = b"o" * SECTOR, b"n" * SECTOR, b"x" * SECTOR


class Client:
    """What QEMU is to the disk."""

    def __init__(self, disk: VolatileDisk) -> None:
        self.connection = socket.create_connection(("127.0.0.1", int(disk.address.rpartition(":")[2])))
        self.stream = self.connection.makefile("rb")
        assert self.stream.read(18)[:16] == b"NBDMAGICIHAVEOPT"
        self.connection.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">IIIH", 7, 6, 0, 0))
        _, _, kind, length = struct.unpack(">QIII", self.stream.read(20))
        assert (kind, length) == (3, 12)
        self.size = struct.unpack(">HQH", self.stream.read(12))[1]
        assert struct.unpack(">QIII", self.stream.read(20))[2] == 1

    def ask(self, kind: int, offset: int = 0, content: bytes = b"", length: int | None = None) -> bytes:
        size = len(content) if length is None else length
        self.connection.sendall(struct.pack(">IHHQQI", 0x25609513, 0, kind, 77, offset, size) + content)
        assert struct.unpack(">IIQ", self.stream.read(16)) == (0x67446698, 0, 77)
        return self.stream.read(size) if kind == READ else b""

    def leave(self) -> None:
        self.stream.close()
        self.connection.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(OLD * 8)
    return path


def after_a_cut(file: Path, keeps: Callable[[int], int]) -> bytes:
    """Write, flush, and write again in two requests; return what the disk holds after a power cut."""
    with VolatileDisk(file, keeps) as disk:
        client = Client(disk)
        assert client.size == 8 * SECTOR
        client.ask(WRITE, 0, NEW)
        client.ask(FLUSH)
        client.ask(WRITE, SECTOR, NEW * 2)
        client.ask(WRITE, SECTOR, NEWER * 2)
        assert client.ask(READ, 0, length=4 * SECTOR) == NEW + NEWER * 2 + OLD
        client.leave()
        disk.cut_power()
    return file.read_bytes()


def test_what_was_flushed_stays_and_the_rest_goes(file: Path) -> None:
    assert after_a_cut(file, lambda sectors: 0) == NEW + OLD * 7


def test_a_cut_may_leave_everything(file: Path) -> None:
    assert after_a_cut(file, lambda sectors: sectors) == NEW + NEWER * 2 + OLD * 5


def test_a_write_may_be_torn_between_two_sectors(file: Path) -> None:
    assert after_a_cut(file, lambda sectors: sectors // 2) == NEW + NEWER + OLD * 6


def test_a_machine_that_starts_again_finds_what_the_cut_left(file: Path) -> None:
    with VolatileDisk(file, lambda sectors: 0) as disk:
        for _ in range(2):
            client = Client(disk)
            assert client.ask(READ, 0, length=SECTOR) == OLD
            client.ask(WRITE, 0, NEW)
            client.leave()
            disk.cut_power()
