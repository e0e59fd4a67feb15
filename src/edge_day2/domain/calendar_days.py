"""Which calendar days a cron line means: one bit set per shape of year.

A year has one of 14 shapes (leap or not, weekday of 1 January). For each shape the day of month, month and day of week
fields give a mask of up to 366 bits, computed once; finding the next or previous day is a shift and a bit count, and
years without any day are skipped whole, so that `29 2` jumps from leap year to leap year. The commonest questions are
answered from blocks of 256 days, cut out of the years when somebody asks about one, which spare the way by the date.

Days are numbered from 0001-01-01 (day 0, a Monday) to 9999-12-31, in the proleptic Gregorian calendar.
"""

from __future__ import annotations

import functools
from datetime import date
from typing import Final

LAST_DAY: Final = date.max.toordinal() - 1
FOREVER: Final = 1 << 60

_DAYS_IN_MONTH: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_WEEKS: Final = sum(1 << (7 * week) for week in range(54))

BLOCK_BITS: Final = 8
BLOCK: Final = 1 << BLOCK_BITS


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _year_mask(leap: bool, first_weekday: int, days: int | None, months: int, weekdays: int | None) -> int:
    """Return the mask of one year shape; bit 0 is 1 January, `first_weekday` its weekday with 0 for Sunday."""
    in_months = in_days = offset = 0
    for number, usual in enumerate(_DAYS_IN_MONTH, start=1):
        length = usual + (leap and number == 2)
        if months >> number & 1:
            whole = (1 << length) - 1
            in_months |= whole << offset
            in_days |= ((days or 0) >> 1 & whole) << offset
        offset += length
    if weekdays is None:
        return in_months if days is None else in_days
    week = sum(1 << place for place in range(7) if weekdays >> (first_weekday + place) % 7 & 1)
    in_weekdays = week * _WEEKS & in_months
    # crontab(5): where both fields are restricted, a day that matches either of them counts.
    return in_weekdays if days is None else in_days | in_weekdays


class _Blocks(dict[int, tuple[int, int | None]]):
    """Block number → mask of its 256 days, and the first day of the set after the block."""

    __slots__ = ("_days",)

    def __init__(self, days: DaySet) -> None:
        super().__init__()
        self._days = days

    def __missing__(self, number: int) -> tuple[int, int | None]:
        start = number << BLOCK_BITS
        mask = 0
        day = self._days.first_from(start)
        while day is not None and day < start + BLOCK:
            year_start, year_mask = self._days.year(date.fromordinal(day + 1).year)
            place = year_start - start
            mask |= year_mask << place if place >= 0 else year_mask >> -place
            day = self._days.first_from(max(day + 1, year_start + 365))
        found = self[number] = mask & ((1 << BLOCK) - 1), self._days.first_from(start + BLOCK)
        return found


class DaySet:
    """A set of days, asked for its neighbours. Made by `day_set`, which shares equal ones.

    Attributes:
        full: whether every day is in the set.
        blocks: for hot paths: block number (day >> 8) → mask of the block's days, first day of the set after the block.
    """

    __slots__ = ("_masks", "_years", "blocks", "full")

    def __init__(self, days: int | None, months: int, weekdays: int | None) -> None:
        self._masks = [
            [_year_mask(leap, first, days, months, weekdays) for first in range(7)] for leap in (False, True)
        ]
        self._years: dict[int, tuple[int, int]] = {}
        self.full = all(mask == (1 << 365 + leap) - 1 for leap in (False, True) for mask in self._masks[leap])
        self.blocks = _Blocks(self)

    @property
    def empty(self) -> bool:
        """Whether no year has such a day."""
        return not any(mask for masks in self._masks for mask in masks)

    def year(self, year: int) -> tuple[int, int]:
        """Return the number of 1 January and the mask of `year`."""
        try:
            return self._years[year]
        except KeyError:
            first = date(year, 1, 1).toordinal() - 1
            found = self._years[year] = first, self._masks[_is_leap(year)][(first + 1) % 7]
            return found

    def has(self, day: int) -> bool:
        """Return whether `day` is in the set; days outside the calendar never are."""
        return self.blocks[day >> BLOCK_BITS][0] >> (day & BLOCK - 1) & 1 == 1

    def next_from(self, day: int) -> int | None:
        """Return the first day of the set at or after `day`, None where the calendar ends before."""
        mask, beyond = self.blocks[day >> BLOCK_BITS]
        rest = mask >> (day & BLOCK - 1)
        return day + (rest & -rest).bit_length() - 1 if rest else beyond

    def first_from(self, day: int) -> int | None:
        """Return what `next_from` does, by years."""
        day = max(day, 0)
        if day > LAST_DAY:
            return None
        year = date.fromordinal(day + 1).year
        first, mask = self.year(year)
        rest = mask >> (day - first)
        if rest:
            return day + (rest & -rest).bit_length() - 1
        while year < date.max.year:
            year += 1
            first, mask = self.year(year)
            if mask:
                return first + (mask & -mask).bit_length() - 1
        return None

    def last_until(self, day: int) -> int | None:
        """Return the last day of the set at or before `day`, None where the calendar begins after."""
        day = min(day, LAST_DAY)
        if day < 0:
            return None
        year = date.fromordinal(day + 1).year
        first, mask = self.year(year)
        mask &= (2 << (day - first)) - 1
        while not mask and year > 1:
            year -= 1
            first, mask = self.year(year)
        return first + mask.bit_length() - 1 if mask else None

    def gap_from(self, day: int) -> int:
        """Return the first day at or after `day` that isn't in the set, `FOREVER` where every day is."""
        if self.full:
            return FOREVER
        while True:
            mask, _ = self.blocks[day >> BLOCK_BITS]
            place = day & BLOCK - 1
            free = ~mask >> place
            found = (free & -free).bit_length() - 1
            if place + found < BLOCK:
                return day + found
            day += BLOCK - place

    def gap_until(self, day: int) -> int:
        """Return the last day at or before `day` that isn't in the set; -1, the day before the calendar, never is."""
        if self.full:
            return -1
        while True:
            mask, _ = self.blocks[day >> BLOCK_BITS]
            place = day & BLOCK - 1
            free = ~mask & ((2 << place) - 1)
            if free:
                return day - place + free.bit_length() - 1
            day -= place + 1


@functools.lru_cache(maxsize=1024)
def day_set(days: int | None, months: int, weekdays: int | None) -> DaySet:
    """Return the days that a cron line means.

    `days` has bits 1 to 31, `months` bits 1 to 12, `weekdays` bits 0 (Sunday) to 6; None stands for `*`. Days and
    weekdays that are both given are united, as crontab(5) says.
    """
    return DaySet(days, months, weekdays)
