"""What the protocol can say of the schedules that apply to a host: the content of an `UpdateSchedule`, both ways.

The protocol knows one single schedule, repeated schedules in UTC, and no blackouts. So:

- a repeated schedule in UTC is sent as it is, unless a blackout touches one of its windows in the next 35 days;
- everything else (single schedules, other time zones, what a blackout touches) is put together, blackouts are taken
  out, and the window that is open now, else the next one, is sent as the single schedule. A node that reports every few
  seconds always knows the window that comes next; one that was cut off has at most this one, and stays out of a
  blackout.

A window that is open wins over one that comes, however near that is; in the original the nearest start wins, so that a
future window can hide an open one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from edge_day2.domain.joint_schedule import JointSchedule
from edge_day2.domain.messages import UpdateSchedule
from edge_day2.domain.resources import ScheduleResource
from edge_day2.domain.schedules import (
    LONGEST_DURATION,
    RepeatedSchedule,
    Schedule,
    ScheduleKind,
    SingleSchedule,
    cron_bits,
    utc,
)
from edge_day2.errors import InvalidMessage, InvalidSchedule

# A node that isn't heard of for longer than this may still follow a repeated schedule into a later blackout.
_BLACKOUTS_AHEAD: Final = timedelta(days=35)
# Seconds on the wire are unsigned, and 0 means "not set".
_EARLIEST: Final = datetime(1970, 1, 2, tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND: Final = (_LAST - _EPOCH) // timedelta(seconds=1)


def update_schedule(
    resources: Iterable[ScheduleResource], now: datetime, kinds: frozenset[ScheduleKind]
) -> UpdateSchedule:
    """Return what to send at `now` of the schedules `resources` that apply to a host.

    Args:
        resources: in any order; repeated schedules are sent in the order of their ids, equal ones once.
        now: aware.
        kinds: the kinds of schedule that open an update window. BLACKOUT always closes, all others are ignored.

    Raises:
        InvalidSchedule: `now` is naive.
    """
    now = utc("now", now)
    ordered = sorted(resources, key=lambda resource: resource.resource_id)
    blackouts = [resource.schedule for resource in ordered if resource.kind is ScheduleKind.BLACKOUT]
    frozen_times = JointSchedule(blackouts) if blackouts else None
    repeated: dict[RepeatedSchedule, None] = {}
    joined: list[Schedule] = []
    for resource in ordered:
        schedule = resource.schedule
        if resource.kind not in kinds or resource.kind is ScheduleKind.BLACKOUT:
            continue
        sayable = isinstance(schedule, RepeatedSchedule) and schedule.time_zone == "UTC"
        if sayable and (frozen_times is None or not _touches(schedule, frozen_times, now)):
            assert isinstance(schedule, RepeatedSchedule)
            repeated[schedule] = None
        else:
            joined.append(schedule)
    return UpdateSchedule(single_schedule=_single(joined, blackouts, now), repeated_schedules=tuple(repeated))


def _touches(schedule: Schedule, frozen_times: JointSchedule, now: datetime) -> bool:
    until = now + min(_BLACKOUTS_AHEAD, _LAST - now)
    for blackout in frozen_times.windows(now, until):
        begin = max(blackout.start, now)
        if schedule.window_at(begin) is not None:
            return True
        ahead = schedule.next_window(begin)
        if ahead is not None and (blackout.end is None or ahead.start < blackout.end):
            return True
    return False


def _single(schedules: list[Schedule], blackouts: list[Schedule], now: datetime) -> SingleSchedule | None:
    if not schedules:
        return None
    joint = JointSchedule(schedules, blackouts)
    window = joint.window_at(now) or joint.next_window(now)
    return None if window is None else SingleSchedule(max(window.start, _EARLIEST), window.end)


def single_schedule(start_seconds: int, end_seconds: int) -> SingleSchedule | None:
    """Return what the protocol's single schedule opens, None where that is nothing.

    Args:
        start_seconds: since 1970 in UTC, not negative.
        end_seconds: the same; 0 is no end.
    """
    if start_seconds > _LAST_SECOND or (end_seconds and end_seconds <= start_seconds):
        return None
    closes = _EPOCH + timedelta(seconds=end_seconds) if 0 < end_seconds <= _LAST_SECOND else None
    return SingleSchedule(_EPOCH + timedelta(seconds=start_seconds), closes)


def repeated_schedule(fields: Mapping[str, str], *, duration_seconds: int) -> RepeatedSchedule | None:
    """Return what the protocol's repeated schedule opens, None where that is nothing (31 February, no duration).

    Args:
        fields: the cron fields, by the names of `CRON_FIELDS`.
        duration_seconds: of each window, not negative.

    Raises:
        InvalidMessage: a field breaks the cron grammar, or the duration is longer than a day.
    """
    for name, text in fields.items():
        try:
            cron_bits(name, text)
        except InvalidSchedule as error:
            raise InvalidMessage(f"repeated_schedules.cron_{name}", text, error.expected) from error
    if duration_seconds > LONGEST_DURATION:
        expected = f"a whole number of seconds up to {LONGEST_DURATION}"
        raise InvalidMessage("repeated_schedules.duration_seconds", duration_seconds, expected)
    if duration_seconds == 0:
        return None
    try:
        return RepeatedSchedule(**fields, duration_seconds=duration_seconds, time_zone="UTC")
    except InvalidSchedule:
        # Everything else has been checked: no calendar has such a day.
        return None
