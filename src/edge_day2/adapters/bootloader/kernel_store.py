"""Kernels and initrds on the boot partition, each under the name of its own digest.

A file never changes once it has its name, so that entries with the same kernel share it, what a running or default
entry uses can't be overwritten, and whether a file is whole can be told from its name.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from attrs import frozen

from edge_day2.adapters.bootloader.boot_failure import boot_failure
from edge_day2.adapters.durable_files import flush_folder, remove_file
from edge_day2.adapters.hashed_copy import chunks_of, read_back, write_hashed
from edge_day2.domain.observation import Slot
from edge_day2.ports.boot_files import BootFile, BootFiles, BootFilesPort

_NAME: Final = re.compile(r"([0-9a-f]{64})\.(efi|img)")
_STAGING: Final = "new"


@frozen(kw_only=True)
class StoredFiles:
    """Names, in the store, of what one boot entry starts."""

    kernel: str
    initrds: tuple[str, ...] = ()


class KernelStore:
    """The boot files of all entries, in one folder of the boot partition.

    Args:
        folder: is made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        """Return where the file `name` of the store lies."""
        return self._folder / name

    def name_at(self, path: Path) -> str | None:
        """Return the name of a file of this store, None where the path isn't one."""
        name = path.name.lower()
        return name if path.parent == self._folder and _NAME.fullmatch(name) else None

    def take(self, source: BootFilesPort, slot: Slot, used: Collection[str]) -> StoredFiles:
        """Store the boot files of the image in `slot`; `used` are the names that other entries refer to.

        Raises:
            NodeFailure: they can't be had, or the medium doesn't hold what was written.
            OSError: the boot partition can't be written to.
        """
        return self._add(source.copy(slot, self._empty_staging()), used)

    def take_files(self, kernel: Path, initrds: Iterable[Path], used: Collection[str]) -> StoredFiles:
        """Store files that lie elsewhere on the boot partition, for entries that were made by somebody else.

        Raises:
            NodeFailure: the medium doesn't hold what was written.
            OSError: they can't be read, or the boot partition can't be written to.
        """
        staging = self._empty_staging()

        def copied(source: Path, name: str) -> BootFile:
            with source.open("rb") as file:
                return write_hashed(chunks_of(file), staging / name)

        first = copied(kernel, "kernel")
        others = tuple(copied(path, f"initrd-{number}") for number, path in enumerate(initrds))
        return self._add(BootFiles(kernel=first, initrds=others), used)

    def require_whole(self, name: str) -> None:
        """See to it that the file `name` is there and holds what its name says.

        Raises:
            NodeFailure: it isn't, or doesn't.
            OSError: it can't be read.
        """
        path = self.path(name)
        if not path.is_file():
            raise boot_failure(f"{path} is missing")
        if not name.startswith(found := read_back(path)):
            raise boot_failure(f"{path} is damaged: its sha256 is {found}")

    def remove_unused(self, used: Collection[str]) -> None:
        """Remove what no entry refers to, and what a crash left.

        Raises:
            OSError: it can't be removed.
        """
        if not self._folder.is_dir():
            return
        shutil.rmtree(self._folder / _STAGING, ignore_errors=True)
        for path in sorted(self._folder.iterdir()):
            name = self.name_at(path)
            if name is not None and name not in used:
                remove_file(path)

    def _empty_staging(self) -> Path:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True)
            flush_folder(self._folder.parent)
        staging = self._folder / _STAGING
        if staging.exists():
            shutil.rmtree(staging)
        staging.mkdir()
        return staging

    def _add(self, files: BootFiles, used: Collection[str]) -> StoredFiles:
        kernel = self._add_file(files.kernel, "efi", used)
        return StoredFiles(
            kernel=kernel, initrds=tuple(self._add_file(initrd, "img", used) for initrd in files.initrds)
        )

    def _add_file(self, file: BootFile, suffix: str, used: Collection[str]) -> str:
        name = f"{file.sha256}.{suffix}"
        target = self.path(name)
        if target.exists() and (name in used or read_back(target) == file.sha256):
            self.require_whole(name)
            return name
        if (found := read_back(file.path)) != file.sha256:
            raise boot_failure(f"{file.path} was read back with sha256 {found}, written was {file.sha256}")
        file.path.replace(target)
        flush_folder(self._folder)
        return name
