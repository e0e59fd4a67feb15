"""A root folder with apt and dpkg databases of its own, for real apt and dpkg, as root or not.

Nothing of the machine's own apt configuration, sources or packages counts in it. Maintainer scripts aren't put into a
chroot: they run on the machine, with DPKG_ROOT set to the folder.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from apt_repository import AptRepository

_FOLDERS: Final = (
    "etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d",
    "usr/share", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "var/lib/apt/lists/partial",
    "var/cache/apt/archives/partial", "var/log/apt",
)  # fmt: skip


class AptRoot:
    """An empty system in `path`.

    `environment` makes any apt command work on it; `apt_options` are the same as arguments (they don't keep the
    machine's apt.conf away); `dpkg_options` make dpkg work on it. `enter` is the prefix of every command.
    """

    enter: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        for folder in _FOLDERS:
            (path / folder).mkdir(parents=True)
        (path / "var/lib/dpkg/status").touch()
        self.dpkg_options: tuple[str, ...] = (
            f"--root={path}", f"--log={path}/var/log/dpkg.log", "--force-not-root", "--force-script-chrootless",
        )  # fmt: skip
        options = {
            "Dir": f"{path}",
            "Dir::State::status": f"{path}/var/lib/dpkg/status",
            "Acquire::http::Proxy": "DIRECT",
            "Acquire::Retries": "0",
            # apt's own user can't look into a test's folder.
            "APT::Sandbox::User": "root",
        }
        listed = [f'{name} "{value}";\n' for name, value in options.items()]
        dpkg = [f'DPkg::Options:: "{option}";\n' for option in self.dpkg_options]
        configuration = path / "apt.conf"
        configuration.write_text("".join([*listed, *dpkg]))
        self.environment = {"APT_CONFIG": str(configuration)}
        self.apt_options: tuple[str, ...] = tuple(
            word
            for name, value in [*options.items(), *(("DPkg::Options::", option) for option in self.dpkg_options)]
            for word in ("-o", f"{name}={value}")
        )

    @property
    def sources(self) -> Path:
        """The folder of source files."""
        return self.path / "etc/apt/sources.list.d"

    def use(self, repository: AptRepository) -> None:
        """Make this repository the only source, and read its lists."""
        (self.sources / "tests.sources").write_text(repository.source())
        self.apt_get("update")

    def run(self, *command: str | Path) -> str:
        """Run an apt command on the root and return what it printed; it has to succeed."""
        environment = {**os.environ, **self.environment, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(
            [*self.enter, *command],
            capture_output=True,
            env=environment,
            check=False,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def apt_get(self, *arguments: str) -> str:
        """Run `apt-get -y`."""
        return self.run("apt-get", "-y", *arguments)

    def dpkg(self, *arguments: str | Path) -> str:
        """Run `dpkg`."""
        return self.run("dpkg", *self.dpkg_options, *arguments)

    def installed(self) -> dict[str, str]:
        """Return version by name of what is fully installed, as dpkg-query says."""
        admin = () if self.enter else (f"--admindir={self.path}/var/lib/dpkg",)
        listing = self.run("dpkg-query", *admin, "--show", "--showformat=${Package} ${Version} ${db:Status-Status}\n")
        rows = [line.split() for line in listing.splitlines()]
        return {
            name: version for name, version, status in (row for row in rows if len(row) == 3) if status == "installed"
        }
