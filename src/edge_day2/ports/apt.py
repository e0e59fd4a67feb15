"""Port: apt and dpkg of a mutable node.

Each call may be repeated after a crash in the middle of it. One that changes packages and finds dpkg interrupted raises
PackageDatabaseInterrupted instead of touching anything.

`until` is the end of the maintenance window, aware, None where it is open-ended: another apt or dpkg that holds the
lock is waited for until then. What was begun isn't broken off for it: what is left of a window is the caller's to
judge.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from edge_day2.domain.mutable_events import AvailableUpdate, Packages
from edge_day2.domain.observation import PackageDatabase


class AptPort(Protocol):
    """Packages.

    Every call but `state` raises NodeFailure with apt's or dpkg's own words where it fails, and each that takes `until`
    raises OutOfTime where another process held the lock until then; the message says which process.
    """

    def state(self) -> PackageDatabase:
        """Return whether dpkg's database is sound: no package half-installed, half-configured or unpacked alone."""
        ...

    def repair(self, until: datetime | None) -> str:
        """Finish what dpkg was doing, bounded in tries; return what was done about it, for the update's log."""
        ...

    def installed(self) -> Packages:
        """Return (name, version) of every package that is installed and configured, sorted.

        Packages of a foreign architecture are named as dpkg names them, `name:arch`.

        Raises:
            PackageDatabaseInterrupted: the database isn't sound, so that nothing could be said for certain.
        """
        ...

    def upgradable(self) -> tuple[AvailableUpdate, ...]:
        """Return what is newer than installed according to the package lists as they are, sorted by name."""
        ...

    def newest_kernel(self) -> str:
        """Return the release ("6.1.0-30-amd64") of the newest installed kernel image, "" where none is a package.

        Comparable with `SystemPort.kernel_release`: what a reboot is expected to start.
        """
        ...

    def upgrade_agent(self, until: datetime | None) -> bool:
        """Upgrade the agent's own package; return whether there was a newer one.

        The package's maintainer scripts may end this process, before dpkg has finished or after it.
        """
        ...

    def upgrade_helper(self, until: datetime | None) -> None:
        """Upgrade the in-band helper's packages where there are newer ones. None is installed: nothing to do."""
        ...

    def download(self, packages: tuple[str, ...], until: datetime | None) -> Packages:
        """Download these packages and what they need, without installing anything.

        Returns:
            The plan: (name, version) of everything that `install` will install or upgrade, sorted, named as
            `installed` names it; empty where all of it is there. A package that is installed and on hold stays as it
            is, and is no part of the plan.

        Raises:
            NodeFailure: a package doesn't exist, can't be fetched or verified, or could be had only by removing or
                downgrading another one, or by changing one that is on hold. Nothing was installed.
        """
        ...

    def install(self, packages: tuple[str, ...], plan: Packages, until: datetime | None) -> None:
        """Install `packages` from what was downloaded, without network: exactly `plan`, or what is left of it.

        Raises:
            NodeFailure: something else than the plan would have to be done, or something of it isn't in the archive.
                Nothing was installed. Or a package failed; what was installed before it stays.
        """
        ...

    def download_upgrade(self, until: datetime | None) -> Packages:
        """Download the upgrades of everything installed, with new packages that they need; return the plan.

        Nothing is removed for an upgrade, nothing that is on hold changes; what can't be upgraded so is kept back.
        """
        ...

    def install_upgrade(self, plan: Packages, until: datetime | None) -> None:
        """Install the upgrades from what was downloaded, as `install` does."""
        ...
