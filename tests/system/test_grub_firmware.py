"""The configuration that we give GRUB, run by GRUB itself on UEFI firmware in a virtual machine.

No Linux is started: the default entry says a word and halts, the trial leads to a kernel of garbage.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edge_day2.adapters.bootloader.boot_partition import EntryText
from edge_day2.adapters.bootloader.grub_entries import grub_configuration, render
from edge_day2.domain.observation import BootEntry, Slot

FIRMWARE = Path("/usr/share/OVMF")
MODULES = Path("/usr/lib/grub/x86_64-efi")
TOOLS = ("qemu-system-x86_64", "grub-mkimage", "grub-editenv", "mkfs.vfat", "mmd", "mcopy", "mtype")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
MISSING += [str(path) for path in (FIRMWARE / "OVMF_CODE_4M.fd", MODULES / "normal.mod") if not path.exists()]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")

BOOTED = "EDGE-DAY2-A-BOOTED"
A_ENTRY = f"menuentry 'slot A' --id 'edge_day2-a' {{\n    echo {BOOTED}\n    sleep 1\n    halt\n}}\n"
EARLY = "search --file /grub/grub.cfg --set=root\nset prefix=($root)/grub\n"
BUILT_IN = (
    "part_gpt", "fat", "search", "search_fs_file", "normal", "configfile", "linux", "loadenv", "test", "echo", "reboot",
    "sleep", "halt", "boot", "true",
)  # fmt: skip
LIMIT_SECONDS = 900


class Disk:
    """A FAT disk that firmware boots GRUB from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = folder / "disk.img"
        early = folder / "early.cfg"
        early.write_text(EARLY)
        self._run("grub-mkimage", "-O", "x86_64-efi", "-c", early, "-p", "/grub", "-o", folder / "grub.efi", *BUILT_IN)
        self._run("mkfs.vfat", "-C", self.image, "65536")
        self._run("mmd", "-i", self.image, "::EFI", "::EFI/BOOT", "::grub", "::edge_day2")
        self.put("EFI/BOOT/BOOTX64.EFI", (folder / "grub.efi").read_bytes())
        self.put("grub/grub.cfg", grub_configuration().encode())
        self.put("edge_day2/edge_day2-a.cfg", A_ENTRY.encode())
        text = EntryText(kernel="$edge_day2/k.efi", initrds=("$edge_day2/i.img",), options="quiet", title="slot B")
        self.put("edge_day2/edge_day2-b.cfg", render(BootEntry(Slot.B), text))
        self.put("edge_day2/k.efi", b"garbage" * 1000)
        self.put("edge_day2/i.img", b"garbage")

    def put(self, name: str, content: bytes) -> None:
        """Write a file to the disk."""
        path = self.folder / "content"
        path.write_bytes(content)
        self._run("mcopy", "-o", "-i", self.image, path, f"::{name}")

    def set_variables(self, *variables: str) -> None:
        """Write GRUB's environment block."""
        path = self.folder / "grubenv"
        self._run("grub-editenv", path, "create")
        self._run("grub-editenv", path, "set", *variables)
        self.put("grub/grubenv", path.read_bytes())

    def variables(self) -> list[str]:
        """Return what GRUB's environment block says."""
        path = self.folder / "grubenv"
        path.write_bytes(self._run("mtype", "-i", self.image, "::grub/grubenv"))
        return self._run("grub-editenv", path, "list").decode().splitlines()

    def run(self, *options: str) -> str:
        """Run the machine until it halts, and return what it said."""
        shutil.copy(FIRMWARE / "OVMF_VARS_4M.fd", self.folder / "vars.fd")
        log = self.folder / "serial.log"
        flash = "if=pflash,format=raw"
        self._run(
            "qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-m", "512", "-nodefaults", "-display", "none",
            "-serial", f"file:{log}",
            "-drive", f"{flash},readonly=on,file={FIRMWARE / 'OVMF_CODE_4M.fd'}",
            "-drive", f"{flash},file={self.folder / 'vars.fd'}",
            "-drive", ",".join(["if=virtio", "format=raw", f"file={self.image}", *options]),
        )  # fmt: skip
        return log.read_text(errors="replace")

    def _run(self, *command: str | Path) -> bytes:
        return subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_SECONDS).stdout


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_a_trial_with_a_kernel_of_garbage_makes_way_for_the_default_unattended(disk: Disk) -> None:
    disk.set_variables("saved_entry=edge_day2-a", "next_entry=edge_day2-b")
    said = disk.run()
    assert said.index("slot B") < said.index("invalid magic number") < said.index(BOOTED)
    assert sorted(disk.variables()) == ["next_entry=", "saved_entry=edge_day2-a"]


def test_a_one_shot_that_grub_cant_take_back_isnt_taken(disk: Disk) -> None:
    disk.set_variables("saved_entry=edge_day2-a", "next_entry=edge_day2-b")
    said = disk.run("readonly=on")
    assert "slot B" not in said
    assert BOOTED in said
    assert sorted(disk.variables()) == ["next_entry=edge_day2-b", "saved_entry=edge_day2-a"]
