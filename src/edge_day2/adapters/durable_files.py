"""Files that are replaced or removed as a whole, so that a power cut finds the old one or the new one."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


def replace_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Make `content` the whole of the file `path`. Durable when it returns.

    It is written beside (`<name>.new`), flushed and renamed; then file and folder are flushed. One writer at a time.

    Args:
        path: the file. Its folder must be there.
        content: what it is to hold.
        mode: its permissions, whatever the umask is.

    Raises:
        OSError: it couldn't be written, the old file stands; ELOOP: `path` is a symbolic link. Where only the last
            steps failed, flushing file and folder anew, the new file is there already.
    """
    _refuse_link(path)
    beside = path.with_name(f"{path.name}.new")
    # What a crash left there, or what somebody else put there: unlinking never follows a link.
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
            beside.replace(path)
            # FAT keeps in the folder where a file begins, and writes it with the file: until then the new name leads to
            # the old file's clusters, and flushing the folder alone frees those on the medium.
            os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    flush_folder(path.parent)


def remove_file(path: Path) -> None:
    """Remove the file `path` where it is there. Durable when it returns.

    Raises:
        OSError: it couldn't be removed.
    """
    # Flushed also where it is gone: a crash may have come between removing it and flushing the folder.
    path.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        flush_folder(path.parent)


def flush_folder(path: Path) -> None:
    """Make what was created, renamed and removed in this folder durable.

    Raises:
        OSError: it couldn't be flushed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
