"""The entry files that systemd-boot reads on the EFI system partition, and which boot entry each of them is.

Boot Loader Specification, https://uapi-group.org/specifications/specs/boot_loader_specification/: Type #1 is a text in
loader/entries, Type #2 a unified kernel image in EFI/Linux. A file name may carry a boot counter: `+LEFT-DONE`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from edge_day2.adapters.bootloader.boot_partition import EntryText
from edge_day2.adapters.bootloader.remembered_command_line import asked_for, remembered
from edge_day2.adapters.durable_files import flush_folder, remove_file, replace_file
from edge_day2.domain.observation import BootEntry, Slot
from edge_day2.errors import InvalidValue

_COUNTED: Final = re.compile(r"(.+)\+(\d{1,9})(?:-(\d{1,9}))?(\.conf|\.efi)", re.IGNORECASE)
_ADOPTABLE: Final = re.compile(r"(?!edge_day2-)[A-Za-z0-9_.-]+\.(conf|efi)")
_LARGEST_BYTES: Final = 64 * 1024
_OWN_PREFIX: Final = "edge_day2-"


@frozen
class EntryName:
    """A file name: the entry's id, and its boot counter where it has one."""

    plain: str
    left: int | None = None
    done: int = 0

    @classmethod
    def parse(cls, file_name: str) -> EntryName:
        """Take a file name apart as systemd-boot does."""
        match = _COUNTED.fullmatch(file_name)
        if match is None:
            return cls(file_name)
        return cls(match[1] + match[4], int(match[2]), int(match[3] or 0))


def render(text: EntryText) -> bytes:
    """Return the file of a Type #1 entry. None of the texts has a line break: they were checked, or are our own."""
    lines = [
        remembered(text.kernel_command_line),
        f"title {text.title}",
        "sort-key edge_day2",
        *([f"version {text.version}"] if text.version else []),
        f"{'efi' if text.unified else 'linux'} {text.kernel}",
        *(f"initrd {initrd}" for initrd in text.initrds),
        *([f"options {text.options}"] if text.options else []),
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def parse(content: bytes) -> EntryText | None:
    """Return what systemd-boot makes of a Type #1 file, None where it ignores it: there is no kernel in it."""
    lines = [line.strip(" \t\r") for line in content.decode("utf-8", errors="replace").split("\n")]
    values: dict[str, list[str]] = {}
    for line in lines:
        if not line.startswith("#") and (parts := line.split(None, 1))[1:]:
            values.setdefault(parts[0], []).append(parts[1])
    kernels = values.get("linux") or values.get("efi")
    if not kernels:
        return None
    return EntryText(
        kernel=kernels[-1],
        unified="linux" not in values,
        initrds=tuple(values.get("initrd", ())),
        options=" ".join(values.get("options", ())),
        title=values.get("title", [""])[-1],
        version=values.get("version", [""])[-1],
        kernel_command_line=asked_for(lines),
    )


class LoaderEntries:
    """The entry files on one EFI system partition.

    Args:
        esp: where it is mounted.
        adopted: entries that somebody else made, by the file names that they have in loader/entries or EFI/Linux.
            They can be run, armed and made the default, and are removed when their slot's own entry is written.
        tries: where the boot counter of an entry that is written begins, None without one.
    """

    def __init__(self, esp: Path, adopted: Mapping[BootEntry, str], tries: int | None) -> None:
        self._esp = esp
        self._tries = tries
        self._texts = esp / "loader" / "entries"
        self._images = esp / "EFI" / "Linux"
        self._adopted = dict(adopted)
        own = {BootEntry(slot, variant): own_name(BootEntry(slot, variant)) for slot in Slot for variant in (0, 1)}
        for name in self._adopted.values():
            if not _ADOPTABLE.fullmatch(name) or EntryName.parse(name).left is not None:
                raise InvalidValue(
                    "adopted entry", name, "a file name that ends in .conf or .efi, without boot counter"
                )
        self._entries = {name.lower(): entry for names in (own, self._adopted) for entry, name in names.items()}
        if len(self._entries) < len(own) + len(self._adopted):
            raise InvalidValue("adopted entries", self._adopted, "another name for each, none of them our own")

    def entry_of(self, name: str) -> BootEntry | None:
        """Return the boot entry that a file name or loader id stands for, None where it is somebody else's."""
        exact = self._entries.get(name.lower())
        if exact is not None:
            return exact
        counted = self._entries.get(EntryName.parse(name).plain.lower())
        return counted if counted is not None and self._is_own(name) else None

    def visible(self) -> list[str]:
        """Return the ids that systemd-boot sees, in lower case: texts whose kernel is there, and all images.

        Raises:
            OSError: the partition can't be read.
        """
        ids = [path.name.lower() for path in _files(self._images, ".efi")]
        for path in _files(self._texts, ".conf"):
            text = self.read(path)
            if text is not None and self.on_partition(text.kernel).is_file():
                ids.append(path.name.lower())
        return sorted(ids)

    def files(self, entry: BootEntry) -> list[Path]:
        """Return the files of an entry: ours before an adopted one, blessed before counted.

        Raises:
            OSError: the partition can't be read.
        """
        found = [
            path
            for path in (*_files(self._texts, ".conf"), *_files(self._images, ".efi"))
            if self.entry_of(path.name) == entry
        ]

        def order(path: Path) -> tuple[bool, int]:
            left = EntryName.parse(path.name).left
            return not self._is_own(path.name), -1 if left is None else left

        return sorted(found, key=order)

    def file_with_id(self, loader_id: str) -> Path | None:
        """Return the file that the loader knew by this id: its boot counter may have moved since.

        Raises:
            OSError: the partition can't be read.
        """
        entry, own = self.entry_of(loader_id), self._is_own(loader_id)
        if entry is None:
            return None
        return next((path for path in self.files(entry) if self._is_own(path.name) == own), None)

    def read(self, path: Path) -> EntryText | None:
        """Return what an entry file says; None where it is gone, or no kernel is in it.

        Raises:
            OSError: it can't be read.
        """
        if path.suffix.lower() == ".efi":
            return EntryText(kernel=self.seen_by_loader(path), unified=True)
        try:
            with path.open("rb") as file:
                return parse(file.read(_LARGEST_BYTES))
        except FileNotFoundError:
            return None

    def replace(self, entry: BootEntry, text: EntryText) -> None:
        """See `EntryFiles`."""
        if not self._texts.is_dir():
            self._texts.mkdir(parents=True)
            flush_folder(self._texts.parent)
            flush_folder(self._esp)
        target = self._texts / own_name(entry, self._tries)
        replace_file(target, render(text), mode=0o600)
        self._remove_others(entry, target)

    def bless(self, entry: BootEntry, path: Path) -> Path:
        """Give the file of an entry its plain name, without a boot counter, and return it.

        A copy under the plain name comes first: a rename that a power cut tears can lose both names on FAT.

        Raises:
            OSError: it couldn't be written.
        """
        if not self._is_own(path.name) or EntryName.parse(path.name).left is None:
            return path
        target = self._texts / own_name(entry)
        replace_file(target, path.read_bytes(), mode=0o600)
        return target

    def remove_counted(self, entry: BootEntry) -> None:
        """Remove what `bless` copied from.

        Raises:
            OSError: it couldn't be removed.
        """
        for path in self.files(entry):
            if EntryName.parse(path.name).left is not None and self._is_own(path.name):
                remove_file(path)

    def remove(self, entry: BootEntry) -> None:
        """See `EntryFiles`."""
        for path in self.files(entry):
            remove_file(path)

    def exhausted(self) -> dict[BootEntry, int]:
        """Return the entries whose boot counter has run out, and how often each was started.

        Raises:
            OSError: the partition can't be read.
        """
        names = [(path.name, EntryName.parse(path.name)) for path in _files(self._texts, ".conf")]
        found = [(self.entry_of(file_name), name.done) for file_name, name in names if name.left == 0]
        return {entry: done for entry, done in found if entry is not None}

    def used_paths(self, but: BootEntry | None = None) -> set[Path]:
        """See `EntryFiles`."""
        used: set[Path] = set()
        for path in _files(self._texts, ".conf"):
            text = self.read(path)
            if text is not None and (but is None or self.entry_of(path.name) != but):
                used.update(self.on_partition(name) for name in (text.kernel, *text.initrds))
        return used

    def seen_by_loader(self, path: Path) -> str:
        """See `EntryFiles`."""
        return f"/{path.relative_to(self._esp)}"

    def on_partition(self, path: str) -> Path:
        """See `EntryFiles`."""
        return self._esp / path.replace("\\", "/").lstrip("/")

    def _is_own(self, name: str) -> bool:
        return name.lower().startswith(_OWN_PREFIX)

    def _remove_others(self, entry: BootEntry, kept: Path) -> None:
        for path in self.files(entry):
            if path != kept:
                remove_file(path)


def own_name(entry: BootEntry, tries: int | None = None) -> str:
    """Return the name of our file for a boot entry."""
    variant = f"-{entry.variant}" if entry.variant else ""
    counter = "" if tries is None else f"+{tries}"
    return f"{_OWN_PREFIX}{entry.slot.value.lower()}{variant}{counter}.conf"


def _files(folder: Path, suffix: str) -> list[Path]:
    """Return what systemd-boot reads in a folder: not what begins with `auto-` or a dot."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() == suffix and not path.name.startswith((".", "auto-")) and path.is_file()
    )
