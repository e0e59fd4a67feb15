"""What the agent on a node decides between the steps of a flow: start, pause, retarget, retry, or leave it alone.

Pure: everything is a function of the agent's record (its journal), the time and the policy. Carrying out is in
`application/platform_update_agent.py`.
"""

from __future__ import annotations

import functools
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from attrs import evolve, frozen

from edge_day2.domain import immutable_events, mutable_events
from edge_day2.domain.agent_policy import AgentPolicy, WindowClose
from edge_day2.domain.flow import (
    WINDOW_CLOSED,
    Command,
    Event,
    Failure,
    Flow,
    FlowState,
    TargetWithdrawn,
    WindowClosed,
    WindowOpened,
    WindowTimedOut,
)
from edge_day2.domain.immutable import IMMUTABLE_FLOW
from edge_day2.domain.immutable_effects import ImmutableUpdate
from edge_day2.domain.immutable_events import ImmutableTarget
from edge_day2.domain.joint_schedule import JointSchedule
from edge_day2.domain.messages import PlatformUpdateStatusResponse, UpdateSchedule, UpdateStatus
from edge_day2.domain.mutable import MUTABLE_FLOW
from edge_day2.domain.mutable_effects import MutableUpdate, newest_snapshot
from edge_day2.domain.mutable_events import PackageTarget
from edge_day2.domain.node_windows import (
    ClockJudgement,
    ClockMemory,
    ClockState,
    download_start,
    judge_clock,
    window_fit,
)
from edge_day2.domain.observation import Observation
from edge_day2.domain.resources import (
    OSType,
)
from edge_day2.domain.schedules import Window
from edge_day2.domain.statuses import EntryStatus, FailureReason, StatusDetail, UpdateLogEntry, UpdateStatusType
from edge_day2.domain.targets import Target, target_of

Update: TypeAlias = FlowState[ImmutableUpdate] | FlowState[MutableUpdate]

# Beyond any limit that makes sense, and far from what a timedelta can't hold.
_MOST_DOUBLINGS: Final = 20


@frozen(kw_only=True)
class AgentRecord:
    """The agent's memory: what the journal holds.

    Attributes:
        flow: the update in progress, or the last one that ended.
        outbox: reports that the MM hasn't answered yet, oldest first.
        last_report: what the MM heard last; repeated as a sign of life.
        answer: the last answer that could be used.
        refused: why the newest answer can't be used, "" where it can.
        clock: the latest instant at which the clock was believed when the record was stored, and the windows begun.
    """

    flow: Update | None = None
    outbox: tuple[UpdateStatus, ...] = ()
    last_report: UpdateStatus | None = None
    answer: PlatformUpdateStatusResponse | None = None
    refused: str = ""
    clock: ClockMemory = ClockMemory()


@frozen(kw_only=True)
class Situation:
    """What the agent goes by when it decides something.

    Attributes:
        now: the clock's reading.
        host_guid: the node's UUID.
        target: what the orchestrator wants, None where it wants nothing.
        schedule: what opens windows.
        clock: whether the clock is believed, and the window that is open.
    """

    now: datetime
    host_guid: str
    target: Target | None
    schedule: JointSchedule
    clock: ClockJudgement

    @property
    def window(self) -> Window | None:
        """The window in which the node may be disturbed now; None as well where the clock isn't believed."""
        return self.clock.window


def flow_of(state: Update) -> Flow[Any]:
    """Return the flow that `state` belongs to. (Any: the type checker can't pair the two unions.)"""
    return IMMUTABLE_FLOW if state.flow == IMMUTABLE_FLOW.name else MUTABLE_FLOW


def in_progress(record: AgentRecord) -> bool:
    """Return whether an update has begun and not ended."""
    return record.flow is not None and not flow_of(record.flow).is_final(record.flow)


@functools.lru_cache(maxsize=256)
def joint_schedule(schedule: UpdateSchedule) -> JointSchedule:
    """Return what the single and the repeated schedules open together."""
    single = (schedule.single_schedule,) if schedule.single_schedule is not None else ()
    return JointSchedule((*single, *schedule.repeated_schedules))


def look(
    record: AgentRecord, now: datetime, steady: timedelta, *, host_guid: str, os_type: OSType, policy: AgentPolicy
) -> Situation:
    """Return the situation at `now`; `steady` is for how long the clock has run without being put back."""
    answer = record.answer
    schedule = joint_schedule(answer.update_schedule if answer is not None else UpdateSchedule())
    return Situation(
        now=now,
        host_guid=host_guid,
        target=target_of(answer, os_type, policy) if answer is not None else None,
        schedule=schedule,
        clock=judge_clock(record.clock, now, steady, schedule, policy.clock),
    )


def too_short(record: AgentRecord, seen: Situation, policy: AgentPolicy) -> str:
    """Return why an update that could begin or go on in the open window doesn't, "" where the window is long enough."""
    state, window = record.flow, seen.window
    if window is None or window.end is None or _fits(seen, policy.time_needed):
        return ""
    if state is not None and in_progress(record):
        waits = WindowOpened.name in flow_of(state).accepts(state)
    else:
        patient = evolve(policy, time_to_update=timedelta(0), time_to_reboot=timedelta(0))
        waits = next_update(evolve(record, outbox=()), seen, patient) is not None
    if not waits:
        return ""
    return f"not started: the update needs {policy.time_needed}, the window closes at {window.end:%H:%M} UTC"


def _fits(seen: Situation, needed: timedelta) -> bool:
    return seen.window is not None and window_fit(seen.window, seen.now, needed).fits


def next_update(record: AgentRecord, seen: Situation, policy: AgentPolicy) -> Update | None:
    """Return the initial state of the update that should begin now, None where none should.

    None as long as the MM hasn't heard how the last one ended.
    """
    target = seen.target
    if target is None or record.outbox or in_progress(record) or record.refused:
        return None
    if isinstance(target, PackageTarget):
        return _next_mutable(record, target, seen, policy)
    previous = record.flow.data if record.flow is not None and isinstance(record.flow.data, ImmutableUpdate) else None
    begun = ImmutableUpdate(target=target)
    if previous is not None and record.flow is not None and previous.target == target:
        if record.flow.name in ("updated", "up_to_date") or held(record, seen.now, policy):
            return None
        begun = evolve(
            begun,
            failure=previous.failure,
            boot_failures=previous.boot_failures,
            interruptions=previous.interruptions,
            retries=previous.retries,
        )
    if _fits(seen, policy.time_needed) or (target.image is not None and _prefetch_due(seen, policy)):
        return IMMUTABLE_FLOW.start(begun)
    return None


def _next_mutable(record: AgentRecord, target: PackageTarget, seen: Situation, policy: AgentPolicy) -> Update | None:
    if not _fits(seen, policy.time_needed):
        return None
    previous = record.flow.data if record.flow is not None and isinstance(record.flow.data, MutableUpdate) else None
    if previous is None:
        return MUTABLE_FLOW.start(MutableUpdate(target=target))
    begun = MutableUpdate(
        target=target,
        before=previous.before if previous.untold else None,
        stale_snapshot=newest_snapshot(previous),
        owed_boot_id=previous.owed_boot_id,
    )
    if previous.target != target:
        return MUTABLE_FLOW.start(begun)
    if held(record, seen.now, policy):
        return None
    # Once per window; one that never closes counts as a new one every day.
    a_day_later = previous.begun is not None and not _within(policy.daily, previous.begun, seen.now)
    again = seen.clock.begins or a_day_later
    return MUTABLE_FLOW.start(evolve(begun, retries=previous.retries)) if again else None


def _prefetch_due(seen: Situation, policy: AgentPolicy) -> bool:
    if seen.clock.state is not ClockState.BELIEVED:
        return False
    ahead = seen.schedule.next_window(seen.now)
    return ahead is not None and seen.now >= download_start(ahead, seen.host_guid, policy.salt, spread=policy.prefetch)


def held(record: AgentRecord, now: datetime, policy: AgentPolicy) -> str:
    """Return why the failed update of an image isn't tried again now, "" where it may be.

    An image that was proven bad is held until the desired OS changes or the failure is forgotten. Of packages nothing
    is proven for good, the repositories change: what was rolled back again and again only waits longer.
    """
    if record.flow is None:
        return ""
    if isinstance(record.flow.data, MutableUpdate):
        return _held_packages(record.flow.name, record.flow.data, now, policy)
    data, failure = record.flow.data, record.flow.data.failure
    if failure is None or failure.reason in (FailureReason.WITHDRAWN, FailureReason.WINDOW_CLOSED):
        return ""
    name = data.target.image.image_id if data.target.image is not None else "the kernel command line"
    until = "not tried again until the desired OS changes or the failure is forgotten"
    if failure.conclusive or data.boot_failures >= policy.trial_boots:
        return f"{name} was rolled back ({failure.log}): {until}"
    if data.interruptions >= policy.interruptions:
        return f"{data.interruptions} trial boots of {name} were interrupted: {until}"
    if data.retries >= policy.retries:
        return f"{name} failed {data.retries} times ({failure.log}): {until}"
    tries = data.retries + data.boot_failures + data.interruptions
    doublings = min(max(tries - 1, 0), _MOST_DOUBLINGS)
    distance = min(policy.retry_after * 2**doublings, policy.retry_at_most)
    if _within(distance, failure.at, now):
        return f"{name} failed ({failure.log}): tried again after {failure.at + distance:%Y-%m-%d %H:%M} UTC"
    return ""


def _held_packages(state: str, data: MutableUpdate, now: datetime, policy: AgentPolicy) -> str:
    failure = data.failure
    if state != "rolled_back" or failure is None or data.retries < policy.trial_boots:
        return ""
    until = failure.at + policy.rollback_pause
    log = f"the update failed {data.retries} times and was rolled back ({failure.log})"
    waits = _within(policy.rollback_pause, failure.at, now)
    return f"{log}: tried again after {until:%Y-%m-%d %H:%M} UTC" if waits else ""


def _within(length: timedelta, at: datetime, now: datetime) -> bool:
    # What lies further ahead happened under a clock that was wrong then: waiting for it could take years.
    return abs(now - at) < length


def forgotten(record: AgentRecord) -> AgentRecord:
    """Return the record without the failure of its last update, whose target counts as new from now on."""
    state = record.flow
    if state is not None and isinstance(state.data, MutableUpdate):
        # The snapshot that is there, and a reboot that is owed, aren't forgotten with it.
        data = evolve(state.data, target=PackageTarget(), failure=None, retries=0)
        return evolve(record, flow=FlowState(state.flow, state.name, data))
    return evolve(record, flow=None)


def next_event(state: Update, record: AgentRecord, seen: Situation, policy: AgentPolicy) -> Event | None:
    """Return what the outside does to the update in `state` before its command, None where the command may go on."""
    flow = flow_of(state)
    accepted = flow.accepts(state)
    # Without an answer that can be used nothing is known to have changed.
    known = record.answer is not None and not record.refused
    changed = _changed_target(state, seen.target, seen.now) if known else None
    if changed is not None and changed.name in accepted:
        return changed
    if WindowOpened.name in accepted and seen.window is not None and _fits(seen, policy.time_needed):
        return WindowOpened(seen.now, seen.window)
    command = flow.command(state)
    if command is not None:
        closing = _closing(command, seen, policy)
        # A state that doesn't accept it has gone too far to stop: it verifies, commits or rolls back.
        return closing if closing is not None and closing.name in accepted else None
    if immutable_events.PrefetchDue.name in accepted and isinstance(state.data, ImmutableUpdate):
        waits = state.data.failure is not None and held(evolve(record, flow=state), seen.now, policy)
        if state.data.target.image is not None and not waits and _prefetch_due(seen, policy):
            return immutable_events.PrefetchDue(seen.now)
    return None


def _closing(command: Command, seen: Situation, policy: AgentPolicy) -> Event | None:
    if not command.disruptive:
        return None
    log = WINDOW_CLOSED
    if seen.window is not None:
        reboots = isinstance(command, immutable_events.RebootIntoTrial | mutable_events.RebootNode)
        if not reboots or _fits(seen, policy.time_to_reboot):
            return None
        log = f"what is left of the maintenance window isn't enough for the reboot, which needs {policy.time_to_reboot}"
    return WindowTimedOut(seen.now, log) if policy.window_close is WindowClose.FAIL else WindowClosed(seen.now, log)


def _changed_target(state: Update, target: Target | None, now: datetime) -> Event | None:
    if target is None:
        return TargetWithdrawn(now)
    if isinstance(state.data, ImmutableUpdate):
        wanted = state.data.next_target or state.data.target
        changed = isinstance(target, ImmutableTarget) and target != wanted
        return immutable_events.TargetChanged(now, target) if changed else None  # type: ignore[arg-type]  # narrowed above
    changed = isinstance(target, PackageTarget) and target != state.data.target
    return mutable_events.TargetChanged(now, target) if changed else None  # type: ignore[arg-type]  # narrowed above


def recovered_update(os_type: OSType, seen: Observation, log: str) -> Update | None:
    """Return the update to finish where the journal is lost and the node stands in the middle of one.

    A trial of which nothing is known can't be verified: it is rolled back. An armed one-shot is disarmed.
    """
    if os_type is not OSType.IMMUTABLE or (seen.active == seen.default and seen.one_shot is None):
        return None
    on_trial = seen.active != seen.default
    data = ImmutableUpdate(
        target=ImmutableTarget(),
        origin=seen.default,
        trial=seen.active if on_trial else seen.one_shot,
        failure=Failure(at=seen.at, reason=FailureReason.UNSPECIFIED, log=log),
    )
    return FlowState(IMMUTABLE_FLOW.name, "restoring_default" if on_trial else "disarming", data)


def refusal_reports(record: AgentRecord, log: str, now: datetime) -> tuple[UpdateStatus, ...]:
    """Return the reports that tell the MM of something that the agent refuses or has lost.

    While an update is in progress its present status is repeated with the sentence; else the refused update has
    begun and failed, so that it is seen where failures are looked for.
    """
    if in_progress(record) and record.last_report is not None:
        kind = record.outbox[-1].status_type if record.outbox else record.last_report.status_type
        return (UpdateStatus(status_type=kind, status_detail=StatusDetail(message=log).to_json()),)
    entry = UpdateLogEntry(
        package_name="",
        update_time=now,
        status=EntryStatus.FAILED,
        failure_reason=FailureReason.UNSPECIFIED,
        failure_log=log,
    )
    detail = StatusDetail(update_log=(entry,)).to_json()
    return (
        UpdateStatus(status_type=UpdateStatusType.STARTED),
        UpdateStatus(status_type=UpdateStatusType.FAILED, status_detail=detail),
    )
