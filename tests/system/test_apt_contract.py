"""The real apt adapter keeps the contract of its port, with real apt and dpkg."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from apt_repository import DebPackage, missing_tools
from apt_world import AptWorld, apt_world
from edge_day2.testing.apt_contract import AptContract, RepositoryBench

pytestmark = pytest.mark.skipif(bool(missing_tools()), reason=missing_tools() or "apt is here")

_LOCKS = ("var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "var/cache/apt/archives/lock", "var/lib/apt/lists/lock")
_HOLDER = """
import fcntl, sys
files = [open(path, "w") for path in sys.argv[1:]]
for file in files:
    fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


class RealBench:
    """An apt root and its repository, which keeps every version that was published."""

    agent_package = "agent"
    helper_package = "helper"

    def __init__(self, world: AptWorld, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.apt = world.apt()
        self._published: list[DebPackage] = []
        world.offers()

    def publish(
        self, name: str, version: str, *, depends: tuple[str, ...] = (), conflicts: tuple[str, ...] = ()
    ) -> None:
        fields = {"Conflicts": ", ".join(conflicts)} if conflicts else {}
        self._publish(DebPackage(name=name, version=version, depends=", ".join(depends), fields=fields))

    def publish_broken(self, name: str, version: str) -> None:
        script = f"test -e {self.folder}/mended-{name}"
        self._publish(DebPackage(name=name, version=version, scripts={"postinst": script}))

    def _publish(self, package: DebPackage) -> None:
        self._published.append(package)
        self.world.offers(*self._published)

    def mend(self, name: str) -> None:
        (self.folder / f"mended-{name}").touch()

    def install_by_hand(self, name: str, version: str) -> None:
        self.world.root.dpkg("--install", DebPackage(name=name, version=version).build(self.folder))

    def interrupt(self, name: str, version: str) -> None:
        self.world.root.dpkg("--unpack", DebPackage(name=name, version=version).build(self.folder))

    def hold(self, name: str) -> None:
        self.world.root.run("apt-mark", "hold", name)

    def take_down(self) -> None:
        self.world.repository.close()

    @contextmanager
    def lock(self) -> Iterator[None]:
        paths = [str(self.world.root.path / name) for name in _LOCKS]
        command = [sys.executable, "-c", _HOLDER, *paths]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "locked\n"
            yield


class TestRealApt(AptContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[RepositoryBench]:
        with apt_world(tmp_path / "world") as world:
            debs = tmp_path / "debs"
            debs.mkdir()
            yield RealBench(world, debs)
