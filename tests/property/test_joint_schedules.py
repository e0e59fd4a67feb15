"""Several schedules as one, against merging and subtracting all their windows one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_day2.domain.joint_schedule import JointSchedule
from edge_day2.domain.schedules import Schedule, Window, merge, subtract
from edge_day2.testing.schedule_strategies import repeated_schedules, single_schedules

_FIRST = datetime(2025, 12, 30, tzinfo=UTC)
_SEEN = timedelta(days=9)


def _some_schedules(most: int) -> st.SearchStrategy[list[Schedule]]:
    return st.lists(st.one_of(repeated_schedules(), single_schedules()), max_size=most)


def _all_windows(schedules: list[Schedule], start: datetime, stop: datetime) -> tuple[Window, ...]:
    return merge(window for schedule in schedules for window in schedule.windows(start, stop))


@settings(max_examples=200, deadline=None)
@given(_some_schedules(4), _some_schedules(2), st.integers(0, 8 * 1440 * 60), st.integers(0, 6 * 86_400))
def test_a_joint_schedule_is_the_union_minus_the_blackouts(
    opening: list[Schedule], blackouts: list[Schedule], second: int, length: int
) -> None:
    joint = JointSchedule(opening, blackouts)
    instant = _FIRST + timedelta(seconds=second)
    stop = instant + timedelta(seconds=length)
    first, last = _FIRST - _SEEN, _FIRST + timedelta(days=15) + _SEEN
    expected = subtract(_all_windows(opening, first, last), _all_windows(blackouts, first, last))
    # What reaches the edge of the stretch that was looked at may go on behind it.
    known = [window for window in expected if window.start > first and window.end is not None and window.end < last]

    here = next((window for window in expected if window.contains(instant)), None)
    assert joint.is_open(instant) == (here is not None)
    assert (joint.window_at(instant) is not None) == (here is not None)
    if here in known:
        assert joint.window_at(instant) == here

    ahead = next((window for window in expected if window.start >= instant), None)
    following = joint.next_window(instant)
    if ahead is None or ahead.start >= last:
        # A blackout that begins behind the stretch may cover it.
        assert following is None or following.start >= last
    else:
        assert following is not None
        assert following.start == ahead.start
        if ahead in known:
            assert following == ahead

    found = list(joint.windows(instant, stop))
    overlapping = [
        window
        for window in expected
        if instant < stop and window.start < stop and (window.end is None or window.end > instant)
    ]
    assert len(found) == len(overlapping)
    for window, other in zip(found, overlapping, strict=True):
        if other in known:
            assert window == other
        assert joint.window_at(max(window.start, instant)) == window


@settings(max_examples=50, deadline=None)
@given(_some_schedules(4), _some_schedules(2))
def test_order_and_repetition_of_schedules_change_nothing(opening: list[Schedule], blackouts: list[Schedule]) -> None:
    joint = JointSchedule(opening, blackouts)
    other = JointSchedule([*reversed(opening), *opening], [*reversed(blackouts), *blackouts])

    assert joint == other
    assert hash(joint) == hash(other)
    assert joint.next_window(_FIRST) == other.next_window(_FIRST)
