"""What both boot loaders have in common: entries with their kernels on one boot partition.

They are written so that a power cut at any point leaves every other entry whole.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from attrs import frozen

from edge_day2.adapters.bootloader.boot_failure import boot_failure
from edge_day2.adapters.bootloader.kernel_images import KernelImage
from edge_day2.adapters.bootloader.kernel_store import KernelStore, StoredFiles
from edge_day2.domain.observation import BootEntry
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.boot_files import BootFilesPort
from edge_day2.ports.bootloader import BootloaderPort, BootState
from edge_day2.ports.failures import NodeFailure


@frozen(kw_only=True)
class EntryText:
    """What an entry file says. Paths are those that the boot loader sees.

    `kernel_command_line` is what was asked for; it is kept in a comment, because `options` holds more than that.
    """

    kernel: str
    unified: bool = False
    initrds: tuple[str, ...] = ()
    options: str = ""
    title: str = ""
    version: str = ""
    kernel_command_line: str = ""


class EntryFiles(Protocol):
    """The entry files of one boot loader. Every call may raise OSError."""

    def files(self, entry: BootEntry) -> list[Path]:
        """Return the files of an entry, the one that counts first."""
        ...

    def read(self, path: Path) -> EntryText | None:
        """Return what an entry file says; None where it is gone, or nothing that can be started."""
        ...

    def replace(self, entry: BootEntry, text: EntryText) -> None:
        """Make `text` the entry's only file, durably."""
        ...

    def remove(self, entry: BootEntry) -> None:
        """Remove every file of an entry, durably."""
        ...

    def used_paths(self, but: BootEntry | None = None) -> set[Path]:
        """Return every file that an entry of anybody refers to, except those of the entry `but`."""
        ...

    def on_partition(self, path: str) -> Path:
        """Return where a path of an entry file lies."""
        ...

    def seen_by_loader(self, path: Path) -> str:
        """Return the path of a file on the partition as an entry file says it."""
        ...


@frozen(kw_only=True)
class BootPartition:
    """Entries and kernels on the partition that the boot loader reads.

    Attributes:
        called: what a person calls it.
        mount: where it is mounted.
        landmark: a folder of it, whose absence says that it isn't mounted.
        entries: the entry files.
        store: the kernels.
        boot_files: where the boot files of the other slot's image come from.
        inspect: looks at a kernel before an entry leads to it.
    """

    called: str
    mount: Path
    landmark: str
    entries: EntryFiles
    store: KernelStore
    boot_files: BootFilesPort
    inspect: Callable[[Path], KernelImage]

    def write(
        self,
        entry: BootEntry,
        active: BootEntry,
        running: EntryText,
        options: Callable[[KernelImage], str],
        wanted: str,
    ) -> None:
        """Write an entry that neither runs nor is the default.

        Args:
            entry: the entry. One of the running slot starts the files of the running entry again.
            active: the running entry.
            running: what its file says.
            wanted: the kernel command line that was asked for.
            options: gives all parameters of a kernel.

        Raises:
            NodeFailure: it couldn't be written; all other entries are as they were, and nothing of it is left over.
        """
        with self.named("write"):
            self._remove_unused()
            try:
                if entry.slot is active.slot:
                    files = self._files_of(running, self._used(entry))
                else:
                    files = self.store.take(self.boot_files, entry.slot, self._used(entry))
                image = self.inspect(self.store.path(files.kernel))
                # On FAT a new name is on the medium before what it leads to, unless all of it is flushed.
                self.flush()
                self.entries.replace(entry, self._text(entry, files, image, options(image), wanted))
            except BaseException:
                with contextlib.suppress(OSError):
                    self._remove_unused()
                raise
            self._remove_unused()
            self.flush()

    def remove(self, entry: BootEntry) -> None:
        """Remove an entry that neither runs nor is the default, and the kernels that no other one needs.

        Raises:
            NodeFailure: it couldn't be removed.
        """
        with self.named("write"):
            self.entries.remove(entry)
            self._remove_unused()
            self.flush()

    def whole_file(self, entry: BootEntry) -> Path:
        """Return the file of an entry that can be started: with everything that it refers to.

        Raises:
            NodeFailure: it isn't there, or isn't whole.
            OSError: it can't be read.
        """
        path = next(iter(self.entries.files(entry)), None)
        text = None if path is None else self.entries.read(path)
        if path is None or text is None:
            raise boot_failure(f"boot entry {entry} isn't there, or its file is damaged")
        for file in map(self.entries.on_partition, (text.kernel, *text.initrds)):
            if (name := self.store.name_at(file)) is not None:
                self.store.require_whole(name)
            elif not file.is_file():
                raise boot_failure(f"boot entry {entry} starts {file}, which is missing")
        return path

    def flush(self) -> None:
        """Write everything of the partition to its medium: FAT keeps no order of its own.

        Raises:
            OSError: the medium refuses.
        """
        descriptor = os.open(self.mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # os.sync() would wait for every other file system too, and hide their errors and this one's.
            if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(self.mount))
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def named(self, what: str) -> Iterator[None]:
        """Say what is wrong with the partition where the operating system has an errno alone."""
        if not (self.mount / self.landmark).is_dir():
            raise boot_failure(f"no {self.called} is mounted at {self.mount}: there is no folder {self.landmark}")
        try:
            yield
        except OSError as error:
            reason = FailureReason.BOOTLOADER_FAIL
            why = error.strerror or str(error)
            if error.errno == errno.ENOSPC:
                reason = FailureReason.INSUFFICIENT_STORAGE
                why = f"it is full: {_free_bytes(self.mount)} bytes are free"
            elif error.errno == errno.EROFS:
                why = "it is mounted read-only"
            file = f" ({error.filename})" if error.filename else ""
            raise NodeFailure(reason, f"{self.called} at {self.mount}: can't {what} it: {why}{file}") from error

    def _text(self, entry: BootEntry, files: StoredFiles, image: KernelImage, options: str, wanted: str) -> EntryText:
        def seen(name: str) -> str:
            return self.entries.seen_by_loader(self.store.path(name))

        return EntryText(
            title=f"slot {entry.slot.value}" + (", other kernel command line" if entry.variant else ""),
            version=image.release if image.release.isascii() and image.release.isprintable() else "",
            kernel=seen(files.kernel),
            unified=image.unified,
            initrds=tuple(map(seen, files.initrds)),
            options=options,
            kernel_command_line=wanted,
        )

    def _files_of(self, running: EntryText, used: set[str]) -> StoredFiles:
        kernel, *initrds = (self.entries.on_partition(path) for path in (running.kernel, *running.initrds))
        names = [self.store.name_at(path) for path in (kernel, *initrds)]
        stored = [name for name in names if name is not None]
        if len(stored) < len(names):
            return self.store.take_files(kernel, initrds, used)
        for name in stored:
            self.store.require_whole(name)
        return StoredFiles(kernel=stored[0], initrds=tuple(stored[1:]))

    def _remove_unused(self) -> None:
        self.store.remove_unused(self._used())

    def _used(self, but: BootEntry | None = None) -> set[str]:
        names = (self.store.name_at(path) for path in self.entries.used_paths(but))
        return {name for name in names if name is not None}


def release(boot_loader: BootloaderPort, entry: BootEntry, what: str) -> BootState:
    """See to it that nothing boots `entry` until somebody says so again; return where the node stands.

    Raises:
        NodeFailure: it runs, or is the default.
    """
    state = boot_loader.state()
    if entry in (state.active, state.default):
        which = "running" if entry == state.active else "default"
        raise boot_failure(f"{entry} is the {which} boot entry and isn't {what}")
    if state.one_shot == entry:
        boot_loader.disarm()
    return state


def _free_bytes(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize
