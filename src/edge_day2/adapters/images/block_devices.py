"""Opens slots, and refuses what is in use: mounted, swap, part of something bigger, or behind a loop device."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from edge_day2.adapters.images.regions import failing_as
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import NodeFailure

# linux/fs.h: length of a block device in bytes.
_BLKGETSIZE64: Final = 0x80081272


@frozen(kw_only=True)
class OpenSlot:
    """A slot that is open: a descriptor, and how many bytes there is room for."""

    descriptor: int
    capacity: int
    path: Path


@frozen(kw_only=True)
class BlockDevices:
    """What the kernel says of block devices.

    Attributes:
        mountinfo: proc_pid_mountinfo(5).
        swaps: /proc/swaps.
        sysfs: where sysfs(5) is mounted.
        links: the folder within which a slot's path may be a symbolic link, to a block device: udev makes those.
    """

    mountinfo: Path = Path("/proc/self/mountinfo")
    swaps: Path = Path("/proc/swaps")
    sysfs: Path = Path("/sys")
    links: Path = Path("/dev")

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[OpenSlot]:
        """Open a slot to write it; a block device exclusively.

        Raises:
            NodeFailure: it is in use, is neither a block device nor a plain file, or can't be opened.
        """
        with self._open(path, os.O_RDWR) as slot:
            self._refuse_used(slot)
            yield slot

    @contextlib.contextmanager
    def reading(self, path: Path) -> Iterator[OpenSlot]:
        """Open a slot to read it.

        Raises:
            NodeFailure: it is neither a block device nor a plain file, or can't be opened.
        """
        with self._open(path, os.O_RDONLY) as slot:
            yield slot

    @contextlib.contextmanager
    def _open(self, path: Path, flags: int) -> Iterator[OpenSlot]:
        with failing_as(FailureReason.UT_WRITE, f"opening slot {path}"):
            found, device = self._find(path)
            # An exclusive open fails where the device is mounted, swap, or held by another driver: open(2).
            exclusive = os.O_EXCL if device and flags & os.O_RDWR else 0
            descriptor = os.open(found, flags | exclusive | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            with failing_as(FailureReason.UT_WRITE, f"opening slot {path}"):
                opened = os.fstat(descriptor)
                if device is not stat.S_ISBLK(opened.st_mode) or not (device or stat.S_ISREG(opened.st_mode)):
                    raise OSError(errno.EINVAL, "it was another kind of file a moment ago")
                capacity = _device_length(descriptor) if device else opened.st_size
            yield OpenSlot(descriptor=descriptor, capacity=capacity, path=path)
        finally:
            os.close(descriptor)

    def _find(self, path: Path) -> tuple[Path, bool]:
        """Return what `path` leads to, and whether that is a block device."""
        if path.is_symlink():
            if not path.is_relative_to(self.links):
                raise OSError(errno.ELOOP, f"a symbolic link that isn't in {self.links}")
            path = path.resolve(strict=True)
            if not path.is_block_device():
                raise OSError(errno.ENOTBLK, f"the symbolic link leads to {path}, which is no block device")
        mode = path.lstat().st_mode
        if not (stat.S_ISBLK(mode) or stat.S_ISREG(mode)):
            raise OSError(errno.ENOTBLK, "neither a block device nor a plain file")
        return path, stat.S_ISBLK(mode)

    def _refuse_used(self, slot: OpenSlot) -> None:
        with failing_as(FailureReason.UT_WRITE, f"looking who uses slot {slot.path}"):
            found = os.fstat(slot.descriptor)
            where = slot.path.resolve()
            use = self._use_of_device(found.st_rdev) if stat.S_ISBLK(found.st_mode) else ""
            use = use or self._use_as_swap(found, where) or self._use_by_loop(where)
        if use:
            raise NodeFailure(FailureReason.UT_WRITE, f"slot {slot.path} isn't written: {use}")

    def _use_of_device(self, device: int) -> str:
        for number in self._with_partitions(device):
            for line in self.mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
                fields = line.split(" ")
                # proc_pid_mountinfo(5): (3) major:minor, (5) mount point, and after "-" type and source.
                source = fields[fields.index("-", 6) + 2]
                if fields[2] == number or _number_of(_unescaped(source)) == number:
                    return f"{number} is mounted at {_unescaped(fields[4])}"
            holders = self.sysfs / "dev" / "block" / number / "holders"
            if held := sorted(one.name for one in holders.iterdir()) if holders.is_dir() else []:
                return f"{number} is held by {', '.join(held)}"
        return ""

    def _with_partitions(self, device: int) -> tuple[str, ...]:
        own = f"{os.major(device)}:{os.minor(device)}"
        folder = self.sysfs / "dev" / "block" / own
        parts = sorted(folder.glob("*/partition"))
        return (own, *((part.parent / "dev").read_text().strip() for part in parts))

    def _use_as_swap(self, slot: os.stat_result, where: Path) -> str:
        try:
            lines = self.swaps.read_text(encoding="utf-8", errors="surrogateescape").splitlines()[1:]
        except FileNotFoundError:  # a kernel without swap
            return ""
        for line in lines:
            path = Path(_unescaped(line.split(" ")[0].split("\t")[0]))
            device = f"{os.major(slot.st_rdev)}:{os.minor(slot.st_rdev)}" if stat.S_ISBLK(slot.st_mode) else None
            if path == where or (device is not None and _number_of(str(path)) == device):
                return f"{path} is used as swap"
        return ""

    def _use_by_loop(self, where: Path) -> str:
        for backing in sorted((self.sysfs / "block").glob("loop*/loop/backing_file")):
            try:
                path = backing.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n")
            except FileNotFoundError:  # let go a moment ago
                continue
            if path == str(where):
                return f"it is behind the loop device {backing.parent.parent.name}"
        return ""


def _device_length(descriptor: int) -> int:
    answer = fcntl.ioctl(descriptor, _BLKGETSIZE64, bytes(8))
    length: int = struct.unpack("=Q", answer)[0]
    return length


def _number_of(path: str) -> str | None:
    """Return major:minor of the block device at `path`, None where there is none."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" if stat.S_ISBLK(found.st_mode) else None


def _unescaped(text: str) -> str:
    # The kernel writes blanks, tabs, line ends and backslashes as three octal digits.
    for escape, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, plain)
    return text
