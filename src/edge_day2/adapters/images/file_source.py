"""Images in a local folder: a stick, or a share that is mounted."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import shown
from edge_day2.ports.failures import NodeFailure, UntrustedSource
from edge_day2.ports.image_source import ImageStream, SourceChanged

_PIECE: Final = 1 << 20


class FolderImageSource:
    """An `ImageSource` of the files in one folder; an address is a path within it, without `..`."""

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)

    def open(self, url: str, *, offset: int = 0, validator: str = "") -> ImageStream:
        """See `ImageSource.open`."""
        parts = url.split("/")
        if not url or "\0" in url or any(part in {"", ".", ".."} for part in parts):
            raise UntrustedSource(f"the image's address {shown(url)} isn't a path within {self._folder}")
        path = self._folder.joinpath(*parts)
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise UntrustedSource(f"the image's address {shown(url)} leads out of {self._folder}")
        return open_file(path, offset=offset, validator=validator)


def open_file(path: Path, *, offset: int = 0, validator: str = "") -> FileStream:
    """Open a regular file, which is no symbolic link; see `ImageSource.open`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NodeFailure(FailureReason.DOWNLOAD_FAIL, str(error)) from error
    try:
        return FileStream(descriptor, path, offset, validator)
    except BaseException:
        os.close(descriptor)
        raise


class FileStream:
    """An `ImageStream` of a regular file that is open for reading. Takes the descriptor over."""

    def __init__(self, descriptor: int, path: Path, offset: int = 0, validator: str = "") -> None:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise NodeFailure(FailureReason.DOWNLOAD_FAIL, f"{path} isn't a regular file")
        self.total = found.st_size
        self.validator = f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"
        if offset and (offset > self.total or validator not in ("", self.validator)):
            raise SourceChanged(f"{path} is another file than the one that was begun")
        self._path = path
        self._file = os.fdopen(descriptor, "rb", buffering=0)
        self._file.seek(offset)

    def read(self) -> bytes:
        """See `ImageStream.read`."""
        try:
            return self._file.read(_PIECE) or b""
        except OSError as error:
            raise NodeFailure(FailureReason.DOWNLOAD_FAIL, f"{self._path}: {error}") from error

    def abort(self) -> None:
        """See `ImageStream.abort`. A file isn't waited for."""

    def close(self) -> None:
        """See `ImageStream.close`."""
        self._file.close()
