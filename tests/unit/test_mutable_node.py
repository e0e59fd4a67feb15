"""What a mutable node makes of its commands: plans, locks, reboots that are owed, verification and the way back."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from attrs import evolve

from edge_day2.application.mutable_node import MAX_AVAILABLE, MAX_LOG, MAX_ROLLBACKS, MutableNode
from edge_day2.domain import mutable_events as ev
from edge_day2.domain.flow import WindowClosed
from edge_day2.domain.messages import NodeDescription
from edge_day2.domain.mutable_effects import changes, fingerprint
from edge_day2.domain.mutable_events import PackageTarget, Snapshot
from edge_day2.domain.schedules import Window
from edge_day2.domain.statuses import FailureReason, UpdateType
from edge_day2.ports.failures import NodeFailure
from edge_day2.testing.faults import Calls, Fault, PlannedFault
from edge_day2.testing.flow_walks import NOW, WINDOW
from edge_day2.testing.model_apt_node import ModelAptNode

KERNEL = {"linux-image-6.1.0-9-amd64": "1", "linux-image-6.1.0-30-amd64": "1"}
INSTALLED = (("libc", "1"),)
SNAPSHOT = Snapshot(identifier="before", packages=fingerprint(INSTALLED))


def apt_node(**changes: Any) -> tuple[ModelAptNode, MutableNode]:
    model = evolve(ModelAptNode(packages={"libc": "1"}, available={"libc": "2", "curl": "7"}), **changes)
    return model, MutableNode(apt=model, apt_sources=model, grub=model, health=model, system=model, snapshots=model)


def verify(target: PackageTarget = PackageTarget(), **changes: Any) -> ev.VerifyUpdate:  # noqa: B008  # frozen
    return evolve(ev.VerifyUpdate(target, (("libc", "1"),), ()), **changes)


def failure_of(event: object) -> tuple[FailureReason, str]:
    assert isinstance(event, ev.VerificationFailed)
    return event.failure.reason, event.failure.log


def test_what_was_downloaded_is_what_is_planned() -> None:
    model, node = apt_node()

    downloaded = node.carry_out(ev.DownloadPackages(("curl",), WINDOW), NOW)
    upgrade = node.carry_out(ev.DownloadUpgrade(WINDOW), NOW)

    assert downloaded == ev.PackagesDownloaded(NOW, (("curl", "7"),))
    assert upgrade == ev.UpgradeDownloaded(NOW, (("libc", "2"),))
    assert model.packages == {"libc": "1"}


def test_what_is_published_between_download_and_installation_is_left_for_the_next_update() -> None:
    model, node = apt_node()
    node.carry_out(ev.DownloadUpgrade(WINDOW), NOW)
    model.available["libc"] = "3"

    event = node.carry_out(ev.InstallUpgrade((("libc", "2"),), WINDOW), NOW)

    assert event == ev.UpgradeInstalled(NOW)
    assert model.packages == {"libc": "2"}


@pytest.mark.parametrize(
    "command",
    [
        ev.RepairPackages(1, WINDOW),
        ev.UpdateAptSources((), WINDOW),
        ev.UpdateAgent(WINDOW),
        ev.UpdateHelper(WINDOW),
        ev.DownloadPackages(("curl",), WINDOW),
        ev.InstallPackages(("libc",), INSTALLED, WINDOW),
        ev.DownloadUpgrade(WINDOW),
        ev.InstallUpgrade((), WINDOW),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_lock_that_is_held_until_the_window_ends_pauses_the_update_and_says_by_whom(command: Any) -> None:
    _, node = apt_node(locked=True)

    event = node.carry_out(command, NOW)

    assert event == WindowClosed(NOW, "the maintenance window closed (dpkg's lock is held by unattended-upgrades)")


def test_each_call_of_apt_knows_when_the_window_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[datetime | None] = []
    monkeypatch.setattr(ModelAptNode, "_wait_for_lock", lambda model, until: ends.append(until))
    _, node = apt_node()
    open_ended = Window(NOW, None)

    for window in (WINDOW, open_ended):
        for command in (
            ev.RepairPackages(1, window),
            ev.UpdateAptSources((), window),
            ev.UpdateAgent(window),
            ev.UpdateHelper(window),
            ev.DownloadPackages(("curl",), window),
            ev.InstallPackages(("libc",), (), window),
            ev.DownloadUpgrade(window),
            ev.InstallUpgrade((), window),
        ):
            node.carry_out(command, NOW)
    node.carry_out(ev.RepairPackages(1, None), NOW)

    assert ends == [WINDOW.end] * 8 + [None] * 9


def test_a_repair_says_what_it_did() -> None:
    _, node = apt_node(half=(("libc", "2"),))

    assert node.carry_out(ev.RepairPackages(1, WINDOW), NOW) == ev.PackagesRepaired(NOW, "dpkg --configure -a: libc")


def test_a_package_that_cannot_be_configured_fails_its_step_and_every_repair() -> None:
    _, node = apt_node(broken=frozenset({"libc"}), archive=frozenset({("libc", "2")}))

    installed = node.carry_out(ev.InstallUpgrade((("libc", "2"),), WINDOW), NOW)
    repaired = node.carry_out(ev.RepairPackages(1, WINDOW), NOW)

    for event in (installed, repaired):
        assert isinstance(event, ev.StepFailed)
        assert "error processing package libc" in event.failure.log


def test_the_log_of_a_failure_keeps_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: ModelAptNode, until: datetime | None) -> None:
        raise NodeFailure(FailureReason.UPDATE_TOOL, "x" * 100_000 + "dpkg: the end")

    monkeypatch.setattr(ModelAptNode, "download_upgrade", fail)
    _, node = apt_node()

    event = node.carry_out(ev.DownloadUpgrade(WINDOW), NOW)

    assert isinstance(event, ev.StepFailed)
    assert len(event.failure.log) == MAX_LOG
    assert event.failure.log.endswith("dpkg: the end")


def test_a_reboot_is_owed_by_an_earlier_update_only_until_the_node_boots() -> None:
    model, node = apt_node()
    compare = ev.ComparePackages(INSTALLED, "", False, "boot-0")

    event = node.carry_out(compare, NOW)
    model.come_up(1)

    assert isinstance(event, ev.ChangesFound)
    (entry,) = event.update_log
    assert (entry.update_type, event.boot_id) == (UpdateType.CONFIGURATION, "boot-0")
    assert node.carry_out(compare, NOW) == ev.NothingChanged(NOW)


def test_packages_that_changed_owe_one_reboot_and_no_entry_of_their_own() -> None:
    _, node = apt_node(packages={"libc": "2"})

    event = node.carry_out(ev.ComparePackages(INSTALLED, "", False, "boot-0"), NOW)

    assert event == ev.ChangesFound(NOW, changes(INSTALLED, (("libc", "2"),), NOW), "boot-0")


def test_a_failure_notes_the_boot_in_which_packages_changed_or_may_have() -> None:
    _, unchanged = apt_node()
    _, changed = apt_node(packages={"libc": "2"})
    _, unknown = apt_node(half=(("libc", "2"),))
    record = ev.RecordFailure(INSTALLED)

    assert unchanged.carry_out(record, NOW) == ev.FailureRecorded(NOW, (), "")
    assert changed.carry_out(record, NOW) == ev.FailureRecorded(
        NOW, changes(INSTALLED, (("libc", "2"),), NOW), "boot-0"
    )
    assert unknown.carry_out(record, NOW) == ev.FailureRecorded(NOW, (), "boot-0", untold=True)


def test_a_node_is_verified_by_plan_kernel_parameters_and_health() -> None:
    _, node = apt_node(
        packages={"libc": "1", **KERNEL}, kernel_running="6.1.0-30-amd64", kernel_started_with="console=tty0"
    )

    event = node.carry_out(verify(PackageTarget(kernel_command_line="console=tty0")), NOW)

    assert event == ev.UpdateVerified(NOW)


@pytest.mark.parametrize(("found", "said"), [({"libc": "0"}, "0"), ({}, "nothing")])
def test_what_was_planned_must_be_installed_after_the_reboot(found: dict[str, str], said: str) -> None:
    _, node = apt_node(packages=found)

    event = node.carry_out(verify(), NOW)

    assert failure_of(event) == (
        FailureReason.UPDATE_TOOL, f"libc: found {said} after the reboot, 1 was planned",
    )  # fmt: skip


def test_a_package_that_is_not_configured_after_the_reboot_is_repaired_and_verified_again() -> None:
    _, node = apt_node(half=(("libc", "1"),))

    assert node.carry_out(verify(), NOW) == ev.PackagesInterrupted(NOW)


def test_the_newest_kernel_must_run_after_the_reboot() -> None:
    model, node = apt_node(packages={"libc": "1", **KERNEL})
    model.come_up(1, "6.1.0-9-amd64")

    event = node.carry_out(verify(), NOW)

    assert failure_of(event) == (
        FailureReason.BOOTLOADER_FAIL,
        "kernel 6.1.0-9-amd64 runs after the reboot, 6.1.0-30-amd64 is the newest that is installed",
    )


def test_a_kernel_that_is_no_package_is_no_matter() -> None:
    model, node = apt_node()
    model.come_up(1, "6.8.0-custom")

    assert node.carry_out(verify(), NOW) == ev.UpdateVerified(NOW)


def test_the_kernel_must_run_with_the_wanted_parameters() -> None:
    _, node = apt_node(kernel_started_with="console=tty0")

    event = node.carry_out(verify(PackageTarget(kernel_command_line="console=tty0 hugepages=4")), NOW)

    assert failure_of(event) == (
        FailureReason.UT_BOOT_CONFIGURATION,
        "the kernel runs without hugepages=4, its command line is 'quiet console=tty0'",
    )


def test_a_node_that_is_not_well_fails_with_what_its_health_check_said() -> None:
    _, node = apt_node(calls=Calls(PlannedFault(2, Fault.FAILS)))

    assert failure_of(node.carry_out(verify(), NOW)) == (FailureReason.CRITICAL_SERVICES, "health: simulated fault")


def test_a_node_with_a_snapshot_goes_back_where_the_verification_fails() -> None:
    _, node = apt_node(packages={})

    event = node.carry_out(verify(snapshot=SNAPSHOT), NOW)

    assert isinstance(event, ev.RollbackDue)
    assert event.failure.log == "libc: found nothing after the reboot, 1 was planned"


def test_a_node_without_snapshots_skips_them() -> None:
    _, node = apt_node()

    assert evolve(node, snapshots=None).carry_out(ev.TakeSnapshot("before", ""), NOW) == ev.SnapshotSkipped(NOW)


def test_a_snapshot_knows_what_was_installed_and_is_taken_once() -> None:
    model, node = apt_node()

    for _ in range(2):
        assert node.carry_out(ev.TakeSnapshot("before", ""), NOW) == ev.SnapshotTaken(NOW, SNAPSHOT)

    assert list(model.snapshots) == ["before"]


def test_an_earlier_snapshot_gives_way_to_the_new_one() -> None:
    model, node = apt_node()
    node.carry_out(ev.TakeSnapshot("first", ""), NOW)

    for _ in range(2):
        node.carry_out(ev.TakeSnapshot("second", "first"), NOW)

    assert list(model.snapshots) == ["second"]


def test_the_way_back_leads_to_packages_sources_and_kernel_command_line_of_the_snapshot() -> None:
    model, node = apt_node(sources=("old",), grub_command_line="quiet")
    node.carry_out(ev.TakeSnapshot("before", ""), NOW)
    model.packages, model.sources, model.grub_command_line = {"libc": "2", "curl": "7"}, ("new",), "debug"

    assert node.carry_out(ev.RollBack(SNAPSHOT, 1), NOW) == ev.RollbackPrepared(NOW, "boot-0")
    assert node.carry_out(ev.RebootIntoSnapshot(), NOW) is None
    model.come_up(1)
    recorded = node.carry_out(ev.RecordRollback((("libc", "0"),), SNAPSHOT), NOW)

    assert (model.packages, model.sources, model.kernel_started_with) == ({"libc": "1"}, ("old",), "quiet")
    assert recorded == ev.RollbackRecorded(NOW, changes((("libc", "0"),), INSTALLED, NOW))


def test_a_new_update_calls_off_a_rollback_that_was_never_booted() -> None:
    model, node = apt_node()
    node.carry_out(ev.TakeSnapshot("before", ""), NOW)
    model.packages["curl"] = "7"
    node.carry_out(ev.RollBack(SNAPSHOT, 1), NOW)

    node.carry_out(ev.TakeSnapshot("later", ""), NOW)
    model.come_up(1)

    assert model.packages == {"libc": "1", "curl": "7"}


def test_a_boot_that_does_not_lead_back_is_no_rollback() -> None:
    _, node = apt_node(packages={"libc": "2"})

    event = node.carry_out(ev.RecordRollback(INSTALLED, SNAPSHOT), NOW)

    assert isinstance(event, ev.RollbackFailed)
    assert event.failure.log == "the node came up with other packages than snapshot before has"


def test_a_snapshot_that_is_gone_cannot_be_gone_back_to() -> None:
    _, node = apt_node()

    first = node.carry_out(ev.RollBack(SNAPSHOT, 1), NOW)
    last = node.carry_out(ev.RollBack(SNAPSHOT, MAX_ROLLBACKS), NOW)

    assert isinstance(first, ev.RollbackFailed)
    assert isinstance(last, ev.RollbackExhausted)
    assert last.failure.log == "no snapshot 'before'"


@pytest.mark.parametrize("attempt", [1, MAX_ROLLBACKS + 1])
def test_a_node_that_cannot_go_back_any_more_says_so(attempt: int) -> None:
    _, node = apt_node()

    without = evolve(node, snapshots=None).carry_out(ev.RollBack(SNAPSHOT, attempt), NOW)
    exhausted = node.carry_out(ev.RollBack(SNAPSHOT, MAX_ROLLBACKS + 1), NOW)

    for event in (without, exhausted):
        assert isinstance(event, ev.RollbackExhausted)
        assert event.failure.log.startswith("snapshot before wasn't reached")


def test_a_mutable_node_tells_what_could_be_upgraded_as_the_original_does() -> None:
    _, node = apt_node(packages={"libc": "1", "curl": "7"})
    _, current = apt_node(packages={"libc": "2"})

    assert json.loads(node.describe().os_update_available) == [
        {"name": "libc", "available_version": "2", "architecture": "amd64"}
    ]
    assert current.describe() == NodeDescription()


def test_a_list_of_upgrades_that_is_too_long_is_cut_short() -> None:
    names = [f"package-{number}" for number in range(5_000)]
    _, node = apt_node(packages=dict.fromkeys(names, "1"), available=dict.fromkeys(names, "2"))

    text = node.describe().os_update_available

    assert MAX_AVAILABLE - 200 < len(text) <= MAX_AVAILABLE
    assert [entry["name"] for entry in json.loads(text)][:2] == ["package-0", "package-1"]


def test_upgrades_that_cannot_be_told_leave_the_report_without_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(model: ModelAptNode) -> None:
        raise NodeFailure(FailureReason.UPDATE_TOOL, "E: dpkg was interrupted")

    monkeypatch.setattr(ModelAptNode, "upgradable", fail)
    _, node = apt_node()

    assert node.describe() == NodeDescription()
    assert "the available updates can't be told" in caplog.text


def test_later_failures_say_when_they_happened() -> None:
    _, node = apt_node(packages={})
    later = NOW + timedelta(minutes=5)

    event = node.carry_out(verify(), later)

    assert isinstance(event, ev.VerificationFailed)
    assert event.failure.at == later
