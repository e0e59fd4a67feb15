"""dpkg's database, as dpkg-query reads it: what is installed, and whether dpkg was interrupted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from attrs import frozen

from edge_day2.adapters.apt_commands import AptCommands
from edge_day2.adapters.apt_settings import AptSettings
from edge_day2.domain.mutable_events import Packages
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import NodeFailure, PackageDatabaseInterrupted

_FIELDS: Final = (
    "Package", "Architecture", "Version", "db:Status-Want", "db:Status-Eflag", "db:Status-Status", "Installed-Size",
    "Essential", "Protected",
)  # fmt: skip
_FORMAT: Final = "\t".join(f"${{{name}}}" for name in _FIELDS) + "\n"
# dpkg(1), package states: between these and "installed" something is still to be done.
_UNFINISHED: Final = frozenset(
    {"half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending"}
)
_SHOWN: Final = 5


@frozen(kw_only=True)
class InstalledPackage:
    """A package that dpkg knows, by the name that apt gives it: name:arch where the architecture is a foreign one.

    `want` is what the administrator wants (install, hold, deinstall, …), `status` how far dpkg is. `size` is in bytes.
    """

    name: str
    version: str
    want: str
    needs_reinstallation: bool
    status: str
    size: int
    indispensable: bool

    @property
    def held(self) -> bool:
        """Whether the administrator keeps it as it is."""
        return self.want == "hold"

    @property
    def unfinished(self) -> bool:
        """Whether dpkg was interrupted at it."""
        return self.needs_reinstallation or self.status in _UNFINISHED


@frozen
class DatabaseContent:
    """dpkg's database at one moment. `journal`: names of the files in which dpkg notes what it is doing."""

    packages: tuple[InstalledPackage, ...]
    journal: tuple[str, ...]

    def interruption(self) -> str:
        """Return what dpkg left unfinished, "" where nothing is."""
        found = [f"{package.name} is {package.status}" for package in self.packages if package.unfinished]
        more = [f"and {len(found) - _SHOWN} more packages"] if len(found) > _SHOWN else []
        journal = ["dpkg's journal isn't empty"] if self.journal else []
        return ", ".join([*found[:_SHOWN], *more, *journal])

    def installed(self) -> Packages:
        """Return (name, version) of what is fully installed, sorted."""
        return tuple(sorted((one.name, one.version) for one in self.packages if one.status == "installed"))


# What a file is, as far as it can be told without reading it.
FileMark = tuple[str, int, int, int]


def file_marks(*paths: Path) -> tuple[FileMark, ...]:
    """Return what changes when one of these files, or a file in one of these folders, is replaced or changed."""
    marks: list[FileMark] = []
    for path in paths:
        try:
            with os.scandir(path) as entries:
                files = sorted(entry.path for entry in entries)
        except NotADirectoryError:
            files = [str(path)]
        except FileNotFoundError:
            continue
        for file in files:
            try:
                seen = os.stat(file)  # noqa: PTH116  # a hundred files at each tick of the agent
            except FileNotFoundError:
                continue
            marks.append((file, seen.st_ino, seen.st_mtime_ns, seen.st_size))
    return tuple(marks)


class DpkgDatabase:
    """The database below `settings.root`. It is read again when one of its files changed."""

    def __init__(self, settings: AptSettings, commands: AptCommands) -> None:
        self._settings = settings
        self._commands = commands
        self._architecture = ""
        self._marks: tuple[FileMark, ...] = ()
        self._content: DatabaseContent | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Where the database is."""
        folder = self._settings.root / "var/lib/dpkg"
        return folder / "status", folder / "updates"

    def content(self) -> DatabaseContent:
        """Return what the database holds, whether or not it is sound.

        Raises:
            NodeFailure: it can't be read.
        """
        marks = file_marks(*self.files)
        if self._content is None or marks != self._marks:
            self._content, self._marks = self._read(), marks
        return self._content

    def sound_content(self) -> DatabaseContent:
        """Return what the database holds.

        Raises:
            PackageDatabaseInterrupted: dpkg was interrupted.
            NodeFailure: it can't be read.
        """
        content = self.content()
        if interruption := content.interruption():
            raise PackageDatabaseInterrupted(interruption)
        return content

    def _answer(self, *command: str) -> str:
        finished = self._commands.ask(*command)
        if finished.code != 0:
            raise NodeFailure(FailureReason.UPDATE_TOOL, str(finished))
        return finished.output

    def _read(self) -> DatabaseContent:
        self._architecture = self._architecture or self._answer("dpkg", "--print-architecture").strip()
        native = {self._architecture, "all", ""}
        journal = tuple(sorted(path.name for path in self.files[1].glob("*") if path.name.isdecimal()))
        admin = () if self._settings.enter else (f"--admindir={self._settings.root / 'var/lib/dpkg'}",)
        listing = self._answer("dpkg-query", *admin, "--show", f"--showformat={_FORMAT}")
        return DatabaseContent(tuple(_package(line, native) for line in listing.splitlines()), journal)


def _package(line: str, native: set[str]) -> InstalledPackage:
    name, architecture, version, want, flag, status, size, *indispensable = line.split("\t")
    return InstalledPackage(
        name=name if architecture in native else f"{name}:{architecture}",
        version=version,
        want=want,
        needs_reinstallation=flag == "reinstreq",
        status=status,
        # Kibibytes, rounded up: deb-control(5).
        size=int(size) * 1024 if size.isdecimal() else 0,
        indispensable="yes" in indispensable,
    )
