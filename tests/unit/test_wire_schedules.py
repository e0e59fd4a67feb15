"""What a node is sent of the schedules that apply to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from edge_day2.domain.messages import UpdateSchedule
from edge_day2.domain.resources import ScheduleResource
from edge_day2.domain.schedules import RepeatedSchedule, Schedule, ScheduleKind, SingleSchedule
from edge_day2.domain.wire_schedules import update_schedule
from edge_day2.errors import InvalidSchedule

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
KINDS = frozenset({ScheduleKind.OS_UPDATE})
HOUR = timedelta(hours=1)
NIGHTLY = RepeatedSchedule("0", "2", day_week="*")
WARSAW = RepeatedSchedule("0", "2", day_week="*", time_zone="Europe/Warsaw")


def resource(name: str, schedule: Schedule, kind: ScheduleKind = ScheduleKind.OS_UPDATE) -> ScheduleResource:
    return ScheduleResource(resource_id=name, tenant_id="t", name=name, schedule=schedule, kind=kind)


def sent(*resources: ScheduleResource, now: datetime = NOW) -> UpdateSchedule:
    return update_schedule(resources, now, KINDS)


def test_an_open_single_window_wins_over_one_that_starts_nearer() -> None:
    open_now = SingleSchedule(NOW - 5 * HOUR, NOW + HOUR)
    soon = SingleSchedule(NOW + 2 * HOUR, NOW + 3 * HOUR)

    assert sent(resource("a", soon), resource("b", open_now)).single_schedule == open_now


def test_the_next_single_window_is_sent_where_none_is_open() -> None:
    past = SingleSchedule(NOW - 2 * HOUR, NOW - HOUR)
    soon = SingleSchedule(NOW + HOUR, NOW + 2 * HOUR)
    late = SingleSchedule(NOW + 5 * HOUR)

    assert sent(resource("a", late), resource("b", soon), resource("c", past)).single_schedule == soon
    assert sent(resource("c", past)) == UpdateSchedule()


def test_single_windows_that_join_are_sent_as_one() -> None:
    first, second = SingleSchedule(NOW - HOUR, NOW + HOUR), SingleSchedule(NOW + HOUR, NOW + 2 * HOUR)

    expected = SingleSchedule(NOW - HOUR, NOW + 2 * HOUR)
    assert sent(resource("a", first), resource("b", second)).single_schedule == expected


def test_all_repeated_schedules_in_utc_are_sent_and_the_first_is_the_deprecated_one() -> None:
    other = RepeatedSchedule("30", "4")

    found = sent(resource("b", NIGHTLY), resource("a", other), resource("c", NIGHTLY))

    assert found.repeated_schedules == (other, NIGHTLY)
    assert found.repeated_schedule == other
    assert found.single_schedule is None


def test_a_repeated_schedule_in_another_zone_becomes_its_next_window() -> None:
    found = sent(resource("a", WARSAW), resource("b", NIGHTLY))

    assert found.single_schedule == SingleSchedule(
        datetime(2026, 11, 25, 1, tzinfo=UTC), datetime(2026, 11, 25, 2, tzinfo=UTC)
    )
    assert found.repeated_schedules == (NIGHTLY,)


def test_other_kinds_are_not_sent() -> None:
    assert sent(resource("a", NIGHTLY, ScheduleKind.SHIPPING)) == UpdateSchedule()


def test_a_blackout_is_cut_out_and_keeps_repeated_schedules_from_being_sent() -> None:
    freeze = SingleSchedule(NOW + 24 * HOUR, NOW + 240 * HOUR)

    before = sent(resource("a", NIGHTLY), resource("z", freeze, ScheduleKind.BLACKOUT))
    within = sent(resource("a", NIGHTLY), resource("z", freeze, ScheduleKind.BLACKOUT), now=NOW + 48 * HOUR)
    after = sent(resource("a", NIGHTLY), resource("z", freeze, ScheduleKind.BLACKOUT), now=NOW + 241 * HOUR)

    tomorrow = datetime(2026, 11, 25, 2, tzinfo=UTC)
    assert before == UpdateSchedule(single_schedule=SingleSchedule(tomorrow, tomorrow + HOUR))
    afterwards = datetime(2026, 12, 5, 2, tzinfo=UTC)
    assert within == UpdateSchedule(single_schedule=SingleSchedule(afterwards, afterwards + HOUR))
    assert after == UpdateSchedule(repeated_schedules=(NIGHTLY,))


def test_a_blackout_that_touches_no_window_or_is_far_away_changes_nothing() -> None:
    noon = resource("z", RepeatedSchedule("0", "12", day_week="*"), ScheduleKind.BLACKOUT)
    far = resource("y", SingleSchedule(NOW + timedelta(days=90)), ScheduleKind.BLACKOUT)

    assert sent(resource("a", NIGHTLY), noon, far).repeated_schedules == (NIGHTLY,)


def test_a_window_that_never_closes_starts_where_the_wire_can_say_it() -> None:
    always = RepeatedSchedule("0", "0", "*", "*", "*", 86_400, "Asia/Tokyo")

    found = sent(resource("a", always)).single_schedule

    assert found == SingleSchedule(datetime(1970, 1, 2, tzinfo=UTC), None)


def test_a_naive_instant_is_refused() -> None:
    with pytest.raises(InvalidSchedule):
        sent(now=datetime(2026, 11, 24))  # noqa: DTZ001
