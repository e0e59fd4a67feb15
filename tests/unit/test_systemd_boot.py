"""systemd-boot: what is believed, what is written on the EFI system partition, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from boot_bench import ROOTS, SlotContents, SystemdBootMachine, kernel, unified_kernel
from edge_day2.adapters.bootloader.efi_variables import GLOBAL_VENDOR
from edge_day2.adapters.bootloader.slot_roots import SlotRoots
from edge_day2.adapters.bootloader.systemd_boot import SystemdBoot
from edge_day2.domain.observation import BootEntry, Slot, TrialEvidence
from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import InvalidValue
from edge_day2.ports.bootloader import BootState
from edge_day2.ports.failures import NodeFailure

A, B = BootEntry(Slot.A), BootEntry(Slot.B)
ORIGINAL = {A: "linux.efi", B: "linux-2.efi"}


@pytest.fixture
def machine(tmp_path: Path) -> SystemdBootMachine:
    return SystemdBootMachine.installed(tmp_path)


@pytest.fixture
def original(tmp_path: Path) -> SystemdBootMachine:
    return SystemdBootMachine.of_the_original(tmp_path)


def store(machine: SystemdBootMachine) -> dict[str, bytes]:
    """Return everything in our folder of the EFI system partition."""
    folder = machine.esp / "EFI" / "edge_day2"
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def names(machine: SystemdBootMachine) -> list[str]:
    """Return the names of the Type #1 entries."""
    return sorted(path.name for path in machine.entries.iterdir())


class TestWhatRuns:
    def test_loader_and_root_must_agree(self, machine: SystemdBootMachine) -> None:
        machine.command_line.write_text(f"{ROOTS[Slot.B]} quiet\n")
        with pytest.raises(NodeFailure, match="slot A, but the root of slot B is mounted"):
            machine.port().state()

    def test_a_root_of_neither_slot_is_a_failure(self, machine: SystemdBootMachine) -> None:
        machine.command_line.write_text("root=/dev/nfs\n")
        with pytest.raises(NodeFailure, match="fits neither slot"):
            machine.port().state()

    def test_an_entry_of_neither_slot_is_a_failure(self, machine: SystemdBootMachine) -> None:
        machine.set_variable("LoaderEntrySelected", "rescue.conf")
        with pytest.raises(NodeFailure, match=r"'rescue.conf', expected an entry of slot A or B"):
            machine.port().state()

    def test_another_boot_loader_is_a_failure(self, machine: SystemdBootMachine) -> None:
        machine.variable_path("LoaderEntrySelected").unlink()
        with pytest.raises(NodeFailure, match="systemd-boot didn't start this system"):
            machine.port().state()

    def test_the_loader_names_the_running_entry_with_its_boot_counter(self, machine: SystemdBootMachine) -> None:
        port = machine.port(tries=3)
        port.write_entry(B, "quiet")
        port.arm(B)
        assert machine.variable("LoaderEntryOneShot") == "edge_day2-b+3.conf"
        machine.boot()
        assert machine.variable("LoaderEntrySelected") == "edge_day2-b+3.conf"
        assert names(machine) == ["edge_day2-a.conf", "edge_day2-b+2-1.conf"]
        assert port.state() == BootState(active=B, default=A)
        assert port.kernel_command_line() == "quiet"


class TestDefault:
    def test_loader_conf_counts_where_the_variable_isnt_set(self, machine: SystemdBootMachine) -> None:
        machine.port().write_entry(B, "")
        machine.variable_path("LoaderEntryDefault").unlink()
        conf = machine.esp / "loader" / "loader.conf"
        conf.write_text("timeout 3\ndefault edge_day2-B*\n#default edge_day2-a.conf\ndefault\n")
        assert machine.port().state().default == B
        machine.set_variable("LoaderEntryDefault", "edge_day2-a.conf")
        assert machine.port().state().default == A

    def test_a_variable_that_leads_nowhere_gives_way_to_loader_conf(self, machine: SystemdBootMachine) -> None:
        machine.set_variable("LoaderEntryDefault", "gone.conf")
        (machine.esp / "loader" / "loader.conf").write_text("default edge_day2-a.conf\n")
        assert machine.port().state().default == A

    def test_the_only_entry_is_the_default_where_nothing_says_so(self, machine: SystemdBootMachine) -> None:
        machine.variable_path("LoaderEntryDefault").unlink()
        assert machine.port().state().default == A

    def test_several_entries_and_no_default_is_a_failure(self, original: SystemdBootMachine) -> None:
        original.variable_path("LoaderEntryDefault").unlink()
        with pytest.raises(NodeFailure, match="no default boot entry is set, and there are 2"):
            original.port(adopted=ORIGINAL).state()

    @pytest.mark.parametrize("pattern", ["rescue.efi", "*", "@saved"])
    def test_a_default_that_isnt_one_entry_of_a_slot_is_a_failure(
        self, machine: SystemdBootMachine, pattern: str
    ) -> None:
        (machine.esp / "EFI" / "Linux" / "rescue.efi").write_bytes(unified_kernel())
        machine.set_variable("LoaderEntryDefault", pattern)
        with pytest.raises(NodeFailure, match="LoaderEntryDefault"):
            machine.port().state()
        machine.port().set_default(A)
        assert machine.port().state().default == A

    def test_a_pattern_that_fits_one_entry_is_that_entry(self, machine: SystemdBootMachine) -> None:
        machine.set_variable("LoaderEntryDefault", "EDGE_DAY2-A*")
        assert machine.port().state().default == A

    def test_loader_conf_is_left_alone(self, machine: SystemdBootMachine) -> None:
        conf = machine.esp / "loader" / "loader.conf"
        conf.write_text("default edge_day2-a.conf\n")
        port = machine.port()
        port.write_entry(B, "")
        port.set_default(B)
        assert conf.read_text() == "default edge_day2-a.conf\n"
        assert port.state().default == B


class TestEntryFiles:
    def test_an_entry_has_its_slots_root_base_wanted_options_and_panic(self, machine: SystemdBootMachine) -> None:
        machine.port(options="ro quiet").write_entry(B, 'foo="a b" console=ttyS0')
        digests = [hashlib.sha256(machine.contents.kernels[Slot.B]).hexdigest()]
        digests.append(hashlib.sha256(machine.contents.initrds[Slot.B]).hexdigest())
        assert (machine.entries / "edge_day2-b.conf").read_text().splitlines() == [
            '# edge_day2 {"kernel_command_line": "foo=\\"a b\\" console=ttyS0"}',
            "title slot B",
            "sort-key edge_day2",
            "version 6.1.0-test",
            f"linux /EFI/edge_day2/{digests[0]}.efi",
            f"initrd /EFI/edge_day2/{digests[1]}.img",
            f'options {ROOTS[Slot.B]} ro quiet foo="a b" console=ttyS0 panic=10',
        ]

    @pytest.mark.parametrize(("wanted", "options"), [("panic=1", "panic=1"), ("quiet", "quiet")])
    def test_panic_is_left_to_who_says_it(self, machine: SystemdBootMachine, wanted: str, options: str) -> None:
        machine.port(panic_seconds=None).write_entry(B, wanted)
        text = (machine.entries / "edge_day2-b.conf").read_text()
        assert text.endswith(f"options {ROOTS[Slot.B]} {options}\n")

    @pytest.mark.parametrize(
        "wanted",
        [
            "quiet\noptions root=/dev/sda",
            "quiet\0",
            "caf\u00e9",
            'foo="open',
            "root=/dev/sda2",
            '"root=/dev/sda2"',
            "quiet -- single",
            "x" * 2048,
        ],
    )
    def test_a_kernel_command_line_that_could_break_the_entry_is_refused_for_good(
        self, machine: SystemdBootMachine, wanted: str
    ) -> None:
        before = store(machine)
        with pytest.raises(NodeFailure) as failure:
            machine.port().write_entry(B, wanted)
        assert failure.value.reason is FailureReason.UT_BOOT_CONFIGURATION
        assert failure.value.conclusive
        assert names(machine) == ["edge_day2-a.conf"]
        assert store(machine) == before

    def test_a_unified_kernel_image_keeps_its_own_options_under_another_root(self, machine: SystemdBootMachine) -> None:
        machine.contents.initrds.clear()
        machine.contents.kernels[Slot.B] = unified_kernel(command_line=f"{ROOTS[Slot.A]} rd.emt=1")
        machine.port().write_entry(B, "quiet")
        text = (machine.entries / "edge_day2-b.conf").read_text()
        assert "\nefi /EFI/edge_day2/" in text
        assert text.endswith(f"options {ROOTS[Slot.B]} rd.emt=1 quiet panic=10\n")

    def test_entries_with_the_same_kernel_share_it(self, machine: SystemdBootMachine) -> None:
        before = store(machine)
        machine.port().write_entry(A.beside(), "quiet")
        assert store(machine) == before

    def test_what_no_entry_needs_any_more_is_removed(self, machine: SystemdBootMachine) -> None:
        port = machine.port()
        before = store(machine)
        port.write_entry(B, "")
        assert len(store(machine)) == len(before) + 2
        machine.contents.kernels[Slot.B] = kernel("a newer one")
        port.write_entry(B, "")
        assert len(store(machine)) == len(before) + 2
        port.remove_entry(B)
        assert store(machine) == before

    def test_what_another_systems_entry_needs_stays(self, machine: SystemdBootMachine) -> None:
        port = machine.port()
        port.write_entry(B, "")
        kept = store(machine)
        theirs = (machine.entries / "edge_day2-b.conf").read_text()
        (machine.entries / "theirs.conf").write_text(theirs.replace("/", "\\"))
        port.remove_entry(B)
        assert store(machine) == kept


class TestBadKernels:
    @pytest.mark.parametrize(
        "content",
        [b"", b"garbage" * 1000, kernel()[:-3], kernel(machine=0x1234), kernel(subsystem=3), b"MZ" + bytes(4000)],
    )
    def test_what_firmware_would_hang_on_is_refused_for_good(self, machine: SystemdBootMachine, content: bytes) -> None:
        before = store(machine)
        machine.contents.kernels[Slot.B] = content
        with pytest.raises(NodeFailure) as failure:
            machine.port().write_entry(B, "")
        assert failure.value.reason is FailureReason.BOOTLOADER_FAIL
        assert failure.value.conclusive
        assert store(machine) == before
        assert names(machine) == ["edge_day2-a.conf"]

    @pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
    def test_an_entry_whose_files_were_damaged_since_isnt_armed_nor_made_the_default(
        self, machine: SystemdBootMachine, damage: str
    ) -> None:
        port = machine.port()
        port.write_entry(B, "")
        name = hashlib.sha256(machine.contents.initrds[Slot.B]).hexdigest() + ".img"
        path = machine.esp / "EFI" / "edge_day2" / name
        content = path.read_bytes()
        path.write_bytes({"flip": b"X" + content[1:], "cut": content[:-1], "remove": b""}[damage])
        if damage == "remove":
            path.unlink()
        for call in (port.arm, port.set_default):
            with pytest.raises(NodeFailure, match=r"is damaged|is missing"):
                call(B)
        assert port.state() == BootState(active=A, default=A)
        port.write_entry(B, "")
        port.arm(B)

    def test_a_damaged_kernel_of_the_running_entry_isnt_written_over(self, machine: SystemdBootMachine) -> None:
        name = hashlib.sha256(machine.contents.kernels[Slot.A]).hexdigest() + ".efi"
        path = machine.esp / "EFI" / "edge_day2" / name
        path.write_bytes(b"damaged")
        machine.contents.kernels[Slot.B] = machine.contents.kernels[Slot.A]
        with pytest.raises(NodeFailure, match="is damaged"):
            machine.port().write_entry(B, "")
        assert path.read_bytes() == b"damaged"

    def test_an_entry_file_of_garbage_isnt_armed(self, machine: SystemdBootMachine) -> None:
        port = machine.port()
        port.write_entry(B, "")
        (machine.entries / "edge_day2-b.conf").write_bytes(bytes(512))
        with pytest.raises(NodeFailure, match="isn't there"):
            port.arm(B)
        port.write_entry(B, "")
        port.arm(B)


class TestBootCounting:
    @pytest.mark.parametrize(
        ("name", "evidence"),
        [
            ("edge_day2-b+0-2.conf", TrialEvidence.BAD_IMAGE),
            ("edge_day2-b+0-1.conf", TrialEvidence.UNKNOWN),
            ("edge_day2-b+1-2.conf", TrialEvidence.UNKNOWN),
            ("other+0-3.conf", TrialEvidence.UNKNOWN),
            ("edge_day2-a+0-3.conf", TrialEvidence.UNKNOWN),
        ],
    )
    def test_two_starts_without_a_blessing_prove_a_bad_image(
        self, machine: SystemdBootMachine, name: str, evidence: TrialEvidence
    ) -> None:
        (machine.entries / name).write_bytes((machine.entries / "edge_day2-a.conf").read_bytes())
        assert machine.port(tries=2).state().trial_evidence is evidence

    def test_a_commit_ends_the_counting(self, machine: SystemdBootMachine) -> None:
        port = machine.port(tries=2)
        port.write_entry(B, "")
        port.arm(B)
        machine.boot()
        port.set_default(B)
        assert names(machine) == ["edge_day2-a.conf", "edge_day2-b.conf"]
        assert machine.variable("LoaderEntryDefault") == "edge_day2-b.conf"

    def test_an_entry_that_is_written_again_is_counted_anew(self, machine: SystemdBootMachine) -> None:
        port = machine.port(tries=2)
        port.write_entry(B, "")
        (machine.entries / "edge_day2-b+2.conf").rename(machine.entries / "edge_day2-b+0-2.conf")
        port.write_entry(B, "")
        assert names(machine) == ["edge_day2-a.conf", "edge_day2-b+2.conf"]

    def test_what_an_earlier_trial_left_is_no_evidence_about_the_next_one(self, machine: SystemdBootMachine) -> None:
        port = machine.port(tries=2)
        port.write_entry(A.beside(), "quiet")
        (machine.entries / "edge_day2-a-1+2.conf").rename(machine.entries / "edge_day2-a-1+0-2.conf")
        assert port.state().trial_evidence is TrialEvidence.BAD_IMAGE
        port.write_entry(B, "")
        assert port.state().trial_evidence is TrialEvidence.UNKNOWN
        assert names(machine) == ["edge_day2-a.conf", "edge_day2-b+2.conf"]

    def test_a_running_entry_that_used_its_last_try_stays(self, machine: SystemdBootMachine) -> None:
        port = machine.port(tries=1)
        port.write_entry(B, "")
        port.arm(B)
        machine.boot()
        (machine.entries / "edge_day2-b.conf").write_bytes((machine.entries / "edge_day2-b+0-1.conf").read_bytes())
        port.arm(B)
        assert machine.variable("LoaderEntryOneShot") == "edge_day2-b.conf"
        port.write_entry(A.beside(), "quiet")
        assert "edge_day2-b+0-1.conf" in names(machine)
        port.set_default(B)
        assert names(machine) == ["edge_day2-a-1+1.conf", "edge_day2-a.conf", "edge_day2-b.conf"]

    def test_a_number_of_tries_below_one_is_refused(self, machine: SystemdBootMachine) -> None:
        with pytest.raises(InvalidValue, match="tries"):
            machine.port(tries=0)


class TestTakingOver:
    def test_a_node_of_the_original_is_updated_committed_and_updated_back(self, original: SystemdBootMachine) -> None:
        port = original.port(adopted=ORIGINAL)
        assert port.state() == BootState(active=A, default=A)
        assert port.kernel_command_line() == ""
        port.remove_entry(B)
        assert not (original.esp / "EFI" / "Linux" / "linux-2.efi").exists()
        port.write_entry(B, "")
        port.arm(B)
        original.boot()
        assert port.state() == BootState(active=B, default=A)
        assert (original.esp / "EFI" / "Linux" / "linux.efi").exists()
        port.set_default(A)
        assert original.variable("LoaderEntryDefault") == "linux.efi"
        port.set_default(B)
        port.remove_entry(A)
        port.write_entry(A, "")
        port.arm(A)
        original.boot()
        assert port.state() == BootState(active=A, default=B)
        assert names(original) == ["edge_day2-a.conf", "edge_day2-b.conf"]
        assert list((original.esp / "EFI" / "Linux").iterdir()) == []

    def test_the_originals_entries_can_be_armed_and_committed(self, original: SystemdBootMachine) -> None:
        port = original.port(adopted=ORIGINAL)
        port.arm(B)
        assert original.variable("LoaderEntryOneShot") == "linux-2.efi"
        original.boot()
        assert port.state() == BootState(active=B, default=A)
        port.set_default(B)
        assert original.variable("LoaderEntryDefault") == "linux-2.efi"

    def test_the_originals_entry_for_a_kernel_command_line_can_be_adopted(self, original: SystemdBootMachine) -> None:
        name = "emt_user_kernel_param.conf"
        (original.entries / name).write_text(f"title x\nlinux /EFI/Linux/linux.efi\noptions {ROOTS[Slot.A]} quiet\n")
        (original.esp / "loader" / "loader.conf").write_text(f"default {name}\n")
        original.variable_path("LoaderEntryDefault").unlink()
        original.boot()
        port = original.port(adopted={**ORIGINAL, A.beside(): name})
        assert port.state() == BootState(active=A.beside(), default=A.beside())
        assert port.kernel_command_line() == ""

    @pytest.mark.parametrize(
        "name", ["linux", "a/linux.efi", "*.efi", "edge_day2-a.conf", "x+3.conf", "edge_day2-x.conf"]
    )
    def test_a_name_that_isnt_an_entrys_is_refused(self, original: SystemdBootMachine, name: str) -> None:
        with pytest.raises(InvalidValue, match="adopted entry"):
            original.port(adopted={A: name})

    def test_two_entries_by_one_name_are_refused(self, original: SystemdBootMachine) -> None:
        with pytest.raises(InvalidValue, match="adopted entries"):
            original.port(adopted={A: "linux.efi", B: "LINUX.efi"})


class TestSecureBoot:
    @pytest.fixture
    def secured(self, original: SystemdBootMachine) -> SystemdBootMachine:
        (original.variables / f"SecureBoot-{GLOBAL_VENDOR}").write_bytes(b"\6\0\0\0\1")
        return original

    def test_an_entry_passes_no_options_that_would_be_ignored(self, secured: SystemdBootMachine) -> None:
        port = secured.port(adopted=ORIGINAL)
        port.write_entry(B, "")
        assert "options" not in (secured.entries / "edge_day2-b.conf").read_text()
        port.arm(B)
        secured.boot()
        assert port.state() == BootState(active=B, default=A)

    def test_a_kernel_command_line_is_refused_for_good(self, secured: SystemdBootMachine) -> None:
        with pytest.raises(NodeFailure, match="would be ignored") as failure:
            secured.port(adopted=ORIGINAL).write_entry(A.beside(), "quiet")
        assert failure.value.conclusive
        assert store(secured) == {}

    def test_an_image_that_would_start_the_other_slots_root_is_refused_for_good(
        self, secured: SystemdBootMachine
    ) -> None:
        secured.contents.kernels[Slot.B] = secured.contents.kernels[Slot.A]
        with pytest.raises(NodeFailure, match="Secure Boot allows no other") as failure:
            secured.port(adopted=ORIGINAL).write_entry(B, "")
        assert failure.value.conclusive


def test_an_unmounted_esp_is_named(machine: SystemdBootMachine, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    port = SystemdBoot(SlotContents.plain(), SlotRoots(ROOTS, command_line=machine.command_line), esp=empty)
    for call in (port.arm, port.set_default):
        with pytest.raises(NodeFailure, match="no EFI system partition is mounted"):
            call(B)
    assert list(empty.iterdir()) == []


def test_a_foreign_one_shot_is_a_failure_until_it_is_disarmed(machine: SystemdBootMachine) -> None:
    (machine.esp / "EFI" / "Linux" / "rescue.efi").write_bytes(unified_kernel())
    machine.set_variable("LoaderEntryOneShot", "rescue.efi")
    with pytest.raises(NodeFailure, match="LoaderEntryOneShot"):
        machine.port().state()
    machine.port().disarm()
    assert machine.port().state() == BootState(active=A, default=A)


def test_a_one_shot_whose_entry_is_gone_is_still_armed(machine: SystemdBootMachine) -> None:
    port = machine.port()
    port.write_entry(B, "")
    port.arm(B)
    (machine.entries / "edge_day2-b.conf").unlink()
    assert port.state().one_shot == B


@pytest.mark.parametrize("call", ["write", "remove"])
def test_an_entry_is_disarmed_before_it_is_written_or_removed(machine: SystemdBootMachine, call: str) -> None:
    port = machine.port()
    port.write_entry(B, "")
    port.arm(B)
    if call == "write":
        port.write_entry(B, "quiet")
    else:
        port.remove_entry(B)
    assert port.state() == BootState(active=A, default=A)
    assert machine.variable("LoaderEntryOneShot") is None
