"""A whole Debian in a folder, entered with chroot: maintainer scripts run in it as on a node."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Final

from apt_root import AptRoot

_SUITE: Final = "bookworm"
# Made once, ignored by git.
_CACHE: Final = Path(__file__).parents[1] / ".cache"
_LIMIT_SECONDS: Final = 900
_UPDATE_GRUB: Final = """#!/bin/sh
set -e
for file in /etc/default/grub.d/*.cfg; do . "$file"; done
mkdir -p /boot/grub
printf '%s' "$GRUB_CMDLINE_LINUX_DEFAULT" > /boot/grub/grub.cfg
"""


def _mirror() -> str:
    """Return the mirror that this machine's own apt takes the suite from, or the one that the environment names."""
    if named := os.environ.get("EDGE_DAY2_DEBIAN_MIRROR"):
        return named
    command = ["apt-get", "indextargets", "--format", "$(CODENAME)/$(COMPONENT) $(REPO_URI)", "Identifier: Packages"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    offers = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line)
    return offers.get(f"{_SUITE}/main", "")


def debian_tarball() -> tuple[Path | None, str]:
    """Return a minimal Debian as a tar file, made by debootstrap where it isn't yet; or None, and why there is none."""
    tarball = _CACHE / f"debian-{_SUITE}-{platform.machine()}.tar"
    if os.geteuid() != 0:
        return None, "needs root, for chroot"
    if tarball.exists():
        return tarball, ""
    if shutil.which("debootstrap") is None:
        return None, "needs debootstrap"
    mirror = _mirror()
    if not mirror:
        return None, f"needs {_SUITE} among apt's sources, or a mirror in EDGE_DAY2_DEBIAN_MIRROR"
    _CACHE.mkdir(exist_ok=True)
    made = _CACHE / f"debian-{os.getpid()}"
    try:
        command = ["debootstrap", "--variant=minbase", _SUITE, str(made), mirror]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_SECONDS)
        if done.returncode != 0:
            return None, f"debootstrap failed: {done.stdout[-300:]}"
        shutil.rmtree(made / "var/cache/apt/archives", ignore_errors=True)
        beside = tarball.with_suffix(f".{os.getpid()}")
        subprocess.run(["tar", "--numeric-owner", "-C", made, "-cf", beside, "."], check=True)
        beside.replace(tarball)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return tarball, ""


class DebianRoot(AptRoot):
    """A Debian in `path`, unpacked from `tarball`, without sources, and with a stand-in for update-grub."""

    def __init__(self, path: Path, tarball: Path) -> None:
        self.path = path
        path.mkdir()
        subprocess.run(["tar", "--numeric-owner", "-C", path, "-xf", tarball], check=True)
        (path / "var/cache/apt/archives/partial").mkdir(parents=True, exist_ok=True)
        (path / "etc/apt/sources.list").unlink(missing_ok=True)
        (path / "etc/default/grub.d").mkdir(parents=True)
        update_grub = path / "usr/sbin/update-grub"
        update_grub.write_text(_UPDATE_GRUB)
        update_grub.chmod(0o755)
        self.enter = ("chroot", str(path))
        self.dpkg_options = self.apt_options = ()
        self.environment = {"http_proxy": ""}
