"""What each transition of the A/B flow does to the update's data, and which reports it owes.

Small pure functions, one per event where there is anything to do. Order and rules are in `immutable.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from attrs import evolve, frozen

from edge_day2.domain import immutable_events as ev
from edge_day2.domain.flow import (
    ANY_STATE,
    Effects,
    Event,
    Failure,
    Reports,
    TargetWithdrawn,
    WindowClosed,
    WindowOpened,
    WindowTimedOut,
    paused,
)
from edge_day2.domain.immutable_events import Image, ImmutableTarget
from edge_day2.domain.messages import UpdateStatus
from edge_day2.domain.observation import BootEntry
from edge_day2.domain.schedules import Window
from edge_day2.domain.statuses import (
    EntryStatus,
    FailureReason,
    StatusDetail,
    UpdateLogEntry,
    UpdateStatusType,
    UpdateType,
)


@frozen(kw_only=True)
class ImmutableUpdate:
    """Everything that an A/B update needs to go on.

    Attributes:
        target: what the node should run.
        next_target: what it should run instead, where that changed after arming.
        window: the maintenance window that the update works in, None before the first one.
        running: the image that ran when the update began.
        origin: the boot entry where the update began, and where a rollback leads.
        trial: the boot entry that is tried.
        pause_log: why an armed trial stands down.
        boot_id: the boot in which the pending reboot was decided.
        failure: why the update failed, or is being rolled back.
        rollbacks: how often a rollback came up in the trial entry again.
        boot_failures: trial boots of this target that fell back without proof of why.
        interruptions: trial boots of this target that a power cut ended.
        retries: failures of this target before the trial boot.
    """

    target: ImmutableTarget
    next_target: ImmutableTarget | None = None
    window: Window | None = None
    running: Image | None = None
    origin: BootEntry | None = None
    trial: BootEntry | None = None
    pause_log: str = ""
    boot_id: str = ""
    failure: Failure | None = None
    rollbacks: int = 0
    boot_failures: int = 0
    interruptions: int = 0
    retries: int = 0


_Result = tuple[ImmutableUpdate, Reports]


def _image(data: ImmutableUpdate) -> Image:
    image = data.target.image or data.running
    return image if image is not None else Image(profile_name="", image_id="", sha256="")


def _status(kind: UpdateStatusType, data: ImmutableUpdate, detail: StatusDetail | None = None) -> UpdateStatus:
    image = data.running if kind is not UpdateStatusType.UPDATED else _image(data)
    return UpdateStatus(
        status_type=kind,
        status_detail=detail.to_json() if detail is not None else "",
        profile_name=image.profile_name if image is not None else "",
        profile_version=image.profile_version if image is not None else "",
        os_image_id=image.image_id if image is not None else "",
    )


def _log_entry(data: ImmutableUpdate, at: datetime, status: EntryStatus, failure: Failure | None) -> UpdateLogEntry:
    image = _image(data)
    kernel_only = data.target.image is None or data.running == data.target.image
    return UpdateLogEntry(
        update_type=UpdateType.CONFIGURATION if kernel_only else UpdateType.OS,
        package_name=image.profile_name,
        update_time=at,
        status=status,
        version=image.image_id,
        previous_version=data.running.image_id if data.running is not None else "",
        failure_reason=failure.reason if failure is not None else FailureReason.NO_FAILURE,
        failure_log=failure.log if failure is not None else "",
    )


def _failed(data: ImmutableUpdate, status: EntryStatus = EntryStatus.FAILED) -> Reports:
    failure = data.failure
    assert failure is not None
    detail = StatusDetail(update_log=(_log_entry(data, failure.at, status, failure),))
    return (_status(UpdateStatusType.FAILED, data, detail),)


_STARTED: Final[Reports] = (UpdateStatus(status_type=UpdateStatusType.STARTED),)
_DOWNLOADING: Final[Reports] = (UpdateStatus(status_type=UpdateStatusType.DOWNLOADING),)
_DOWNLOADED: Final[Reports] = (UpdateStatus(status_type=UpdateStatusType.DOWNLOADED),)


def _open_window(data: ImmutableUpdate, event: WindowOpened) -> _Result:
    return evolve(data, window=event.window), _STARTED


def _fetch_failed(data: ImmutableUpdate, event: ev.FetchFailed) -> _Result:
    data = evolve(data, failure=event.failure, retries=data.retries + 1)
    message = f"download ahead of the window failed, to be tried again: {event.failure.log}"
    return data, (_status(UpdateStatusType.DOWNLOADING, data, StatusDetail(message=message)),)


def _equal(data: ImmutableUpdate, event: ev.ImagesEqual) -> _Result:
    data = evolve(data, running=event.running, failure=None)
    return data, (_status(UpdateStatusType.UP_TO_DATE, data),)


def _image_differs(data: ImmutableUpdate, event: ev.ImagesDiffer) -> _Result:
    origin = event.observation.active
    return evolve(data, running=event.running, origin=origin, trial=origin.opposite(), failure=None), ()


def _kernel_command_line_differs(data: ImmutableUpdate, event: ev.KernelCommandLineDiffers) -> _Result:
    origin = event.observation.active
    return evolve(data, running=event.running, origin=origin, trial=origin.beside(), failure=None), ()


def _unknown_trial(data: ImmutableUpdate, event: ev.TrialRunning) -> _Result:
    seen = event.observation
    log = f"boot entry {seen.active} runs, but {seen.default} is the default: an unknown trial is rolled back"
    failure = Failure(at=event.at, reason=FailureReason.BOOTLOADER_FAIL, log=log)
    data = evolve(
        data,
        running=event.running,
        origin=seen.default,
        trial=seen.active,
        failure=failure,
        boot_failures=data.boot_failures + 1,
    )
    return data, _failed(data)


def _fail(data: ImmutableUpdate, event: ev.DownloadFailed | ev.InstallationFailed | ev.CommitFailed) -> _Result:
    data = evolve(data, failure=event.failure, retries=data.retries + 1)
    return data, _failed(data)


def _unhealthy(data: ImmutableUpdate, event: ev.TrialUnhealthy) -> _Result:
    data = evolve(data, failure=event.failure)
    return data, _failed(data)


def _fail_for(reason: FailureReason, log: str) -> Callable[[ImmutableUpdate, Event], _Result]:
    def effect(data: ImmutableUpdate, event: Event) -> _Result:
        data = evolve(data, failure=Failure(at=event.at, reason=reason, log=log))
        return data, _failed(data)

    return effect


def _armed(data: ImmutableUpdate, event: ev.TrialArmed) -> _Result:
    return evolve(data, boot_id=event.boot_id), ()


def _trial_booted(data: ImmutableUpdate, event: ev.TrialBooted) -> _Result:
    return evolve(data, boot_id=event.boot_id, next_target=None), ()


def _trial_booted_again(data: ImmutableUpdate, event: ev.TrialBooted) -> _Result:
    return evolve(data, boot_id=event.boot_id, rollbacks=data.rollbacks + 1), ()


def _fell_back(data: ImmutableUpdate, event: ev.OriginBooted) -> _Result:
    interrupted = event.failure.reason is FailureReason.TRIAL_INTERRUPTED
    data = evolve(
        data,
        boot_id=event.boot_id,
        failure=event.failure,
        boot_failures=data.boot_failures + (not interrupted),
        interruptions=data.interruptions + interrupted,
    )
    return data, _failed(data, EntryStatus.ROLLED_BACK)


def _came_back(data: ImmutableUpdate, event: ev.OriginBooted) -> _Result:
    data = evolve(data, boot_id=event.boot_id, failure=event.failure)
    return data, _failed(data, EntryStatus.ROLLED_BACK)


def _going_back(data: ImmutableUpdate, event: ev.DefaultRestored) -> _Result:
    return evolve(data, boot_id=event.boot_id), ()


def _pause(data: ImmutableUpdate, event: WindowClosed) -> _Result:
    return data, paused(event.log)


def _stand_down(data: ImmutableUpdate, event: WindowClosed) -> _Result:
    return evolve(data, pause_log=event.log), ()


def _stood_down(data: ImmutableUpdate, event: ev.DefaultRestored) -> _Result:
    target = data.next_target or data.target
    log = data.pause_log or "the desired OS changed"
    return evolve(data, target=target, next_target=None, pause_log=""), paused(log)


def _committed(data: ImmutableUpdate, event: ev.TrialCommitted) -> _Result:
    detail = StatusDetail(update_log=(_log_entry(data, event.at, EntryStatus.INSTALLED, None),))
    done = evolve(data, running=_image(data), failure=None, retries=0, boot_failures=0, interruptions=0)
    return done, (_status(UpdateStatusType.UPDATED, data, detail), _status(UpdateStatusType.UP_TO_DATE, done))


def _retarget(data: ImmutableUpdate, event: ev.TargetChanged) -> _Result:
    return ImmutableUpdate(target=event.target, window=data.window, running=data.running), ()


def _retarget_in_window(data: ImmutableUpdate, event: ev.TargetChanged) -> _Result:
    return _retarget(data, event)[0], _STARTED


def _retarget_after_arming(data: ImmutableUpdate, event: ev.TargetChanged) -> _Result:
    return evolve(data, next_target=event.target), ()


def _nothing_wanted(data: ImmutableUpdate, event: TargetWithdrawn) -> _Result:
    # The target is forgotten, so that it counts as new should it be wanted again.
    data = ImmutableUpdate(target=ImmutableTarget(), running=data.running)
    return data, (_status(UpdateStatusType.UP_TO_DATE, data),)


_withdrawn = _fail_for(FailureReason.WITHDRAWN, "the orchestrator names no desired OS any more")
_timed_out = _fail_for(FailureReason.WINDOW_CLOSED, "the maintenance window closed before the update was done")

EFFECTS: Final[Effects[ImmutableUpdate]] = {
    (ANY_STATE, ev.PrefetchDue): _DOWNLOADING,
    (ANY_STATE, ev.ImageFetched): _DOWNLOADED,
    (ANY_STATE, ev.FetchFailed): _fetch_failed,
    (ANY_STATE, WindowOpened): _open_window,
    (ANY_STATE, ev.ImagesEqual): _equal,
    (ANY_STATE, ev.ImagesDiffer): _image_differs,
    (ANY_STATE, ev.KernelCommandLineDiffers): _kernel_command_line_differs,
    (ANY_STATE, ev.TrialRunning): _unknown_trial,
    (ANY_STATE, ev.ComparisonFailed): _fail,
    (ANY_STATE, ev.ClearingFailed): _fail,
    (ANY_STATE, ev.ImageDownloaded): _STARTED,
    (ANY_STATE, ev.DownloadFailed): _fail,
    (ANY_STATE, ev.ImageInstalled): _STARTED,
    (ANY_STATE, ev.InstallationFailed): _fail,
    (ANY_STATE, ev.TrialArmed): _armed,
    (ANY_STATE, ev.ArmingFailed): _fail,
    ("rebooting", ev.RebootFailed): _fail,
    (ANY_STATE, ev.TrialBooted): _trial_booted,
    ("disarming", ev.TrialBooted): _trial_booted_again,
    ("rolling_back", ev.TrialBooted): _trial_booted_again,
    ("settling", ev.TrialBooted): _trial_booted_again,
    (ANY_STATE, ev.OriginBooted): _fell_back,
    ("restoring_default", ev.OriginBooted): _came_back,
    ("rolling_back", ev.OriginBooted): _came_back,
    (ANY_STATE, ev.OtherEntryBooted): _STARTED,
    (ANY_STATE, ev.TrialUnhealthy): _unhealthy,
    (ANY_STATE, ev.TrialCommitted): _committed,
    (ANY_STATE, ev.CommitFailed): _fail,
    (ANY_STATE, ev.RollbackExhausted): _unhealthy,
    ("restoring_default", ev.DefaultRestored): _going_back,
    ("standing_down", ev.DefaultRestored): _stood_down,
    ("standing_down", ev.RestoreFailed): _fail,
    ("clearing", WindowClosed): _pause,
    ("downloading", WindowClosed): _pause,
    ("installing", WindowClosed): _pause,
    ("clearing_entry", WindowClosed): _pause,
    ("staging_entry", WindowClosed): _pause,
    ("arming", WindowClosed): _stand_down,
    ("rebooting", WindowClosed): _stand_down,
    (ANY_STATE, WindowTimedOut): _timed_out,
    (ANY_STATE, ev.TargetChanged): _retarget_in_window,
    ("scheduled", ev.TargetChanged): _retarget,
    ("prefetching", ev.TargetChanged): _retarget,
    ("fetched", ev.TargetChanged): _retarget,
    ("rebooting", ev.TargetChanged): _retarget_after_arming,
    (ANY_STATE, TargetWithdrawn): _withdrawn,
    ("scheduled", TargetWithdrawn): _nothing_wanted,
    ("prefetching", TargetWithdrawn): _nothing_wanted,
    ("fetched", TargetWithdrawn): _nothing_wanted,
}
