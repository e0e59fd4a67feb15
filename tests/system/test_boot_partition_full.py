"""A boot partition that is full or read-only: a named failure, and nothing that was there is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from boot_bench import SystemdBootMachine, kernel
from edge_day2.domain.observation import BootEntry, Slot
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.bootloader import BootState
from edge_day2.ports.failures import NodeFailure

A, B = BootEntry(Slot.A), BootEntry(Slot.B)
MAKERS = {"vfat": ["mkfs.vfat"], "ext4": ["mkfs.ext4", "-q", "-m", "0"]}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture(params=["vfat", "ext4"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SystemdBootMachine]:
    """A machine whose EFI system partition is a small file system of its own."""
    maker = MAKERS[request.param]
    if shutil.which(maker[0]) is None:
        pytest.skip(f"{maker[0]} is missing")
    image, esp = tmp_path / "esp.img", tmp_path / "esp"
    image.touch()
    os.truncate(image, 16 * 1024 * 1024)
    subprocess.run([*maker, str(image)], check=True, capture_output=True)
    esp.mkdir()
    if subprocess.run(["mount", "-o", "loop", image, esp], check=False, capture_output=True).returncode:
        pytest.skip(f"the kernel can't mount {request.param} from a file here")
    try:
        yield SystemdBootMachine.installed(tmp_path)
    finally:
        subprocess.run(["umount", esp], check=True)


def everything(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fill(folder: Path, leave_bytes: int) -> Path:
    """Leave this much space, and return the file that takes the rest."""
    path = folder / "filler"
    found = os.statvfs(folder)
    with path.open("wb") as file:
        for _ in range(max(found.f_bavail * found.f_frsize - leave_bytes, 0) // 4096):
            file.write(b"x" * 4096)
    return path


@pytest.mark.parametrize("leave_bytes", [1024 * 1024, 128 * 1024, 0])
def test_an_entry_that_doesnt_fit_leaves_everything_as_it_was(machine: SystemdBootMachine, leave_bytes: int) -> None:
    machine.contents.kernels[Slot.B] = kernel("x" * 3 * 1024 * 1024)
    port = machine.port()
    filler = fill(machine.esp, leave_bytes)
    before = everything(machine.esp)
    with pytest.raises(NodeFailure, match="it is full") as failure:
        port.write_entry(B, "quiet")
    assert failure.value.reason is FailureReason.INSUFFICIENT_STORAGE
    assert everything(machine.esp) == before
    assert port.state() == BootState(active=A, default=A)
    filler.unlink()
    port.write_entry(B, "quiet")
    port.arm(B)
    machine.boot()
    assert port.state() == BootState(active=B, default=A)


def test_a_read_only_partition_is_named(machine: SystemdBootMachine) -> None:
    port = machine.port(tries=2)
    port.write_entry(B, "")
    before = everything(machine.esp)
    subprocess.run(["mount", "-o", "remount,ro", machine.esp], check=True)
    with pytest.raises(NodeFailure, match="mounted read-only"):
        port.write_entry(B, "quiet")
    with pytest.raises(NodeFailure, match="mounted read-only"):
        port.remove_entry(B)
    with pytest.raises(NodeFailure, match="mounted read-only"):
        port.set_default(B)
    assert everything(machine.esp) == before
    port.arm(B)
