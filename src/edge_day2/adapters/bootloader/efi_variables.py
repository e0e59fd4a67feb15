"""EFI variables through efivarfs: each write is one call, read back, and undone by nobody but us."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge_day2.adapters.bootloader.boot_failure import boot_failure
from edge_day2.errors import shown

_DEFAULT: Final = Path("/sys/firmware/efi/efivars")
# Vendor of the variables of the Boot Loader Interface, https://systemd.io/BOOT_LOADER_INTERFACE/.
LOADER_VENDOR: Final = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
# EFI_GLOBAL_VARIABLE of the UEFI specification.
GLOBAL_VENDOR: Final = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
# Non-volatile, boot service access, runtime access: UEFI specification, 8.2.
_ATTRIBUTES: Final = struct.pack("<I", 7)
# Names of boot entries are file names; a variable that is longer isn't one of ours.
_LONGEST: Final = 4 + 2 * 1024
# <linux/fs.h>: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL. The size of long is part of the number.
_GET_FLAGS: Final = 2 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 1
_SET_FLAGS: Final = 1 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 2
_IMMUTABLE: Final = 0x10


class EfiVariables:
    """The variables of the Boot Loader Interface: texts in UTF-16LE with a final NUL.

    The kernel marks their files immutable, against `rm -rf /`: the mark is taken off for a change and put back.

    Args:
        folder: where efivarfs is mounted.
    """

    def __init__(self, folder: Path | str = _DEFAULT) -> None:
        self._folder = Path(folder)

    def read(self, name: str) -> str | None:
        """Return the text of the variable `name`, None where it isn't set.

        Raises:
            NodeFailure: efivarfs isn't there, or the variable isn't a text.
        """
        content = self._read(self._path(name, LOADER_VENDOR))
        return None if content is None else _text(name, content)

    def secure_boot(self) -> bool:
        """Return whether the firmware enforces Secure Boot.

        Raises:
            NodeFailure: efivarfs isn't there.
        """
        content = self._read(self._path("SecureBoot", GLOBAL_VENDOR))
        return content is not None and content[4:] == b"\x01"

    def write(self, name: str, text: str) -> None:
        """Set the variable `name` to `text`; one that holds it already isn't written again, to spare the NVRAM.

        Raises:
            NodeFailure: it couldn't be written, or doesn't hold `text` afterwards.
        """
        path = self._path(name, LOADER_VENDOR)
        content = _ATTRIBUTES + f"{text}\0".encode("utf-16-le")
        self._require_efivarfs()
        with _named(path, "write"):
            if _says(_content(path), content):
                return
            with _mutable(path):
                _write_at_once(path, content)
            found = _content(path)
        if not _says(found, content):
            raise boot_failure(f"EFI variable {name} holds {shown(found)} after {shown(content)} was written")

    def remove(self, name: str) -> None:
        """Remove the variable `name` where it is set.

        Raises:
            NodeFailure: it couldn't be removed, or is there afterwards.
        """
        path = self._path(name, LOADER_VENDOR)
        self._require_efivarfs()
        with _named(path, "remove"):
            with _mutable(path):
                path.unlink(missing_ok=True)
            if _content(path) is not None:
                raise boot_failure(f"EFI variable {name} is still there after it was removed")

    def _path(self, name: str, vendor: str) -> Path:
        return self._folder / f"{name}-{vendor}"

    def _read(self, path: Path) -> bytes | None:
        self._require_efivarfs()
        with _named(path, "read"):
            return _content(path)

    def _require_efivarfs(self) -> None:
        # The mount point is there without a mount, but empty; firmware always has variables.
        try:
            with os.scandir(self._folder) as entries:
                mounted = next(entries, None) is not None
        except (FileNotFoundError, NotADirectoryError):
            mounted = False
        except OSError as error:
            raise boot_failure(f"efivarfs at {self._folder} can't be read: {error.strerror}") from error
        if not mounted:
            raise boot_failure(
                f"efivarfs isn't mounted at {self._folder}: the node wasn't booted through UEFI, "
                f"or `mount -t efivarfs efivarfs {self._folder}` is missing"
            )


def _content(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        # efivarfs shows a variable that was created and never written as an empty file: for firmware it isn't there.
        return file.read(_LONGEST + 1) or None


def _says(found: bytes | None, content: bytes) -> bool:
    """Return whether a variable holds what was written, up to the NUL that ends it."""
    return found is not None and found.startswith(content)


def _text(name: str, content: bytes) -> str:
    data = content[4:]
    # The loader stops at the first NUL, too.
    end = next((at for at in range(0, len(data) - 1, 2) if data[at : at + 2] == b"\0\0"), len(data))
    if len(content) < 4 or end % 2 or len(content) > _LONGEST:
        expected = f"4 bytes of attributes and pairs of bytes, at most {_LONGEST} in all"
        raise boot_failure(f"EFI variable {name} has {len(content)} bytes, expected {expected}")
    try:
        text = data[:end].decode("utf-16-le")
    except UnicodeDecodeError as error:
        raise boot_failure(f"EFI variable {name} isn't UTF-16LE: {shown(data)}") from error
    if not text.isprintable() or not text:
        raise boot_failure(f"EFI variable {name} is {shown(text)}, expected the name of a boot entry")
    return text


def _write_at_once(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        written = os.write(descriptor, content)
        if written != len(content):
            raise boot_failure(f"only {written} of {len(content)} bytes of {path.name} were written")
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _mutable(path: Path) -> Iterator[None]:
    """Take the immutable mark off a file, where it has one, and put it back."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        flags = _flags(descriptor)
        if flags is None or not flags & _IMMUTABLE:
            yield
            return
        _set_flags(descriptor, flags & ~_IMMUTABLE)
        try:
            yield
        finally:
            if os.fstat(descriptor).st_nlink:
                _set_flags(descriptor, flags)
    finally:
        os.close(descriptor)


def _flags(descriptor: int) -> int | None:
    value = array.array("i", [0, 0])
    try:
        fcntl.ioctl(descriptor, _GET_FLAGS, value)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return None
        raise
    return value[0]


def _set_flags(descriptor: int, flags: int) -> None:
    fcntl.ioctl(descriptor, _SET_FLAGS, array.array("i", [flags, 0]))


@contextlib.contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    """Say in a person's words what is wrong where the operating system has an errno alone."""
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.EROFS:
                why = f"efivarfs is mounted read-only; `mount -o remount,rw {path.parent}` is missing"
            case errno.ENOSPC:
                why = "the firmware's variable store (NVRAM) is full"
            case errno.EPERM | errno.EACCES:
                why = f"it may not be changed ({error.strerror}): the agent isn't root, or the firmware protects it"
            case errno.ELOOP:
                why = "it is a symbolic link, which efivarfs doesn't have"
            case _:
                why = f"{error.strerror}"
        raise boot_failure(f"EFI variable {path.name}: can't {what} it: {why}") from error
