"""A small honest model of a node that apt updates. What is true of models is said in `model_nodes.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, Self, TypeAlias

from attrs import define, evolve, field

from edge_day2.domain.mutable_events import AvailableUpdate, Packages
from edge_day2.domain.observation import PackageDatabase
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import NodeFailure, OutOfTime, PackageDatabaseInterrupted
from edge_day2.testing.faults import AGENT_CHANGE, CHANGE, LONG_CHANGE, READ, Calls
from edge_day2.testing.model_nodes import BOOT, DOWNLOAD, ModelNode, fails

_APT: Final = fails(FailureReason.UPDATE_TOOL)
_KERNEL_IMAGE: Final = "linux-image-"
# Of a kernel that no package holds.
_OTHER_KERNEL: Final = "6.1.0"
_PARTS: Final = re.compile(r"\d+|\D+")

# What a snapshot holds: packages, sources, the kernel command line of the next boot.
_Root: TypeAlias = tuple[Packages, tuple[str, ...], str]


def newer(version: str, than: str) -> bool:
    """Return whether one version is higher, as dpkg orders the plain ones that tests use: numbers count as numbers."""
    return version != than and _order(version) > _order(than)


def _order(version: str) -> list[tuple[int, int, str]]:
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in _PARTS.findall(version)]


def _newest_kernel(packages: Iterable[str]) -> str:
    releases = [name.removeprefix(_KERNEL_IMAGE) for name in packages if name.startswith(_KERNEL_IMAGE)]
    return max(releases, key=_order, default="")


@define(kw_only=True)
class ModelAptNode(ModelNode):
    """A package database that can be interrupted, an archive, sources, a kernel, its command line, and snapshots.

    `available` is what the repositories have, `depends` and `conflicts` what a package needs and can't be beside;
    `broken` are packages whose maintainer scripts fail. `half` is what an interrupted change was about. `held` packages
    are on hold; `locked` says that another apt holds the lock, `online` that the repositories can be reached.
    `agent_package` and `helper_package` are the names of the packages that hold the agent and its helper; kernels are
    packages named `linux-image-RELEASE`. `next_root` is what the next boot has after a rollback.
    """

    packages: dict[str, str] = field(factory=dict)
    available: dict[str, str] = field(factory=dict)
    depends: Mapping[str, tuple[str, ...]] = field(factory=dict)
    conflicts: Mapping[str, tuple[str, ...]] = field(factory=dict)
    broken: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    locked: bool = False
    online: bool = True
    archive: frozenset[tuple[str, str]] = frozenset()
    half: tuple[tuple[str, str], ...] = ()
    sources: tuple[str, ...] = ()
    grub_command_line: str = ""
    kernel_started_with: str = ""
    kernel_running: str = field()
    snapshots: dict[str, _Root] = field(factory=dict)
    next_root: _Root | None = None
    agent_package: str = "agent"
    helper_package: str = "helper"

    @kernel_running.default
    def _first_kernel(self) -> str:
        return _newest_kernel(self.packages) or _OTHER_KERNEL

    def copy(self) -> Self:
        """Return an independent copy with calls of its own."""
        return evolve(
            self,
            calls=Calls(),
            packages=dict(self.packages),
            available=dict(self.available),
            snapshots=dict(self.snapshots),
        )

    def key(self) -> tuple[object, ...]:
        """Return everything that distinguishes this node from another, hashable."""
        return (
            self.boot, self.running, frozenset(self.packages.items()), frozenset(self.available.items()), self.archive,
            self.half, self.sources, self.grub_command_line, self.kernel_started_with, self.kernel_running, self.held,
            self.locked, self.online, frozenset(self.snapshots.items()), self.next_root,
        )  # fmt: skip

    def reboot(self) -> None:
        """See `SystemPort`. The way back is allowed at any time."""
        if self.next_root is None:
            self.disturb("reboot")
        super().reboot()

    def come_up(self, boot: int, kernel: str | None = None) -> None:
        """Boot the newest kernel that is installed, or `kernel`."""
        if self.next_root is not None:
            packages, self.sources, self.grub_command_line = self.next_root
            self.packages, self.half, self.next_root = dict(packages), (), None
        self.boot, self.running, self.kernel_started_with = boot, True, self.grub_command_line
        self.kernel_running = kernel or self.newest_kernel() or self.kernel_running

    def kernel_release(self) -> str:
        """See `SystemPort`."""
        return self.kernel_running

    def state(self) -> PackageDatabase:
        """See `AptPort`."""
        return PackageDatabase.INTERRUPTED if self.half else PackageDatabase.SOUND

    def repair(self, until: datetime | None) -> str:
        """See `AptPort`."""
        self._wait_for_lock(until)
        self._refuse_broken(self.half)
        configured = " ".join(name for name, _ in self.half)
        self.calls.go("dpkg --configure", CHANGE, _APT, self._finish)
        return f"dpkg --configure -a: {configured}"

    def _finish(self) -> None:
        self.packages.update(self.half)
        self.half = ()

    def _refuse_broken(self, wanted: Iterable[tuple[str, str]]) -> None:
        if broken := [name for name, _ in wanted if name in self.broken]:
            log = f"dpkg: error processing package {broken[0]} (--configure): the maintainer script failed"
            raise NodeFailure(FailureReason.UPDATE_TOOL, log)

    def _wait_for_lock(self, until: datetime | None) -> None:
        # The other one is done some time; whether within the window is the worse of both.
        waits, self.locked = self.locked, False
        if waits and until is not None:
            raise OutOfTime("dpkg's lock is held by unattended-upgrades")

    def installed(self) -> Packages:
        """See `AptPort`."""
        self.calls.go("read packages", READ, _APT)
        if self.half:
            raise PackageDatabaseInterrupted("dpkg was interrupted")
        return tuple(sorted(self.packages.items()))

    def upgradable(self) -> tuple[AvailableUpdate, ...]:
        """See `AptPort`."""
        return tuple(
            AvailableUpdate(name, self.available[name], "amd64")
            for name, version in sorted(self.packages.items())
            if newer(self.available.get(name, version), version)
        )

    def newest_kernel(self) -> str:
        """See `AptPort`."""
        return _newest_kernel(self.packages)

    def upgrade_agent(self, until: datetime | None) -> bool:
        """See `AptPort`."""
        return self._upgrade_one(self.agent_package, "upgrade agent", until)

    def upgrade_helper(self, until: datetime | None) -> None:
        """See `AptPort`."""
        self._upgrade_one(self.helper_package, "upgrade helper", until)

    def _upgrade_one(self, package: str, name: str, until: datetime | None) -> bool:
        wanted = self._plan((package,)) if package in self.packages else ()
        self._change(name, wanted, until)
        return bool(wanted)

    def _change(self, name: str, wanted: Packages, until: datetime | None) -> None:
        self.disturb(name)
        self._wait_for_lock(until)
        if self.half:
            raise PackageDatabaseInterrupted("dpkg was interrupted")

        def unpack() -> None:
            self.half = wanted

        def install() -> None:
            self.packages.update((package, version) for package, version in wanted if package not in self.broken)
            self.half = tuple((package, version) for package, version in wanted if package in self.broken)

        kinds = AGENT_CHANGE if name == "upgrade agent" else LONG_CHANGE
        self.calls.go(name, kinds, _APT, install, unpack)
        self._refuse_broken(wanted)

    def _plan(self, packages: Iterable[str]) -> Packages:
        """Return what installing or upgrading these packages changes."""
        plan: dict[str, str] = {}
        waiting = list(packages)
        while waiting:
            name = waiting.pop()
            installed, available = self.packages.get(name), self.available.get(name)
            if name in plan or (installed is not None and name in self.held):
                continue
            if available is None and installed is None:
                raise NodeFailure(FailureReason.DOWNLOAD_FAIL, f"Unable to locate package {name}")
            if available is None or (installed is not None and not newer(available, installed)):
                continue
            if removed := [other for other in self.conflicts.get(name, ()) if other in self.packages]:
                raise NodeFailure(FailureReason.UPDATE_TOOL, f"{name} would remove {removed[0]}")
            plan[name] = available
            waiting.extend(self.depends.get(name, ()))
        return tuple(sorted(plan.items()))

    def upgrade_plan(self) -> Packages:
        """Return what a system-wide upgrade changes: what can't be had without removing something is kept back."""
        plan: dict[str, str] = {}
        for name in self.packages:
            try:
                plan.update(self._plan((name,)))
            except NodeFailure:
                continue
        return tuple(sorted(plan.items()))

    def download(self, packages: tuple[str, ...], until: datetime | None) -> Packages:
        """See `AptPort`."""
        self._wait_for_lock(until)
        return self._download(self._plan(packages))

    def download_upgrade(self, until: datetime | None) -> Packages:
        """See `AptPort`."""
        self._wait_for_lock(until)
        return self._download(self.upgrade_plan())

    def _download(self, plan: Packages) -> Packages:
        if self.half:
            raise PackageDatabaseInterrupted("dpkg was interrupted")
        if not self.online and not self.archive.issuperset(plan):
            raise NodeFailure(FailureReason.DOWNLOAD_FAIL, "the repositories can't be reached")

        def fill() -> None:
            self.archive |= set(plan)

        self.calls.go("download packages", CHANGE, DOWNLOAD, fill)
        return plan

    def install(self, packages: tuple[str, ...], plan: Packages, until: datetime | None) -> None:
        """See `AptPort`."""
        planned = dict(plan)
        if unplanned := [name for name in packages if name not in planned and name not in self.packages]:
            raise NodeFailure(FailureReason.UPDATE_TOOL, f"{unplanned[0]} isn't installed, and no part of the plan")
        self._install("install packages", plan, until)

    def install_upgrade(self, plan: Packages, until: datetime | None) -> None:
        """See `AptPort`."""
        self._install("upgrade packages", plan, until)

    def _install(self, name: str, plan: Packages, until: datetime | None) -> None:
        left = tuple((package, version) for package, version in plan if self.packages.get(package) != version)
        if missing := sorted(set(left) - self.archive):
            raise NodeFailure(FailureReason.DOWNLOAD_FAIL, f"{missing[0]} isn't in the archive")
        for package, version in left:
            if newer(self.packages.get(package, version), version):
                raise NodeFailure(FailureReason.UPDATE_TOOL, f"{package} {version} would be a downgrade")
            if package in self.held and package in self.packages:
                raise NodeFailure(FailureReason.UPDATE_TOOL, f"{package} is on hold")
        self._change(name, left, until)

    def replace(self, sources: tuple[str, ...], until: datetime | None) -> None:
        """See `AptSourcesPort`."""
        self.disturb("replace apt sources")
        self._wait_for_lock(until)

        def switch() -> None:
            self.sources = sources

        self.calls.go("replace apt sources", CHANGE, DOWNLOAD, switch)

    def set_kernel_command_line(self, kernel_command_line: str) -> bool:
        """See `GrubPort`."""
        self.disturb("set kernel command line")

        def write() -> None:
            self.grub_command_line = kernel_command_line

        self.calls.go("update-grub", CHANGE, BOOT, write)
        return self.kernel_started_with != kernel_command_line

    def running_kernel_command_line(self) -> str:
        """See `GrubPort`."""
        return f"quiet {self.kernel_started_with}"

    def take(self, label: str) -> str:
        """See `SnapshotPort`."""
        self.disturb("take snapshot")
        root = (tuple(sorted(self.packages.items())), self.sources, self.grub_command_line)

        def keep() -> None:
            self.snapshots.setdefault(label, root)
            self.next_root = None

        self.calls.go("take snapshot", CHANGE, _APT, keep)
        return label

    def roll_back(self, snapshot: str) -> None:
        """See `SnapshotPort`."""
        if snapshot not in self.snapshots:
            raise NodeFailure(FailureReason.UPDATE_TOOL, f"no snapshot {snapshot!r}")

        def switch() -> None:
            self.next_root = self.snapshots[snapshot]

        self.calls.go("roll back", CHANGE, BOOT, switch)

    def discard(self, snapshot: str) -> None:
        """See `SnapshotPort`."""

        def delete() -> None:
            self.snapshots.pop(snapshot, None)

        self.calls.go("discard snapshot", CHANGE, _APT, delete)
