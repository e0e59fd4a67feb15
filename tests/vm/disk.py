"""The guest's disk: a GPT with an EFI system partition, two slots and a data partition, made without root."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

MIB: Final = 1 << 20


@frozen
class Partition:
    """Where a partition lies on the disk, in MiB, and its name and id."""

    name: str
    start: int
    size: int
    guid: str
    kind: str = "8300"


ESP: Final = Partition("esp", 1, 160, "e5d00000-0000-4000-8000-000000000001", "ef00")
SLOT_A: Final = Partition("slot-a", 161, 144, "e5d00000-0000-4000-8000-00000000000a")
SLOT_B: Final = Partition("slot-b", 305, 144, "e5d00000-0000-4000-8000-00000000000b")
DATA: Final = Partition("data", 449, 256, "e5d00000-0000-4000-8000-0000000000da")
PARTITIONS: Final = (ESP, SLOT_A, SLOT_B, DATA)
_SIZE: Final = 706


def make_disk(disk: Path) -> None:
    """Make an empty disk with its partitions."""
    with disk.open("wb") as file:
        file.truncate(_SIZE * MIB)
    command = ["sgdisk", "--clear"]
    for number, part in enumerate(PARTITIONS, 1):
        end = (part.start + part.size) * MIB // 512 - 1
        command += [f"--new={number}:{part.start}M:{end}", f"--typecode={number}:{part.kind}"]
        command += [f"--change-name={number}:{part.name}", f"--partition-guid={number}:{part.guid}"]
    run([*command, str(disk)])


def fat(file: Path, size: int, files: Mapping[str, Path | bytes]) -> None:
    """Make a FAT32 file system of `size` MiB that holds `files` (by their paths in it)."""
    with file.open("wb") as opened:
        opened.truncate(size * MIB)
    run(["mkfs.vfat", "-F", "32", "-n", "ESP", str(file)])
    folders = sorted({"/".join(name.split("/")[:depth]) for name in files for depth in range(1, name.count("/") + 1)})
    if folders:
        run(["mmd", "-i", str(file), *[f"::{folder}" for folder in folders]])
    for name, content in files.items():
        data = content.read_bytes() if isinstance(content, Path) else content
        subprocess.run(["mcopy", "-o", "-i", str(file), "-", f"::{name}"], input=data, check=True, capture_output=True)


def ext4(file: Path, size: int, folder: Path, *, journal: bool, label: str) -> None:
    """Make an ext4 file system of `size` MiB that holds what `folder` holds."""
    with file.open("wb") as opened:
        opened.truncate(size * MIB)
    command = ["mkfs.ext4", "-q", "-m", "0", "-L", label, "-E", "root_owner=0:0,lazy_itable_init=0"]
    command += ["-O", "has_journal" if journal else "^has_journal", "-d", str(folder)]
    run([*command, str(file)])


def put(disk: Path, part: Partition, content: Path) -> None:
    """Write a file system into its partition. What is empty in the file stays a hole in the disk."""
    if content.stat().st_size > part.size * MIB:
        raise RuntimeError(f"{content} doesn't fit into {part.name}")
    command = ["dd", f"if={content}", f"of={disk}", "bs=1M", f"seek={part.start}", "conv=notrunc,sparse", "status=none"]
    run(command)


def get(disk: Path, part: Partition, size: int | None = None) -> bytes:
    """Return what a partition holds, or its first `size` bytes."""
    with disk.open("rb") as file:
        file.seek(part.start * MIB)
        return file.read(part.size * MIB if size is None else size)


def copy(disk: Path, to: Path) -> None:
    """Copy a disk, with its holes."""
    run(["cp", "--reflink=auto", "--sparse=always", str(disk), str(to)])


def run(command: list[str]) -> str:
    """Run a tool; say what it said where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def missing_tools() -> list[str]:
    """Return the programs that this machine doesn't have."""
    tools = ("sgdisk", "mkfs.vfat", "mcopy", "mmd", "mkfs.ext4", "qemu-system-x86_64", "apt-get", "dpkg-deb")
    return [tool for tool in tools if shutil.which(tool) is None]
