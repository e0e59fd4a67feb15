"""Every arrow of the description's diagram of an immutable update, and the ways that it forgot."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve

from edge_day2.domain import immutable_events as ev
from edge_day2.domain.flow import Event, WindowOpened
from edge_day2.domain.immutable import MAX_ROLLBACKS
from edge_day2.domain.immutable_events import ImmutableTarget
from edge_day2.domain.observation import BootEntry, Observation, Slot, TrialEvidence
from edge_day2.domain.statuses import EntryStatus, FailureReason, UpdateStatusType, UpdateType
from edge_day2.testing.flow_walks import (
    AB_ARMING,
    AB_CHECKING,
    AB_CLEARING,
    AB_COMMITTING,
    AB_DOWNLOADING,
    AB_INSTALLING,
    AB_REBOOTING,
    AB_RESTORING_DEFAULT,
    AB_ROLLING_BACK,
    AB_SETTLING,
    AB_UPDATED,
    AB_VERIFYING,
    NEW,
    NOW,
    OLD,
    SLOT_A,
    SLOT_B,
    WINDOW,
    ab_walk,
    failure,
)

NEWER = evolve(NEW, image_id="3.0.3", sha256="3" * 64)
TARGET = ImmutableTarget(image=NEW)
FAILED = UpdateStatusType.FAILED


def node(active: BootEntry = SLOT_A, boot_id: str = "first", **changes: Any) -> Observation:
    return Observation(at=NOW, boot_id=boot_id, active=active, **changes)


def test_a_new_image_is_installed_booted_on_trial_and_committed() -> None:
    walk = ab_walk().on(*AB_CLEARING)
    assert walk.command == ev.ClearTrial(SLOT_A, SLOT_B)
    walk.on(ev.TrialCleared(NOW))
    assert walk.command == ev.DownloadImage(NEW, SLOT_B, WINDOW)
    walk.on(ev.ImageDownloaded(NOW))
    assert walk.command == ev.InstallImage(NEW, SLOT_B, "")
    walk.on(ev.ImageInstalled(NOW))
    assert walk.command == ev.ArmTrial(SLOT_B)
    walk.on(ev.TrialArmed(NOW, "first"))
    assert walk.command == ev.RebootIntoTrial()
    walk.on(ev.TrialBooted(NOW, "second"))
    assert walk.command == ev.VerifyTrial(TARGET, SLOT_B)
    walk.on(ev.TrialHealthy(NOW))
    assert walk.command == ev.CommitTrial(SLOT_B)
    walk.on(ev.TrialCommitted(NOW))

    assert walk.state.name == "updated"
    assert walk.command is None
    assert walk.said == ["STARTED", "STARTED", "STARTED", "UPDATED", "UP_TO_DATE"]


def test_updated_names_the_installed_profile_version_and_image() -> None:
    walk = ab_walk().on(*AB_UPDATED)

    updated = walk.reports[-2]
    assert (updated.profile_name, updated.profile_version, updated.os_image_id) == ("edge", "3.0.2", "3.0.2")
    assert json.loads(updated.status_detail) == {
        "update_log": [
            {
                "update_type": "OS",
                "package_name": "edge",
                "update_time": "2026-03-01T02:00:00Z",
                "action": "upgrade",
                "status": "installed",
                "version": "3.0.2",
                "failure_reason": "nofailure",
                "failure_log": "",
                "previous_version": "3.0.1",
            }
        ]
    }


def test_the_same_image_needs_no_update() -> None:
    walk = ab_walk().on(WindowOpened(NOW, WINDOW))
    assert walk.command == ev.CompareImages(TARGET)

    walk.on(ev.ImagesEqual(NOW, NEW))

    assert walk.state.name == "up_to_date"
    assert walk.said == ["STARTED", "UP_TO_DATE"]
    assert walk.reports[-1].os_image_id == "3.0.2"


@pytest.mark.parametrize(
    ("way", "event", "reason", "summary"),
    [
        (AB_DOWNLOADING, ev.DownloadFailed, FailureReason.DOWNLOAD_FAIL, "DownloadFail"),
        (AB_DOWNLOADING, ev.DownloadFailed, FailureReason.SIGNATURE_CHECK, "DownloadFail"),
        (AB_INSTALLING, ev.InstallationFailed, FailureReason.INSTALLATION_FAIL, "InstallationFail"),
        (AB_INSTALLING, ev.InstallationFailed, FailureReason.UT_WRITE, "InstallationFail"),
        (AB_CLEARING, ev.ClearingFailed, FailureReason.BOOTLOADER_FAIL, "BootloaderFail"),
        (AB_CHECKING, ev.ComparisonFailed, FailureReason.UNSPECIFIED, "InstallationFail"),
    ],
)
def test_a_failure_before_arming_ends_the_update_and_is_reported(
    way: tuple[Event, ...], event: Any, reason: FailureReason, summary: str
) -> None:
    walk = ab_walk().on(*way, event(NOW, failure(reason, "the tool's own words")))

    assert walk.state.name == "failed"
    assert walk.state.data.retries == 1
    assert walk.said[-1] == "FAILED"
    (entry,) = walk.detail(FAILED).update_log
    assert (entry.status, entry.failure_reason, entry.failure_log) == (
        EntryStatus.FAILED,
        reason,
        "the tool's own words",
    )
    assert entry.failure_reason.summary == summary


def test_a_failed_report_names_the_image_that_runs() -> None:
    walk = ab_walk().on(*AB_DOWNLOADING, ev.DownloadFailed(NOW, failure(FailureReason.DOWNLOAD_FAIL)))

    assert walk.reports[-1].os_image_id == "3.0.1"
    assert walk.detail(FAILED).update_log[0].version == "3.0.2"


def test_a_failed_arming_is_disarmed_before_the_update_ends() -> None:
    walk = ab_walk().on(*AB_ARMING, ev.ArmingFailed(NOW, failure(FailureReason.BOOTLOADER_FAIL)))
    assert walk.command == ev.RestoreDefault(SLOT_A)

    walk.on(ev.RestoreFailed(NOW, failure(FailureReason.BOOTLOADER_FAIL)), ev.DefaultRestored(NOW, "first"))

    assert walk.state.name == "failed"
    assert walk.said.count("FAILED") == 1


def test_a_machine_that_refuses_to_reboot_is_disarmed() -> None:
    walk = ab_walk().on(*AB_REBOOTING, ev.RebootFailed(NOW, failure(FailureReason.BOOTLOADER_FAIL)))

    assert walk.command == ev.RestoreDefault(SLOT_A)
    assert walk.on(ev.DefaultRestored(NOW, "first")).state.name == "failed"


@pytest.mark.parametrize(
    ("evidence", "reason", "conclusive"),
    [
        (TrialEvidence.UNKNOWN, FailureReason.BOOTLOADER_FAIL, False),
        (TrialEvidence.BAD_IMAGE, FailureReason.BOOTLOADER_FAIL, True),
        (TrialEvidence.POWER_CUT, FailureReason.TRIAL_INTERRUPTED, False),
    ],
)
def test_a_trial_that_does_not_boot_falls_back_to_slot_a_and_is_rolled_back(
    evidence: TrialEvidence, reason: FailureReason, conclusive: bool
) -> None:
    walk = ab_walk().on(*AB_REBOOTING).restarted(node(SLOT_A, "second", trial_evidence=evidence))
    assert walk.command == ev.RestoreDefault(SLOT_A)

    walk.on(ev.DefaultRestored(NOW, "second"))

    assert walk.state.name == "rolled_back"
    assert walk.said == ["STARTED", "STARTED", "STARTED", "FAILED"]
    (entry,) = walk.detail(FAILED).update_log
    assert (entry.status, entry.failure_reason) == (EntryStatus.ROLLED_BACK, reason)
    assert walk.state.data.failure.conclusive is conclusive


def test_a_power_cut_during_the_trial_counts_apart_from_an_image_that_does_not_boot() -> None:
    cut = ab_walk().on(*AB_REBOOTING).restarted(node(SLOT_A, "second", trial_evidence=TrialEvidence.POWER_CUT))
    fell_back = ab_walk().on(*AB_REBOOTING).restarted(node(SLOT_A, "second"))

    assert (cut.state.data.interruptions, cut.state.data.boot_failures) == (1, 0)
    assert (fell_back.state.data.interruptions, fell_back.state.data.boot_failures) == (0, 1)


def test_a_restart_of_the_agent_before_the_reboot_is_not_taken_for_the_reboot() -> None:
    walk = ab_walk().on(*AB_REBOOTING).restarted(node(SLOT_A, "first", one_shot=SLOT_B))

    assert walk.state.name == "rebooting"
    assert walk.command == ev.RebootIntoTrial()


def test_a_power_cut_while_arming_boots_the_trial_and_it_is_verified() -> None:
    walk = ab_walk().on(*AB_ARMING).restarted(node(SLOT_B, "second"))

    assert walk.state.name == "verifying"
    assert walk.command == ev.VerifyTrial(TARGET, SLOT_B)


def test_a_power_cut_before_arming_took_effect_arms_again() -> None:
    walk = ab_walk().on(*AB_ARMING).restarted(node(SLOT_A, "second"))

    assert walk.command == ev.ArmTrial(SLOT_B)


def test_an_unhealthy_trial_is_reported_then_rolled_back_and_reported_again() -> None:
    walk = ab_walk().on(*AB_VERIFYING, ev.TrialUnhealthy(NOW, failure(FailureReason.CRITICAL_SERVICES, "sshd is down")))
    assert walk.detail(FAILED).update_log[0].status is EntryStatus.FAILED
    assert walk.command == ev.RestoreDefault(SLOT_A)
    walk.on(ev.DefaultRestored(NOW, "second"))
    assert walk.command == ev.RebootIntoOrigin()

    walk.restarted(node(SLOT_A, "third"))
    assert walk.state.name == "settling"
    walk.on(ev.DefaultRestored(NOW, "third"))

    assert walk.state.name == "rolled_back"
    assert walk.said == ["STARTED", "STARTED", "STARTED", "FAILED", "FAILED"]
    (entry,) = walk.detail(FAILED).update_log
    assert (entry.status, entry.failure_log) == (EntryStatus.ROLLED_BACK, "sshd is down")
    assert entry.failure_reason.summary == "OSCommitFail"


def test_a_failed_commit_restores_the_default_before_it_reboots() -> None:
    walk = ab_walk().on(*AB_RESTORING_DEFAULT)
    assert walk.detail(FAILED).reasons == (FailureReason.OS_COMMIT_FAIL,)
    assert walk.command == ev.RestoreDefault(SLOT_A)

    walk.on(ev.RestoreFailed(NOW, failure(FailureReason.BOOTLOADER_FAIL)))
    assert walk.command == ev.RestoreDefault(SLOT_A)
    walk.on(ev.DefaultRestored(NOW, "second")).restarted(node(SLOT_A, "third"))

    assert walk.state.name == "settling"
    assert walk.detail(FAILED).update_log[0].status is EntryStatus.ROLLED_BACK
    assert walk.detail(FAILED).reasons == (FailureReason.OS_COMMIT_FAIL,)


def test_a_rollback_that_the_machine_refuses_is_tried_again() -> None:
    walk = ab_walk().on(*AB_ROLLING_BACK, ev.RebootFailed(NOW, failure(FailureReason.BOOTLOADER_FAIL)))

    assert walk.command == ev.RebootIntoOrigin()


def test_a_rollback_that_boots_the_trial_again_restores_the_default_again_and_gives_up_after_a_few() -> None:
    walk = ab_walk().on(*AB_ROLLING_BACK)

    for boot in range(1, MAX_ROLLBACKS):
        walk.restarted(node(SLOT_B, f"wrong {boot}"))
        assert walk.command == ev.RestoreDefault(SLOT_A)
        walk.on(ev.DefaultRestored(NOW, f"wrong {boot}"))
    walk.restarted(node(SLOT_B, "wrong again"))

    assert walk.state.name == "failed"
    assert "3 reboots didn't lead back to A" in walk.detail(FAILED).update_log[0].failure_log


def test_a_power_cut_while_rolling_back_is_a_way_back_as_well() -> None:
    walk = ab_walk().on(*AB_RESTORING_DEFAULT).restarted(node(SLOT_A, "third"))

    assert walk.state.name == "settling"
    assert walk.detail(FAILED).update_log[0].status is EntryStatus.ROLLED_BACK


@pytest.mark.parametrize("way", [AB_VERIFYING, AB_COMMITTING])
def test_a_node_that_goes_down_during_the_trial_has_fallen_back_without_blame_on_the_image(
    way: tuple[Event, ...],
) -> None:
    walk = ab_walk().on(*way).restarted(node(SLOT_A, "third"))

    assert walk.state.name == "settling"
    assert walk.detail(FAILED).reasons == (FailureReason.TRIAL_INTERRUPTED,)
    assert walk.state.data.boot_failures == 0


@pytest.mark.parametrize("default", [SLOT_A, SLOT_B])
def test_a_power_cut_while_committing_goes_on_from_what_runs(default: BootEntry) -> None:
    walk = ab_walk().on(*AB_COMMITTING).restarted(node(SLOT_B, "third", default=default))

    assert walk.command == ev.CommitTrial(SLOT_B)


def test_a_kernel_command_line_alone_is_tried_in_the_other_entry_of_the_same_slot() -> None:
    walk = ab_walk(ImmutableTarget(image=OLD, kernel_command_line="quiet"))
    beside = BootEntry(Slot.A, 1)

    walk.on(WindowOpened(NOW, WINDOW), ev.KernelCommandLineDiffers(NOW, OLD, node()))
    assert walk.command == ev.ClearTrial(SLOT_A, beside)
    walk.on(ev.TrialCleared(NOW))
    assert walk.command == ev.StageKernelCommandLine(beside, "quiet")
    walk.on(ev.ImageInstalled(NOW), ev.TrialArmed(NOW, "first"))
    assert walk.command == ev.RebootIntoTrial()
    walk.restarted(node(beside, "second")).on(ev.TrialHealthy(NOW), ev.TrialCommitted(NOW))

    assert walk.state.name == "updated"
    assert walk.said[-2:] == ["UPDATED", "UP_TO_DATE"]
    (entry,) = walk.detail(UpdateStatusType.UPDATED).update_log
    assert entry.update_type is UpdateType.CONFIGURATION
    assert (walk.reports[-2].os_image_id, walk.reports[-1].os_image_id) == ("3.0.1", "3.0.1")


def test_a_kernel_command_line_without_image_is_reported_for_the_image_that_runs() -> None:
    walk = ab_walk(ImmutableTarget(kernel_command_line="quiet"))
    walk.on(WindowOpened(NOW, WINDOW), ev.KernelCommandLineDiffers(NOW, OLD, node()), ev.TrialCleared(NOW))

    walk.on(ev.InstallationFailed(NOW, failure(FailureReason.UT_BOOT_CONFIGURATION)))

    (entry,) = walk.detail(FAILED).update_log
    assert (entry.update_type, entry.version) == (UpdateType.CONFIGURATION, "3.0.1")


def test_an_unknown_trial_is_rolled_back() -> None:
    walk = ab_walk().on(WindowOpened(NOW, WINDOW), ev.TrialRunning(NOW, NEW, node(SLOT_B, default=SLOT_A)))

    assert walk.command == ev.RestoreDefault(SLOT_A)
    assert "an unknown trial is rolled back" in walk.detail(FAILED).update_log[0].failure_log
    assert walk.state.data.boot_failures == 1


def test_a_node_that_cannot_say_what_it_runs_still_reports() -> None:
    walk = ab_walk(ImmutableTarget(kernel_command_line="quiet"))

    walk.on(WindowOpened(NOW, WINDOW), ev.ComparisonFailed(NOW, failure(FailureReason.UNSPECIFIED)))

    assert walk.detail(FAILED).update_log[0].package_name == ""


@pytest.mark.parametrize("way", [AB_CLEARING, AB_DOWNLOADING, AB_INSTALLING])
def test_another_entry_that_runs_before_arming_means_that_everything_is_looked_at_again(
    way: tuple[Event, ...],
) -> None:
    walk = ab_walk().on(*way).restarted(node(SLOT_B, "second"))

    assert walk.command == ev.CompareImages(TARGET)


def test_a_trial_that_still_comes_up_while_disarming_or_settling_is_led_back() -> None:
    disarming = ab_walk().on(*AB_ARMING, ev.ArmingFailed(NOW, failure(FailureReason.BOOTLOADER_FAIL)))
    settling = ab_walk().on(*AB_SETTLING)

    for walk in (disarming, settling):
        assert walk.restarted(node(SLOT_B, "third")).command == ev.RestoreDefault(SLOT_A)
        assert walk.state.name == "restoring_default"
        assert walk.state.data.rollbacks == 1
