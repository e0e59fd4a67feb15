"""Copies of files whose digest is known, and digests of what the medium really holds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final

from edge_day2.ports.boot_files import BootFile

_CHUNK_BYTES: Final = 1024 * 1024


def write_hashed(chunks: Iterable[bytes], path: Path) -> BootFile:
    """Write the new file `path`, durably, and return its size and digest.

    Raises:
        OSError: it is there already, or can't be written.
    """
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(descriptor)
    return BootFile(path=path, size=size, sha256=digest.hexdigest())


def read_back(path: Path) -> str:
    """Return the sha256 (hex) of a file as the medium holds it, not as the page cache remembers it.

    Raises:
        OSError: it can't be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        # Pages that were never written to the medium stay; write_hashed has flushed them.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(file, "sha256").hexdigest()


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the rest of a file, piece by piece."""
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
