"""Windows of schedules against a scan of every minute, and the laws of window arithmetic.

The scan asks `zoneinfo` alone about each minute and knows no shortcut.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_day2.domain.schedules import RepeatedSchedule, Schedule, Window, merge, subtract
from edge_day2.testing.schedule_strategies import instants, repeated_schedules, short_windows, single_schedules

_AROUND = timedelta(days=3)
_DAY_ONE = datetime(2026, 1, 1, tzinfo=UTC)


_MINUTE = timedelta(minutes=1)
_SECOND = timedelta(seconds=1)


@functools.cache
def _values(text: str, lowest: int, highest: int) -> set[int]:
    return set(range(lowest, highest + 1)) if text == "*" else {int(part) for part in text.split(",")}


def _matches(schedule: RepeatedSchedule, local: datetime) -> bool:
    in_days = local.day in _values(schedule.day_month, 1, 31)
    in_weekdays = local.isoweekday() % 7 in _values(schedule.day_week, 0, 6)
    both = schedule.day_month != "*" and schedule.day_week != "*"
    return (
        local.second == 0
        and local.minute in _values(schedule.minutes, 0, 59)
        and local.hour in _values(schedule.hours, 0, 23)
        and local.month in _values(schedule.month, 1, 12)
        and (in_days or in_weekdays if both else in_days and in_weekdays)
    )


def _first_after_gap(skipped: datetime, zone: ZoneInfo) -> datetime:
    """Return the first instant after the gap that holds the wall clock time `skipped`."""
    early = skipped.replace(tzinfo=zone, fold=1).astimezone(UTC)
    late = skipped.replace(tzinfo=zone, fold=0).astimezone(UTC)
    before = early.astimezone(zone).utcoffset()
    while late - early > _SECOND:
        middle = (early + (late - early) / 2).replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == before:
            early = middle
        else:
            late = middle
    return late


def _wall_clock_starts(schedule: RepeatedSchedule, start: datetime, stop: datetime) -> Iterator[datetime]:
    """Every minute that a wall clock of the zone could show, also those that it skips."""
    zone = ZoneInfo(schedule.time_zone)
    local = (start - timedelta(days=2)).replace(tzinfo=None, second=0)
    while local < stop.replace(tzinfo=None) + timedelta(days=2):
        if _matches(schedule, local):
            first = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
            shown = first.astimezone(zone).replace(tzinfo=None) == local
            yield first if shown else _first_after_gap(local, zone)
        local += _MINUTE


def _real_starts(schedule: RepeatedSchedule, start: datetime, stop: datetime) -> Iterator[datetime]:
    """Every real minute, by what a wall clock of the zone shows then."""
    zone = ZoneInfo(schedule.time_zone)
    instant = start
    while instant < stop:
        local = instant.astimezone(zone)
        if _matches(schedule, local):
            yield instant
        # Where the offset has seconds, minutes begin elsewhere; right after a change look at each second.
        following = instant + _MINUTE - timedelta(seconds=local.second)
        changes = following.astimezone(zone).utcoffset() != local.utcoffset()
        instant = instant + _SECOND if changes and following.astimezone(zone).second else following


def _scan(schedule: RepeatedSchedule, start: datetime, stop: datetime) -> list[datetime]:
    """Return the starts in [start, stop), sorted; `start` is on a whole second."""
    found = (_real_starts if schedule.hours == "*" else _wall_clock_starts)(schedule, start, stop)
    return sorted({instant for instant in found if start <= instant < stop})


def _joined(starts: list[datetime], duration: timedelta) -> list[tuple[datetime, datetime]]:
    """Return the windows that open at `starts`, joined where they touch."""
    windows: list[tuple[datetime, datetime]] = []
    for start in starts:
        if windows and start <= windows[-1][1]:
            windows[-1] = windows[-1][0], start + duration
        else:
            windows.append((start, start + duration))
    return windows


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_windows_are_those_of_a_scan_of_every_minute(data: st.DataObject) -> None:
    schedule = data.draw(repeated_schedules())
    instant = data.draw(instants(schedule.time_zone))
    start, stop = instant.replace(second=0) - _AROUND, instant.replace(second=0) + _AROUND
    expected = _joined(_scan(schedule, start, stop), timedelta(seconds=schedule.duration_seconds))

    found = schedule.window_at(instant)
    following = schedule.next_window(instant)

    open_now = next((window for window in expected if window[0] <= instant < window[1]), None)
    assert (found is None) == (open_now is None)
    if found is not None and open_now is not None:
        # The scan doesn't see what began before it or goes on after it.
        if open_now[0] > start + timedelta(days=2):
            assert found.start == open_now[0]
        else:
            assert found.start <= open_now[0]
        if open_now[1] < stop:
            assert found.end == open_now[1]
        else:
            assert found.end is None or found.end >= open_now[1]
    later = next((window for window in expected if window[0] >= instant), None)
    if later is None:
        assert following is None or following.start >= stop
    else:
        assert following is not None
        assert following.start == later[0]
        if later[1] < stop:
            assert following.end == later[1]
    near = [window for window in expected if start + timedelta(days=2) < window[0] and window[1] < stop]
    if near:
        listed = schedule.windows(near[0][0], near[-1][1])
        assert [(window.start, window.end) for window in listed] == near


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_windows_are_disjoint_sorted_and_maximal_and_agree_with_window_at(data: st.DataObject) -> None:
    schedule: Schedule = data.draw(st.one_of(repeated_schedules(), single_schedules()))
    zone = schedule.time_zone if isinstance(schedule, RepeatedSchedule) else "UTC"
    start = data.draw(instants(zone))
    stop = start + timedelta(seconds=data.draw(st.integers(0, 20 * 86_400)))

    found = list(schedule.windows(start, stop))

    assert found == list(merge(found))
    for window in found:
        assert window.start < stop
        assert window.end is None or window.end > start
        assert schedule.window_at(window.start) == window
        if window.start > datetime.min.replace(tzinfo=UTC):
            assert schedule.window_at(window.start - datetime.resolution) is None
        if window.end is not None:
            assert schedule.window_at(window.end - datetime.resolution) == window
            assert schedule.window_at(window.end) is None
        if window.start >= start:
            assert schedule.next_window(window.start) == window
    asked = start + (stop - start) * data.draw(st.floats(0, 0.999))
    if start <= asked < stop:
        expected = next((window for window in found if window.contains(asked)), None)
        assert schedule.window_at(asked) == expected


@given(st.data())
def test_order_and_repetition_of_values_change_nothing(data: st.DataObject) -> None:
    schedule = data.draw(repeated_schedules())

    def shuffled(text: str) -> str:
        values = text.split(",")
        return ",".join(data.draw(st.permutations(values + values[:1]))) if text != "*" else text

    other = RepeatedSchedule(
        minutes=shuffled(schedule.minutes),
        hours=shuffled(schedule.hours),
        day_month=shuffled(schedule.day_month),
        month=shuffled(schedule.month),
        day_week=shuffled(schedule.day_week),
        duration_seconds=schedule.duration_seconds,
        time_zone=schedule.time_zone,
    )
    instant = data.draw(instants(schedule.time_zone))

    assert other == schedule
    assert hash(other) == hash(schedule)
    assert other.window_at(instant) == schedule.window_at(instant)
    assert other.next_window(instant) == schedule.next_window(instant)


def _minutes(windows: list[Window] | tuple[Window, ...]) -> set[int]:
    """The minutes from -1 to 130 after the first of January that lie in one of `windows`."""
    asked = {minute: _DAY_ONE + timedelta(minutes=minute) for minute in range(-1, 130)}
    return {minute for minute, instant in asked.items() if any(window.contains(instant) for window in windows)}


@given(st.lists(short_windows(), max_size=8))
def test_merge_is_the_union_in_disjoint_sorted_maximal_windows(windows: list[Window]) -> None:
    joined = merge(windows)

    assert _minutes(joined) == _minutes(windows)
    for earlier, later in pairwise(joined):
        assert earlier.end is not None
        assert earlier.end < later.start


@given(st.lists(short_windows(), max_size=6), st.lists(short_windows(), max_size=6))
def test_subtract_is_the_difference_in_disjoint_sorted_maximal_windows(
    windows: list[Window], blackouts: list[Window]
) -> None:
    left = subtract(windows, blackouts)

    assert _minutes(left) == _minutes(windows) - _minutes(blackouts)
    assert left == merge(left)
