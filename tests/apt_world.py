"""A repository, a root folder that uses it, and the adapter on that folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import frozen

from apt_repository import AptRepository, DebPackage, apt_repository
from apt_root import AptRoot
from edge_day2.adapters.apt import AptGet
from edge_day2.adapters.apt_settings import AptSettings
from edge_day2.adapters.clock import SystemClock


@frozen
class AptWorld:
    """Real apt on a folder of its own."""

    repository: AptRepository
    root: AptRoot

    def settings(self, **changes: Any) -> AptSettings:
        """Return settings for the folder, without systemd."""
        given = {
            "agent_package": "agent",
            "helper_packages": ("helper",),
            "root": self.root.path,
            "enter": self.root.enter,
            "runner": (),
            "dpkg_options": self.root.dpkg_options,
            "environment": self.root.environment,
            **changes,
        }
        return AptSettings(**given)

    def apt(self, **changes: Any) -> AptGet:
        """Return the adapter."""
        return AptGet(clock=SystemClock(), settings=self.settings(**changes))

    def has(self, *packages: DebPackage) -> None:
        """Have these packages installed, and nothing more."""
        self.offers(*packages)
        if packages:
            self.root.apt_get("install", *(package.name for package in packages))

    def offers(self, *packages: DebPackage) -> None:
        """Have these packages in the repository, and know them."""
        self.repository.publish(*packages)
        self.root.use(self.repository)

    def file(self, path: str) -> Path:
        """Return where a file of the folder is on the machine."""
        return self.root.path / path.lstrip("/")


@contextmanager
def apt_world(folder: Path) -> Iterator[AptWorld]:
    """Make one in `folder`."""
    with apt_repository(folder / "repository") as repository:
        yield AptWorld(repository, AptRoot(folder / "root"))


def soon(seconds: float = 600) -> datetime:
    """Return the end of a window that closes in so many seconds."""
    return datetime.now(UTC) + timedelta(seconds=seconds)
