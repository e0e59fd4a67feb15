"""What can go wrong at one operation on files: the power is cut there, or the operating system refuses it."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

import pytest
from attrs import define, field

from edge_day2.testing.faults import PowerCut

# What changes a disk. Reading, and files for the time being, are never cut: no boot ever sees them.
_OPERATIONS = ("open", "write", "fsync", "ftruncate", "replace", "rename", "unlink", "remove", "mkdir", "rmdir")


@define
class FileFaults:
    """Lets the `planned`-th change of a disk go wrong.

    With `cut` the power is gone from then on: nothing that is asked for later happens. A file that was being flushed
    is left half written, one that was being opened for writing is left empty. Without it, this one operation fails and
    everything later works.
    """

    planned: int
    cut: bool
    made: int = 0
    flushed: set[tuple[int, ...]] = field(factory=set)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand between the code under test and the operating system until the patches are undone."""
        monkeypatch.setattr(io, "open", self._wrapped("io.open", io.open))
        for name in _OPERATIONS:
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    @property
    def reached(self) -> bool:
        """Whether there was a `planned`-th change at all."""
        return self.made >= self.planned

    def _wrapped(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def operation(*args: object, **kwargs: object) -> object:
            if name == "open" and not int(str(args[1])) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return real(*args, **kwargs)
            if name == "io.open" and (isinstance(args[0], int) or "r" in str(args[1:2] or "r")):
                return real(*args, **kwargs)
            if tempfile.gettempdir() in str(args[0]):
                return real(*args, **kwargs)
            self.made += 1
            if self.cut and self.made >= self.planned:
                if name == "fsync" and self.made == self.planned:
                    self._tear(int(str(args[0])))
                if name == "io.open" and self.made == self.planned:
                    cast(IO[bytes], real(*args, **kwargs)).close()
                raise PowerCut(name)
            if self.made == self.planned:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            result = real(*args, **kwargs)
            if name == "fsync":
                self.flushed.add(_content_key(int(str(args[0]))))
            return result

        return operation

    def _tear(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        # What was flushed before, and not written since, is on the medium.
        if path.is_file() and _content_key(descriptor) not in self.flushed:
            os.truncate(path, path.stat().st_size // 2)


def _content_key(descriptor: int) -> tuple[int, ...]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
