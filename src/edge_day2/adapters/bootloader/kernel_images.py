"""What a kernel file says of itself, looked at before it is armed: firmware hangs on a file that isn't a kernel.

Headers: the Linux/x86 boot protocol (Documentation/arch/x86/boot.rst) and the PE format, which kernels with an EFI stub
and unified kernel images have.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from edge_day2.adapters.bootloader.boot_failure import boot_failure
from edge_day2.errors import shown
from edge_day2.ports.failures import NodeFailure

# The machine field of a PE header, by the kernel's word for the machine.
PE_MACHINES: Final[Mapping[str, int]] = {
    "x86_64": 0x8664, "i686": 0x14C, "aarch64": 0xAA64, "riscv64": 0x5064, "loongarch64": 0x6264
}  # fmt: skip
_X86: Final = ("x86_64", "i686")
# At 0x38: arm64, riscv and the kernel's own LINUX_PE_MAGIC; at 4: a kernel that unpacks itself (EFI zboot).
_MAGICS_AT_38: Final = (b"ARM\x64", b"RSC\x05", b"\xcd\x23\x82\x81")
_ZBOOT: Final = b"zimg"
_EFI_APPLICATION: Final = 10
_MOST_SECTIONS: Final = 96
_HEADERS_BYTES: Final = 64 * 1024
_COMMAND_LINE_BYTES: Final = 64 * 1024


@frozen(kw_only=True)
class KernelImage:
    """A kernel that this machine can start.

    Attributes:
        unified: it is a unified kernel image: kernel, initrd and command line in one EFI program.
        command_line: the command line that a unified kernel image brings, "" where there is none.
        release: what `uname -r` will say, "" where the file doesn't tell.
    """

    unified: bool = False
    command_line: str = ""
    release: str = ""


@frozen
class _Section:
    name: str
    size: int
    offset: int


def inspect_efi_kernel(path: Path, machine: str = platform.machine()) -> KernelImage:
    """Return what an EFI program that firmware can start says of itself: a kernel with EFI stub, or a UKI.

    Raises:
        NodeFailure: firmware wouldn't start it; conclusive, because the same image brings the same file.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEADERS_BYTES)
        size = path.stat().st_size
        sections = _sections(path, head, size, machine)
        linux = sections.get(".linux")
        if linux is None:
            _require_linux(path, head, machine)
            return KernelImage(release=_bzimage_release(head))
        file.seek(linux.offset)
        _require_linux(path, file.read(min(linux.size, _HEADERS_BYTES)), machine)

        def text(name: str) -> str:
            section = sections.get(name)
            if section is None:
                return ""
            file.seek(section.offset)
            content = file.read(min(section.size, _COMMAND_LINE_BYTES))
            return content.partition(b"\0")[0].decode("utf-8", errors="replace").strip()

        return KernelImage(unified=True, command_line=text(".cmdline"), release=text(".uname"))


def inspect_linux_kernel(path: Path, machine: str = platform.machine()) -> KernelImage:
    """Return what a kernel that GRUB's `linux` command can start says of itself.

    Raises:
        NodeFailure: GRUB wouldn't start it; conclusive, because the same image brings the same file.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEADERS_BYTES)
    if (head[:2] == b"MZ" or machine not in _X86) and inspect_efi_kernel(path, machine).unified:
        raise _bad(path, "a unified kernel image", "a plain kernel, which GRUB gives its command line and initrd")
    _require_linux(path, head, machine)
    if machine in _X86:
        _require_whole_bzimage(path, head)
    return KernelImage(release=_bzimage_release(head))


def _sections(path: Path, head: bytes, size: int, machine: str) -> dict[str, _Section]:
    if head[:2] != b"MZ" or len(head) < 0x40:
        raise _bad(path, shown(head[:2]), "MZ, as EFI programs begin")
    (at,) = struct.unpack_from("<I", head, 0x3C)
    if head[at : at + 4] != b"PE\0\0" or len(head) < at + 24 + 70:
        raise _bad(path, f"{shown(head[at : at + 4])} at {at:#x}", "a whole PE header")
    found, count, optional_size = struct.unpack_from("<2xHH12xH", head, at + 2)
    wanted = PE_MACHINES.get(machine)
    if found != wanted:
        named = "unknown" if wanted is None else f"{wanted:#x}"
        raise _bad(path, f"PE machine {found:#x}", f"{named}, which is {machine}")
    (subsystem,) = struct.unpack_from("<H", head, at + 24 + 68)
    if subsystem != _EFI_APPLICATION:
        raise _bad(path, f"PE subsystem {subsystem}", f"{_EFI_APPLICATION}, an EFI application")
    table = at + 24 + optional_size
    if not 0 < count <= _MOST_SECTIONS or len(head) < table + 40 * count:
        raise _bad(path, f"{count} sections at {table:#x}", "a section table near the head of the file")
    sections = {}
    for number in range(count):
        name, virtual, raw, offset = struct.unpack_from("<8sI4xII", head, table + 40 * number)
        if raw and offset + raw > size:
            raise _bad(path, f"{size} bytes", f"at least {offset + raw}: the file is cut off")
        label = name.rstrip(b"\0").decode("ascii", errors="replace")
        sections[label] = _Section(label, min(virtual, raw), offset)
    return sections


def _require_linux(path: Path, head: bytes, machine: str) -> None:
    if machine in _X86:
        if not _is_bzimage(head):
            raise _bad(path, f"{shown(head[0x1FE:0x206])} at 0x1fe", "the boot flag 55aa and HdrS of a Linux kernel")
    elif head[0x38:0x3C] not in _MAGICS_AT_38 and head[4:8] != _ZBOOT:
        raise _bad(path, f"{shown(head[0x38:0x3C])} at 0x38", "the magic number of a Linux kernel")


def _is_bzimage(head: bytes) -> bool:
    return len(head) >= 0x260 and head[0x1FE:0x200] == b"\x55\xaa" and head[0x202:0x206] == b"HdrS"


def _require_whole_bzimage(path: Path, head: bytes) -> None:
    setup_sectors = head[0x1F1] or 4
    (paragraphs,) = struct.unpack_from("<I", head, 0x1F4)
    least = (setup_sectors + 1) * 512 + paragraphs * 16
    if (size := path.stat().st_size) < least:
        raise _bad(path, f"{size} bytes", f"at least {least}: the file is cut off")


def _bzimage_release(head: bytes) -> str:
    if not _is_bzimage(head):
        return ""
    (pointer,) = struct.unpack_from("<H", head, 0x20E)
    banner = head[pointer + 0x200 : pointer + 0x200 + 256].partition(b"\0")[0] if pointer else b""
    return banner.decode("ascii", errors="replace").partition(" ")[0]


def _bad(path: Path, found: str, expected: str) -> NodeFailure:
    return boot_failure(f"kernel {path.name}: found {found}, expected {expected}", conclusive=True)
