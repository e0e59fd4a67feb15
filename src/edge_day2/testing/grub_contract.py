"""The contract of GrubPort as tests: subclass it, say in fixtures what to test, and let pytest run it.

Needs pytest.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_day2.ports.failures import NodeFailure
from edge_day2.ports.grub import GrubPort


class GrubContract:
    """What every adapter of GrubPort keeps. A subclass gives the fixtures; each test begins with a node of its own."""

    @pytest.fixture
    def grub(self) -> GrubPort:
        """The port under test, on a node that nothing was given to yet."""
        raise NotImplementedError("a subclass says which adapter is tested")

    @pytest.fixture
    def boot_node(self) -> Callable[[], None]:
        """Boot the node by what its boot loader is configured to."""
        raise NotImplementedError("a subclass says how its node boots")

    @pytest.fixture
    def break_boot_loader(self) -> Callable[[], None]:
        """Let the next attempt to configure the boot loader fail, and no later one."""
        raise NotImplementedError("a subclass says how its boot loader fails")

    def test_a_command_line_counts_from_the_next_boot_on(self, grub: GrubPort, boot_node: Callable[[], None]) -> None:
        assert grub.set_kernel_command_line("one=1 two=2")
        assert "one=1" not in grub.running_kernel_command_line().split()

        boot_node()

        assert grub.running_kernel_command_line().split()[-2:] == ["one=1", "two=2"]
        assert not grub.set_kernel_command_line("one=1 two=2")

    def test_the_answer_stays_until_the_node_boots(self, grub: GrubPort, boot_node: Callable[[], None]) -> None:
        for _ in range(3):
            assert grub.set_kernel_command_line("one=1")
        boot_node()
        for _ in range(3):
            assert not grub.set_kernel_command_line("one=1")

    def test_a_parameter_that_is_only_taken_away_needs_a_boot_too(
        self, grub: GrubPort, boot_node: Callable[[], None]
    ) -> None:
        grub.set_kernel_command_line("one=1 two=2")
        boot_node()

        for _ in range(3):
            assert grub.set_kernel_command_line("two=2")
        boot_node()

        assert not grub.set_kernel_command_line("two=2")
        assert "one=1" not in grub.running_kernel_command_line().split()

    def test_what_was_taken_back_before_the_node_booted_needs_no_boot(
        self, grub: GrubPort, boot_node: Callable[[], None]
    ) -> None:
        grub.set_kernel_command_line("one=1")
        boot_node()

        assert grub.set_kernel_command_line("two=2")
        assert not grub.set_kernel_command_line("one=1")

    def test_another_order_is_another_command_line(self, grub: GrubPort, boot_node: Callable[[], None]) -> None:
        grub.set_kernel_command_line("console=tty0 console=ttyS0")
        boot_node()

        assert grub.set_kernel_command_line("console=ttyS0 console=tty0")

    def test_a_failure_leaves_the_earlier_command_line(
        self, grub: GrubPort, boot_node: Callable[[], None], break_boot_loader: Callable[[], None]
    ) -> None:
        grub.set_kernel_command_line("one=1")
        boot_node()
        break_boot_loader()

        with pytest.raises(NodeFailure):
            grub.set_kernel_command_line("two=2")
        boot_node()

        assert not grub.set_kernel_command_line("one=1")
        assert grub.set_kernel_command_line("two=2")
