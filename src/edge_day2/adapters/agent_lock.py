"""One agent on a node: a lock on a file, which the kernel takes back when the process dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from edge_day2.errors import AgentRunning

_DEFAULT: Final = Path("/run/edge_day2/agent.lock")
_PID_BYTES: Final = 20


class AgentLock:
    """Held as a context manager, for as long as this process may touch the journal and the machine.

    It is flock(2) that excludes; the process id in the file is for people. Programs that the agent starts don't
    inherit it. The file stays when the lock is released.

    Args:
        path: the file, in a folder that root alone writes to; made where it is missing. /run is there also where a
            disk has become read-only.
    """

    def __init__(self, path: Path | str = _DEFAULT) -> None:
        self._path = Path(path)
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            AgentRunning: another process holds it.
            OSError: the file can't be opened; ELOOP: it is a symbolic link.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                self._lock(descriptor)
                # A file that was removed in the meantime excludes nobody.
                if self._is_file(descriptor):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                    self._descriptor = descriptor
                    return self
            finally:
                if self._descriptor is None:
                    os.close(descriptor)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock."""
        descriptor, self._descriptor = self._descriptor, None
        assert descriptor is not None
        os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, _PID_BYTES, 0).decode(errors="replace").strip()
            raise AgentRunning(str(self._path), holder) from None

    def _is_file(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat(follow_symlinks=False))
        except FileNotFoundError:
            return False
