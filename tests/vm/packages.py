"""Debian packages unpacked into a folder: without root, and without installing anything on this machine."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path


def kernel_package() -> str:
    """Return the package that holds Debian's present kernel for virtual machines."""
    out = _run(["apt-cache", "depends", "linux-image-cloud-amd64"])
    found = re.search(r"Depends: (linux-image-\S+-cloud-amd64)", out)
    if found is None:
        raise RuntimeError(f"apt knows no kernel for virtual machines; apt-cache said {out!r}")
    return found[1]


def unknown(names: Iterable[str]) -> list[str]:
    """Return the packages that apt can't download here."""
    return [name for name in names if not _run(["apt-cache", "madison", name]).strip()]


def download(names: Iterable[str], folder: Path) -> list[Path]:
    """Download packages into `folder` where they aren't there yet; return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", "-o", "APT::Sandbox::User=root", "download", *names], folder)
    return [max(folder.glob(f"{name}_*.deb"), key=lambda file: file.stat().st_mtime) for name in names]


def unpack(packages: Iterable[Path], folder: Path) -> None:
    """Unpack packages into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        _run(["dpkg-deb", "-x", str(package), str(folder)])


def _run(command: list[str], folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
