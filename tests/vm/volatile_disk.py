"""A disk with a write cache that a power cut empties: what was written and not flushed since may be there, or not.

QEMU reaches it over NBD (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md), the few requests of it
that QEMU makes.
"""

from __future__ import annotations

import enum
import os
import random
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from attrs import frozen

SECTOR: Final = 512

# The names in capitals are those of the protocol.
_FIXED_NEWSTYLE_AND_NO_ZEROES: Final = 0x3
_HAS_FLAGS_AND_SEND_FLUSH: Final = 0x1 | 0x4
_OPT_GO: Final = 7
_REP_ACK: Final = 1
_REP_INFO: Final = 3
_REP_ERR_UNSUP: Final = 0x80000001
_REQUEST: Final = struct.Struct(">IHHQQI")


class _Kind(enum.IntEnum):
    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3


@frozen
class _Write:
    offset: int
    old: bytes
    new: bytes


class VolatileDisk:
    """Serves a disk in a file on a port of this machine's loopback.

    Args:
        file: the disk. It holds what was written last, until `cut_power` takes some of it back.
        keeps: is given how many sectors a write has, and returns how many of them, the first ones, a power cut leaves.
            It is asked for each write since the last flush: a later one may stay where an earlier one goes.
    """

    def __init__(self, file: Path, keeps: Callable[[int], int]) -> None:
        self._descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        self._size = os.fstat(self._descriptor).st_size
        self._keeps = keeps
        self._unflushed: list[_Write] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._served: list[threading.Thread] = []
        self.lost = 0
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    @property
    def address(self) -> str:
        """What QEMU calls the disk."""
        return f"nbd://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut_power(self) -> None:
        """Forget what the disk needn't have kept. The machine is off."""
        self._finish()
        writes, self._unflushed = self._unflushed, []
        for write in reversed(writes):
            os.pwrite(self._descriptor, write.old, write.offset)
        for write in writes:
            sectors = len(write.new) // SECTOR
            kept = self._keeps(sectors)
            self.lost += sectors - kept
            os.pwrite(self._descriptor, write.new[: kept * SECTOR], write.offset)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        self._finish()
        os.close(self._descriptor)

    def _finish(self) -> None:
        for thread in self._served:
            thread.join()
        self._served.clear()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._served.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self._agree(connection)
                while self._answer(connection):
                    pass
            except (EOFError, ConnectionError):
                return

    def _agree(self, connection: socket.socket) -> None:
        connection.sendall(b"NBDMAGIC" + b"IHAVEOPT" + struct.pack(">H", _FIXED_NEWSTYLE_AND_NO_ZEROES))
        _receive(connection, 4)
        while True:
            _, option, length = struct.unpack(">8sII", _receive(connection, 16))
            _receive(connection, length)
            if option == _OPT_GO:
                export = struct.pack(">HQH", 0, self._size, _HAS_FLAGS_AND_SEND_FLUSH)
                connection.sendall(_option_reply(option, _REP_INFO, export) + _option_reply(option, _REP_ACK))
                return
            connection.sendall(_option_reply(option, _REP_ERR_UNSUP))

    def _answer(self, connection: socket.socket) -> bool:
        """Answer one request; return whether there will be another one."""
        _, _, kind, cookie, offset, length = _REQUEST.unpack(_receive(connection, _REQUEST.size))
        content = b""
        match kind:
            case _Kind.READ:
                content = os.pread(self._descriptor, length, offset)
            case _Kind.WRITE:
                new = _receive(connection, length)
                self._unflushed.append(_Write(offset, os.pread(self._descriptor, length, offset), new))
                os.pwrite(self._descriptor, new, offset)
            case _Kind.FLUSH:
                self._unflushed.clear()
            case _:
                return False
        connection.sendall(struct.pack(">IIQ", 0x67446698, 0, cookie) + content)
        return True


def by_chance(chance: random.Random) -> Callable[[int], int]:
    """Return what keeps nothing of a third of all writes, everything of a third, and tears the others."""
    return lambda sectors: chance.choice((0, sectors, chance.randint(0, sectors)))


def _option_reply(option: int, kind: int, content: bytes = b"") -> bytes:
    return struct.pack(">QIII", 0x3E889045565A9, option, kind, len(content)) + content


def _receive(connection: socket.socket, length: int) -> bytes:
    content = bytearray(length)
    view, done = memoryview(content), 0
    while done < length:
        read = connection.recv_into(view[done:])
        if not read:
            raise EOFError
        done += read
    return bytes(content)
