"""Port: apt and dpkg of a mutable node.

Each call may be repeated after a crash in the middle of it. One that finds dpkg interrupted raises
PackageDatabaseInterrupted instead of touching anything.
"""

from __future__ import annotations

from typing import Protocol

from edge_day2.domain.mutable_events import Packages
from edge_day2.domain.observation import PackageDatabase


class AptPort(Protocol):
    """Packages. Every call but `state` raises NodeFailure with apt's or dpkg's own words where it fails."""

    def state(self) -> PackageDatabase:
        """Return whether dpkg's database is sound."""
        ...

    def repair(self) -> None:
        """Finish what dpkg was doing, bounded in tries."""
        ...

    def installed(self) -> Packages:
        """Return (name, version) of every installed package, sorted by name."""
        ...

    def upgrade_agent(self) -> bool:
        """Upgrade the agent's own package; return whether there was a newer one. May end this process."""
        ...

    def upgrade_helper(self) -> None:
        """Upgrade the in-band helper's packages where there are newer ones."""
        ...

    def download(self, packages: tuple[str, ...]) -> None:
        """Download these packages and what they need, without installing them."""
        ...

    def install(self, packages: tuple[str, ...]) -> None:
        """Install these packages from what was downloaded."""
        ...

    def download_upgrade(self) -> None:
        """Download the upgrades of everything installed."""
        ...

    def install_upgrade(self) -> None:
        """Install the upgrades from what was downloaded."""
        ...
