"""Schedules by example: grammar, daylight saving, calendar corners, windows that never close, bad input."""

from __future__ import annotations

import copy
import pickle
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from edge_day2.domain.schedules import RepeatedSchedule, SingleSchedule, Window, merge, subtract
from edge_day2.errors import InvalidSchedule

WARSAW = ZoneInfo("Europe/Warsaw")
LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def window(start: str, end: str) -> Window:
    return Window(at(start), at(end))


def windows(schedule: RepeatedSchedule, start: str, stop: str) -> list[Window]:
    return list(schedule.windows(at(start), at(stop)))


def test_defaults_are_mondays_and_wednesdays_at_two_for_an_hour() -> None:
    schedule = RepeatedSchedule()

    # 2026-11-23 is a Monday.
    assert windows(schedule, "2026-11-23", "2026-11-30") == [
        window("2026-11-23T02:00", "2026-11-23T03:00"),
        window("2026-11-25T02:00", "2026-11-25T03:00"),
    ]


def test_windows_are_half_open() -> None:
    schedule = RepeatedSchedule()

    assert schedule.window_at(at("2026-11-23T01:59:59.999999")) is None
    assert schedule.window_at(at("2026-11-23T02:00")) == window("2026-11-23T02:00", "2026-11-23T03:00")
    assert schedule.window_at(at("2026-11-23T02:59:59.999999")) == window("2026-11-23T02:00", "2026-11-23T03:00")
    assert schedule.window_at(at("2026-11-23T03:00")) is None


def test_the_next_window_may_start_right_then_and_is_never_one_that_is_open() -> None:
    schedule = RepeatedSchedule()

    assert schedule.next_window(at("2026-11-23T02:00")) == window("2026-11-23T02:00", "2026-11-23T03:00")
    assert schedule.next_window(at("2026-11-23T02:00:00.000001")) == window("2026-11-25T02:00", "2026-11-25T03:00")


def test_an_instant_may_come_in_any_zone() -> None:
    schedule = RepeatedSchedule()
    instant = datetime(2026, 11, 23, 3, 30, tzinfo=WARSAW)

    found = schedule.window_at(instant)

    assert found == window("2026-11-23T02:00", "2026-11-23T03:00")
    assert found is not None
    assert found.start.tzinfo is UTC


def test_a_start_in_the_hour_that_the_clock_skips_happens_right_after_it() -> None:
    # In Warsaw 02:00 to 03:00 doesn't exist on 2026-03-29; the clock goes from 02:00 to 03:00 at 01:00 UTC.
    schedule = RepeatedSchedule("15,45", "2", day_week="*", duration_seconds=600, time_zone="Europe/Warsaw")

    assert windows(schedule, "2026-03-29", "2026-03-30") == [window("2026-03-29T01:00", "2026-03-29T01:10")]


def test_a_start_in_the_hour_that_the_clock_repeats_happens_the_first_time_alone() -> None:
    # In Warsaw 02:00 to 03:00 comes twice on 2026-10-25, first at 00:00 UTC, then at 01:00 UTC.
    schedule = RepeatedSchedule("15", "2", day_week="*", duration_seconds=600, time_zone="Europe/Warsaw")

    assert windows(schedule, "2026-10-24T22:00", "2026-10-25T23:00") == [window("2026-10-25T00:15", "2026-10-25T00:25")]


def test_hours_with_a_star_skip_and_repeat_with_the_clock() -> None:
    schedule = RepeatedSchedule("30", "*", day_week="*", duration_seconds=60, time_zone="Europe/Warsaw")

    starts = [found.start for found in windows(schedule, "2026-10-24T23:00", "2026-10-25T03:00")]
    assert starts == [at(f"2026-10-2{day}:30") for day in ("4T23", "5T00", "5T01", "5T02")]
    starts = [found.start for found in windows(schedule, "2026-03-29T00:00", "2026-03-29T03:00")]
    assert starts == [at(f"2026-03-29T{hour}:30") for hour in ("00", "01", "02")]


def test_the_duration_is_real_time_across_a_change_of_the_clock() -> None:
    schedule = RepeatedSchedule("0", "1", day_week="*", duration_seconds=4 * 3600, time_zone="Europe/Warsaw")

    assert schedule.window_at(at("2026-10-25T00:00")) == window("2026-10-24T23:00", "2026-10-25T03:00")


def test_half_hour_changes_of_lord_howe_are_followed() -> None:
    # The clock goes back from 02:00 (+11:00) to 01:30 (+10:30) on 2026-04-05, at 2026-04-04T15:00 UTC.
    schedule = RepeatedSchedule("45", "1", day_week="*", duration_seconds=60, time_zone="Australia/Lord_Howe")

    assert windows(schedule, "2026-04-04T12:00", "2026-04-05T12:00") == [window("2026-04-04T14:45", "2026-04-04T14:46")]


def test_a_day_that_a_zone_never_had_happens_at_the_first_instant_after_it() -> None:
    # Samoa went from 2011-12-29 to 2011-12-31 at 10:00 UTC on the 30th.
    schedule = RepeatedSchedule("0", "9,17", "30", "12", "*", duration_seconds=60, time_zone="Pacific/Apia")

    assert windows(schedule, "2011-12-01", "2012-01-31") == [window("2011-12-30T10:00", "2011-12-30T10:01")]


def test_leap_days_jump_over_years_without_one() -> None:
    schedule = RepeatedSchedule("0", "2", "29", "2", "*")

    assert schedule.next_window(at("2026-01-01")) == window("2028-02-29T02:00", "2028-02-29T03:00")
    assert schedule.next_window(at("2096-03-01")) == window("2104-02-29T02:00", "2104-02-29T03:00")


def test_day_of_month_and_day_of_week_are_united_when_both_are_restricted() -> None:
    schedule = RepeatedSchedule("0", "2", "13", "*", "5")

    starts = [found.start.day for found in windows(schedule, "2026-10-01", "2026-11-01")]
    # 2026-10-13 is a Tuesday; 2, 9, 16, 23 and 30 are the Fridays.
    assert starts == [2, 9, 13, 16, 23, 30]


def test_a_list_of_every_day_beside_restricted_weekdays_is_every_day() -> None:
    every_day = ",".join(str(day) for day in range(1, 32))

    assert len(windows(RepeatedSchedule(day_month=every_day, day_week="1"), "2026-10-01", "2026-10-08")) == 7
    assert len(windows(RepeatedSchedule(day_month="*", day_week="1"), "2026-10-01", "2026-10-08")) == 1


def test_a_window_crosses_midnight_month_and_year() -> None:
    schedule = RepeatedSchedule("30", "23", "31", "12", "*", duration_seconds=7200)

    expected = window("2026-12-31T23:30", "2027-01-01T01:30")
    assert schedule.window_at(at("2027-01-01T01:29:59")) == expected
    assert schedule.window_at(at("2027-01-01T01:30")) is None
    assert list(schedule.windows(at("2027-01-01"), at("2027-01-02"))) == [expected]


def test_windows_that_touch_are_one() -> None:
    schedule = RepeatedSchedule("0", "1,2,3", day_week="*", duration_seconds=3600)

    assert schedule.window_at(at("2026-11-24T02:30")) == window("2026-11-24T01:00", "2026-11-24T04:00")
    assert schedule.next_window(at("2026-11-24T02:00")) == window("2026-11-25T01:00", "2026-11-25T04:00")


def test_windows_around_midnight_are_one() -> None:
    schedule = RepeatedSchedule("0", "0,22,23", day_week="*", duration_seconds=3600)

    expected = window("2026-11-24T22:00", "2026-11-25T01:00")
    assert schedule.window_at(at("2026-11-24T23:59")) == expected
    assert schedule.window_at(at("2026-11-25T00:30")) == expected
    assert schedule.next_window(at("2026-11-24T00:00")) == expected


def test_whole_weekdays_are_one_window_from_monday_to_saturday() -> None:
    schedule = RepeatedSchedule("0", "0", "*", "*", "1,2,3,4,5", duration_seconds=86_400)

    assert schedule.window_at(at("2026-11-26T12:00")) == window("2026-11-23", "2026-11-28")
    assert schedule.next_window(at("2026-11-23T00:01")) == window("2026-11-30", "2026-12-05")


def test_a_day_long_window_every_day_never_closes_and_has_no_next_one() -> None:
    schedule = RepeatedSchedule("0", "2", "*", "*", "*", duration_seconds=86_400)

    found = schedule.window_at(at("2026-11-24"))

    assert found == Window(at("0001-01-01T02:00"), None)
    assert schedule.next_window(at("2026-11-24")) is None
    assert list(schedule.windows(at("2026-11-24"), at("2026-11-25"))) == [found]


def test_a_day_long_window_every_day_closes_for_the_hour_that_the_clock_repeats() -> None:
    schedule = RepeatedSchedule("0", "2", "*", "*", "*", duration_seconds=86_400, time_zone="Europe/Warsaw")

    # The day of 2026-10-25 has 25 hours, the window 24.
    assert schedule.window_at(at("2026-10-26T00:30")) is None
    assert schedule.next_window(at("2026-10-26T00:00")) == window("2026-10-26T01:00", "2027-11-01T00:00")


def test_every_hour_of_a_zone_with_daylight_saving_never_closes() -> None:
    schedule = RepeatedSchedule("0", "*", "*", "*", "*", duration_seconds=3600, time_zone="Europe/Warsaw")

    found = schedule.window_at(at("2026-11-24"))

    assert found is not None
    assert found.end is None
    assert found.remaining(at("2026-11-24")) is None


def test_the_end_of_the_calendar_is_reached_without_searching() -> None:
    leap = RepeatedSchedule("0", "2", "29", "2", "*", time_zone="Europe/Warsaw")
    late = RepeatedSchedule("0", "23", "31", "12", "*", duration_seconds=7200)

    assert leap.next_window(LAST) is None
    assert leap.window_at(LAST) is None
    assert late.window_at(LAST) == Window(at("9999-12-31T23:00"), None)
    assert list(late.windows(at("9999-12-31"), LAST)) == [Window(at("9999-12-31T23:00"), None)]
    assert RepeatedSchedule().window_at(datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))) is None
    assert RepeatedSchedule(time_zone="Asia/Tokyo").next_window(datetime.min.replace(tzinfo=UTC)) is not None


def test_a_single_schedule_is_its_window() -> None:
    schedule = SingleSchedule(datetime(2026, 11, 24, 3, tzinfo=WARSAW), datetime(2026, 11, 24, 5, tzinfo=WARSAW))
    expected = window("2026-11-24T02:00", "2026-11-24T04:00")

    assert schedule.window == expected
    assert schedule.window_at(at("2026-11-24T02:00")) == expected
    assert schedule.window_at(at("2026-11-24T04:00")) is None
    assert schedule.next_window(at("2026-11-24T02:00")) == expected
    assert schedule.next_window(at("2026-11-24T02:01")) is None
    assert list(schedule.windows(at("2026-11-24T03:59"), at("2026-11-25"))) == [expected]
    assert list(schedule.windows(at("2026-11-24T04:00"), at("2026-11-25"))) == []
    assert list(schedule.windows(at("2026-11-24T03:00"), at("2026-11-24T03:00"))) == []


def test_an_open_ended_single_schedule_stays_open() -> None:
    schedule = SingleSchedule(at("2026-11-24"))

    assert schedule.window_at(LAST) == Window(at("2026-11-24"))
    assert schedule.window_at(at("2026-11-23")) is None


def test_remaining_is_the_time_until_the_window_closes() -> None:
    found = window("2026-11-24T02:00", "2026-11-24T04:00")

    assert found.remaining(at("2026-11-24T03:30")) == timedelta(minutes=30)
    assert found.remaining(at("2026-11-24T04:00")) == timedelta(0)


def test_merging_and_subtracting_nothing_gives_nothing() -> None:
    assert merge([]) == ()
    assert subtract([], [window("2026-11-24T02:00", "2026-11-24T04:00")]) == ()


def test_a_blackout_that_reaches_into_the_next_window_cuts_both() -> None:
    openings = [window("2026-11-24T02:00", "2026-11-24T04:00"), window("2026-11-24T06:00", "2026-11-24T08:00")]

    assert subtract(openings, [window("2026-11-24T03:00", "2026-11-24T07:00")]) == (
        window("2026-11-24T02:00", "2026-11-24T03:00"),
        window("2026-11-24T07:00", "2026-11-24T08:00"),
    )


def test_schedules_survive_copy_and_pickle_and_keep_their_text() -> None:
    schedule = RepeatedSchedule("30,0,30", "2", time_zone="Europe/Warsaw")

    for twin in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert twin == schedule
        assert twin.minutes == "30,0,30"
        assert twin.window_at(at("2026-11-23T01:00")) == schedule.window_at(at("2026-11-23T01:00"))
    assert repr(schedule) == (
        "RepeatedSchedule(minutes='30,0,30', hours='2', day_month='*', month='*', day_week='1,3', "
        "duration_seconds=3600, time_zone='Europe/Warsaw')"
    )


def test_every_minute_and_every_month_are_a_star() -> None:
    minutes = ",".join(str(minute) for minute in range(60))

    assert RepeatedSchedule(minutes=minutes) == RepeatedSchedule(minutes="*")
    # A star among the hours has a daylight saving rule of its own.
    hours = ",".join(str(hour) for hour in range(24))
    assert RepeatedSchedule(hours=hours) != RepeatedSchedule(hours="*")


_MINUTES = re.compile(r"^([*]|([0-9]|([1-5][0-9]))((,([0-9]|([1-5][0-9])))*))\Z")


@pytest.mark.parametrize(
    "text", [*map(str, range(-1, 62)), "*", "0,59", "00", "05", "1,", ",1", "1,,2", "*,1", "1 ", ""]
)
def test_minutes_are_what_the_protocols_expression_matches(text: str) -> None:
    if _MINUTES.match(text):
        assert RepeatedSchedule(minutes=text).minutes == text
    else:
        with pytest.raises(InvalidSchedule):
            RepeatedSchedule(minutes=text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("minutes", text) for text in ("61", "60", "1-5", "*/5", "1,,2", "01", "", "-1", "1.5", "0\n", "٣", "MON")],
        *[("hours", text) for text in ("24", "", "2-4", "02", None, 2)],
        *[("day_month", text) for text in ("0", "32", "L", "")],
        *[("month", text) for text in ("0", "13", "JAN", "")],
        *[("day_week", text) for text in ("7", "SUN", "", "1#2")],
        *[("duration_seconds", value) for value in (0, -1, 86_401, 1.5, True, "3600", None)],
        *[("time_zone", value) for value in ("", "Mars/Base", "Europe", "../UTC", "/etc/passwd", "a\0b", "localtime")],
        *[("time_zone", value) for value in (None, 1, "x" * 100_000, "right/UTC", "europe warsaw", "Europe/Warsaw\n")],
    ],
)
def test_bad_input_names_the_field_the_value_and_what_is_allowed(field: str, value: Any) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        RepeatedSchedule(**{field: value})

    assert caught.value.field == field
    assert caught.value.value == value
    assert caught.value.expected
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("days", "months"), [("31", "2"), ("30", "2"), ("31", "4,6,9,11"), ("30,31", "2")])
def test_a_day_that_no_month_has_is_refused(days: str, months: str) -> None:
    with pytest.raises(InvalidSchedule, match="day_month"):
        RepeatedSchedule(day_month=days, month=months, day_week="*")

    # With a weekday beside it, the schedule fires on that weekday.
    assert RepeatedSchedule(day_month=days, month=months, day_week="1").next_window(at("2026-01-01")) is not None


@pytest.mark.parametrize("value", [datetime(2026, 1, 1), "2026-01-01", None, 0])  # noqa: DTZ001
def test_only_aware_datetimes_are_answered(value: Any) -> None:
    for schedule in (RepeatedSchedule(), RepeatedSchedule(time_zone="Asia/Tokyo"), SingleSchedule(at("2026-01-01"))):
        for ask in (schedule.window_at, schedule.next_window):
            with pytest.raises(InvalidSchedule):
                ask(value)
        for bounds in ((value, LAST), (LAST, value)):
            with pytest.raises(InvalidSchedule):
                schedule.windows(*bounds)
    with pytest.raises(InvalidSchedule):
        SingleSchedule(value)
    with pytest.raises(InvalidSchedule):
        Window(at("2026-01-01")).contains(value)


@pytest.mark.parametrize("kind", [SingleSchedule, Window])
def test_an_end_at_or_before_the_start_is_refused(kind: type[SingleSchedule] | type[Window]) -> None:
    for end in ("2026-01-01", "2025-12-31"):
        with pytest.raises(InvalidSchedule, match="end"):
            kind(at("2026-01-01"), at(end))


def test_an_instant_outside_the_calendar_is_refused() -> None:
    with pytest.raises(InvalidSchedule):
        SingleSchedule(datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))))
