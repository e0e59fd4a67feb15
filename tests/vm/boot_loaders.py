"""How systemd-boot and GRUB are set up on the guest's disk by whoever installs the node."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Final, Protocol

from attrs import frozen

from edge_day2.adapters.bootloader.boot_partition import EntryText
from edge_day2.adapters.bootloader.grub_entries import PARAMETER, entry_id, grub_configuration, render, short_name
from edge_day2.domain.observation import BootEntry, Slot
from vm import disk
from vm.disk import Partition
from vm.guest_image import GuestImage
from vm.guest_tree import GuestTree

_SYSTEMD_BOOT: Final = Path("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
KERNEL_PARAMETERS: Final = "console=ttyS0 panic=1 quiet"


def root_of(slot: Partition) -> str:
    """Return the kernel parameter that names a slot."""
    return f"root=PARTUUID={slot.guid}"


class BootLoader(Protocol):
    """What a boot loader needs on the disk, and what the node's program is told of it."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def memory(self) -> int:
        """How many MiB of memory the machine must have."""
        ...

    def files(self, image: GuestImage) -> dict[str, Path | bytes]:
        """Return what the EFI system partition of a node holds on which `image` was installed in slot A."""
        ...

    @property
    def adopted(self) -> str:
        """The file name of the entry that the installer made, "" where it is one of ours."""
        ...


@frozen
class SystemdBootSetup:
    """systemd-boot with one entry, as an installer leaves it."""

    tree: GuestTree
    name: str = "systemd-boot"
    memory: int = 512
    adopted: str = "installed.conf"

    def files(self, image: GuestImage) -> dict[str, Path | bytes]:
        """See `BootLoader.files`."""
        options = f"{root_of(disk.SLOT_A)} {KERNEL_PARAMETERS}"
        entry = f"title installed\nlinux /installed/vmlinuz\ninitrd /installed/initramfs.img\noptions {options}\n"
        return {
            "EFI/BOOT/BOOTX64.EFI": _SYSTEMD_BOOT,
            "loader/loader.conf": f"timeout 0\ndefault {self.adopted}\n".encode(),
            f"loader/entries/{self.adopted}": entry.encode(),
            "installed/vmlinuz": self.tree.kernel,
            "installed/initramfs.img": self.tree.initramfs,
        }


# GRUB's program looks for its configuration on the partition that it was started from, whichever disk that is.
_GRUB_EARLY: Final = "search --no-floppy --file /grub/grub.cfg --set=root\nset prefix=($root)/grub\n"
_GRUB_MODULES: Final = (
    "boot", "configfile", "echo", "fat", "linux", "loadenv", "normal", "part_gpt", "reboot", "search",
    "search_fs_file", "serial", "sleep", "terminal", "test",
)  # fmt: skip


@frozen
class GrubSetup:
    """GRUB with one entry of ours, as an installer leaves it: all its files lie on the EFI system partition."""

    tree: GuestTree
    name: str = "GRUB"
    memory: int = 768
    adopted: str = ""

    def files(self, image: GuestImage) -> dict[str, Path | bytes]:
        """See `BootLoader.files`."""
        kernel, initrd = (file.read_bytes() for file in (self.tree.kernel, self.tree.initramfs))
        names = [f"{hashlib.sha256(kernel).hexdigest()}.efi", f"{hashlib.sha256(initrd).hexdigest()}.img"]
        entry = BootEntry(Slot.A)
        text = EntryText(
            kernel=f"$edge_day2/{names[0]}",
            initrds=(f"$edge_day2/{names[1]}",),
            options=f"{root_of(disk.SLOT_A)} {PARAMETER}={short_name(entry)} {KERNEL_PARAMETERS}",
            title="installed",
        )
        serial = "serial --unit=0 --speed=115200\nterminal_output serial\n"
        return {
            "EFI/BOOT/BOOTX64.EFI": _grub_program(),
            "grub/grub.cfg": (serial + grub_configuration()).encode(),
            "grub/grubenv": _environment_block(f"saved_entry={entry_id(entry)}"),
            f"edge_day2/{entry_id(entry)}.cfg": render(entry, text),
            f"edge_day2/{names[0]}": kernel,
            f"edge_day2/{names[1]}": initrd,
        }


def _grub_program() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        early, program = Path(folder) / "early.cfg", Path(folder) / "grub.efi"
        early.write_text(_GRUB_EARLY)
        command = ["grub-mkimage", "-O", "x86_64-efi", "-p", "/grub", "-c", str(early), "-o", str(program)]
        disk.run([*command, *_GRUB_MODULES])
        return program.read_bytes()


def _environment_block(*lines: str) -> bytes:
    # GRUB manual, "The GRUB environment block": 1,024 bytes, filled with #.
    return "".join(f"{line}\n" for line in ("# GRUB Environment Block", *lines)).encode().ljust(1024, b"#")


def missing_loaders() -> list[str]:
    """Return what isn't on this machine of the two boot loaders."""
    files = (_SYSTEMD_BOOT, Path("/usr/lib/grub/x86_64-efi"))
    return [str(file) for file in files if not file.exists()] + [
        tool for tool in ("grub-mkimage",) if shutil.which(tool) is None
    ]
