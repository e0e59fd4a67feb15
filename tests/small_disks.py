"""A disk that is soon full, and one that can't be written, for tests that run as root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a file system in memory of `size` bytes at `folder`, or skip the test where that can't be done."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def make_read_only(folder: Path) -> None:
    """Let the disk at `folder` refuse to be written, as one with errors does."""
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)


def make_writable(folder: Path) -> None:
    """Undo `make_read_only`."""
    subprocess.run(["mount", "-o", "remount,rw", folder], check=True)


def fill(folder: Path) -> Path:
    """Fill the disk to its last byte; return the file that does it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast
