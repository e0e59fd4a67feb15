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
    return st.one_of(st.just("*"), _listed(st.integers(lowest, highest), most))


def _listed(values: st.SearchStrategy[int], most: int) -> st.SearchStrategy[str]:
    lists = st.lists(values, min_size=1, max_size=most)
    return lists.map(lambda chosen: ",".join(str(value) for value in chosen))


@st.composite
def repeated_schedules(draw: st.DrawFn, zones: st.SearchStrategy[str] | None = None) -> RepeatedSchedule:
    """Repeated schedules of every shape, in one of `zones` (default: all that this machine knows).

    Half of them fire on every day, half of them in the hours in which clocks change.
    """
    often = draw(st.booleans())
    months = "*" if often else draw(cron_texts(1, 12, 6))
    days = "*" if often else draw(cron_texts(1, 31, 20))
    nights = _listed(st.sampled_from((0, 1, 2, 3, 23)), 4)
    try:
        return RepeatedSchedule(
            minutes=draw(cron_texts(0, 59, 5)),
            hours=draw(st.one_of(nights, cron_texts(0, 23, 4))),
            day_month=days,
            month=months,
            day_week="*" if often else draw(cron_texts(0, 6, 5)),
            duration_seconds=draw(st.one_of(st.sampled_from(_DURATIONS), st.integers(1, 86_400))),
            time_zone=draw(st.sampled_from(iana_zones()) if zones is None else zones),
        )
    except InvalidSchedule:
        # The 30th of February and its like.
        return RepeatedSchedule(day_month="1", month=months, day_week="*")


@st.composite
def instants(draw: st.DrawFn, time_zone: str = "UTC", first_year: int = 1970) -> datetime:
    """Instants up to 2100, every other one within hours of a change of the zone's clock, if there is one that year."""
    # Drawn in parts, since hypothesis likes small integers: most seconds since 1970 would lie in 1970.
    year = draw(st.sampled_from(range(first_year, 2101)))
    day = draw(st.sampled_from(range(2, 364)))
    instant = datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=day, seconds=draw(st.integers(0, 86_399)))
    changes = _changes(time_zone, year)
    near: bool = draw(st.booleans())
    if changes and near:
        instant = draw(st.sampled_from(changes)) + timedelta(seconds=draw(st.integers(-20_000, 20_000)))
    return instant.replace(second=0) if draw(st.booleans()) else instant


@functools.cache
def _changes(time_zone: str, year: int) -> tuple[datetime, ...]:
    """Return the instants of `year`, all but its first days, at which the zone's clock jumps."""
    found = []
    instant = int((datetime(year, 1, 3, tzinfo=UTC) - ORIGIN).total_seconds())
    stop = instant + 360 * 86_400
    while (piece := zone(time_zone).piece(instant)).stop < stop:
        instant = piece.stop
        if zone(time_zone).piece(instant).before != zone(time_zone).piece(instant).offset:
            found.append(ORIGIN + timedelta(seconds=instant))
    return tuple(found)


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
        st.integers(0, 60),
        st.one_of(st.integers(1, 10), st.integers(1, 60), st.just(10), st.none()),
    )
