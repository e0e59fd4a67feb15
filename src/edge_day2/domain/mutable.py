"""The apt flow: an OS that is patched in place, step by step, ended by a reboot and a verification.

Rules of this room:
- the chart below is the only place where order is decided;
- what was installed before is recorded first, and the update log is the difference to it afterwards, so that a crash
  or a second run of a step loses nothing;
- an interrupted package database is repaired before anything else, in whatever state it is found;
- a reboot that nothing needs doesn't happen;
- what has been rebooted into is verified whatever the window says.

The arrows are those of the description's "Mutable OS Update Flow". Events and commands are in `mutable_events.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from attrs import evolve, frozen
from statemachine import State, StateMachine

from edge_day2.domain import mutable_events as ev
from edge_day2.domain.flow import (
    ANY_STATE,
    Command,
    Effects,
    Event,
    Failure,
    Flow,
    FlowState,
    Reports,
    WindowClosed,
    WindowOpened,
    WindowTimedOut,
    loops,
    paused,
)
from edge_day2.domain.messages import UpdateStatus
from edge_day2.domain.mutable_events import Packages, PackageTarget
from edge_day2.domain.observation import Observation, PackageDatabase
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


class MutableChart(StateMachine):
    """States and transitions of an update of a mutable node."""

    scheduled = State(initial=True)
    recording = State()
    updating_sources = State()
    updating_agent = State()
    restarting = State()
    updating_helper = State()
    updating_kernel_command_line = State()
    downloading_packages = State()
    installing_packages = State()
    downloading_upgrade = State()
    installing_upgrade = State()
    comparing = State()
    rebooting = State()
    verifying = State()
    paused = State()
    recording_failure = State()
    up_to_date = State(final=True)
    updated = State(final=True)
    failed = State(final=True)

    window_opened = recording.from_(scheduled, paused)

    packages_recorded = recording.to(updating_sources)
    sources_updated = updating_sources.to(updating_agent)
    agent_updated = updating_agent.to(restarting)
    agent_restarted = restarting.to(updating_helper)
    agent_current = updating_agent.to(updating_helper)
    helper_updated = updating_helper.to(updating_kernel_command_line)
    kernel_command_line_updated = updating_kernel_command_line.to(downloading_packages)
    kernel_command_line_current = updating_kernel_command_line.to(downloading_packages)
    packages_downloaded = downloading_packages.to(installing_packages)
    packages_installed = installing_packages.to(downloading_upgrade)
    upgrade_downloaded = downloading_upgrade.to(installing_upgrade)
    upgrade_installed = installing_upgrade.to(comparing)
    changes_found = comparing.to(rebooting)
    nothing_changed = comparing.to(up_to_date)
    node_rebooted = rebooting.to(verifying)
    update_verified = verifying.to(updated)
    verification_failed = verifying.to(failed)
    failure_recorded = recording_failure.to(failed)

    _before_reboot = (
        recording, updating_sources, updating_agent, updating_helper, updating_kernel_command_line,
        downloading_packages, installing_packages, downloading_upgrade, installing_upgrade, comparing, rebooting,
    )  # fmt: skip
    step_failed = recording_failure.from_(*_before_reboot, restarting, verifying)
    packages_interrupted = loops(*_before_reboot, verifying)
    packages_repaired = loops(*_before_reboot, verifying)
    window_closed = paused.from_(*_before_reboot)
    window_timed_out = recording_failure.from_(*_before_reboot)
    target_changed = loops(scheduled, paused) | recording.from_(*_before_reboot)


@frozen(kw_only=True)
class MutableUpdate:
    """Everything that an apt update needs to go on.

    Attributes:
        target: what the update applies.
        window: the maintenance window that the update works in, None before the first one.
        begun: when the first window opened.
        before: what was installed when the update began, None until recorded.
        interrupted: the package database has to be repaired before the state's own command.
        kernel_command_line_changed: the next boot has another kernel command line.
        update_log: what changed, known when the flow compares.
        boot_id: the boot in which the pending reboot was decided.
        failure: why the update failed.
        repairs: how often the package database was found interrupted in this update.
        retries: failures of this target in a row.
    """

    target: PackageTarget
    window: Window | None = None
    begun: datetime | None = None
    before: Packages | None = None
    interrupted: bool = False
    kernel_command_line_changed: bool = False
    update_log: tuple[UpdateLogEntry, ...] = ()
    boot_id: str = ""
    failure: Failure | None = None
    repairs: int = 0
    retries: int = 0


_Result = tuple[MutableUpdate, Reports]

_STARTED: Final[Reports] = (UpdateStatus(status_type=UpdateStatusType.STARTED),)
_UP_TO_DATE: Final[Reports] = (UpdateStatus(status_type=UpdateStatusType.UP_TO_DATE),)


def _pause(data: MutableUpdate, event: WindowClosed) -> _Result:
    return data, paused(event.log)


def _open_window(data: MutableUpdate, event: WindowOpened) -> _Result:
    return evolve(data, window=event.window, begun=data.begun or event.at), _STARTED


def _interrupted(data: MutableUpdate, event: ev.PackagesInterrupted) -> _Result:
    return evolve(data, interrupted=True, repairs=data.repairs + 1), ()


def _repaired(data: MutableUpdate, event: ev.PackagesRepaired) -> _Result:
    return evolve(data, interrupted=False), ()


def _recorded(data: MutableUpdate, event: ev.PackagesRecorded) -> _Result:
    return (data if data.before is not None else evolve(data, before=event.installed)), ()


def _kernel_command_line_updated(data: MutableUpdate, event: ev.KernelCommandLineUpdated) -> _Result:
    return evolve(data, kernel_command_line_changed=True), ()


def _changes_found(data: MutableUpdate, event: ev.ChangesFound) -> _Result:
    return evolve(data, update_log=event.update_log, boot_id=event.boot_id), ()


def _fail(data: MutableUpdate, event: ev.StepFailed) -> _Result:
    return evolve(data, failure=event.failure, interrupted=False, retries=data.retries + 1), ()


def _timed_out(data: MutableUpdate, event: WindowTimedOut) -> _Result:
    log = "partial success: the maintenance window closed before the update was done"
    failure = Failure(at=event.at, reason=FailureReason.WINDOW_CLOSED, log=log)
    return evolve(data, failure=failure, interrupted=False), ()


def _report_failure(data: MutableUpdate) -> _Result:
    failure = data.failure
    assert failure is not None
    entry = UpdateLogEntry(
        package_name="",
        update_time=failure.at,
        update_type=UpdateType.OS,
        status=EntryStatus.FAILED,
        failure_reason=failure.reason,
        failure_log=failure.log,
    )
    detail = StatusDetail(update_log=(*data.update_log, entry))
    return data, (UpdateStatus(status_type=UpdateStatusType.FAILED, status_detail=detail.to_json()),)


def _failure_recorded(data: MutableUpdate, event: ev.FailureRecorded) -> _Result:
    return _report_failure(evolve(data, update_log=event.update_log))


def _verification_failed(data: MutableUpdate, event: ev.VerificationFailed) -> _Result:
    return _report_failure(evolve(data, failure=event.failure, retries=data.retries + 1))


def _verified(data: MutableUpdate, event: ev.UpdateVerified) -> _Result:
    detail = StatusDetail(update_log=data.update_log).to_json()
    updated = UpdateStatus(status_type=UpdateStatusType.UPDATED, status_detail=detail)
    return evolve(data, failure=None, retries=0), (updated, *_UP_TO_DATE)


def _unchanged(data: MutableUpdate, event: ev.NothingChanged) -> _Result:
    return evolve(data, failure=None, retries=0), _UP_TO_DATE


def _retarget(data: MutableUpdate, event: ev.TargetChanged) -> _Result:
    # What was recorded before the update and what it changed so far stay true whatever the target is.
    return evolve(data, target=event.target, retries=0, failure=None), ()


def _retarget_in_window(data: MutableUpdate, event: ev.TargetChanged) -> _Result:
    return _retarget(data, event)[0], _STARTED


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


_EFFECTS: Final[Effects[MutableUpdate]] = {
    (ANY_STATE, WindowOpened): _open_window,
    (ANY_STATE, ev.PackagesInterrupted): _interrupted,
    (ANY_STATE, ev.PackagesRepaired): _repaired,
    (ANY_STATE, ev.PackagesRecorded): _recorded,
    (ANY_STATE, ev.KernelCommandLineUpdated): _kernel_command_line_updated,
    (ANY_STATE, ev.ChangesFound): _changes_found,
    (ANY_STATE, ev.NothingChanged): _unchanged,
    (ANY_STATE, ev.StepFailed): _fail,
    (ANY_STATE, ev.FailureRecorded): _failure_recorded,
    (ANY_STATE, ev.VerificationFailed): _verification_failed,
    (ANY_STATE, ev.UpdateVerified): _verified,
    (ANY_STATE, WindowClosed): _pause,
    (ANY_STATE, WindowTimedOut): _timed_out,
    (ANY_STATE, ev.TargetChanged): _retarget_in_window,
    ("scheduled", ev.TargetChanged): _retarget,
    ("paused", ev.TargetChanged): _retarget,
}


def _compare(data: MutableUpdate) -> Command:
    changed = data.kernel_command_line_changed
    return ev.ComparePackages(data.before or (), data.target.kernel_command_line, changed)


def _step(command: Callable[[MutableUpdate], Command]) -> Callable[[MutableUpdate], Command | None]:
    return lambda data: ev.RepairPackages(data.repairs) if data.interrupted else command(data)


_COMMANDS: Final = {
    "recording": _step(lambda data: ev.RecordPackages()),
    "updating_sources": _step(lambda data: ev.UpdateAptSources(data.target.update_sources)),
    "updating_agent": _step(lambda data: ev.UpdateAgent()),
    "restarting": lambda data: ev.RestartAgent(),
    "updating_helper": _step(lambda data: ev.UpdateHelper()),
    "updating_kernel_command_line": _step(lambda data: ev.SetKernelCommandLine(data.target.kernel_command_line)),
    "downloading_packages": _step(lambda data: ev.DownloadPackages(data.target.update_packages)),
    "installing_packages": _step(lambda data: ev.InstallPackages(data.target.update_packages)),
    "downloading_upgrade": _step(lambda data: ev.DownloadUpgrade()),
    "installing_upgrade": _step(lambda data: ev.InstallUpgrade()),
    "comparing": _step(lambda data: _compare(data)),
    "rebooting": _step(lambda data: ev.RebootNode()),
    "verifying": _step(lambda data: ev.VerifyUpdate(data.target, data.update_log)),
    "recording_failure": lambda data: ev.RecordFailure(data.before or ()),
}

# Where a package database that was interrupted is repaired; elsewhere the flow waits, has ended, or has failed.
_REPAIRS: Final = frozenset(_COMMANDS) - {"recording_failure", "restarting"}


def _observe(state: FlowState[MutableUpdate], seen: Observation) -> Event | None:
    if state.name == "rebooting" and seen.boot_id != state.data.boot_id:
        return ev.NodeRebooted(seen.at)
    if state.name == "restarting":
        return ev.AgentRestarted(seen.at)
    interrupted = seen.packages is PackageDatabase.INTERRUPTED
    if interrupted and state.name in _REPAIRS and not state.data.interrupted:
        return ev.PackagesInterrupted(seen.at)
    return None


MUTABLE_FLOW: Final = Flow[MutableUpdate](
    name="mutable",
    chart=MutableChart,
    events=(
        WindowOpened, WindowClosed, WindowTimedOut, ev.TargetChanged, ev.AgentRestarted,
        ev.PackagesInterrupted, ev.PackagesRepaired, ev.PackagesRecorded, ev.SourcesUpdated, ev.AgentUpdated,
        ev.AgentCurrent, ev.HelperUpdated, ev.KernelCommandLineUpdated, ev.KernelCommandLineCurrent,
        ev.PackagesDownloaded, ev.PackagesInstalled, ev.UpgradeDownloaded, ev.UpgradeInstalled, ev.StepFailed,
        ev.ChangesFound, ev.NothingChanged, ev.NodeRebooted, ev.UpdateVerified, ev.VerificationFailed,
        ev.FailureRecorded,
    ),
    effects=_EFFECTS,
    commands=_COMMANDS,
    observe=_observe,
)  # fmt: skip
