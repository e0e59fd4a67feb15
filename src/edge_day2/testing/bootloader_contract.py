"""The contract of the Bootloader port as tests: subclass it, say in fixtures what to test, and let pytest run it.

    class TestMyBootLoader(BootloaderContract):
        @pytest.fixture
        def port(self):
            return MyBootLoader()

        @pytest.fixture
        def boot(self, port):
            return my_bench.boot

Every test begins on a node that runs slot A by its first entry, which is the default, with nothing armed, no kernel
command line of its own, and an image in slot B. Needs pytest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest

from edge_day2.domain.observation import BootEntry, Slot, TrialEvidence
from edge_day2.ports.bootloader import BootloaderPort, BootState
from edge_day2.ports.failures import NodeFailure

A: BootEntry = BootEntry(Slot.A)
A_OTHER: BootEntry = A.beside()
B: BootEntry = BootEntry(Slot.B)
COMMAND_LINE = "quiet console=ttyS0,115200n8"


class BootloaderContract:
    """What every adapter of the Bootloader port keeps.

    `refusal` is what it raises for a call that would harm the node.
    """

    refusal: ClassVar[type[BaseException]] = NodeFailure

    @pytest.fixture
    def port(self) -> BootloaderPort:
        """The boot loader under test."""
        raise NotImplementedError("a subclass says which boot loader is tested")

    @pytest.fixture
    def boot(self, port: BootloaderPort) -> Callable[[], None]:
        """Restart the machine: what runs afterwards is what firmware and boot loader take."""
        raise NotImplementedError("a subclass says how its machine boots")

    @pytest.fixture
    def trial(self, port: BootloaderPort, boot: Callable[[], None]) -> BootloaderPort:
        """The boot loader of a node that runs the trial boot of slot B."""
        port.write_entry(B, COMMAND_LINE)
        port.arm(B)
        boot()
        return port

    def test_the_entry_that_runs_is_the_default_and_nothing_is_armed(self, port: BootloaderPort) -> None:
        assert port.state() == BootState(active=A, default=A)

    def test_an_ordinary_boot_takes_the_default(self, port: BootloaderPort, boot: Callable[[], None]) -> None:
        boot()
        assert port.state() == BootState(active=A, default=A)

    def test_writing_an_entry_arms_nothing(self, port: BootloaderPort, boot: Callable[[], None]) -> None:
        port.write_entry(B, COMMAND_LINE)
        assert port.state() == BootState(active=A, default=A)
        boot()
        assert port.state() == BootState(active=A, default=A)

    def test_an_armed_entry_is_seen(self, port: BootloaderPort) -> None:
        port.write_entry(B, COMMAND_LINE)
        port.arm(B)
        assert port.state() == BootState(active=A, default=A, one_shot=B)

    def test_the_next_boot_takes_the_armed_entry_and_the_one_after_it_the_default(
        self, trial: BootloaderPort, boot: Callable[[], None]
    ) -> None:
        assert trial.state() == BootState(active=B, default=A)
        boot()
        assert trial.state() == BootState(active=A, default=A)

    def test_a_disarmed_entry_isnt_booted(self, port: BootloaderPort, boot: Callable[[], None]) -> None:
        port.write_entry(B, COMMAND_LINE)
        port.arm(B)
        port.disarm()
        assert port.state() == BootState(active=A, default=A)
        boot()
        assert port.state() == BootState(active=A, default=A)

    def test_a_committed_trial_is_what_every_boot_takes(self, trial: BootloaderPort, boot: Callable[[], None]) -> None:
        trial.set_default(B)
        assert trial.state() == BootState(active=B, default=B)
        for _ in range(2):
            boot()
            assert trial.state() == BootState(active=B, default=B)

    def test_the_default_can_go_back_to_the_origin(self, trial: BootloaderPort, boot: Callable[[], None]) -> None:
        trial.set_default(B)
        trial.set_default(A)
        assert trial.state() == BootState(active=B, default=A)
        boot()
        assert trial.state() == BootState(active=A, default=A)

    def test_calls_may_be_repeated(self, port: BootloaderPort, boot: Callable[[], None]) -> None:
        for _ in range(2):
            port.disarm()
            port.remove_entry(B)
        for _ in range(2):
            port.write_entry(B, COMMAND_LINE)
        for _ in range(2):
            port.arm(B)
        boot()
        for _ in range(2):
            port.set_default(B)
            port.disarm()
        assert port.state() == BootState(active=B, default=B)
        assert port.kernel_command_line() == COMMAND_LINE

    def test_the_kernel_command_line_that_was_asked_for_is_that_of_the_running_entry(
        self, port: BootloaderPort, boot: Callable[[], None]
    ) -> None:
        assert port.kernel_command_line() == ""
        port.write_entry(B, COMMAND_LINE)
        port.arm(B)
        assert port.kernel_command_line() == ""
        boot()
        assert port.kernel_command_line() == COMMAND_LINE

    def test_an_entry_takes_over_the_kernel_command_line_of_the_running_one(
        self, trial: BootloaderPort, boot: Callable[[], None]
    ) -> None:
        trial.set_default(B)
        trial.write_entry(A, "")
        trial.arm(A)
        boot()
        assert trial.state() == BootState(active=A, default=B)
        assert trial.kernel_command_line() == COMMAND_LINE

    def test_an_entry_that_is_written_again_has_the_new_kernel_command_line(
        self, port: BootloaderPort, boot: Callable[[], None]
    ) -> None:
        port.write_entry(B, COMMAND_LINE)
        port.write_entry(B, "quiet")
        port.arm(B)
        boot()
        assert port.kernel_command_line() == "quiet"

    def test_a_kernel_command_line_alone_is_tried_and_committed_in_the_other_entry_of_the_slot(
        self, port: BootloaderPort, boot: Callable[[], None]
    ) -> None:
        port.write_entry(A_OTHER, COMMAND_LINE)
        port.arm(A_OTHER)
        assert port.state() == BootState(active=A, default=A, one_shot=A_OTHER)
        boot()
        assert port.state() == BootState(active=A_OTHER, default=A)
        assert port.kernel_command_line() == COMMAND_LINE
        port.set_default(A_OTHER)
        boot()
        assert port.state() == BootState(active=A_OTHER, default=A_OTHER)
        port.write_entry(A, "quiet")
        port.arm(A)
        boot()
        assert port.state() == BootState(active=A, default=A_OTHER)
        assert port.kernel_command_line() == "quiet"

    def test_the_running_and_the_default_entry_are_never_written_nor_removed(
        self, trial: BootloaderPort, boot: Callable[[], None]
    ) -> None:
        for entry in (A, B):
            with pytest.raises(self.refusal):
                trial.write_entry(entry, "broken")
            with pytest.raises(self.refusal):
                trial.remove_entry(entry)
        assert trial.state() == BootState(active=B, default=A)
        assert trial.kernel_command_line() == COMMAND_LINE
        boot()
        assert trial.state() == BootState(active=A, default=A)
        assert trial.kernel_command_line() == ""

    def test_removing_an_entry_that_isnt_there_changes_nothing(self, port: BootloaderPort) -> None:
        for entry in (A_OTHER, B, B.beside()):
            port.remove_entry(entry)
        assert port.state() == BootState(active=A, default=A)

    def test_an_entry_that_isnt_there_cant_be_armed(self, port: BootloaderPort, boot: Callable[[], None]) -> None:
        port.write_entry(B, COMMAND_LINE)
        port.remove_entry(B)
        with pytest.raises(self.refusal):
            port.arm(B)
        assert port.state() == BootState(active=A, default=A)
        boot()
        assert port.state() == BootState(active=A, default=A)

    def test_an_entry_that_isnt_there_cant_become_the_default(
        self, port: BootloaderPort, boot: Callable[[], None]
    ) -> None:
        with pytest.raises(self.refusal):
            port.set_default(B)
        boot()
        assert port.state() == BootState(active=A, default=A)

    def test_one_trial_boot_that_fell_back_proves_nothing(self, port: BootloaderPort, boot: Callable[[], None]) -> None:
        port.write_entry(B, COMMAND_LINE)
        port.arm(B)
        boot()
        boot()
        assert port.state().trial_evidence is TrialEvidence.UNKNOWN
