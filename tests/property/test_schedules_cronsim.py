"""Starts of schedules against cronsim, an independent implementation of Debian's cron rules.

cronsim and this library differ, and the tests leave these cases out:

- a comma list that names every hour is restricted here and for cronsim, but with minutes `*` cronsim takes restricted
  hours for a wildcard line, which has no daylight saving rule; here hours alone decide;
- cronsim keeps wall clock time without the fold, so that asked in the second pass of a repeated hour it may answer with
  an instant of the first pass, which is over;
- for hours `*` cronsim steps by 3,600 real seconds from minute 0 and begins days at a midnight that may not exist, so
  that it misses starts where clocks change by half hours or at midnight;
- cronsim rounds the end of a gap up to whole minutes; before 1973 Liberia's clock changed in the middle of one;
- cronsim gives up after 50 years, and fails with an OverflowError at the end of the calendar.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from itertools import groupby, islice
from zoneinfo import ZoneInfo

import pytest
from attrs import evolve
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_day2.domain.schedules import RepeatedSchedule
from edge_day2.testing.schedule_strategies import iana_zones, instants, repeated_schedules

_WHOLE_HOUR_ZONES = ("UTC", "Europe/Warsaw", "America/New_York", "Asia/Tokyo", "Europe/London")


def _line(schedule: RepeatedSchedule) -> str:
    return f"{schedule.minutes} {schedule.hours} {schedule.day_month} {schedule.month} {schedule.day_week}"


def _zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)


def _next_starts(schedule: RepeatedSchedule, after: datetime, count: int = 1) -> list[datetime]:
    """cronsim's first starts at or after `after`; those that it moves out of a gap to the same instant count once."""
    asked = (after - timedelta(seconds=1)).astimezone(_zone(schedule.time_zone))
    starts = (found.astimezone(UTC) for found in CronSim(_line(schedule), asked))
    return list(islice((start for start, _ in groupby(starts)), count))


def _own_starts(schedule: RepeatedSchedule, after: datetime, count: int = 1) -> list[datetime]:
    starts: list[datetime] = []
    window = schedule.next_window(after)
    while window is not None and window.end is not None and len(starts) < count:
        starts.append(window.start)
        window = schedule.next_window(window.end)
    return starts


def _in_second_pass(instant: datetime, name: str) -> bool:
    zone = _zone(name)
    return any((instant - timedelta(seconds=back)).astimezone(zone).fold == 1 for back in (0, 1))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_restricted_hours_start_when_cronsim_says_in_every_zone(data: st.DataObject) -> None:
    drawn = data.draw(repeated_schedules())
    minutes, hours = drawn.minutes.replace("*", "0,17,59"), drawn.hours.replace("*", "0,1,2,3,23")
    schedule = evolve(drawn, minutes=minutes, hours=hours, duration_seconds=1)
    instant = data.draw(instants(schedule.time_zone, first_year=1973))
    while _in_second_pass(instant, schedule.time_zone):
        instant += timedelta(hours=1)

    assert _own_starts(schedule, instant, 12) == _next_starts(schedule, instant, 12)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_hours_with_a_star_start_when_cronsim_says_where_clocks_change_by_hours(data: st.DataObject) -> None:
    drawn = data.draw(repeated_schedules(st.sampled_from(_WHOLE_HOUR_ZONES)))
    schedule = evolve(drawn, hours="*", duration_seconds=1)
    instant = data.draw(instants(schedule.time_zone))

    assert _own_starts(schedule, instant, 12) == _next_starts(schedule, instant, 12)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(1, 59))
def test_a_window_is_open_when_cronsim_started_less_than_the_duration_ago(data: st.DataObject, seconds: int) -> None:
    schedule = evolve(data.draw(repeated_schedules(st.just("UTC"))), duration_seconds=seconds)
    (near,) = _next_starts(schedule, data.draw(instants()))
    instant = near + timedelta(seconds=data.draw(st.integers(-90, 90)))

    started = next(CronSim(_line(schedule), instant - timedelta(seconds=seconds)))

    assert (schedule.window_at(instant) is not None) == (started <= instant)


@pytest.mark.parametrize("zone", iana_zones())
def test_every_zone_agrees_with_cronsim_through_2026(zone: str) -> None:
    schedule = RepeatedSchedule("30", "0,1,2,3,23", "*", "*", "*", duration_seconds=1, time_zone=zone)
    instant = datetime(2026, 1, 1, tzinfo=UTC)

    assert _own_starts(schedule, instant, 1800) == _next_starts(schedule, instant, 1800)
