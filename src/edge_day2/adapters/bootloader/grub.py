"""GRUB: entry files that a static grub.cfg sources, and GRUB's environment block."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edge_day2.adapters.bootloader.boot_failure import boot_failure
from edge_day2.adapters.bootloader.boot_partition import BootPartition, EntryText, release
from edge_day2.adapters.bootloader.grub_entries import PARAMETER, GrubEntries, entry_id, entry_named, render, short_name
from edge_day2.adapters.bootloader.grub_environment import GrubEnvironment
from edge_day2.adapters.bootloader.kernel_images import inspect_linux_kernel
from edge_day2.adapters.bootloader.kernel_parameters import compose
from edge_day2.adapters.bootloader.kernel_store import KernelStore
from edge_day2.adapters.bootloader.slot_roots import SlotRoots
from edge_day2.domain.observation import BootEntry
from edge_day2.errors import shown
from edge_day2.ports.boot_files import BootFilesPort
from edge_day2.ports.bootloader import BootState

_ONE_SHOT: Final = "next_entry"
_DEFAULT: Final = "saved_entry"


class Grub:
    """The boot loader of an A/B node that GRUB starts, with a boot partition that both slots share.

    grub.cfg holds `grub_configuration()`, once and for all. A unified kernel image can't be started in this way.

    Args:
        boot_files: where the boot files of the other slot's image come from. A change of the kernel command line alone
            starts the files of the running entry again.
        roots: which slot runs.
        boot: where the boot partition is mounted, writable. Entries and kernels lie in its folder edge_day2, which
            the installer made.
        environment: GRUB's environment block. GRUB must be able to write it: FAT or ext4 on a plain partition.
        options: kernel parameters that every entry has besides its root.
        panic_seconds: `panic=` of the entries, where nobody else says it, so that a kernel that panics makes way for
            the default entry; None leaves it out.
    """

    def __init__(
        self,
        boot_files: BootFilesPort,
        roots: SlotRoots,
        *,
        boot: Path | str = "/boot",
        environment: GrubEnvironment | None = None,
        options: str = "",
        panic_seconds: int | None = 10,
    ) -> None:
        self._roots = roots
        self._environment = environment or GrubEnvironment()
        self._options = options
        self._panic_seconds = panic_seconds
        folder = Path(boot) / "edge_day2"
        self._entries = GrubEntries(folder)
        self._partition = BootPartition(
            called="boot partition",
            mount=Path(boot),
            landmark="edge_day2",
            entries=self._entries,
            store=KernelStore(folder),
            boot_files=boot_files,
            inspect=inspect_linux_kernel,
        )

    def state(self) -> BootState:
        """See `BootloaderPort`. GRUB counts no boots: there is never evidence about a trial."""
        active = self._active()
        with self._partition.named("read"):
            variables = self._environment.read()
            default = self._default(variables.get(_DEFAULT, ""))
            one_shot = self._named(_ONE_SHOT, variables[_ONE_SHOT]) if variables.get(_ONE_SHOT) else None
        return BootState(active=active, default=default, one_shot=one_shot)

    def kernel_command_line(self) -> str:
        """See `BootloaderPort`."""
        return self._running_text().kernel_command_line

    def write_entry(self, entry: BootEntry, kernel_command_line: str) -> None:
        """See `BootloaderPort`."""
        state = release(self, entry, "written")
        running = self._running_text()
        wanted = kernel_command_line or running.kernel_command_line
        options = compose(
            root=self._roots.parameters(entry.slot),
            own=(f"{PARAMETER}={short_name(entry)}",),
            base=self._options,
            wanted=wanted,
            panic_seconds=self._panic_seconds,
        )
        # Before anything is copied: a command line that can't be used costs no space.
        render(entry, EntryText(kernel="", options=options))
        self._partition.write(entry, active=state.active, running=running, wanted=wanted, options=lambda image: options)

    def remove_entry(self, entry: BootEntry) -> None:
        """See `BootloaderPort`."""
        release(self, entry, "removed")
        self._partition.remove(entry)

    def arm(self, entry: BootEntry) -> None:
        """See `BootloaderPort`. An entry that isn't whole is refused."""
        with self._partition.named("write"):
            self._partition.whole_file(entry)
            self._partition.flush()
            self._environment.change({_ONE_SHOT: entry_id(entry)})

    def disarm(self) -> None:
        """See `BootloaderPort`."""
        with self._partition.named("write"):
            self._environment.change({_ONE_SHOT: None})

    def set_default(self, entry: BootEntry) -> None:
        """See `BootloaderPort`. A torn or missing environment block is made again."""
        with self._partition.named("write"):
            self._partition.whole_file(entry)
            self._partition.flush()
            self._environment.renew({_DEFAULT: entry_id(entry)})

    def _active(self) -> BootEntry:
        found = [
            word.partition("=")[2] for word in self._roots.running_parameters() if word.startswith(f"{PARAMETER}=")
        ]
        entry = entry_named(found[0]) if len(found) == 1 else None
        if entry is None:
            said = f"found {shown(' '.join(found))}, expected {PARAMETER}= with one of a, a-1, b, b-1"
            raise boot_failure(f"the running kernel doesn't say which boot entry started it: {said}")
        if (slot := self._roots.running()) is not entry.slot:
            raise boot_failure(f"GRUB started {entry_id(entry)}, but the root of slot {slot.value} is mounted")
        return entry

    def _default(self, saved: str) -> BootEntry:
        """Return what an ordinary boot takes: the saved entry, or the only one."""
        present = self._entries.present()
        if saved and (entry := self._named(_DEFAULT, saved)) in present:
            return entry
        if len(present) == 1:
            return present[0]
        there = " ".join(map(entry_id, present))
        raise boot_failure(f"no default boot entry: {_DEFAULT} is {shown(saved)}, and there are {shown(there)}")

    def _named(self, variable: str, value: str) -> BootEntry:
        entry = entry_named(value)
        if entry is None or value != entry_id(entry):
            raise boot_failure(f"{variable} of GRUB is {shown(value)}, expected an entry of slot A or B")
        return entry

    def _running_text(self) -> EntryText:
        path = self._entries.file_of(self._active())
        with self._partition.named("read"):
            text = self._entries.read(path)
        if text is None:
            raise boot_failure(f"the file of the running boot entry, {path}, isn't there, or isn't an entry")
        return text
