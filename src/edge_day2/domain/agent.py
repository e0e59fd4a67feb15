"""What the agent on a node decides between the steps of a flow: start, pause, retarget, retry, or leave it alone.

Pure: everything is a function of the agent's record (its journal), the time and the policy. Carrying out is in
`application/platform_update_agent.py`.
"""

from __future__ import annotations

import enum
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from attrs import evolve, frozen

from edge_day2.domain import immutable_events, mutable_events
from edge_day2.domain.flow import (
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
from edge_day2.domain.immutable_events import Image, ImmutableTarget
from edge_day2.domain.messages import PlatformUpdateStatusResponse, UpdateSchedule, UpdateStatus
from edge_day2.domain.mutable import MUTABLE_FLOW, MutableUpdate
from edge_day2.domain.mutable_events import PackageTarget
from edge_day2.domain.observation import Observation
from edge_day2.domain.resources import KERNEL_COMMAND_LINE, SHA256, OSType, check_kernel_command_line
from edge_day2.domain.schedules import Window
from edge_day2.domain.statuses import EntryStatus, FailureReason, StatusDetail, UpdateLogEntry, UpdateStatusType
from edge_day2.domain.versions import ImageVersion
from edge_day2.errors import EdgeDay2Error, InvalidMessage, InvalidResource

# Debian policy 5.6.7, as the original's helper checks it.
PACKAGE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.+-]*")

Target: TypeAlias = ImmutableTarget | PackageTarget
Update: TypeAlias = FlowState[ImmutableUpdate] | FlowState[MutableUpdate]


class WindowClose(enum.Enum):
    """What happens to an update whose window closes between two steps."""

    PAUSE = "pause, and go on in the next window"
    FAIL = "fail, as the original does"


@frozen(kw_only=True)
class AgentPolicy:
    """Limits and choices of an agent.

    Attributes:
        window_close: what a closing window does to a running update.
        kernel_command_line: the characters that a kernel command line may have.
        trial_boots: how many trial boots may fall back without proof of why before the image counts as bad. The first
            may have been a power cut, which the node can't tell from an image that doesn't boot.
        interruptions: how many trial boots of one image may be ended by power cuts.
        retries: how many failures before the trial boot are tried again.
        retry_after: distance to the first retry; it doubles with each, up to `retry_at_most`.
        prefetch: how long before the window an image is downloaded ahead (the original: 6 h).
        daily: in a window that never closes, how often a mutable node looks for upgrades.
        earliest: the clock is wrong before this instant.
        clock_settles: how long a clock that stands behind the journal must run on before it is believed.
    """

    window_close: WindowClose = WindowClose.PAUSE
    kernel_command_line: re.Pattern[str] = KERNEL_COMMAND_LINE
    trial_boots: int = 2
    interruptions: int = 3
    retries: int = 10
    retry_after: timedelta = timedelta(minutes=10)
    retry_at_most: timedelta = timedelta(days=1)
    prefetch: timedelta = timedelta(hours=6)
    daily: timedelta = timedelta(days=1)
    earliest: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    clock_settles: timedelta = timedelta(hours=1)


@frozen(kw_only=True)
class AgentRecord:
    """The agent's memory: what the journal holds.

    Attributes:
        flow: the update in progress, or the last one that ended.
        outbox: reports that the MM hasn't answered yet, oldest first.
        last_report: what the MM heard last; repeated as a sign of life.
        answer: the last answer that could be used.
        refused: why the newest answer can't be used, "" where it can.
        last_time: the latest instant at which the record was stored.
    """

    flow: Update | None = None
    outbox: tuple[UpdateStatus, ...] = ()
    last_report: UpdateStatus | None = None
    answer: PlatformUpdateStatusResponse | None = None
    refused: str = ""
    last_time: datetime = datetime(1970, 1, 1, tzinfo=UTC)


def flow_of(state: Update) -> Flow[Any]:
    """Return the flow that `state` belongs to. (Any: the type checker can't pair the two unions.)"""
    return IMMUTABLE_FLOW if state.flow == IMMUTABLE_FLOW.name else MUTABLE_FLOW


def in_progress(record: AgentRecord) -> bool:
    """Return whether an update has begun and not ended."""
    return record.flow is not None and not flow_of(record.flow).is_final(record.flow)


def target_of(answer: PlatformUpdateStatusResponse, os_type: OSType, policy: AgentPolicy) -> Target | None:
    """Return what `answer` wants a node of this type to run, None where it wants nothing.

    Raises:
        InvalidMessage: the answer is for another OS type, or holds something that must never reach the node's tools.
    """
    if answer.os_type is not os_type:
        raise InvalidMessage("os_type", answer.os_type.name, f"{os_type.name}, the type of this node's OS")
    kernel_command_line = answer.update_source.kernel_command
    try:
        check_kernel_command_line(kernel_command_line, "kernel_command", policy.kernel_command_line)
    except InvalidResource as error:
        raise InvalidMessage(error.field, error.value, error.expected) from error
    if os_type is OSType.MUTABLE:
        packages = tuple(line.strip() for line in answer.installed_packages.splitlines() if line.strip())
        for package in packages:
            if PACKAGE_NAME.fullmatch(package) is None:
                raise InvalidMessage("installed_packages", package, f"names that match {PACKAGE_NAME.pattern}")
        return PackageTarget(
            update_sources=answer.update_source.custom_repos,
            update_packages=packages,
            kernel_command_line=kernel_command_line,
        )
    image = _image_of(answer)
    if image is None and not kernel_command_line:
        return None
    return ImmutableTarget(image=image, kernel_command_line=kernel_command_line)


def _image_of(answer: PlatformUpdateStatusResponse) -> Image | None:
    source = answer.os_profile_update_source
    if source is None or not (source.os_image_id or source.os_image_url or source.os_image_sha):
        return None
    if SHA256.fullmatch(source.os_image_sha) is None:
        raise InvalidMessage("os_image_sha", source.os_image_sha, "64 lower-case hex digits")
    if not source.os_image_url:
        raise InvalidMessage("os_image_url", source.os_image_url, "the address of the image")
    try:
        ImageVersion.parse(source.os_image_id)
    except EdgeDay2Error as error:
        raise InvalidMessage("os_image_id", source.os_image_id, "an image version") from error
    return Image(
        profile_name=source.profile_name,
        profile_version=source.profile_version,
        image_id=source.os_image_id,
        sha256=source.os_image_sha,
        url=source.os_image_url,
    )


def open_window(schedule: UpdateSchedule, now: datetime) -> Window | None:
    """Return the window that is open now, None where there is none; of several the one that closes last."""
    single = (schedule.single_schedule,) if schedule.single_schedule is not None else ()
    found = [window for entry in (*single, *schedule.repeated_schedules) if (window := entry.window_at(now))]
    return max(found, key=lambda window: (window.end is None, window.end), default=None)


def next_window(schedule: UpdateSchedule, now: datetime) -> Window | None:
    """Return the first window that starts now or later, None where there is none."""
    single = (schedule.single_schedule,) if schedule.single_schedule is not None else ()
    found = [window for entry in (*single, *schedule.repeated_schedules) if (window := entry.next_window(now))]
    return min(found, key=lambda window: window.start, default=None)


def usable_window(record: AgentRecord, now: datetime) -> Window | None:
    """Return the window in which the node may be disturbed now.

    None as well where the clock stands behind the journal: at boot it can be wrong until NTP has run.
    """
    if record.answer is None or now < record.last_time:
        return None
    return open_window(record.answer.update_schedule, now)


def next_update(record: AgentRecord, target: Target | None, now: datetime, policy: AgentPolicy) -> Update | None:
    """Return the initial state of the update that should begin now, None where none should.

    None as long as the MM hasn't heard how the last one ended.
    """
    if target is None or record.outbox or in_progress(record) or record.refused or record.answer is None:
        return None
    window = usable_window(record, now)
    if isinstance(target, PackageTarget):
        return _next_mutable(record, target, window, now, policy)
    previous = record.flow.data if record.flow is not None and isinstance(record.flow.data, ImmutableUpdate) else None
    begun = ImmutableUpdate(target=target)
    if previous is not None and record.flow is not None and previous.target == target:
        if record.flow.name in ("updated", "up_to_date") or held(record, now, policy):
            return None
        begun = evolve(
            begun,
            failure=previous.failure,
            boot_failures=previous.boot_failures,
            interruptions=previous.interruptions,
            retries=previous.retries,
        )
    if window is None and not (target.image is not None and _prefetch_due(record, now, policy)):
        return None
    return IMMUTABLE_FLOW.start(begun)


def _next_mutable(
    record: AgentRecord, target: PackageTarget, window: Window | None, now: datetime, policy: AgentPolicy
) -> Update | None:
    if window is None:
        return None
    previous = record.flow.data if record.flow is not None and isinstance(record.flow.data, MutableUpdate) else None
    if previous is None or previous.window is None or previous.target != target:
        return MUTABLE_FLOW.start(MutableUpdate(target=target))
    # Once per window; a window that never closes counts as a new one every day.
    same_window = previous.window.start == window.start and now - record.last_time < policy.daily
    return None if same_window else MUTABLE_FLOW.start(MutableUpdate(target=target, retries=previous.retries))


def _prefetch_due(record: AgentRecord, now: datetime, policy: AgentPolicy) -> bool:
    if record.answer is None or now < record.last_time:
        return False
    ahead = next_window(record.answer.update_schedule, now)
    return ahead is not None and ahead.start - now <= policy.prefetch


def held(record: AgentRecord, now: datetime, policy: AgentPolicy) -> str:
    """Return why the failed update of an image isn't tried again now, "" where it may be.

    An image that was proven bad is held until the desired OS changes or the failure is forgotten.
    """
    if record.flow is None or not isinstance(record.flow.data, ImmutableUpdate):
        return ""
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
    distance = min(policy.retry_after * 2 ** max(tries - 1, 0), policy.retry_at_most)
    if now < failure.at + distance:
        return f"{name} failed ({failure.log}): tried again after {failure.at + distance:%Y-%m-%d %H:%M} UTC"
    return ""


def next_event(
    state: Update, record: AgentRecord, target: Target | None, now: datetime, policy: AgentPolicy
) -> Event | None:
    """Return what the outside does to the update in `state` before its command, None where the command may go on."""
    flow = flow_of(state)
    accepted = flow.accepts(state)
    if not record.refused and (changed := _changed_target(state, target, now)) is not None and changed.name in accepted:
        return changed
    window = usable_window(record, now)
    if window is not None and WindowOpened.name in accepted:
        return WindowOpened(now, window)
    command = flow.command(state)
    if command is not None:
        closing = WindowTimedOut(now) if policy.window_close is WindowClose.FAIL else WindowClosed(now)
        # A state that doesn't accept it has gone too far to stop: it verifies, commits or rolls back.
        return closing if window is None and command.disruptive and closing.name in accepted else None
    if immutable_events.PrefetchDue.name in accepted and isinstance(state.data, ImmutableUpdate):
        waits = state.data.failure is not None and held(evolve(record, flow=state), now, policy)
        if state.data.target.image is not None and not waits and _prefetch_due(record, now, policy):
            return immutable_events.PrefetchDue(now)
    return None


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
