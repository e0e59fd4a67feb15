"""Random schedules and instants, with a liking for the hours in which clocks change."""

from __future__ import annotations

import functools
import zoneinfo
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from edge_day2.domain.schedules import RepeatedSchedule, SingleSchedule, Window
from edge_day2.domain.zone_offsets import ORIGIN, zone
from edge_day2.errors import InvalidSchedule

_DURATIONS = (1, 60, 90, 1800, 3600, 3601, 7200, 43_200, 86_399, 86_400)


@functools.cache
def iana_zones() -> tuple[str, ...]:
    """Return the names of all time zones that this machine knows and that mean the same on every machine."""
    return tuple(sorted(zoneinfo.available_timezones() - {"localtime", "Factory", "posixrules"}))


def cron_texts(lowest: int, highest: int, most: int) -> st.SearchStrategy[str]:
    """Texts of a cron field: `*`, or up to `most` values in any order, with repetitions."""
    values = st.lists(st.integers(lowest, highest), min_size=1, max_size=most)
    return st.one_of(st.just("*"), values.map(lambda chosen: ",".join(str(value) for value in chosen)))


@st.composite
def repeated_schedules(draw: st.DrawFn, zones: st.SearchStrategy[str] | None = None) -> RepeatedSchedule:
    """Repeated schedules of every shape, in one of `zones` (default: all that this machine knows)."""
    months = draw(cron_texts(1, 12, 6))
    days = draw(cron_texts(1, 31, 20))
    try:
        return RepeatedSchedule(
            minutes=draw(cron_texts(0, 59, 5)),
            hours=draw(cron_texts(0, 23, 4)),
            day_month=days,
            month=months,
            day_week=draw(cron_texts(0, 6, 5)),
            duration_seconds=draw(st.one_of(st.sampled_from(_DURATIONS), st.integers(1, 86_400))),
            time_zone=draw(st.sampled_from(iana_zones()) if zones is None else zones),
        )
    except InvalidSchedule:
        # The 30th of February and its like.
        return RepeatedSchedule(day_month="1", month=months, day_week="*")


@st.composite
def instants(draw: st.DrawFn, time_zone: str = "UTC", first_year: int = 1970) -> datetime:
    """Instants up to 2100, every other one within about a day of a change of the zone's clock, if there is one."""
    first, last = datetime(first_year, 1, 3, tzinfo=UTC), datetime(2101, 1, 1, tzinfo=UTC)
    instant = first + timedelta(seconds=draw(st.integers(0, int((last - first).total_seconds()))))
    piece = zone(time_zone).piece(int((instant - ORIGIN).total_seconds()))
    if draw(st.booleans()) and piece.stop < 1 << 40:
        instant = max(first, ORIGIN + timedelta(seconds=piece.stop + draw(st.integers(-90_000, 90_000))))
    return instant.replace(second=0) if draw(st.booleans()) else instant


@st.composite
def single_schedules(draw: st.DrawFn) -> SingleSchedule:
    """Single schedules of the first days of 2026; some open-ended."""
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=draw(st.integers(0, 3000)))
    length = draw(st.none() | st.integers(1, 2000))
    return SingleSchedule(start, None if length is None else start + timedelta(minutes=length))


def short_windows() -> st.SearchStrategy[Window]:
    """Windows on the first of January 2026, by the minute; some open-ended."""
    return st.builds(
        lambda start, length: Window(
            datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=start),
            None if length is None else datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=start + length),
        ),
        st.integers(0, 200),
        st.none() | st.integers(1, 60),
    )
