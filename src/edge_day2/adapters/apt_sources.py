"""Our apt sources: one deb822 file that is replaced in one step, after apt itself has read what the new one names.

Rules of this room:
- all of our sources are stanzas of one file, so that apt finds the old set or the new one at any moment;
- a new set is tried out beside: apt reads it together with the files of others, and updates from it alone, into lists
  that nobody uses. Only then it takes the place of the old one, and the real lists are refreshed;
- what stood before is remembered until that is done, and comes back where it fails or was cut off;
- files of others are read and never touched. Those of the original agent, pua-N.sources, are ours.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from edge_day2.adapters.apt_commands import AptCommands, Finished
from edge_day2.adapters.apt_locks import AptLocks
from edge_day2.adapters.apt_settings import AptSettings
from edge_day2.adapters.deb822_sources import SourceRules, read_sources
from edge_day2.adapters.durable_files import remove_file, replace_file
from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import InvalidValue
from edge_day2.ports.clock import Clock
from edge_day2.ports.failures import NodeFailure, OutOfTime

_log: Final = logging.getLogger(__name__)

_OURS: Final = "edge-day2.sources"
_ORIGINAL: Final = re.compile(r"pua-\d+\.sources")
_HEADER: Final = "# Written by edge_day2, which replaces the whole file.\n"
_FOLDER: Final = "etc/apt/sources.list.d"
_MOST_BYTES: Final = 16 * 1024 * 1024

# Whatever apt.conf says on this node. Before apt 2.1.15 there is no Error-Mode: what failed is told by warnings.
_OPTIONS: Final = (
    "APT::Update::Error-Mode=any",
    "Acquire::AllowInsecureRepositories=false",
    "Acquire::AllowWeakRepositories=false",
    "Acquire::AllowDowngradeToInsecureRepositories=false",
    "Acquire::Check-Valid-Until=true",
    "Acquire::Check-Date=true",
    "Debug::NoLocking=false",
)
_NOT_READ: Final = re.compile(r"^(?:E:|W: (?:Failed to fetch|Some index files failed|An error occurred))", re.M)
_DISTRUSTED: Final = re.compile(
    r"NO_PUBKEY|BADSIG|ERRSIG|NODATA|(?:EXP|REV|BAD)?KEY(?:SIG|EXPIRED|REVOKED)|EXPSIG|is not signed|no longer signed"
    r"|signatures? (?:could|were|was|is|are)|is expired \(invalid since|is not valid yet"
    r"|gpgv|Sub-process /usr/bin/sqv",
)
# Refreshes that another process spoils by a lock before this counts as a failure.
_TRIES: Final = 5


class AptSources:
    """`AptSourcesPort` for Debian and Ubuntu with deb822 sources.

    Args:
        clock: tells when a window is over.
        settings: limits, and where apt is.
        rules: which sources are accepted.
        memory: a small file of ours, there while a change is under way.
        staging: a folder of ours where new sources are tried out. apt's own user has to be able to look into it.

    Raises:
        InvalidValue: `staging` is out of reach for commands that `settings` runs in a chroot.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        settings: AptSettings = AptSettings(),  # noqa: B008  # frozen
        rules: SourceRules = SourceRules(),  # noqa: B008  # frozen
        memory: Path = Path("/var/lib/edge_day2/apt-sources.json"),
        staging: Path = Path("/var/cache/edge_day2/apt-sources"),
    ) -> None:
        if settings.enter and not staging.is_relative_to(settings.root):
            raise InvalidValue(
                "staging", str(staging), f"a folder below {settings.root}, which the commands are run in"
            )
        self._settings = settings
        self._rules = rules
        self._folder = settings.root / _FOLDER
        self._memory = memory
        self._staging = staging
        self._commands = AptCommands(settings, clock)
        self._locks = AptLocks(settings, clock)

    def replace(self, sources: tuple[str, ...], until: datetime | None) -> None:
        """See `AptSourcesPort.replace`."""
        try:
            stanzas = [source.to_deb822() for source in read_sources(sources, self._rules)]
        except InvalidValue as error:
            raise NodeFailure(FailureReason.DOWNLOAD_FAIL, str(error)) from error
        try:
            self._replace("\n".join((_HEADER, *stanzas)) if stanzas else "", until)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = FailureReason.INSUFFICIENT_STORAGE if full else FailureReason.UPDATE_TOOL
            raise NodeFailure(reason, str(error)) from error

    def _replace(self, text: str, until: datetime | None) -> None:
        self._locks.wait(until)
        self._finish_earlier_change()
        found = self._found()
        wanted = {_OURS: text} if text else {}
        if found == wanted:
            self._refresh(until)
            return
        if text:
            self._try_out(text, until)
        self._remember(found)
        try:
            self._write(wanted)
            # The lists of the old set stay until the new one is known to be good.
            self._refresh(until, "APT::Get::List-Cleanup=false")
        except (NodeFailure, OutOfTime, OSError) as error:
            try:
                self._finish_earlier_change()
            except OSError as second:
                log = f"{error}; the earlier sources can't be put back before the next update: {second}"
                raise NodeFailure(FailureReason.UPDATE_TOOL, log) from error
            raise
        remove_file(self._memory)

    def _try_out(self, text: str, until: datetime | None) -> None:
        """Let apt read the new set with what others have, and update from the new set alone, into lists of its own."""
        if self._staging.is_symlink():
            raise NodeFailure(FailureReason.UPDATE_TOOL, f"{self._staging}: expected a folder that is no symbolic link")
        self._staging.mkdir(parents=True, exist_ok=True)
        # An apt-get whose agent was killed may still be at work in what that agent left.
        for left in self._staging.iterdir():
            shutil.rmtree(left, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(dir=self._staging))
        every, own, lists = (staging / name for name in ("every", "own", "lists"))
        try:
            for folder in (every, own, lists, lists / "partial"):
                folder.mkdir()
            for folder in (self._staging, staging, lists):
                folder.chmod(0o755)
            for path in self._folder.iterdir():
                if path.suffix in (".list", ".sources") and path.is_file() and not _is_ours(path.name):
                    shutil.copyfile(path, every / path.name)
            for folder in (every, own):
                (folder / _OURS).write_text(text)
            # The caches of the real lists aren't spoilt.
            private = (f"Dir::State::Lists={self._seen(lists)}", "Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache=")
            read = self._commands.ask(*self._apt_get("indextargets", f"Dir::Etc::sourceparts={self._seen(every)}"))
            if read.code != 0:
                raise NodeFailure(FailureReason.DOWNLOAD_FAIL, _said(read))
            places = (f"Dir::Etc::sourceparts={self._seen(own)}", "Dir::Etc::sourcelist=/dev/null")
            _check(self._commands.fetch(*self._apt_get("update", *private, *places), until=until))
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _refresh(self, until: datetime | None, *options: str) -> None:
        for _ in range(_TRIES):
            self._locks.wait(until)
            finished = self._commands.fetch(*self._apt_get("update", *options), until=until)
            # Somebody was faster with the lock, or killed it: that says nothing about the sources.
            if finished.code >= 0 and not (finished.code and self._locks.holder()):
                break
        _check(finished)

    def _apt_get(self, action: str, *options: str) -> tuple[str, ...]:
        set_options = tuple(word for option in (*_OPTIONS, *options) for word in ("-o", option))
        return ("apt-get", "-q", *self._settings.apt_options, *set_options, action)

    def _seen(self, path: Path) -> Path:
        """Return the path as the commands see it."""
        return Path("/") / path.relative_to(self._settings.root) if self._settings.enter else path

    def _found(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for path in sorted(self._folder.iterdir()):
            if _is_ours(path.name):
                if path.is_symlink() or not path.is_file():
                    raise NodeFailure(FailureReason.UPDATE_TOOL, f"{path}: expected a file that is no symbolic link")
                with path.open("rb") as file:
                    found[path.name] = file.read(_MOST_BYTES).decode(errors="surrogateescape")
        return found

    def _write(self, files: Mapping[str, str]) -> None:
        """Make these the files of ours, and leave no other."""
        present = self._found()
        for name, text in files.items():
            if present.get(name) != text:
                replace_file(self._folder / name, text.encode(errors="surrogateescape"), mode=0o644)
        for name in present.keys() - files.keys():
            remove_file(self._folder / name)

    def _remember(self, files: Mapping[str, str]) -> None:
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._memory, json.dumps(files).encode(), mode=0o600)

    def _finish_earlier_change(self) -> None:
        """Put back what stood before a change that failed or was cut off."""
        try:
            content = self._memory.read_bytes()
        except FileNotFoundError:
            return
        try:
            files = json.loads(content)
            if not isinstance(files, dict) or not all(_is_ours(n) and isinstance(t, str) for n, t in files.items()):
                raise ValueError("not files of ours")
        except ValueError as error:
            # It was replaced as a whole, so this isn't what a crash leaves. What stands is one whole file.
            _log.warning("%s can't be read: %s", self._memory, error)
        else:
            self._write(files)
        remove_file(self._memory)


def _is_ours(name: str) -> bool:
    return name == _OURS or _ORIGINAL.fullmatch(name) is not None


def _check(finished: Finished) -> None:
    """Raise what apt-get update says."""
    if finished.code == 0 and not _NOT_READ.search(finished.words):
        return
    distrusted = _DISTRUSTED.search(finished.words)
    reason = FailureReason.SIGNATURE_CHECK if distrusted else FailureReason.DOWNLOAD_FAIL
    raise NodeFailure(reason, _said(finished))


def _said(finished: Finished) -> str:
    lines = [line for line in finished.words.splitlines() if line.startswith(("E:", "W:", "Err:", "  "))]
    return f"apt-get {finished.command[-1]}: {' '.join(' '.join(lines).split()) or finished.words}"
