"""Time zones cut into pieces, against what zoneinfo says of each instant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_day2.domain.zone_offsets import LAST_SECOND, ORIGIN, zone
from edge_day2.testing.schedule_strategies import iana_zones

_YEARS = st.one_of(st.sampled_from(range(1890, 2110)), st.sampled_from(range(1, 10_000)))


def _offset(name: str, second: int) -> int:
    offset = (ORIGIN + timedelta(seconds=second)).astimezone(ZoneInfo(name)).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(iana_zones()), _YEARS, st.sampled_from(range(0, 365 * 86_400, 3600)))
def test_a_piece_has_the_offset_that_zoneinfo_has_at_its_ends_and_within(name: str, year: int, second: int) -> None:
    instant = int((datetime(year, 1, 1, tzinfo=UTC) - ORIGIN).total_seconds()) + second

    piece = zone(name).piece(instant)

    assert piece.start <= instant < piece.stop
    day = 2 * 86_400
    if day <= instant <= LAST_SECOND - day:
        assert piece.offset == _offset(name, instant)
    if day <= piece.start:
        assert piece.offset == _offset(name, piece.start)
        assert piece.before == _offset(name, piece.start - 1)
    if piece.stop <= LAST_SECOND - day:
        assert piece.offset == _offset(name, piece.stop - 1)


@pytest.mark.parametrize("name", ["Africa/Casablanca", "Africa/Freetown", "America/Recife", "Asia/Gaza"])
def test_summer_times_of_a_few_days_are_not_overlooked(name: str) -> None:
    found = zone(name)

    for day in range(
        (datetime(1930, 1, 1, tzinfo=UTC) - ORIGIN).days, (datetime(2090, 1, 1, tzinfo=UTC) - ORIGIN).days
    ):
        assert found.piece(day * 86_400).offset == _offset(name, day * 86_400)
