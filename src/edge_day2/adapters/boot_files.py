"""Boot files of a slot's image: from inside the slot's file system, or from the EFI system partition of a disk image.

Nothing of the image is believed: paths stay inside it, sizes are limited, and what is copied has a digest.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import posixpath
import re
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from edge_day2.adapters.bootloader.boot_failure import boot_failure
from edge_day2.adapters.hashed_copy import chunks_of, write_hashed
from edge_day2.domain.observation import Slot
from edge_day2.errors import InvalidValue, shown
from edge_day2.ports.boot_files import BootFile, BootFiles

_MIB: Final = 1024 * 1024
_MOST_LINKS: Final = 40
_EXT_MAGIC_AT: Final = 1024 + 56
_EXT_MAGIC: Final = b"\x53\xef"
# What debugfs and mtools take as it is, inside double quotes.
_PATH: Final = re.compile(r"/[A-Za-z0-9_.+@%=,:/ ~-]*")
_ENVIRONMENT: Final = {**os.environ, "LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "1"}


class FileSystemBootFiles:
    """Kernel and initrds, or a unified kernel image, that lie in the slot's own file system.

    ext2, ext3 and ext4 are read by debugfs of e2fsprogs, without mounting; others are mounted read-only, which needs
    root. A symbolic link leads to where it leads inside the slot.

    Args:
        slots: each slot's partition, or a file that holds its file system.
        kernel: the kernel or unified kernel image, an absolute path in the slot.
        initrds: the initrds that go with it, in order.
        limit_bytes: how large each may be.
        timeout_seconds: how long reading one may take.
    """

    def __init__(
        self,
        slots: Mapping[Slot, Path | str],
        *,
        kernel: str = "/boot/vmlinuz",
        initrds: Sequence[str] = ("/boot/initrd.img",),
        limit_bytes: int = 512 * _MIB,
        timeout_seconds: float = 300,
    ) -> None:
        self._slots = {slot: Path(path) for slot, path in slots.items()}
        self._paths = {"kernel": kernel, **{f"initrd-{number}": path for number, path in enumerate(initrds)}}
        self._limit = limit_bytes
        self._timeout = timeout_seconds
        for path in self._paths.values():
            if not _PATH.fullmatch(path):
                raise InvalidValue("path of a boot file", path, "an absolute path of plain characters")

    def copy(self, slot: Slot, folder: Path) -> BootFiles:
        """See `BootFilesPort`."""
        if slot not in self._slots:
            raise boot_failure(f"no partition is configured for slot {slot.value}")
        device = self._slots[slot]
        if not device.exists():
            raise boot_failure(f"the partition of slot {slot.value}, {device}, isn't there")
        try:
            read_file = self._from_ext if _is_ext(device) else self._from_mount
        except OSError as error:
            raise boot_failure(f"{device} can't be read: {error.strerror}") from error
        copies = read_file(device, folder)
        kernel = copies.pop("kernel")
        return BootFiles(kernel=kernel, initrds=tuple(copies.values()))

    def _from_ext(self, device: Path, folder: Path) -> dict[str, BootFile]:
        return {name: self._from_debugfs(device, path, folder / name) for name, path in self._paths.items()}

    def _from_debugfs(self, device: Path, path: str, target: Path) -> BootFile:
        found = self._resolve(device, path)
        _require_size(f"{device}:{path}", found.size, self._limit)
        command = _debugfs(device, f'cat "{found.path}"')
        copy = _copy_output(command, target, self._limit, self._timeout)
        # debugfs ends with 0 whatever happens.
        if copy.size != found.size:
            raise boot_failure(f"{device}:{path} has {found.size} bytes, debugfs read {copy.size}")
        return copy

    def _resolve(self, device: Path, path: str) -> _Found:
        here = path
        for _ in range(_MOST_LINKS):
            said = _output(_debugfs(device, f'stat "{here}"'), self._timeout)
            match = re.search(r"Type: (\w+)", said)
            size = re.search(r"Size: (\d+)\n", said)
            if match is None or size is None:
                raise boot_failure(f"{device} has no {shown(here)}, looked for {path}: {shown(said.strip())}")
            if match[1] == "regular":
                return _Found(here, int(size[1]))
            if match[1] != "symlink":
                raise boot_failure(f"{device}:{here} is a {match[1]}, expected a file")
            fast = re.search(r'Fast link dest: "(.*)"', said)
            leads_to = fast[1] if fast else _output(_debugfs(device, f'cat "{here}"'), self._timeout)
            # An absolute one begins at the slot's root; debugfs takes care of `..` above it.
            here = posixpath.join(posixpath.dirname(here), leads_to)
            if not _PATH.fullmatch(here):
                raise boot_failure(f"{device}:{path} leads to {shown(here)}, expected plain characters")
        raise boot_failure(f"{device}:{path} leads to more than {_MOST_LINKS} symbolic links")

    def _from_mount(self, device: Path, folder: Path) -> dict[str, BootFile]:
        with _mounted(device, self._timeout) as root:
            return {name: self._from_folder(root, path, folder / name) for name, path in self._paths.items()}

    def _from_folder(self, root: Path, path: str, target: Path) -> BootFile:
        found = _inside(root, path)
        try:
            # A pipe would keep the reader waiting.
            descriptor = os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise boot_failure(f"{path} of the slot can't be read: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise boot_failure(f"{path} of the slot isn't a file")
            _require_size(path, status.st_size, self._limit)
            return write_hashed(chunks_of(file), target)


class EspImageBootFiles:
    """A unified kernel image from the EFI system partition of the disk image that was written into the slot.

    Args:
        folder: where the slot's adapter leaves that partition: `a.esp` for slot A, `b.esp` for slot B.
        kernel: the path in it, whose last part may be a pattern that fits one file.
        limit_bytes: how large it may be.
        timeout_seconds: how long reading may take.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        kernel: str = "EFI/Linux/*.efi",
        limit_bytes: int = 512 * _MIB,
        timeout_seconds: float = 300,
    ) -> None:
        self._folder = Path(folder)
        self._place, self._pattern = posixpath.split("/" + kernel.lstrip("/"))
        self._limit = limit_bytes
        self._timeout = timeout_seconds
        if not _PATH.fullmatch(self._place):
            raise InvalidValue("path of a kernel", kernel, "a path of plain characters")

    def copy(self, slot: Slot, folder: Path) -> BootFiles:
        """See `BootFilesPort`."""
        image = self._folder / f"{slot.value.lower()}.esp"
        if not image.is_file():
            raise boot_failure(f"{image} isn't there: the image in slot {slot.value} brought no EFI system partition")
        listed = _output(["mdir", "-b", "-i", str(image), f"::{self._place}"], self._timeout, required=True)
        names = [line.rpartition("/")[2] for line in listed.splitlines() if not line.endswith("/")]
        fitting = [name for name in names if fnmatch.fnmatchcase(name.lower(), self._pattern.lower())]
        if len(fitting) != 1:
            expected = f"one file that fits {self._pattern}"
            raise boot_failure(f"{image}:{self._place} holds {shown(' '.join(names))}, expected {expected}")
        path = posixpath.join(self._place, fitting[0])
        if not _PATH.fullmatch(path):
            raise boot_failure(f"{image} holds {shown(path)}, expected plain characters")
        command = ["mcopy", "-i", str(image), f"::{path}", "-"]
        return BootFiles(kernel=_copy_output(command, folder / "kernel", self._limit, self._timeout))


@frozen
class _Found:
    path: str
    size: int


def _debugfs(device: Path, request: str) -> list[str]:
    return ["debugfs", "-R", request, str(device)]


def _is_ext(device: Path) -> bool:
    with device.open("rb") as file:
        file.seek(_EXT_MAGIC_AT)
        return file.read(2) == _EXT_MAGIC


def _require_size(what: str, size: int, limit: int) -> None:
    if size > limit:
        raise boot_failure(f"{what} has {size} bytes, expected at most {limit}")


def _output(command: list[str], timeout: float, *, required: bool = False) -> str:
    """Return what a tool says. `required`: it must end with 0."""
    try:
        done = subprocess.run(  # noqa: S603 a list, no shell
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=_ENVIRONMENT,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise boot_failure(f"{command[0]} isn't installed") from error
    except subprocess.TimeoutExpired as error:
        raise boot_failure(f"{command[0]} took more than {timeout:g} s: {' '.join(command)}") from error
    said = done.stdout.decode("utf-8", errors="replace")
    if required and done.returncode:
        raise boot_failure(f"{' '.join(command)}: {shown(done.stderr.decode('utf-8', errors='replace').strip())}")
    return said


def _copy_output(command: list[str], target: Path, limit: int, timeout: float) -> BootFile:
    """Write what a tool puts out into a new file."""
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(  # noqa: S603 a list, no shell
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, env=_ENVIRONMENT
            )
        except FileNotFoundError as error:
            raise boot_failure(f"{command[0]} isn't installed") from error
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(timeout, give_up)
        timer.start()
        try:
            with process:
                assert process.stdout is not None
                try:
                    copy = write_hashed(_limited(chunks_of(process.stdout), limit, command), target)
                except BaseException:
                    process.kill()
                    raise
        finally:
            timer.cancel()
            timer.join()
        if late.is_set():
            raise boot_failure(f"{command[0]} took more than {timeout:g} s: {' '.join(command)}")
        if process.returncode:
            complaints.seek(0)
            raise boot_failure(
                f"{' '.join(command)}: {shown(complaints.read().decode('utf-8', errors='replace').strip())}"
            )
        return copy


def _limited(chunks: Iterator[bytes], limit: int, command: list[str]) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise boot_failure(f"{' '.join(command)}: more than {limit} bytes")
        yield chunk


@contextlib.contextmanager
def _mounted(device: Path, timeout: float) -> Iterator[Path]:
    loop = ["-o", "ro,nosuid,nodev,noexec" + ("" if device.is_block_device() else ",loop")]
    with tempfile.TemporaryDirectory(prefix="edge_day2-slot-") as name:
        _output(["mount", *loop, str(device), name], timeout, required=True)
        try:
            yield Path(name)
        finally:
            _output(["umount", name], timeout, required=True)


def _inside(root: Path, path: str) -> Path:
    """Return what `path` leads to when `root` is the root: no symbolic link leads out of it."""
    here, ahead, links = root, [part for part in reversed(path.split("/")) if part], 0
    while ahead:
        part = ahead.pop()
        if part in (".", ".."):
            here = here if part == "." or here == root else here.parent
            continue
        step = here / part
        if not step.is_symlink():
            here = step
            continue
        links += 1
        if links > _MOST_LINKS:
            raise boot_failure(f"{path} leads to more than {_MOST_LINKS} symbolic links")
        leads_to = str(step.readlink())
        here = root if leads_to.startswith("/") else here
        ahead.extend(part for part in reversed(leads_to.split("/")) if part)
    return here
