"""GRUB as the boot loader of an A/B node: its entries, its environment block, and what is refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boot_bench import ROOTS, GrubMachine, kernel, unified_kernel
from edge_day2.adapters.bootloader.boot_partition import EntryText
from edge_day2.adapters.bootloader.grub_entries import grub_configuration, render
from edge_day2.adapters.bootloader.grub_environment import GrubEnvironment
from edge_day2.domain.observation import BootEntry, Slot
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.bootloader import BootState
from edge_day2.ports.failures import NodeFailure

A, B = BootEntry(Slot.A), BootEntry(Slot.B)

pytestmark = pytest.mark.skipif(
    not (shutil.which("grub-editenv") and shutil.which("grub-script-check")),
    reason="grub-editenv or grub-script-check (grub-common) is missing",
)


@pytest.fixture
def machine(tmp_path: Path) -> GrubMachine:
    return GrubMachine.installed(tmp_path)


def grub_accepts(script: bytes) -> bool:
    """Return what GRUB's own parser thinks of a script."""
    return subprocess.run(["grub-script-check"], input=script, check=False, capture_output=True).returncode == 0


class TestScripts:
    def test_grub_accepts_the_configuration(self) -> None:
        assert grub_accepts(grub_configuration().encode())

    def test_grubs_check_sees_a_mistake(self) -> None:
        assert not grub_accepts(grub_configuration().replace("done", "", 1).encode())

    def test_an_entry_has_its_slots_root_its_own_name_and_the_wanted_options(self, machine: GrubMachine) -> None:
        machine.port().write_entry(B, 'console=ttyS0 foo="a b" $x;y')
        content = (machine.entries / "edge_day2-b.cfg").read_bytes()
        assert grub_accepts(content)
        lines = content.decode().splitlines()
        assert lines[1] == "menuentry 'slot B, Linux 6.1.0-test' --id 'edge_day2-b' --unrestricted {"
        words = f"'{ROOTS[Slot.B]}' 'edge_day2.entry=b' 'ro' 'console=ttyS0' 'foo=a b' '$x;y' 'panic=10'"
        assert lines[2].endswith(f'.efi" {words}; then')
        assert machine.port().state() == BootState(active=A, default=A)

    @given(words=st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="'\\\""), max_size=60))
    def test_whatever_a_parameter_holds_grub_takes_the_entry_as_one(self, words: str) -> None:
        text = EntryText(kernel="$edge_day2/k", initrds=("$edge_day2/i",), options=words, kernel_command_line=words)
        assert b"\n}\n" in (content := render(A, text))
        assert content.count(b"\n") == 8
        assert content.splitlines()[2].startswith(b'    if linux "$edge_day2/k"')

    @pytest.mark.parametrize("wanted", ["a='b'", "a=\\x", "edge_day2.entry=a", "root=/dev/sda", "a\nb", 'a="'])
    def test_what_grub_would_change_or_what_says_another_entry_is_refused_for_good(
        self, machine: GrubMachine, wanted: str
    ) -> None:
        before = sorted(machine.entries.iterdir())
        with pytest.raises(NodeFailure) as failure:
            machine.port().write_entry(B, wanted)
        assert failure.value.conclusive
        assert failure.value.reason is FailureReason.UT_BOOT_CONFIGURATION
        assert sorted(machine.entries.iterdir()) == before


class TestWhatRuns:
    @pytest.mark.parametrize("said", ["", "edge_day2.entry=c", "edge_day2.entry=a edge_day2.entry=b"])
    def test_a_kernel_that_doesnt_say_its_entry_is_a_failure(self, machine: GrubMachine, said: str) -> None:
        machine.command_line.write_text(f"{ROOTS[Slot.A]} {said}\n")
        with pytest.raises(NodeFailure, match="doesn't say which boot entry"):
            machine.port().state()

    def test_entry_and_root_must_agree(self, machine: GrubMachine) -> None:
        machine.command_line.write_text(f"{ROOTS[Slot.B]} edge_day2.entry=a\n")
        with pytest.raises(NodeFailure, match="the root of slot B is mounted"):
            machine.port().state()


class TestEnvironment:
    @pytest.mark.parametrize("damage", [b"", b"# GRUB Environment Block\nsaved_entry=edge_day2-a\n", bytes(1024), None])
    def test_a_torn_or_missing_block_is_a_named_failure_until_the_default_is_set(
        self, machine: GrubMachine, damage: bytes | None
    ) -> None:
        if damage is None:
            machine.block.unlink()
        else:
            machine.block.write_bytes(damage)
        port = machine.port()
        for call in (port.state, port.disarm, lambda: port.arm(A)):
            with pytest.raises(NodeFailure, match="environment block"):
                call()
        port.set_default(A)
        assert port.state() == BootState(active=A, default=A)
        port.disarm()

    def test_variables_of_others_are_kept(self, machine: GrubMachine) -> None:
        machine.edit("set", "theirs=a b=c")
        port = machine.port()
        port.write_entry(B, "")
        port.arm(B)
        port.disarm()
        port.set_default(B)
        assert machine.variables() == {"theirs": "a b=c", "saved_entry": "edge_day2-b"}

    def test_a_block_that_is_full_is_a_failure_and_stays_as_it_was(self, machine: GrubMachine) -> None:
        machine.edit("set", f"theirs={'x' * 890}")
        before = machine.block.read_bytes()
        machine.port().write_entry(B, "")
        with pytest.raises(NodeFailure, match="grub-editenv"):
            machine.port().arm(B)
        assert machine.block.read_bytes() == before

    @pytest.mark.parametrize("saved", ["0", "edge_day2-c", "Debian GNU/Linux", "b"])
    def test_a_default_that_isnt_an_entry_of_a_slot_is_a_failure(self, machine: GrubMachine, saved: str) -> None:
        machine.edit("set", f"saved_entry={saved}")
        with pytest.raises(NodeFailure, match="saved_entry"):
            machine.port().state()

    def test_the_only_entry_is_the_default_where_nothing_says_so(self, machine: GrubMachine) -> None:
        machine.edit("unset", "saved_entry")
        assert machine.port().state().default == A
        machine.edit("set", "saved_entry=edge_day2-a")
        machine.port().write_entry(B, "")
        machine.edit("unset", "saved_entry")
        with pytest.raises(NodeFailure, match="no default boot entry"):
            machine.port().state()

    def test_a_missing_tool_is_named(self, machine: GrubMachine) -> None:
        environment = GrubEnvironment(machine.block, editor="grub9-editenv")
        with pytest.raises(NodeFailure, match="grub9-editenv isn't installed"):
            environment.read()

    def test_a_tool_that_takes_too_long_is_named(self, machine: GrubMachine, tmp_path: Path) -> None:
        slow = tmp_path / "slow"
        slow.write_text("#!/bin/sh\nexec sleep 600\n")
        slow.chmod(0o700)
        environment = GrubEnvironment(machine.block, editor=str(slow), timeout_seconds=0.2)
        with pytest.raises(NodeFailure, match=r"took more than 0.2 s"):
            environment.read()

    def test_a_tool_that_says_nothing_and_does_nothing_is_found_out(self, machine: GrubMachine) -> None:
        with pytest.raises(NodeFailure, match="after"):
            GrubEnvironment(machine.block, editor="true").change({"next_entry": "edge_day2-b"})


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, kernel()[:-30], unified_kernel()])
def test_a_kernel_that_grub_cant_start_is_refused_for_good(machine: GrubMachine, content: bytes) -> None:
    before = sorted(machine.entries.iterdir())
    machine.contents.kernels[Slot.B] = content
    with pytest.raises(NodeFailure) as failure:
        machine.port().write_entry(B, "")
    assert failure.value.conclusive
    assert sorted(machine.entries.iterdir()) == before


def test_an_unmounted_boot_partition_is_named(machine: GrubMachine) -> None:
    shutil.rmtree(machine.entries)
    with pytest.raises(NodeFailure, match="no boot partition is mounted"):
        machine.port().state()


@pytest.mark.parametrize("call", ["write", "remove"])
def test_an_entry_is_disarmed_before_it_is_written_or_removed(machine: GrubMachine, call: str) -> None:
    port = machine.port()
    port.write_entry(B, "")
    port.arm(B)
    if call == "write":
        port.write_entry(B, "quiet")
    else:
        port.remove_entry(B)
    assert port.state() == BootState(active=A, default=A)
    assert "next_entry" not in machine.variables()
