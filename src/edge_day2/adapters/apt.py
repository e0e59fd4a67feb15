"""apt and dpkg of Debian and Ubuntu: plan, download, install exactly that, repair.

Rules of this room:
- a change is planned first, by apt's own simulation; what the plan may not hold is in `apt_plan.py`;
- what is installed is the plan or a part of it, never more, from what was downloaded;
- success is told from exit codes and from dpkg's database, never from words;
- a download may be cut off when the window ends, dpkg never is: see `apt_commands.py`.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from attrs import field, frozen

from edge_day2.adapters.apt_commands import SELF_UPDATE, AptCommands, Finished
from edge_day2.adapters.apt_locks import AptLocks
from edge_day2.adapters.apt_plan import Simulation, beyond, missing, refusal
from edge_day2.adapters.apt_repair import PackageRepair
from edge_day2.adapters.apt_settings import AptSettings
from edge_day2.adapters.apt_space import check_space
from edge_day2.adapters.apt_tool import AptTool
from edge_day2.adapters.dpkg import DatabaseContent, DpkgDatabase, FileMark, file_marks
from edge_day2.domain.mutable_events import AvailableUpdate, Packages
from edge_day2.domain.observation import PackageDatabase
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.clock import Clock
from edge_day2.ports.failures import NodeFailure, PackageDatabaseInterrupted

_log: Final = logging.getLogger(__name__)

# The original helper's pattern, and no "-" at the end: to apt that means removal.
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.+-]*[a-z0-9.+](?::[a-z0-9-]+)?")
_KERNEL: Final = re.compile(r"linux-image-(?:unsigned-)?(\d\S*?)(?:-unsigned)?")
# Runs of apt that another process spoils, by a lock or a kill, before this counts as a failure.
_TRIES: Final = 5


@frozen(kw_only=True)
class _Request:
    """What apt-get is asked for: arguments of one and the same call for simulation, download and installation."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(factory=dict)


_UPGRADE: Final = _Request(arguments=("--with-new-pkgs", "upgrade"))


class AptGet:
    """See `AptPort`.

    `installed` and `upgradable` are cheap as long as nothing changes: they are remembered together with names, inodes,
    sizes and times of the files that they depend on (dpkg's database, package lists, preferences, apt's configuration).

    Args:
        clock: tells when a window is over.
        settings: limits, and where apt and dpkg are; `AptSettings()` where none are given.

    Raises:
        MissingExtra: python-debian isn't installed.
    """

    def __init__(self, *, clock: Clock, settings: AptSettings | None = None) -> None:
        settings = settings or AptSettings()
        self._settings = settings
        self._commands = AptCommands(settings, clock)
        self._locks = AptLocks(settings, clock)
        self._dpkg = DpkgDatabase(settings, self._commands)
        self._tool = AptTool(settings, self._commands, self._locks)
        self._repair = PackageRepair(
            settings=settings, commands=self._commands, locks=self._locks, dpkg=self._dpkg, tool=self._tool
        )
        self._upgradable_marks: tuple[FileMark, ...] = ()
        self._upgradable: tuple[AvailableUpdate, ...] | None = None

    def state(self) -> PackageDatabase:
        """See `AptPort.state`. A database that can't be read counts as interrupted: `repair` says why it can't."""
        try:
            interruption = self._dpkg.content().interruption()
        except NodeFailure as error:
            interruption = error.log
        if interruption:
            _log.warning("package database interrupted: %s", interruption)
        return PackageDatabase.INTERRUPTED if interruption else PackageDatabase.SOUND

    def installed(self) -> Packages:
        """See `AptPort.installed`."""
        return self._dpkg.sound_content().installed()

    def newest_kernel(self) -> str:
        """See `AptPort.newest_kernel`. Told from the names of kernel image packages, in the order of their versions."""
        releases = [
            found[1]
            for name, _ in self._dpkg.sound_content().installed()
            if (found := _KERNEL.fullmatch(name.partition(":")[0])) and not found[1].endswith("-dbg")
        ]
        return max(releases, key=functools.cmp_to_key(self._compare_releases), default="")

    def upgradable(self) -> tuple[AvailableUpdate, ...]:
        """See `AptPort.upgradable`: what `install_upgrade` would upgrade now, so nothing that is on hold."""
        root = self._settings.root
        lists, etc = root / "var/lib/apt", root / "etc/apt"
        marks = file_marks(
            *self._dpkg.files, lists / "lists", lists / "extended_states", etc / "preferences",
            etc / "preferences.d", etc / "apt.conf", etc / "apt.conf.d", etc / "sources.list", etc / "sources.list.d",
        )  # fmt: skip
        if self._upgradable is None or marks != self._upgradable_marks:
            self._dpkg.sound_content()
            found = self._tool.simulated(*_UPGRADE.arguments)
            self._upgradable = tuple(
                AvailableUpdate(
                    name=change.name.partition(":")[0],
                    available_version=change.version,
                    architecture=change.architecture,
                )
                for change in sorted(found.changes, key=lambda change: change.name)
                if change.installed
            )
            self._upgradable_marks = marks
        return self._upgradable

    def upgrade_agent(self, until: datetime | None) -> bool:
        """See `AptPort.upgrade_agent`."""
        return bool(self._upgrade_only((self._settings.agent_package,), SELF_UPDATE, until))

    def upgrade_helper(self, until: datetime | None) -> None:
        """See `AptPort.upgrade_helper`."""
        self._upgrade_only(self._settings.helper_packages, {}, until)

    def download(self, packages: tuple[str, ...], until: datetime | None) -> Packages:
        """See `AptPort.download`."""
        return self._download(self._request(packages, until), until)

    def install(self, packages: tuple[str, ...], plan: Packages, until: datetime | None) -> None:
        """See `AptPort.install`."""
        self._install(self._request(packages, until), plan, until)

    def download_upgrade(self, until: datetime | None) -> Packages:
        """See `AptPort.download_upgrade`."""
        return self._download(_UPGRADE, until)

    def install_upgrade(self, plan: Packages, until: datetime | None) -> None:
        """See `AptPort.install_upgrade`."""
        self._install(_UPGRADE, plan, until)

    def repair(self, until: datetime | None) -> str:
        """See `AptPort.repair`."""
        return self._repair.run(until)

    def _upgrade_only(
        self, packages: tuple[str, ...], environment: Mapping[str, str], until: datetime | None
    ) -> Packages:
        self._ready(until)
        versions = dict(self._dpkg.sound_content().installed())
        names = tuple(name for name in packages if name in versions)
        if not names:
            return ()
        request = _Request(arguments=("--only-upgrade", "install", *names), environment=environment)
        plan = self._download(request, until)
        self._install(request, plan, until, names)
        return plan

    def _request(self, packages: tuple[str, ...], until: datetime | None) -> _Request:
        if wrong := [name for name in packages if not _NAME.fullmatch(name)]:
            raise NodeFailure(FailureReason.DOWNLOAD_FAIL, f"not names of packages: {', '.join(map(repr, wrong))}")
        # What is on hold stays as it is; asked for by name, it would be a reason for apt to refuse everything.
        held = {one.name for one in self._ready(until).packages if one.held and one.status == "installed"}
        return _Request(arguments=("install", *(name for name in packages if name not in held)))

    def _ready(self, until: datetime | None) -> DatabaseContent:
        self._locks.wait(until)
        return self._dpkg.sound_content()

    def _planned(self, request: _Request, content: DatabaseContent, *options: str) -> Simulation:
        simulation = self._tool.simulated(*options, *request.arguments)
        if reason := refusal(simulation, content, self._settings.removals, self._is_older):
            raise NodeFailure(FailureReason.UPDATE_TOOL, f"apt-get {' '.join(request.arguments)} {reason}")
        return simulation

    def _download(self, request: _Request, until: datetime | None) -> Packages:
        content = self._ready(until)
        self._check_names(request)
        simulation = self._planned(request, content)
        if not simulation.changes:
            return ()
        preferences = self._pinned(simulation.packages)
        check_space(self._settings, self._tool, simulation, content, *preferences, *request.arguments)
        command = self._tool.get("--download-only", *preferences, *request.arguments, until=until)
        finished = self._carried_out(lambda: self._commands.fetch(*command, until=until), until)
        if finished.code != 0:
            raise NodeFailure(FailureReason.DOWNLOAD_FAIL, str(finished))
        return simulation.packages

    def _install(self, request: _Request, plan: Packages, until: datetime | None, names: tuple[str, ...] = ()) -> None:
        """Install; `names` are packages whose mark, whether they were installed automatically, must stay."""
        content = self._ready(until)
        left = set(plan) - set(content.installed())
        held = {one.name for one in content.packages if one.held}
        if late := sorted(name for name, _ in left if name in held):
            raise NodeFailure(FailureReason.UPDATE_TOOL, f"on hold by now: {', '.join(late)}")
        preferences = self._pinned(plan)
        simulation = self._planned(request, content, *preferences, "--no-download")
        if extra := beyond(simulation, plan):
            log = f"apt-get {' '.join(request.arguments)} would install what wasn't planned: {extra}"
            raise NodeFailure(FailureReason.UPDATE_TOOL, log)
        finished = None
        if simulation.changes:
            check_space(self._settings, self._tool, simulation, content, *preferences, *request.arguments)
            command = self._tool.changing(*preferences, "--no-download", *request.arguments, until=until)
            finished = self._carried_out(
                lambda: self._tool.changed(*command, keep_marks_of=names, environment=request.environment), until
            )
            content = self._finished(finished)
        if absent := missing(plan, content.installed()):
            words = f". {finished}" if finished is not None else ""
            raise NodeFailure(FailureReason.UPDATE_TOOL, f"not installed as planned: {absent}{words}")

    def _finished(self, finished: Finished) -> DatabaseContent:
        content = self._dpkg.content()
        interruption = content.interruption()
        # A dpkg that fails puts its journal in order, one that was killed can't: then trying again may help.
        if content.journal:
            raise PackageDatabaseInterrupted(f"{interruption}; {finished}")
        if finished.code != 0 or interruption:
            log = f"{interruption}; {finished}" if interruption else str(finished)
            raise NodeFailure(FailureReason.UPDATE_TOOL, log)
        return content

    def _pinned(self, plan: Packages) -> tuple[str, str]:
        """Return options that make the planned versions apt's candidates, and of everything else what is installed.

        So the same request leads to the plan whatever the package lists have by now, and packages keep their marks of
        having been installed automatically, which versions on the command line would take from them. At 1000 a version
        may not replace a newer one: apt_preferences(5).
        """
        etc, cache = self._settings.root / "etc/apt/preferences", self._settings.root / "var/cache/apt"
        pins = [f"Package: {name}\nPin: version {version}\nPin-Priority: 1000\n" for name, version in plan]
        own = etc.read_text(errors="replace") if etc.is_file() else ""
        text = "\n".join([*pins, "Package: *\nPin: release a=now\nPin-Priority: 1000\n", own])
        # Named by its content: an apt whose agent was killed may still be about to read an earlier one.
        path = cache / f"edge_day2-{hashlib.sha256(text.encode()).hexdigest()[:16]}.pref"
        beside = path.with_suffix(".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        beside.replace(path)
        for old in cache.glob("edge_day2-*.pref"):
            if old != path:
                old.unlink(missing_ok=True)
        seen = f"/{path.relative_to(self._settings.root)}" if self._settings.enter else str(path)
        return "-o", f"Dir::Etc::Preferences={seen}"

    def _carried_out(self, run: Callable[[], Finished], until: datetime | None) -> Finished:
        for _ in range(_TRIES):
            self._ready(until)
            finished = run()
            # Somebody killed it, or was faster with a lock: that says nothing about the packages.
            if finished.code >= 0 and not (finished.code and self._locks.holder()):
                break
        return finished

    def _check_names(self, request: _Request) -> None:
        if request.arguments[0] != "install":
            return
        names = request.arguments[1:]
        wanted = [name.partition(":")[0] for name in names]
        found = {record["Package"] for record in self._tool.shown(*wanted)}
        if unknown := [name for name in wanted if name not in found]:
            raise NodeFailure(FailureReason.DOWNLOAD_FAIL, f"not in the package lists: {', '.join(unknown)}")

    def _is_older(self, one: str, other: str) -> bool:
        return self._tool.compare(one, other) < 0

    def _compare_releases(self, one: str, other: str) -> int:
        # A release candidate comes before its release.
        return self._tool.compare(one.replace("-rc", "~rc"), other.replace("-rc", "~rc"))
