"""Every arrow of the description's diagram of a mutable update, and the ways that it forgot."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from edge_day2.domain import mutable_events as ev
from edge_day2.domain.flow import Event, WindowClosed, WindowOpened, WindowTimedOut
from edge_day2.domain.mutable_effects import MAX_REPAIR_LOG, changes
from edge_day2.domain.mutable_events import PackageTarget
from edge_day2.domain.observation import Observation, PackageDatabase
from edge_day2.domain.schedules import Window
from edge_day2.domain.statuses import (
    EntryStatus,
    FailureReason,
    UpdateAction,
    UpdateStatusType,
    UpdateType,
    parse_detail,
)
from edge_day2.testing.flow_walks import (
    AFTER,
    APT_COMPARING,
    APT_DOWNLOADING_PACKAGES,
    APT_DOWNLOADING_UPGRADE,
    APT_INSTALLING_PACKAGES,
    APT_INSTALLING_UPGRADE,
    APT_REBOOTING,
    APT_RECORDING,
    APT_RESTARTING,
    APT_TAKING_SNAPSHOT,
    APT_UPDATED,
    APT_UPDATING_AGENT,
    APT_UPDATING_COMMAND_LINE,
    APT_UPDATING_HELPER,
    APT_UPDATING_SOURCES,
    APT_VERIFYING,
    BEFORE,
    NOW,
    PLAN,
    SNAPSHOT,
    UPGRADE,
    WINDOW,
    apt_walk,
    failure,
)

TARGET = PackageTarget(update_sources=("Types: deb",), update_packages=("curl",), kernel_command_line="quiet")
OTHER = PackageTarget(update_packages=("vim",))
FAILED, UPDATED = UpdateStatusType.FAILED, UpdateStatusType.UPDATED
CHANGED = changes(BEFORE, AFTER, NOW)

BEFORE_REBOOT = [
    APT_RECORDING,
    APT_UPDATING_SOURCES,
    APT_UPDATING_AGENT,
    APT_TAKING_SNAPSHOT,
    APT_UPDATING_HELPER,
    APT_UPDATING_COMMAND_LINE,
    APT_DOWNLOADING_PACKAGES,
    APT_INSTALLING_PACKAGES,
    APT_DOWNLOADING_UPGRADE,
    APT_INSTALLING_UPGRADE,
    APT_COMPARING,
    APT_REBOOTING,
]
before_reboot = pytest.mark.parametrize("way", BEFORE_REBOOT, ids=lambda way: way[-1].name)


def node(boot_id: str = "first", **changes: Any) -> Observation:
    return Observation(at=NOW, boot_id=boot_id, **changes)


def test_a_whole_update_takes_its_steps_in_order() -> None:
    walk = apt_walk(TARGET).on(WindowOpened(NOW, WINDOW))
    assert walk.command == ev.RecordPackages()
    walk.on(ev.PackagesRecorded(NOW, BEFORE))
    assert walk.command == ev.UpdateAptSources(("Types: deb",), WINDOW)
    walk.on(ev.SourcesUpdated(NOW))
    assert walk.command == ev.UpdateAgent(WINDOW)
    walk.on(ev.AgentUpdated(NOW))
    assert walk.command == ev.RestartAgent()
    walk.restarted(node())
    assert walk.command == ev.TakeSnapshot("edge_day2 2026-03-01T02:00:00.000000Z", "")
    walk.on(ev.SnapshotTaken(NOW, SNAPSHOT))
    assert walk.command == ev.UpdateHelper(WINDOW)
    walk.on(ev.HelperUpdated(NOW))
    assert walk.command == ev.SetKernelCommandLine("quiet")
    walk.on(ev.KernelCommandLineUpdated(NOW))
    assert walk.command == ev.DownloadPackages(("curl",), WINDOW)
    walk.on(ev.PackagesDownloaded(NOW, PLAN))
    assert walk.command == ev.InstallPackages(("curl",), PLAN, WINDOW)
    walk.on(ev.PackagesInstalled(NOW))
    assert walk.command == ev.DownloadUpgrade(WINDOW)
    walk.on(ev.UpgradeDownloaded(NOW, UPGRADE))
    assert walk.command == ev.InstallUpgrade(UPGRADE, WINDOW)
    walk.on(ev.UpgradeInstalled(NOW))
    assert walk.command == ev.ComparePackages(BEFORE, "quiet", True)
    walk.on(ev.ChangesFound(NOW, CHANGED, "first"))
    assert walk.command == ev.RebootNode()
    walk.restarted(node("second"))
    assert walk.command == ev.VerifyUpdate(TARGET, PLAN, CHANGED, SNAPSHOT)
    walk.on(ev.UpdateVerified(NOW))

    assert walk.state.name == "updated"
    assert walk.command is None
    assert walk.said == ["STARTED", "UPDATED", "UP_TO_DATE"]


def test_updated_tells_what_was_installed_and_upgraded() -> None:
    walk = apt_walk().on(*APT_UPDATED)

    entries = json.loads(walk.reports[-2].status_detail)["update_log"]
    assert [(entry["package_name"], entry["action"], entry["version"]) for entry in entries] == [
        ("agent", "upgrade", "2"),
        ("curl", "install", "7.81"),
    ]
    assert entries[0]["previous_version"] == "1"
    assert {entry["status"] for entry in entries} == {"installed"}
    assert {entry["failure_reason"] for entry in entries} == {"nofailure"}


def test_an_agent_that_is_the_newest_is_not_restarted() -> None:
    walk = apt_walk().on(*APT_UPDATING_AGENT, ev.AgentCurrent(NOW))

    assert isinstance(walk.command, ev.TakeSnapshot)


def test_nothing_that_changed_needs_no_reboot() -> None:
    walk = apt_walk().on(*APT_COMPARING, ev.NothingChanged(NOW))

    assert walk.state.name == "up_to_date"
    assert walk.said == ["STARTED", "UP_TO_DATE"]


def test_a_kernel_command_line_that_is_current_is_no_change() -> None:
    walk = apt_walk(TARGET).on(*APT_COMPARING)

    assert walk.command == ev.ComparePackages(BEFORE, "quiet", False)


@pytest.mark.parametrize("way", [*BEFORE_REBOOT, APT_RESTARTING, APT_VERIFYING], ids=lambda way: way[-1].name)
def test_a_step_that_fails_still_says_what_it_changed(way: tuple[Event, ...]) -> None:
    walk = apt_walk().on(*way, ev.StepFailed(NOW, failure(FailureReason.UPDATE_TOOL, "dpkg: error")))
    assert walk.command == ev.RecordFailure(() if way is APT_RECORDING else BEFORE)
    assert "FAILED" not in walk.said

    walk.on(ev.FailureRecorded(NOW, CHANGED, "first"))

    assert walk.state.name == "failed"
    assert walk.state.data.retries == 1
    assert walk.said == ["STARTED", "FAILED"]
    *installed, failed = walk.detail(FAILED).update_log
    assert [entry.package_name for entry in installed] == ["agent", "curl"]
    assert (failed.status, failed.failure_reason) == (EntryStatus.FAILED, FailureReason.UPDATE_TOOL)
    assert failed.failure_log == "dpkg: error"


def test_a_verification_that_fails_is_reported_with_all_that_was_changed() -> None:
    walk = apt_walk().on(*APT_VERIFYING)

    walk.on(ev.VerificationFailed(NOW, failure(FailureReason.CRITICAL_SERVICES, "sshd is down")))

    assert walk.state.name == "failed"
    assert walk.said == ["STARTED", "FAILED"]
    assert [entry.package_name for entry in walk.detail(FAILED).update_log] == ["agent", "curl", ""]
    assert walk.detail(FAILED).reasons == (FailureReason.CRITICAL_SERVICES,)


def test_a_restart_of_the_agent_is_not_taken_for_the_reboot() -> None:
    walk = apt_walk().on(*APT_REBOOTING).restarted(node("first"))

    assert walk.command == ev.RebootNode()


@before_reboot
def test_a_package_database_that_was_interrupted_is_repaired_before_the_step_goes_on(way: tuple[Event, ...]) -> None:
    walk = apt_walk().on(*way)
    pending = walk.command

    walk.restarted(node(packages=PackageDatabase.INTERRUPTED))
    assert walk.command == ev.RepairPackages(1, WINDOW)
    walk.on(ev.PackagesRepaired(NOW))

    assert walk.command == pending


def test_repairs_are_counted() -> None:
    walk = apt_walk().on(*APT_INSTALLING_UPGRADE)

    walk.on(ev.PackagesInterrupted(NOW), ev.PackagesRepaired(NOW), ev.PackagesInterrupted(NOW))

    assert walk.command == ev.RepairPackages(2, WINDOW)


def test_a_repair_that_fails_ends_the_update() -> None:
    walk = apt_walk().on(*APT_INSTALLING_UPGRADE, ev.PackagesInterrupted(NOW))

    walk.on(ev.StepFailed(NOW, failure(FailureReason.UPDATE_TOOL)))

    assert walk.command == ev.RecordFailure(BEFORE)


@before_reboot
def test_a_window_that_closes_pauses_and_the_next_one_runs_the_steps_again(way: tuple[Event, ...]) -> None:
    walk = apt_walk().on(*way, WindowClosed(NOW))
    assert walk.command is None
    assert "paused" in walk.detail(UpdateStatusType.STARTED).message

    later = Window(NOW + timedelta(days=1), NOW + timedelta(days=1, hours=2))
    walk.on(WindowOpened(NOW, later))

    assert walk.command == ev.RecordPackages()
    assert walk.said == ["STARTED", "STARTED", "STARTED"]


def test_what_was_installed_before_the_update_is_recorded_only_once() -> None:
    walk = apt_walk().on(*APT_INSTALLING_UPGRADE, WindowClosed(NOW), WindowOpened(NOW, WINDOW))

    walk.on(ev.PackagesRecorded(NOW, AFTER))

    assert walk.state.data.before == BEFORE


@before_reboot
def test_a_window_that_closes_fails_the_update_where_the_policy_says_so(way: tuple[Event, ...]) -> None:
    walk = apt_walk().on(*way, WindowTimedOut(NOW), ev.FailureRecorded(NOW, (), ""))

    assert walk.state.name == "failed"
    assert walk.detail(FAILED).reasons == (FailureReason.WINDOW_CLOSED,)
    assert "partial success" in walk.detail(FAILED).update_log[-1].failure_log


def test_after_the_reboot_no_window_and_no_target_stops_the_flow() -> None:
    walk = apt_walk().on(*APT_VERIFYING)

    accepted = walk.flow.accepts(walk.state)

    assert not {"window_closed", "window_timed_out", "target_changed"} & set(accepted)


@before_reboot
def test_a_target_that_changes_starts_over_and_forgets_nothing(way: tuple[Event, ...]) -> None:
    walk = apt_walk().on(*way)
    recorded = walk.state.data.before

    walk.on(ev.TargetChanged(NOW, OTHER))

    assert walk.command == ev.RecordPackages()
    assert walk.state.data.target == OTHER
    assert walk.state.data.before == recorded
    assert walk.said[-1] == "STARTED"


@pytest.mark.parametrize("way", [(), (*APT_INSTALLING_UPGRADE, WindowClosed(NOW))])
def test_a_target_that_changes_while_nothing_happens_is_taken_in_silence(way: tuple[Event, ...]) -> None:
    walk = apt_walk().on(*way)
    said = list(walk.said)

    walk.on(ev.TargetChanged(NOW, OTHER))

    assert walk.command is None
    assert walk.state.data.target == OTHER
    assert walk.said == said


def test_the_update_log_is_the_difference_of_two_package_databases() -> None:
    log = changes((("a", "1"), ("b", "1"), ("gone", "1")), (("a", "1"), ("b", "2"), ("c", "3")), NOW)

    assert [(entry.package_name, entry.action, entry.version, entry.previous_version) for entry in log] == [
        ("b", UpdateAction.UPGRADE, "2", "1"),
        ("c", UpdateAction.INSTALL, "3", ""),
    ]
    assert {entry.update_type for entry in log} == {UpdateType.OS}


PLANNED = pytest.mark.parametrize(
    "way", [APT_INSTALLING_PACKAGES, APT_INSTALLING_UPGRADE, APT_COMPARING, APT_REBOOTING], ids=lambda way: way[-1].name
)


@PLANNED
@pytest.mark.parametrize(
    "drops", [(ev.TargetChanged(NOW, OTHER),), (WindowClosed(NOW), WindowOpened(NOW, WINDOW))], ids=["target", "window"]
)
def test_a_plan_counts_only_until_the_target_changes_or_the_steps_begin_anew(
    way: tuple[Event, ...], drops: tuple[Event, ...]
) -> None:
    walk = apt_walk().on(*way)
    assert walk.state.data.plan == PLAN

    walk.on(*drops)

    assert (walk.state.data.plan, walk.state.data.upgrade_plan) == ((), ())


def test_a_crash_in_the_middle_of_the_installation_goes_on_with_the_same_plan() -> None:
    walk = apt_walk().on(*APT_INSTALLING_PACKAGES)

    walk.restarted(node(packages=PackageDatabase.INTERRUPTED)).on(ev.PackagesRepaired(NOW))

    assert walk.command == ev.InstallPackages(("curl",), PLAN, WINDOW)


def test_the_upgrade_may_go_further_than_the_packages_before_it() -> None:
    further = (("curl", "8.0"), ("libc6", "2.36"))
    walk = apt_walk().on(*APT_DOWNLOADING_UPGRADE, ev.UpgradeDownloaded(NOW, further), ev.UpgradeInstalled(NOW))
    walk.on(ev.ChangesFound(NOW, CHANGED, "first"), ev.NodeRebooted(NOW))

    assert walk.command == ev.VerifyUpdate(PackageTarget(update_packages=("curl",)), further, CHANGED, None)


def test_a_snapshot_is_taken_after_the_agent_was_updated_and_before_anything_else_is() -> None:
    for way in (APT_TAKING_SNAPSHOT, (*APT_UPDATING_AGENT, ev.AgentCurrent(NOW))):
        walk = apt_walk().on(*way)
        assert walk.command == ev.TakeSnapshot("edge_day2 2026-03-01T02:00:00.000000Z", "")

        walk.on(ev.SnapshotTaken(NOW, SNAPSHOT))

        assert walk.command == ev.UpdateHelper(WINDOW)
        assert walk.state.data.snapshot == SNAPSHOT
        assert walk.said == ["STARTED"]


def test_the_snapshot_of_an_earlier_window_gives_way_when_the_next_one_is_taken() -> None:
    later = Window(NOW + timedelta(days=1), NOW + timedelta(days=1, hours=2))
    walk = apt_walk().on(*APT_TAKING_SNAPSHOT, ev.SnapshotTaken(NOW, SNAPSHOT), WindowClosed(NOW))

    walk.on(WindowOpened(later.start, later), *APT_TAKING_SNAPSHOT[1:])
    assert walk.command == ev.TakeSnapshot("edge_day2 2026-03-02T02:00:00.000000Z", SNAPSHOT.identifier)
    walk.on(ev.SnapshotTaken(NOW, ev.Snapshot(identifier="8", packages="")), ev.TargetChanged(NOW, OTHER))

    assert walk.state.data.stale_snapshot == ""


def test_a_target_that_changes_in_its_window_keeps_the_snapshot_of_the_window() -> None:
    walk = apt_walk().on(*APT_TAKING_SNAPSHOT, ev.SnapshotTaken(NOW, SNAPSHOT), ev.TargetChanged(NOW, OTHER))
    walk.on(*APT_TAKING_SNAPSHOT[1:])
    assert walk.command == ev.TakeSnapshot("edge_day2 2026-03-01T02:00:00.000000Z", "")

    walk.on(ev.SnapshotTaken(NOW, ev.Snapshot(identifier=SNAPSHOT.identifier, packages="what is installed by now")))

    assert walk.state.data.snapshot == SNAPSHOT


ON_THE_WAY_BACK = (
    *APT_TAKING_SNAPSHOT,
    ev.SnapshotTaken(NOW, SNAPSHOT),
    *APT_VERIFYING[len(APT_UPDATING_HELPER) :],
    ev.RollbackDue(NOW, failure(FailureReason.CRITICAL_SERVICES, "sshd is down")),
)


def test_a_failed_verification_leads_back_to_the_snapshot() -> None:
    walk = apt_walk().on(*ON_THE_WAY_BACK)
    assert walk.command == ev.RollBack(SNAPSHOT, 1)
    assert walk.said == ["STARTED", "FAILED"]
    walk.on(ev.RollbackPrepared(NOW, "second"))
    assert walk.command == ev.RebootIntoSnapshot()
    walk.restarted(node("second"))
    assert walk.command == ev.RebootIntoSnapshot()
    walk.restarted(node("third", packages=PackageDatabase.INTERRUPTED))
    assert walk.command == ev.RecordRollback(BEFORE, SNAPSHOT)

    walk.on(ev.RollbackRecorded(NOW, CHANGED[:1]))

    assert walk.state.name == "rolled_back"
    assert walk.said == ["STARTED", "FAILED", "FAILED"]
    kept, rolled_back = walk.detail(FAILED).update_log
    assert (kept.package_name, kept.status) == ("agent", EntryStatus.INSTALLED)
    assert (rolled_back.status, rolled_back.failure_log) == (EntryStatus.ROLLED_BACK, "sshd is down")
    assert walk.detail(FAILED).reasons == (FailureReason.CRITICAL_SERVICES,)


def test_a_rollback_that_fails_is_tried_again_and_at_last_said_with_both_reasons() -> None:
    walk = apt_walk().on(*ON_THE_WAY_BACK)

    walk.on(ev.RollbackFailed(NOW, failure(FailureReason.UPDATE_TOOL, "btrfs: no space")))
    assert walk.command == ev.RollBack(SNAPSHOT, 2)
    walk.on(ev.RollbackPrepared(NOW, "second"), ev.NodeRebooted(NOW))
    walk.on(ev.RollbackFailed(NOW, failure(FailureReason.UPDATE_TOOL, "other packages")))
    assert walk.command == ev.RollBack(SNAPSHOT, 3)
    walk.on(ev.RollbackExhausted(NOW, failure(FailureReason.UPDATE_TOOL, "not reached in 2 tries")))

    assert walk.state.name == "failed"
    (failed,) = [entry for entry in walk.detail(FAILED).update_log if entry.status is EntryStatus.FAILED]
    assert failed.failure_reason is FailureReason.CRITICAL_SERVICES
    assert failed.failure_log == "sshd is down: rolling back failed: other packages: not reached in 2 tries"


def test_what_cannot_be_repaired_after_the_reboot_is_rolled_back() -> None:
    walk = apt_walk().on(*ON_THE_WAY_BACK[:-1], ev.PackagesInterrupted(NOW))
    assert walk.command == ev.RepairPackages(1, None, SNAPSHOT)

    walk.on(ev.RollbackDue(NOW, failure(FailureReason.UPDATE_TOOL, "dpkg: error")))

    assert walk.command == ev.RollBack(SNAPSHOT, 1)


def test_nothing_from_outside_stops_a_rollback() -> None:
    for way in (ON_THE_WAY_BACK, (*ON_THE_WAY_BACK, ev.RollbackPrepared(NOW, "second"))):
        walk = apt_walk().on(*way)

        accepted = walk.flow.accepts(walk.state)

        assert not {"window_closed", "window_timed_out", "target_changed"} & set(accepted)


def test_what_was_repaired_is_said_with_the_outcome_and_kept_short() -> None:
    walk = apt_walk().on(*APT_INSTALLING_UPGRADE)
    walk.on(ev.PackagesInterrupted(NOW), ev.PackagesRepaired(NOW, "x" * 100_000))

    walk.on(ev.PackagesInterrupted(NOW), ev.PackagesRepaired(NOW, "Setting up libc6"))
    walk.on(*APT_UPDATED[len(APT_INSTALLING_UPGRADE) :])

    message = walk.detail(UPDATED).message
    assert message.startswith("the package database was interrupted and repaired: xxx")
    assert message.endswith("Setting up libc6")
    assert len(message) < MAX_REPAIR_LOG + 100


def test_a_kernel_command_line_that_the_kernel_runs_with_by_now_needs_no_reboot() -> None:
    walk = apt_walk(TARGET).on(*APT_UPDATING_COMMAND_LINE, ev.KernelCommandLineUpdated(NOW))
    assert walk.state.data.kernel_command_line_changed

    walk.on(
        WindowClosed(NOW), WindowOpened(NOW, WINDOW), *APT_UPDATING_COMMAND_LINE[1:], ev.KernelCommandLineCurrent(NOW)
    )

    assert not walk.state.data.kernel_command_line_changed


def test_a_kernel_command_line_that_nobody_wants_any_more_still_waits_for_its_boot() -> None:
    walk = apt_walk(TARGET).on(*APT_UPDATING_COMMAND_LINE, ev.KernelCommandLineUpdated(NOW))

    walk.on(ev.TargetChanged(NOW, OTHER), *APT_UPDATING_COMMAND_LINE[1:], ev.KernelCommandLineCurrent(NOW))

    assert walk.state.data.kernel_command_line_changed


@pytest.mark.parametrize(
    ("way", "boot_id", "owed"),
    [
        (APT_INSTALLING_UPGRADE, "first", "first"),
        (APT_INSTALLING_UPGRADE, "", ""),
        (APT_REBOOTING, "first", "first"),
        (APT_VERIFYING, "second", ""),
    ],
    ids=["packages changed", "nothing changed", "no reboot", "rebooted"],
)
def test_a_failed_update_owes_a_reboot_where_packages_changed_in_this_boot(
    way: tuple[Event, ...], boot_id: str, owed: str
) -> None:
    walk = apt_walk().on(*way, ev.StepFailed(NOW, failure(FailureReason.UPDATE_TOOL)))

    walk.on(ev.FailureRecorded(NOW, CHANGED if boot_id else (), boot_id))

    assert walk.state.data.owed_boot_id == owed


def test_a_failed_update_that_cannot_tell_what_it_changed_says_so() -> None:
    walk = apt_walk().on(*APT_INSTALLING_UPGRADE, ev.StepFailed(NOW, failure(FailureReason.UPDATE_TOOL)))

    (report,) = walk.on(ev.FailureRecorded(NOW, (), "first", untold=True)).reports[-1:]

    detail = parse_detail(report.status_detail)
    assert detail is not None
    assert detail.message == "what was changed can't be told yet; the next update tells it"
    assert walk.state.data.untold
