"""systemd-boot: entry files on the EFI system partition, and the EFI variables of the Boot Loader Interface."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edge_day2.adapters.bootloader.boot_failure import boot_failure
from edge_day2.adapters.bootloader.boot_partition import BootPartition, EntryText, release
from edge_day2.adapters.bootloader.efi_variables import EfiVariables
from edge_day2.adapters.bootloader.kernel_images import KernelImage, inspect_efi_kernel
from edge_day2.adapters.bootloader.kernel_parameters import compose, key, split
from edge_day2.adapters.bootloader.kernel_store import KernelStore
from edge_day2.adapters.bootloader.loader_entries import LoaderEntries
from edge_day2.adapters.bootloader.slot_roots import SlotRoots
from edge_day2.domain.observation import BootEntry, TrialEvidence
from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import InvalidValue, shown
from edge_day2.ports.boot_files import BootFilesPort
from edge_day2.ports.bootloader import BootState
from edge_day2.ports.failures import NodeFailure

_ONE_SHOT: Final = "LoaderEntryOneShot"
_DEFAULT: Final = "LoaderEntryDefault"
_SELECTED: Final = "LoaderEntrySelected"
# One start that failed may have been a power cut; that two in a row were is taken for impossible.
_STARTS_THAT_PROVE: Final = 2


class SystemdBoot:
    """The boot loader of an A/B node that systemd-boot starts.

    An entry is a Type #1 file of ours, with its kernel beside it on the EFI system partition: whether the image brings
    a kernel with initrds or a unified kernel image. What the running and the default entry need is never written.

    Args:
        boot_files: where the boot files of the other slot's image come from. A change of the kernel command line alone
            starts the files of the running entry again.
        roots: which slot runs.
        esp: where the EFI system partition is mounted, writable.
        variables: the EFI variables.
        adopted: entries that another system made, by file name, for a node that is taken over:
            `{BootEntry(Slot.A): "linux.efi", BootEntry(Slot.B): "linux-2.efi"}`.
        options: kernel parameters that every entry has besides its root. None: those that a unified kernel image
            brings, or none at all.
        panic_seconds: `panic=` of the entries, where nobody else says it, so that a kernel that panics makes way for
            the default entry; None leaves it out.
        tries: boot counting: how often systemd-boot may start an entry before it is committed; None: no counting.
    """

    def __init__(
        self,
        boot_files: BootFilesPort,
        roots: SlotRoots,
        *,
        esp: Path | str = "/boot/efi",
        variables: EfiVariables | None = None,
        adopted: Mapping[BootEntry, str] | None = None,
        options: str | None = None,
        panic_seconds: int | None = 10,
        tries: int | None = None,
    ) -> None:
        if tries is not None and tries < 1:
            raise InvalidValue("tries", tries, "a number from 1, or None for no boot counting")
        self._roots = roots
        self._esp = Path(esp)
        self._variables = variables or EfiVariables()
        self._entries = LoaderEntries(self._esp, adopted or {}, tries)
        self._options = options
        self._panic_seconds = panic_seconds
        self._partition = BootPartition(
            called="EFI system partition",
            mount=self._esp,
            landmark="EFI",
            entries=self._entries,
            store=KernelStore(self._esp / "EFI" / "edge_day2"),
            boot_files=boot_files,
            inspect=inspect_efi_kernel,
        )

    def state(self) -> BootState:
        """See `BootloaderPort`."""
        active = self._active()
        with self._partition.named("read"):
            visible = self._entries.visible()
            default = self._default(visible)
            one_shot = self._one_shot(visible)
            evidence = self._evidence(active, default)
        return BootState(active=active, default=default, one_shot=one_shot, trial_evidence=evidence)

    def kernel_command_line(self) -> str:
        """See `BootloaderPort`. An adopted entry has none of ours."""
        return self._running_text().kernel_command_line

    def write_entry(self, entry: BootEntry, kernel_command_line: str) -> None:
        """See `BootloaderPort`."""
        state = release(self, entry, "written")
        running = self._running_text()
        wanted = kernel_command_line or running.kernel_command_line
        # Before anything is copied: a command line that can't be used costs no space.
        self._command_line(entry, wanted, self._options or "")
        self._remove_exhausted(state)
        self._partition.write(
            entry,
            active=state.active,
            running=running,
            wanted=wanted,
            options=lambda image: self._entry_options(entry, wanted, image),
        )

    def remove_entry(self, entry: BootEntry) -> None:
        """See `BootloaderPort`."""
        release(self, entry, "removed")
        self._partition.remove(entry)

    def arm(self, entry: BootEntry) -> None:
        """See `BootloaderPort`. An entry that isn't whole is refused: firmware would hang on it."""
        with self._partition.named("read"):
            path = self._partition.whole_file(entry)
            self._partition.flush()
        self._variables.write(_ONE_SHOT, path.name)

    def disarm(self) -> None:
        """See `BootloaderPort`."""
        self._variables.remove(_ONE_SHOT)

    def set_default(self, entry: BootEntry) -> None:
        """See `BootloaderPort`. Ends the entry's boot counter. Outranks `default` in loader.conf, which stays."""
        with self._partition.named("write"):
            path = self._entries.bless(entry, self._partition.whole_file(entry))
            self._partition.flush()
        self._variables.write(_DEFAULT, path.name)
        with self._partition.named("write"):
            self._entries.remove_counted(entry)
            self._partition.flush()

    def _selected(self) -> str:
        selected = self._variables.read(_SELECTED)
        if selected is None:
            raise boot_failure(f"EFI variable {_SELECTED} isn't set: systemd-boot didn't start this system")
        return selected

    def _active(self) -> BootEntry:
        selected, slot = self._selected(), self._roots.running()
        entry = self._entries.entry_of(selected)
        if entry is None:
            raise boot_failure(f"systemd-boot started {shown(selected)}, expected an entry of slot A or B")
        if entry.slot is not slot:
            log = f"systemd-boot started {shown(selected)}, which is slot {entry.slot.value}, but the root of slot "
            raise boot_failure(f"{log}{slot.value} is mounted")
        return entry

    def _default(self, visible: list[str]) -> BootEntry:
        """Return what an ordinary boot takes, by the rules of systemd-boot: variable, loader.conf, the only one."""
        for source, pattern in (
            (f"EFI variable {_DEFAULT}", self._variables.read(_DEFAULT)),
            (f"default in {self._loader_conf()}", self._configured_default()),
        ):
            if pattern is not None and (found := self._matching(source, pattern, visible)) is not None:
                return found
        if len(visible) == 1 and (only := self._entries.entry_of(visible[0])) is not None:
            return only
        log = f"no default boot entry is set, and there are {len(visible)}: {shown(' '.join(visible))}"
        raise boot_failure(f"{log}; `bootctl set-default` says which")

    def _one_shot(self, visible: list[str]) -> BootEntry | None:
        pattern = self._variables.read(_ONE_SHOT)
        if pattern is None:
            return None
        # By its name also where the file is gone: it would come to life when the file is written again.
        return self._entries.entry_of(pattern) or self._matching(f"EFI variable {_ONE_SHOT}", pattern, visible)

    def _matching(self, source: str, pattern: str, visible: list[str]) -> BootEntry | None:
        """Return the entry that a pattern of the loader's leads to; None where it leads nowhere."""
        if pattern.startswith("@"):
            raise boot_failure(f"{source} is {shown(pattern)}, expected a boot entry: it changes with every boot")
        ids = fnmatch.filter(visible, pattern.lower())
        found = {self._entries.entry_of(loader_id) for loader_id in ids}
        if not found:
            return None
        entry = found.pop()
        if entry is None or found:
            raise boot_failure(
                f"{source} is {shown(pattern)}, which fits {shown(ids)}, expected one entry of slot A or B"
            )
        return entry

    def _loader_conf(self) -> Path:
        return self._esp / "loader" / "loader.conf"

    def _configured_default(self) -> str | None:
        try:
            text = self._loader_conf().read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return None
        words = [line.split(None, 1) for line in text.splitlines()]
        values = [word[1].strip() for word in words if len(word) == 2 and word[0] == "default"]
        return values[-1] if values else None

    def _evidence(self, active: BootEntry, default: BootEntry) -> TrialEvidence:
        starts = [done for entry, done in self._entries.exhausted().items() if entry not in (active, default)]
        return TrialEvidence.BAD_IMAGE if max(starts, default=0) >= _STARTS_THAT_PROVE else TrialEvidence.UNKNOWN

    def _remove_exhausted(self, state: BootState) -> None:
        # What an earlier trial left would be taken for evidence about the next one.
        with self._partition.named("write"):
            for entry in self._entries.exhausted():
                if entry not in (state.active, state.default):
                    self._entries.remove(entry)

    def _running_text(self) -> EntryText:
        selected = self._selected()
        with self._partition.named("read"):
            path = self._entries.file_with_id(selected)
            text = None if path is None else self._entries.read(path)
        if text is None:
            raise boot_failure(f"the file of the running boot entry {shown(selected)} isn't there, or isn't an entry")
        return text

    def _entry_options(self, entry: BootEntry, wanted: str, image: KernelImage) -> str:
        root = split(self._roots.parameters(entry.slot))
        own = " ".join(image.command_line.split())
        if image.command_line and self._variables.secure_boot():
            # systemd-stub(7): with Secure Boot a command line of its own wins over the entry's options.
            if wanted:
                log = f"Secure Boot: the image brings its own kernel command line, {shown(wanted)} would be ignored"
                raise NodeFailure(FailureReason.UT_BOOT_CONFIGURATION, log, conclusive=True)
            if missing := [word for word in root if word not in own.split()]:
                log = f"the image's own kernel command line is {shown(own)}, expected {' '.join(missing)} of slot "
                raise boot_failure(f"{log}{entry.slot.value} in it: Secure Boot allows no other", conclusive=True)
            return ""
        if self._options is None:
            chosen = {key(word) for word in root}
            base = " ".join(word for word in split(own) if key(word) not in chosen)
        else:
            base = self._options
        return self._command_line(entry, wanted, base)

    def _command_line(self, entry: BootEntry, wanted: str, base: str) -> str:
        return compose(
            root=self._roots.parameters(entry.slot),
            own=(),
            base=base,
            wanted=wanted,
            panic_seconds=self._panic_seconds,
        )
