"""Port: what the boot loader needs of the image in a slot: its kernel and initrds, or its unified kernel image."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from attrs import frozen

from edge_day2.domain.observation import Slot


@frozen(kw_only=True)
class BootFile:
    """A copy of one file: where it lies, its length in bytes, and the sha256 (hex) of what was read from the slot."""

    path: Path
    size: int
    sha256: str


@frozen(kw_only=True)
class BootFiles:
    """What a boot entry starts: a unified kernel image (UKI), which stands alone, or a kernel and its initrds."""

    kernel: BootFile
    initrds: tuple[BootFile, ...] = ()


class BootFilesPort(Protocol):
    """Where the boot files of a slot's image come from."""

    def copy(self, slot: Slot, folder: Path) -> BootFiles:
        """Copy the boot files of the image in `slot` into `folder`, which is there and empty.

        Raises:
            NodeFailure: they aren't there, are too large, or can't be read. The folder holds anything.
            OSError: `folder` can't be written to; ENOSPC where it is full.
        """
        ...
