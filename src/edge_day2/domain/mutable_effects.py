"""What each transition of the apt flow does to the update's data, and which reports it owes.

Small pure functions, one per event where there is anything to do. Order and rules are in `mutable.py`.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final

from attrs import evolve, frozen

from edge_day2.domain import mutable_events as ev
from edge_day2.domain.flow import (
    ANY_STATE,
    WINDOW_CLOSED,
    Effects,
    FailedEvent,
    Failure,
    Reports,
    WindowClosed,
    WindowOpened,
    WindowTimedOut,
    paused,
)
from edge_day2.domain.messages import UpdateStatus
from edge_day2.domain.mutable_events import Packages, PackageTarget, Snapshot
from edge_day2.domain.schedules import Window
from edge_day2.domain.statuses import (
    EntryStatus,
    FailureReason,
    StatusDetail,
    UpdateAction,
    UpdateLogEntry,
    UpdateStatusType,
    UpdateType,
)

# Of a failed update's detail, in characters: a Maintenance Manager that finds it too long drops the reason with it.
MAX_DETAIL: Final = 90_000
# Of it, what the failure and the repairs may take.
_OTHER_DETAIL: Final = 20_000
# Of what repairs did, in characters. The end is kept: that is where dpkg says how it went.
MAX_REPAIR_LOG: Final = 2_000


@frozen(kw_only=True)
class MutableUpdate:
    """Everything that an apt update needs to go on.

    Attributes:
        target: what the update applies.
        window: the maintenance window that the update works in, None before the first one.
        begun: when the first window opened.
        opened: when the last one did; from then on all steps run, the first ones again.
        before: what was installed when the update began, None until recorded; when an earlier one began that couldn't
            tell what it changed, so that this one tells it.
        untold: the update failed, and couldn't tell what it had changed.
        interrupted: the package database has to be repaired before the state's own command.
        kernel_command_line_changed: the next boot has another kernel command line.
        plan: what the installation of the target's packages changes, as planned when they were downloaded.
        upgrade_plan: the same of the upgrade.
        snapshot: the way back, None where there is none.
        stale_snapshot: that of an earlier window or update, kept until this one takes its own; "" where there is none.
        update_log: what changed, known when the flow compares.
        boot_id: the boot in which the pending reboot was decided.
        owed_boot_id: the boot in which an update failed that had changed packages; it still owes the reboot.
        failure: why the update failed, or is being rolled back.
        repairs: how often the package database was found interrupted in this update.
        repair_log: what was done about it.
        rollbacks: how often going back to the snapshot failed.
        rollback_log: why it did the last time.
        retries: failures of this target in a row.
    """

    target: PackageTarget
    window: Window | None = None
    begun: datetime | None = None
    opened: datetime | None = None
    before: Packages | None = None
    untold: bool = False
    interrupted: bool = False
    kernel_command_line_changed: bool = False
    plan: Packages = ()
    upgrade_plan: Packages = ()
    snapshot: Snapshot | None = None
    stale_snapshot: str = ""
    update_log: tuple[UpdateLogEntry, ...] = ()
    boot_id: str = ""
    owed_boot_id: str = ""
    failure: Failure | None = None
    repairs: int = 0
    repair_log: str = ""
    rollbacks: int = 0
    rollback_log: str = ""
    retries: int = 0


_Result = tuple[MutableUpdate, Reports]

_STARTED: Final[Reports] = (UpdateStatus(status_type=UpdateStatusType.STARTED),)


def changes(before: Packages, after: Packages, at: datetime) -> tuple[UpdateLogEntry, ...]:
    """Return the update log: what was installed or upgraded between two states of the package database."""
    versions = dict(before)
    return tuple(
        UpdateLogEntry(
            package_name=name,
            update_time=at,
            action=UpdateAction.UPGRADE if name in versions else UpdateAction.INSTALL,
            version=version,
            previous_version=versions.get(name, ""),
        )
        for name, version in after
        if versions.get(name) != version
    )


def fingerprint(packages: Packages) -> str:
    """Return a text that is the same for the same packages alone."""
    return hashlib.sha256("\n".join(f"{name} {version}" for name, version in packages).encode()).hexdigest()


def whole_plan(data: MutableUpdate) -> Packages:
    """Return what the update was to install in all: the upgrade may go further than the packages before it."""
    return tuple(sorted({**dict(data.plan), **dict(data.upgrade_plan)}.items()))


def _pause(data: MutableUpdate, event: WindowClosed) -> _Result:
    return data, paused(event.log)


def newest_snapshot(data: MutableUpdate) -> str:
    """Return the identifier of the one snapshot that is there, "" where there is none."""
    return data.snapshot.identifier if data.snapshot is not None else data.stale_snapshot


def _start_over(data: MutableUpdate) -> MutableUpdate:
    # What was planned before is nothing that the steps ahead have downloaded.
    return evolve(data, plan=(), upgrade_plan=())


def _open_window(data: MutableUpdate, event: WindowOpened) -> _Result:
    # What ran between two windows ran well enough to go back to, and is newer than what was before the first one.
    data = evolve(_start_over(data), snapshot=None, stale_snapshot=newest_snapshot(data))
    return evolve(data, window=event.window, begun=data.begun or event.at, opened=event.at), _STARTED


def _interrupted(data: MutableUpdate, event: ev.PackagesInterrupted) -> _Result:
    return evolve(data, interrupted=True, repairs=data.repairs + 1), ()


def _repaired(data: MutableUpdate, event: ev.PackagesRepaired) -> _Result:
    log = "\n".join(text for text in (data.repair_log, event.log) if text)
    return evolve(data, interrupted=False, repair_log=log[-MAX_REPAIR_LOG:]), ()


def _recorded(data: MutableUpdate, event: ev.PackagesRecorded) -> _Result:
    return (data if data.before is not None else evolve(data, before=event.installed)), ()


def _snapshot_taken(data: MutableUpdate, event: ev.SnapshotTaken) -> _Result:
    known = data.snapshot is not None and data.snapshot.identifier == event.snapshot.identifier
    # Taken before the target changed in this window, it holds what was installed then.
    return (data if known else evolve(data, snapshot=event.snapshot, stale_snapshot="")), ()


def _no_snapshot(data: MutableUpdate, event: ev.SnapshotSkipped) -> _Result:
    return evolve(data, snapshot=None), ()


def _kernel_command_line_updated(data: MutableUpdate, event: ev.KernelCommandLineUpdated) -> _Result:
    return evolve(data, kernel_command_line_changed=True), ()


def _kernel_command_line_current(data: MutableUpdate, event: ev.KernelCommandLineCurrent) -> _Result:
    # Where none is wanted any more, what an earlier target wrote still waits for its boot.
    waits = data.kernel_command_line_changed and not data.target.kernel_command_line
    return evolve(data, kernel_command_line_changed=waits), ()


def _packages_downloaded(data: MutableUpdate, event: ev.PackagesDownloaded) -> _Result:
    return evolve(data, plan=event.plan), ()


def _upgrade_downloaded(data: MutableUpdate, event: ev.UpgradeDownloaded) -> _Result:
    return evolve(data, upgrade_plan=event.plan), ()


def _changes_found(data: MutableUpdate, event: ev.ChangesFound) -> _Result:
    return evolve(data, update_log=event.update_log, boot_id=event.boot_id), ()


def _fail(data: MutableUpdate, event: ev.StepFailed) -> _Result:
    return evolve(data, failure=event.failure, interrupted=False, retries=data.retries + 1), ()


def _timed_out(data: MutableUpdate, event: WindowTimedOut) -> _Result:
    log = "partial success: the maintenance window closed before the update was done"
    if event.log != WINDOW_CLOSED:
        log = f"{log}: {event.log}"
    failure = Failure(at=event.at, reason=FailureReason.WINDOW_CLOSED, log=log)
    return evolve(data, failure=failure, interrupted=False), ()


def _detail(data: MutableUpdate, *entries: UpdateLogEntry) -> StatusDetail:
    repaired = f"the package database was interrupted and repaired: {data.repair_log}" if data.repair_log else ""
    untold = "what was changed can't be told yet; the next update tells it" if data.untold else ""
    message = ". ".join(text for text in (untold, repaired) if text)
    return StatusDetail(update_log=(*data.update_log, *entries), message=message)


def _report_failure(data: MutableUpdate, status: EntryStatus = EntryStatus.FAILED) -> _Result:
    failure = data.failure
    assert failure is not None
    entry = UpdateLogEntry(
        package_name="",
        update_time=failure.at,
        update_type=UpdateType.OS,
        status=status,
        failure_reason=failure.reason,
        failure_log=failure.log,
    )
    text = _detail(data, entry).to_json()
    if len(text) > MAX_DETAIL:
        kept = int(len(data.update_log) * (MAX_DETAIL - _OTHER_DETAIL) / len(text))
        left_out = len(data.update_log) - kept
        shortened = _detail(evolve(data, update_log=data.update_log[:kept]), entry)
        message = f"{left_out} more packages were changed. {shortened.message}".strip()
        text = evolve(shortened, message=message).to_json()
    return data, (UpdateStatus(status_type=UpdateStatusType.FAILED, status_detail=text),)


def _failure_recorded(data: MutableUpdate, event: ev.FailureRecorded) -> _Result:
    # A boot id that was noted for the reboot and isn't the present one says that the reboot has happened.
    booted = data.boot_id not in ("", event.boot_id)
    owed = data.owed_boot_id if not event.boot_id else "" if booted else event.boot_id
    return _report_failure(evolve(data, update_log=event.update_log, owed_boot_id=owed, untold=event.untold))


def _verification_failed(data: MutableUpdate, event: FailedEvent) -> _Result:
    return _report_failure(evolve(data, failure=event.failure, interrupted=False, retries=data.retries + 1))


def _rollback_prepared(data: MutableUpdate, event: ev.RollbackPrepared) -> _Result:
    return evolve(data, boot_id=event.boot_id), ()


def _rollback_failed(data: MutableUpdate, event: ev.RollbackFailed) -> _Result:
    return evolve(data, rollbacks=data.rollbacks + 1, rollback_log=event.failure.log), ()


def _rollback_exhausted(data: MutableUpdate, event: ev.RollbackExhausted) -> _Result:
    assert data.failure is not None
    logs = (data.failure.log, "rolling back failed", data.rollback_log, event.failure.log)
    failure = evolve(data.failure, log=": ".join(log for log in logs if log))
    return _report_failure(evolve(data, failure=failure))


def _rolled_back(data: MutableUpdate, event: ev.RollbackRecorded) -> _Result:
    return _report_failure(evolve(data, update_log=event.update_log), EntryStatus.ROLLED_BACK)


def _verified(data: MutableUpdate, event: ev.UpdateVerified) -> _Result:
    updated = UpdateStatus(status_type=UpdateStatusType.UPDATED, status_detail=_detail(data).to_json())
    up_to_date = UpdateStatus(status_type=UpdateStatusType.UP_TO_DATE)
    return evolve(data, failure=None, owed_boot_id="", retries=0), (updated, up_to_date)


def _unchanged(data: MutableUpdate, event: ev.NothingChanged) -> _Result:
    detail = _detail(data).to_json() if data.repair_log else ""
    up_to_date = UpdateStatus(status_type=UpdateStatusType.UP_TO_DATE, status_detail=detail)
    return evolve(data, failure=None, owed_boot_id="", retries=0), (up_to_date,)


def _retarget(data: MutableUpdate, event: ev.TargetChanged) -> _Result:
    # What was recorded before the update and what it changed so far stay true whatever the target is.
    return evolve(_start_over(data), target=event.target, retries=0, failure=None), ()


def _retarget_in_window(data: MutableUpdate, event: ev.TargetChanged) -> _Result:
    return _retarget(data, event)[0], _STARTED


EFFECTS: Final[Effects[MutableUpdate]] = {
    (ANY_STATE, WindowOpened): _open_window,
    (ANY_STATE, ev.PackagesInterrupted): _interrupted,
    (ANY_STATE, ev.PackagesRepaired): _repaired,
    (ANY_STATE, ev.PackagesRecorded): _recorded,
    (ANY_STATE, ev.SnapshotTaken): _snapshot_taken,
    (ANY_STATE, ev.SnapshotSkipped): _no_snapshot,
    (ANY_STATE, ev.KernelCommandLineUpdated): _kernel_command_line_updated,
    (ANY_STATE, ev.KernelCommandLineCurrent): _kernel_command_line_current,
    (ANY_STATE, ev.PackagesDownloaded): _packages_downloaded,
    (ANY_STATE, ev.UpgradeDownloaded): _upgrade_downloaded,
    (ANY_STATE, ev.ChangesFound): _changes_found,
    (ANY_STATE, ev.NothingChanged): _unchanged,
    (ANY_STATE, ev.StepFailed): _fail,
    (ANY_STATE, ev.FailureRecorded): _failure_recorded,
    (ANY_STATE, ev.VerificationFailed): _verification_failed,
    (ANY_STATE, ev.RollbackDue): _verification_failed,
    (ANY_STATE, ev.RollbackPrepared): _rollback_prepared,
    (ANY_STATE, ev.RollbackFailed): _rollback_failed,
    (ANY_STATE, ev.RollbackExhausted): _rollback_exhausted,
    (ANY_STATE, ev.RollbackRecorded): _rolled_back,
    (ANY_STATE, ev.UpdateVerified): _verified,
    (ANY_STATE, WindowClosed): _pause,
    (ANY_STATE, WindowTimedOut): _timed_out,
    (ANY_STATE, ev.TargetChanged): _retarget_in_window,
    ("scheduled", ev.TargetChanged): _retarget,
    ("paused", ev.TargetChanged): _retarget,
}
