"""Machines without hardware: folders that systemd-boot or GRUB would read, and what these two do with them."""

from __future__ import annotations

import fnmatch
import hashlib
import platform
import re
import shlex
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from attrs import define, field

from edge_day2.adapters.bootloader.boot_partition import EntryText
from edge_day2.adapters.bootloader.efi_variables import LOADER_VENDOR, EfiVariables
from edge_day2.adapters.bootloader.grub import Grub
from edge_day2.adapters.bootloader.grub_entries import render
from edge_day2.adapters.bootloader.grub_environment import GrubEnvironment
from edge_day2.adapters.bootloader.kernel_images import PE_MACHINES
from edge_day2.adapters.bootloader.slot_roots import SlotRoots
from edge_day2.adapters.bootloader.systemd_boot import SystemdBoot
from edge_day2.adapters.hashed_copy import write_hashed
from edge_day2.domain.observation import BootEntry, Slot
from edge_day2.ports.boot_files import BootFiles

ROOTS = {
    Slot.A: "root=PARTUUID=11111111-0000-0000-0000-00000000000a",
    Slot.B: "root=PARTUUID=22222222-0000-0000-0000-00000000000b",
}
SECTION_AT = 0x400


def kernel(
    text: str = "kernel",
    *,
    sections: Mapping[str, bytes] | None = None,
    machine: int = PE_MACHINES[platform.machine()],
    subsystem: int = 10,
) -> bytes:
    """Return a file with the headers of an x86 bzImage with EFI stub, and `text` where its code would be."""
    bodies = {".text": text.encode(), **(sections or {})}
    setup = bytearray(SECTION_AT)
    setup[:2] = b"MZ"
    setup[0x1F1] = 1
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x20E, 0x60)
    setup[0x260:0x280] = b"6.1.0-test (us@here)\0".ljust(0x20, b"\0")
    struct.pack_into("<I", setup, 0x3C, 0x40)
    optional = struct.pack("<H66xH", 0x20B, subsystem)
    table = struct.pack("<4sHHIIIHH", b"PE\0\0", machine, len(bodies), 0, 0, 0, len(optional), 0) + optional
    offset, content = SECTION_AT, b""
    for name, body in bodies.items():
        table += struct.pack("<8sIIII16x", name.encode(), len(body), 0, len(body), offset)
        offset += len(body)
        content += body
    at = 0x40 if len(table) <= 0x1F1 - 0x40 else 0x280
    struct.pack_into("<I", setup, 0x3C, at)
    setup[at : at + len(table)] = table
    struct.pack_into("<I", setup, 0x1F4, (SECTION_AT + len(content) - 1024) // 16)
    return bytes(setup) + content


def unified_kernel(text: str = "uki", *, command_line: str = "") -> bytes:
    """Return a file with the headers of a unified kernel image."""
    sections = {".linux": kernel(), ".osrel": b"ID=x\n", ".uname": b"6.1.0-uki"}
    if command_line:
        sections[".cmdline"] = command_line.encode() + b"\0"
    return kernel(text, sections=sections)


@define
class SlotContents:
    """The boot files of the two slots' images, as a BootFilesPort."""

    kernels: dict[Slot, bytes] = field(factory=dict)
    initrds: dict[Slot, bytes] = field(factory=dict)

    @classmethod
    def plain(cls) -> SlotContents:
        """Return a kernel and an initrd for each slot."""
        return cls(
            {slot: kernel(f"kernel of {slot.value}") for slot in Slot},
            {slot: f"initrd of {slot.value}".encode() for slot in Slot},
        )

    def copy(self, slot: Slot, folder: Path) -> BootFiles:
        """See `BootFilesPort`."""
        return BootFiles(
            kernel=write_hashed([self.kernels[slot]], folder / "kernel"),
            initrds=tuple(write_hashed([self.initrds[slot]], folder / "initrd") for _ in [0] if slot in self.initrds),
        )


@define
class SystemdBootMachine:
    """An EFI system partition, EFI variables and /proc/cmdline in one folder."""

    folder: Path
    contents: SlotContents = field(factory=SlotContents.plain)

    @classmethod
    def installed(cls, folder: Path) -> SystemdBootMachine:
        """Return a machine that runs slot A by our own entry, as an installer leaves it."""
        machine = cls(folder)
        machine.make()
        kernel_name = hashlib.sha256(machine.contents.kernels[Slot.A]).hexdigest() + ".efi"
        initrd_name = hashlib.sha256(machine.contents.initrds[Slot.A]).hexdigest() + ".img"
        store = machine.esp / "EFI" / "edge_day2"
        store.mkdir()
        (store / kernel_name).write_bytes(machine.contents.kernels[Slot.A])
        (store / initrd_name).write_bytes(machine.contents.initrds[Slot.A])
        (machine.entries / "edge_day2-a.conf").write_text(
            f"title installed\nlinux /EFI/edge_day2/{kernel_name}\ninitrd /EFI/edge_day2/{initrd_name}\n"
            f"options {ROOTS[Slot.A]} quiet\n"
        )
        machine.set_variable("LoaderEntryDefault", "edge_day2-a.conf")
        machine.boot()
        return machine

    @classmethod
    def of_the_original(cls, folder: Path) -> SystemdBootMachine:
        """Return a machine of the original system: two unified kernel images, the first one running."""
        machine = cls(folder)
        machine.make()
        machine.contents.initrds.clear()
        for slot, name in ((Slot.A, "linux.efi"), (Slot.B, "linux-2.efi")):
            image = unified_kernel(f"uki of {slot.value}", command_line=f"{ROOTS[slot]} rd.emt=1")
            machine.contents.kernels[slot] = image
            (machine.esp / "EFI" / "Linux" / name).write_bytes(image)
        machine.set_variable("LoaderEntryDefault", "linux.efi")
        machine.boot()
        return machine

    @property
    def esp(self) -> Path:
        """Where the EFI system partition is mounted."""
        return self.folder / "esp"

    @property
    def entries(self) -> Path:
        """Where the Type #1 entries are."""
        return self.esp / "loader" / "entries"

    @property
    def variables(self) -> Path:
        """Where efivarfs is mounted."""
        return self.folder / "efivars"

    @property
    def command_line(self) -> Path:
        """/proc/cmdline."""
        return self.folder / "cmdline"

    def make(self) -> None:
        """Make the empty folders."""
        self.entries.mkdir(parents=True)
        (self.esp / "EFI" / "Linux").mkdir(parents=True)
        self.variables.mkdir()
        (self.variables / "BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c").write_bytes(b"\7\0\0\0\0\0")

    def port(
        self,
        *,
        adopted: Mapping[BootEntry, str] | None = None,
        options: str | None = None,
        tries: int | None = None,
        panic_seconds: int | None = 10,
    ) -> SystemdBoot:
        """Return the adapter for this machine."""
        return SystemdBoot(
            self.contents,
            SlotRoots(ROOTS, command_line=self.command_line, devices=self.folder / "dev"),
            esp=self.esp,
            variables=EfiVariables(self.variables),
            adopted=adopted,
            options=options,
            tries=tries,
            panic_seconds=panic_seconds,
        )

    def variable_path(self, name: str) -> Path:
        """Return the file of a variable of the Boot Loader Interface."""
        return self.variables / f"{name}-{LOADER_VENDOR}"

    def set_variable(self, name: str, text: str) -> None:
        """Set a variable as firmware would."""
        self.variable_path(name).write_bytes(b"\7\0\0\0" + f"{text}\0".encode("utf-16-le"))

    def variable(self, name: str) -> str | None:
        """Return a variable as systemd-boot reads it."""
        path = self.variable_path(name)
        return path.read_bytes()[4:].decode("utf-16-le").partition("\0")[0] if path.exists() else None

    def boot(self) -> None:
        """Do what systemd-boot does: take the one-shot, else the default, count, and start the kernel."""
        one_shot = self.variable("LoaderEntryOneShot")
        self.variable_path("LoaderEntryOneShot").unlink(missing_ok=True)
        files = self._visible()
        chosen = None
        for pattern in (one_shot, self.variable("LoaderEntryDefault"), self._configured_default()):
            matching = [path for path in files if pattern and fnmatch.fnmatchcase(path.name.lower(), pattern.lower())]
            chosen = chosen or next(iter(matching), None)
        chosen = chosen or files[0]
        self.set_variable("LoaderEntrySelected", chosen.name.lower())
        self.command_line.write_text(self._start(chosen) + "\n")
        if match := re.fullmatch(r"(.+)\+(\d+)(?:-(\d+))?(\.conf)", chosen.name):
            left, done = max(int(match[2]) - 1, 0), int(match[3] or 0) + 1
            chosen.rename(chosen.with_name(f"{match[1]}+{left}-{done}{match[4]}"))

    def _visible(self) -> list[Path]:
        texts = [path for path in self.entries.iterdir() if path.suffix == ".conf" and self._kernel(path).is_file()]
        images = [path for path in (self.esp / "EFI" / "Linux").iterdir() if path.suffix == ".efi"]
        return sorted(texts + images, key=lambda path: ("+0" in path.name, path.name))

    def _lines(self, path: Path) -> list[list[str]]:
        return [line.split(None, 1) for line in path.read_text().splitlines() if line and not line.startswith("#")]

    def _kernel(self, path: Path) -> Path:
        return self.esp / next(line[1] for line in self._lines(path) if line[0] in ("linux", "efi")).lstrip("/")

    def _start(self, chosen: Path) -> str:
        image = (chosen if chosen.suffix == ".efi" else self._kernel(chosen)).read_bytes()
        assert image.startswith(b"MZ"), f"firmware hangs on {chosen}"
        options = (
            "" if chosen.suffix == ".efi" else " ".join(line[1] for line in self._lines(chosen) if line[0] == "options")
        )
        for line in self._lines(chosen) if chosen.suffix == ".conf" else []:
            if line[0] == "initrd":
                assert (self.esp / line[1].lstrip("/")).is_file()
        embedded = re.search(rb"root=[ -~]*rd\.emt=1", image)
        return options or (embedded[0].decode() if embedded else "")

    def _configured_default(self) -> str | None:
        path = self.esp / "loader" / "loader.conf"
        found = [line[1] for line in self._lines(path) if line[0] == "default"] if path.exists() else []
        return found[-1] if found else None


@define
class GrubMachine:
    """A boot partition with GRUB's environment block, and /proc/cmdline, in one folder."""

    folder: Path
    contents: SlotContents = field(factory=SlotContents.plain)

    @classmethod
    def installed(cls, folder: Path) -> GrubMachine:
        """Return a machine that runs slot A, as an installer leaves it."""
        machine = cls(folder)
        (machine.boot_folder / "grub").mkdir(parents=True)
        machine.entries.mkdir()
        names = []
        for content, suffix in ((machine.contents.kernels, "efi"), (machine.contents.initrds, "img")):
            names.append(f"{hashlib.sha256(content[Slot.A]).hexdigest()}.{suffix}")
            (machine.entries / names[-1]).write_bytes(content[Slot.A])
        text = EntryText(
            title="installed",
            kernel=f"$edge_day2/{names[0]}",
            initrds=(f"$edge_day2/{names[1]}",),
            options=f"{ROOTS[Slot.A]} edge_day2.entry=a quiet",
        )
        (machine.entries / "edge_day2-a.cfg").write_bytes(render(BootEntry(Slot.A), text))
        machine.edit("create")
        machine.edit("set", "saved_entry=edge_day2-a")
        machine.boot()
        return machine

    @property
    def boot_folder(self) -> Path:
        """Where the boot partition is mounted."""
        return self.folder / "boot"

    @property
    def entries(self) -> Path:
        """Where entries and kernels are."""
        return self.boot_folder / "edge_day2"

    @property
    def block(self) -> Path:
        """GRUB's environment block."""
        return self.boot_folder / "grub" / "grubenv"

    @property
    def command_line(self) -> Path:
        """/proc/cmdline."""
        return self.folder / "cmdline"

    def port(self, *, options: str = "ro") -> Grub:
        """Return the adapter for this machine."""
        return Grub(
            self.contents,
            SlotRoots(ROOTS, command_line=self.command_line, devices=self.folder / "dev"),
            boot=self.boot_folder,
            environment=GrubEnvironment(self.block),
            options=options,
        )

    def edit(self, *arguments: str) -> str:
        """Call grub-editenv."""
        command = ["grub-editenv", str(self.block), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def variables(self) -> dict[str, str]:
        """Return what the environment block says."""
        lines = [line.partition("=") for line in self.edit("list").splitlines()]
        return {name: value for name, _, value in lines}

    def boot(self) -> None:
        """Do what GRUB does with `grub_configuration()`."""
        variables = self.variables()
        chosen = variables.get("next_entry") or variables.get("saved_entry")
        if variables.get("next_entry"):
            self.edit("set", "next_entry=")
        files = sorted(self.entries.glob("edge_day2-*.cfg"))
        text = next((path for path in files if path.stem == chosen), files[0]).read_text()
        lines = dict(re.findall(r"if (linux|initrd) (.*); then", text))
        kernel_path, *words = shlex.split(lines["linux"])
        assert self._file(kernel_path).read_bytes().startswith(b"MZ"), "GRUB waits at its menu"
        for path in shlex.split(lines.get("initrd", "")):
            assert self._file(path).is_file()
        quoted = (f'"{word}"' if " " in word else word for word in words)
        self.command_line.write_text(f"BOOT_IMAGE={kernel_path} {' '.join(quoted)}\n")

    def _file(self, path: str) -> Path:
        return self.entries / path.removeprefix("$edge_day2/")
