"""The apt flow: an OS that is patched in place, step by step, ended by a reboot and a verification.

Rules of this room:
- the chart below is the only place where order is decided;
- what was installed before is recorded first, and the update log is the difference to it afterwards, so that a crash
  or a second run of a step loses nothing;
- what is installed is what was planned and downloaded; a window that opens, or another target, drops the plan;
- an interrupted package database is repaired before anything else, in whatever state it is found;
- a reboot that nothing needs doesn't happen;
- what has been rebooted into is verified whatever the window says; where it fails and the node has snapshots, it goes
  back. Before the reboot nothing is rolled back: the node still runs what it ran, and the next window tries again.

The snapshot is taken after the agent was updated and before anything else is: the agent that comes up in it is the one
that wrote the journal, and never an older one that couldn't read it.

The arrows are those of the description's "Mutable OS Update Flow". What a transition does to the data and what it
reports is in `mutable_effects.py`; events and commands are in `mutable_events.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from statemachine import State, StateMachine

from edge_day2.domain import mutable_events as ev
from edge_day2.domain.flow import (
    Command,
    Event,
    Flow,
    FlowState,
    WindowClosed,
    WindowOpened,
    WindowTimedOut,
    loops,
)
from edge_day2.domain.mutable_effects import EFFECTS, MutableUpdate, whole_plan
from edge_day2.domain.mutable_events import Snapshot
from edge_day2.domain.observation import Observation, PackageDatabase
from edge_day2.domain.schedules import Window


class MutableChart(StateMachine):
    """States and transitions of an update of a mutable node."""

    scheduled = State(initial=True)
    recording = State()
    updating_sources = State()
    updating_agent = State()
    restarting = State()
    taking_snapshot = State()
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
    rolling_back = State()
    rebooting_back = State()
    recording_rollback = State()
    up_to_date = State(final=True)
    updated = State(final=True)
    failed = State(final=True)
    rolled_back = State(final=True)

    window_opened = recording.from_(scheduled, paused)

    packages_recorded = recording.to(updating_sources)
    sources_updated = updating_sources.to(updating_agent)
    agent_updated = updating_agent.to(restarting)
    agent_restarted = restarting.to(taking_snapshot)
    agent_current = updating_agent.to(taking_snapshot)
    snapshot_taken = taking_snapshot.to(updating_helper)
    snapshot_skipped = taking_snapshot.to(updating_helper)
    helper_updated = updating_helper.to(updating_kernel_command_line)
    kernel_command_line_updated = updating_kernel_command_line.to(downloading_packages)
    kernel_command_line_current = updating_kernel_command_line.to(downloading_packages)
    packages_downloaded = downloading_packages.to(installing_packages)
    packages_installed = installing_packages.to(downloading_upgrade)
    upgrade_downloaded = downloading_upgrade.to(installing_upgrade)
    upgrade_installed = installing_upgrade.to(comparing)
    changes_found = comparing.to(rebooting)
    nothing_changed = comparing.to(up_to_date)
    node_rebooted = rebooting.to(verifying) | rebooting_back.to(recording_rollback)
    update_verified = verifying.to(updated)
    verification_failed = verifying.to(failed)
    failure_recorded = recording_failure.to(failed)

    rollback_due = verifying.to(rolling_back)
    rollback_prepared = rolling_back.to(rebooting_back)
    rollback_recorded = recording_rollback.to(rolled_back)
    rollback_failed = rolling_back.from_(rolling_back, rebooting_back, recording_rollback)
    rollback_exhausted = rolling_back.to(failed)

    _before_reboot = (
        recording, updating_sources, updating_agent, taking_snapshot, updating_helper, updating_kernel_command_line,
        downloading_packages, installing_packages, downloading_upgrade, installing_upgrade, comparing, rebooting,
    )  # fmt: skip
    step_failed = recording_failure.from_(*_before_reboot, restarting, verifying)
    packages_interrupted = loops(*_before_reboot, verifying)
    packages_repaired = loops(*_before_reboot, verifying)
    window_closed = paused.from_(*_before_reboot)
    window_timed_out = recording_failure.from_(*_before_reboot)
    target_changed = loops(scheduled, paused) | recording.from_(*_before_reboot)


def _window(data: MutableUpdate) -> Window:
    assert data.window is not None
    return data.window


def _way_back(data: MutableUpdate) -> Snapshot:
    assert data.snapshot is not None
    return data.snapshot


def _label(data: MutableUpdate) -> str:
    assert data.opened is not None
    return f"edge_day2 {data.opened:%Y-%m-%dT%H:%M:%S.%fZ}"


def _compare(data: MutableUpdate) -> Command:
    wanted, changed = data.target.kernel_command_line, data.kernel_command_line_changed
    return ev.ComparePackages(data.before or (), wanted, changed, data.owed_boot_id)


def _step(command: Callable[[MutableUpdate], Command]) -> Callable[[MutableUpdate], Command | None]:
    return lambda data: ev.RepairPackages(data.repairs, data.window) if data.interrupted else command(data)


def _verify(data: MutableUpdate) -> Command:
    if data.interrupted:
        return ev.RepairPackages(data.repairs, None, data.snapshot)
    return ev.VerifyUpdate(data.target, whole_plan(data), data.update_log, data.snapshot)


_COMMANDS: Final[dict[str, Callable[[MutableUpdate], Command | None]]] = {
    "recording": _step(lambda data: ev.RecordPackages()),
    "updating_sources": _step(lambda data: ev.UpdateAptSources(data.target.update_sources, _window(data))),
    "updating_agent": _step(lambda data: ev.UpdateAgent(_window(data))),
    "restarting": lambda data: ev.RestartAgent(),
    "taking_snapshot": _step(lambda data: ev.TakeSnapshot(_label(data), data.stale_snapshot)),
    "updating_helper": _step(lambda data: ev.UpdateHelper(_window(data))),
    "updating_kernel_command_line": _step(lambda data: ev.SetKernelCommandLine(data.target.kernel_command_line)),
    "downloading_packages": _step(lambda data: ev.DownloadPackages(data.target.update_packages, _window(data))),
    "installing_packages": _step(
        lambda data: ev.InstallPackages(data.target.update_packages, data.plan, _window(data))
    ),
    "downloading_upgrade": _step(lambda data: ev.DownloadUpgrade(_window(data))),
    "installing_upgrade": _step(lambda data: ev.InstallUpgrade(data.upgrade_plan, _window(data))),
    "comparing": _step(_compare),
    "rebooting": _step(lambda data: ev.RebootNode()),
    "verifying": _verify,
    "recording_failure": lambda data: ev.RecordFailure(data.before or ()),
    "rolling_back": lambda data: ev.RollBack(_way_back(data), data.rollbacks + 1),
    "rebooting_back": lambda data: ev.RebootIntoSnapshot(),
    "recording_rollback": lambda data: ev.RecordRollback(data.before or (), _way_back(data)),
}

# Where a package database that was interrupted isn't repaired: the flow is past its steps, or its process is to end.
_UNREPAIRED: Final = frozenset(
    {"recording_failure", "restarting", "rolling_back", "rebooting_back", "recording_rollback"}
)
_REPAIRS: Final = frozenset(_COMMANDS) - _UNREPAIRED


def _observe(state: FlowState[MutableUpdate], seen: Observation) -> Event | None:
    if state.name in ("rebooting", "rebooting_back") and seen.boot_id != state.data.boot_id:
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
        ev.AgentCurrent, ev.SnapshotTaken, ev.SnapshotSkipped, ev.HelperUpdated, ev.KernelCommandLineUpdated,
        ev.KernelCommandLineCurrent, ev.PackagesDownloaded, ev.PackagesInstalled, ev.UpgradeDownloaded,
        ev.UpgradeInstalled, ev.StepFailed, ev.ChangesFound, ev.NothingChanged, ev.NodeRebooted, ev.UpdateVerified,
        ev.VerificationFailed, ev.FailureRecorded, ev.RollbackDue, ev.RollbackPrepared, ev.RollbackFailed,
        ev.RollbackExhausted, ev.RollbackRecorded,
    ),
    effects=EFFECTS,
    commands=_COMMANDS,
    observe=_observe,
)  # fmt: skip
