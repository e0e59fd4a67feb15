"""Boot loaders under any sequence of calls and boots, beside a model that has no files."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from boot_bench import GrubMachine, SystemdBootMachine
from edge_day2.domain.observation import BootEntry, Slot
from edge_day2.ports.bootloader import BootloaderPort
from edge_day2.ports.failures import NodeFailure

A = BootEntry(Slot.A)
ENTRIES = st.sampled_from([BootEntry(slot, variant) for slot in Slot for variant in (0, 1)])
MEMORY = Path("/dev/shm")


class BootLoader(RuleBasedStateMachine):
    """An adapter on a machine, and what both should be like."""

    tries: ClassVar[int | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="edge_day2-calls-", dir=MEMORY if MEMORY.is_dir() else None))
        self.machine = self.install(self.folder)
        self.port = self.open()
        self.lines: dict[BootEntry, str] = {A: ""}
        self.active = self.default = A
        self.one_shot: BootEntry | None = None

    def install(self, folder: Path) -> SystemdBootMachine | GrubMachine:
        """Return a machine that runs slot A."""
        return SystemdBootMachine.installed(folder)

    def open(self) -> BootloaderPort:
        """Return its adapter, as after a restart of the agent."""
        if isinstance(self.machine, GrubMachine):
            return self.machine.port()
        return self.machine.port(tries=self.tries)

    def teardown(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.folder)

    @rule(entry=ENTRIES, line=st.sampled_from(["", "quiet", "splash a=1"]))
    def write(self, entry: BootEntry, line: str) -> None:
        """Write an entry, which in use is refused."""
        if entry in (self.active, self.default):
            with pytest.raises(NodeFailure, match="isn't written"):
                self.port.write_entry(entry, line)
        else:
            self.port.write_entry(entry, line)
            self.lines[entry] = line or self.lines[self.active]
            self.one_shot = None if self.one_shot == entry else self.one_shot
        self.check()

    @rule(entry=ENTRIES)
    def remove(self, entry: BootEntry) -> None:
        """Remove an entry, which in use is refused."""
        if entry in (self.active, self.default):
            with pytest.raises(NodeFailure, match="isn't removed"):
                self.port.remove_entry(entry)
        else:
            self.port.remove_entry(entry)
            self.lines.pop(entry, None)
            self.one_shot = None if self.one_shot == entry else self.one_shot
        self.check()

    @rule(entry=ENTRIES)
    def arm(self, entry: BootEntry) -> None:
        """Arm an entry that is there."""
        if entry in self.lines:
            self.port.arm(entry)
            self.one_shot = entry
        else:
            with pytest.raises(NodeFailure, match="isn't there"):
                self.port.arm(entry)
        self.check()

    @rule()
    def disarm(self) -> None:
        """Take it back."""
        self.port.disarm()
        self.one_shot = None
        self.check()

    @rule(entry=ENTRIES)
    def set_default(self, entry: BootEntry) -> None:
        """Make an entry the default that is there."""
        if entry in self.lines:
            self.port.set_default(entry)
            self.default = entry
        else:
            with pytest.raises(NodeFailure, match="isn't there"):
                self.port.set_default(entry)
        self.check()

    @rule()
    def boot(self) -> None:
        """Restart the machine."""
        self.machine.boot()
        self.active, self.one_shot = self.one_shot or self.default, None
        self.port = self.open()
        self.check()

    def check(self) -> None:
        """Compare."""
        found = self.port.state()
        assert (found.active, found.default, found.one_shot) == (self.active, self.default, self.one_shot)
        assert self.port.kernel_command_line() == self.lines[self.active]


class CountingBootLoader(BootLoader):
    """systemd-boot that counts boots."""

    tries = 2


class GrubBootLoader(BootLoader):
    """GRUB."""

    def install(self, folder: Path) -> SystemdBootMachine | GrubMachine:
        return GrubMachine.installed(folder)


TestSystemdBoot = BootLoader.TestCase
TestSystemdBoot.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestSystemdBootCounting = CountingBootLoader.TestCase
TestSystemdBootCounting.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestGrub = pytest.mark.skipif(shutil.which("grub-editenv") is None, reason="grub-editenv (grub-common) is missing")(
    GrubBootLoader.TestCase
)
TestGrub.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
