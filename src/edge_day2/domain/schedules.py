"""Schedules and the windows that they open: the one place that knows when a node may be disturbed.

A window is half-open, `[start, end)`, in UTC. A schedule is single (start, maybe an end) or repeated (five cron fields,
a duration and a time zone). Every question takes aware datetimes; a naive one is an error, never a guess.

Rules of a repeated schedule:

- grammar: each field is `*` or a comma list of plain whole numbers, as the original's regular expressions have it;
  no ranges, steps, names or leading zeros;
- day of month and day of week both restricted: a day that matches either counts (crontab(5));
- daylight saving, hours restricted: a start that the clock skips happens at the first instant after the gap, a start
  that it shows twice happens the first time alone; hours `*`: every real minute that matches;
- the duration is real time; windows that touch or overlap are one;
- a schedule that can never fire is refused when it is made.

Answers lie in the years 1 to 9999. A window that never closes, or closes after the year 9999, has no end; one that has
been open for as long as the calendar reaches starts at the calendar's first start.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from attrs import field, frozen

from edge_day2.domain.timeline import Span, Timeline, timeline
from edge_day2.domain.zone_offsets import DAY, LAST_SECOND, ORIGIN
from edge_day2.errors import InvalidSchedule

LONGEST_DURATION: Final = 86_400
_POSIX_EPOCH: Final = (datetime(1970, 1, 1, tzinfo=UTC) - ORIGIN).days * DAY
_AWARE: Final = "a datetime with a time zone, in the years 1 to 9999"


class ScheduleKind(enum.Enum):
    """What a schedule is for; numbers as in the original's ScheduleStatus.

    BLACKOUT isn't in the original: a freeze period, in which nothing is opened whatever else is scheduled. It never
    goes on the wire.
    """

    UNSPECIFIED = 0
    MAINTENANCE = 1
    SHIPPING = 2
    OS_UPDATE = 3
    FIRMWARE_UPDATE = 4
    CLUSTER_UPDATE = 5
    BLACKOUT = 100


class _Range(NamedTuple):
    lowest: int
    highest: int


CRON_FIELDS: Final = {
    "minutes": _Range(0, 59),
    "hours": _Range(0, 23),
    "day_month": _Range(1, 31),
    "month": _Range(1, 12),
    "day_week": _Range(0, 6),
}


@functools.lru_cache(maxsize=4096)
def _cron_bits(name: str, text: str) -> int | None:
    lowest, highest = CRON_FIELDS[name]
    if text == "*":
        return None
    bits = 0
    for part in text.split(","):
        plain = part.isascii() and part.isdecimal() and len(part) <= 2 and (part == "0" or part[0] != "0")
        if not plain or not lowest <= int(part) <= highest:
            expected = f"* or a comma list of whole numbers from {lowest} to {highest} without leading zeros"
            raise InvalidSchedule(name, text, expected)
        bits |= 1 << int(part)
    return bits


def cron_bits(name: str, text: str) -> int | None:
    """Return the values that the cron field `name` (a key of `CRON_FIELDS`) allows as a bit set, None for `*`.

    Raises:
        InvalidSchedule: `text` isn't `*` or a comma list of plain whole numbers in the field's range.
    """
    return _cron_bits(name, _text(name, text, "a text such as * or 0,30"))


def _text(name: str, value: object, expected: str) -> str:
    if not isinstance(value, str):
        raise InvalidSchedule(name, value, expected)
    return value


def utc(name: str, instant: object) -> datetime:
    """Return `instant` in UTC; `name` says in the error what it is.

    Raises:
        InvalidSchedule: `instant` is naive, no datetime, or outside the years 1 to 9999 in UTC.
    """
    if not isinstance(instant, datetime) or instant.utcoffset() is None:
        raise InvalidSchedule(name, instant, _AWARE)
    if instant.tzinfo is UTC:
        return instant
    try:
        return instant.astimezone(UTC)
    except OverflowError as error:
        raise InvalidSchedule(name, instant, _AWARE) from error


def _start(value: datetime) -> datetime:
    return utc("start", value)


def _end(value: datetime | None) -> datetime | None:
    return None if value is None else utc("end", value)


def _check_order(start: datetime, end: datetime | None) -> None:
    if end is not None and end <= start:
        raise InvalidSchedule("end", end, f"an instant after the start, {start.isoformat()}, or None")


@frozen
class Window:
    """A stretch of time, `start` included, `end` not; `end` None is open-ended. Both are kept in UTC.

    Raises:
        InvalidSchedule: a naive datetime, or an end that isn't after the start.
    """

    start: datetime = field(converter=_start)
    end: datetime | None = field(default=None, converter=_end)

    def __attrs_post_init__(self) -> None:
        _check_order(self.start, self.end)

    def contains(self, instant: datetime) -> bool:
        """Return whether `instant` lies in the window.

        Raises:
            InvalidSchedule: `instant` is naive.
        """
        instant = utc("instant", instant)
        return self.start <= instant and (self.end is None or instant < self.end)

    def remaining(self, instant: datetime) -> timedelta | None:
        """Return how long the window stays open from `instant` on: zero outside of it, None where it never closes.

        Raises:
            InvalidSchedule: `instant` is naive.
        """
        if not self.contains(instant):
            return timedelta(0)
        return None if self.end is None else self.end - instant


@frozen
class SingleSchedule:
    """One window, from `start` to `end`, or open-ended where `end` is None. Both are kept in UTC.

    Raises:
        InvalidSchedule: a naive datetime, or an end that isn't after the start.
    """

    start: datetime = field(converter=_start)
    end: datetime | None = field(default=None, converter=_end)

    def __attrs_post_init__(self) -> None:
        _check_order(self.start, self.end)

    @property
    def window(self) -> Window:
        """The schedule's only window."""
        return _make_window(self.start, self.end)

    def window_at(self, instant: datetime) -> Window | None:
        """Return the window that is open at `instant`, None where it is closed.

        Raises:
            InvalidSchedule: `instant` is naive.
        """
        return self.window if self.window.contains(instant) else None

    def next_window(self, after: datetime) -> Window | None:
        """Return the window where it starts at or after `after`.

        Raises:
            InvalidSchedule: `after` is naive.
        """
        return self.window if self.start >= utc("after", after) else None

    def windows(self, start: datetime, stop: datetime) -> Iterator[Window]:
        """Return the window where it overlaps `[start, stop)`; it isn't cut.

        Raises:
            InvalidSchedule: `start` or `stop` is naive.
        """
        start, stop = utc("start", start), utc("stop", stop)
        overlaps = start < stop and self.start < stop and (self.end is None or start < self.end)
        return iter((self.window,) if overlaps else ())


@frozen(eq=False)
class RepeatedSchedule:
    """A window of `duration_seconds` at every time that five cron fields name in `time_zone`.

    Each field keeps the text it was given. Two schedules are equal when their fields name the same values, in whatever
    order or number, and duration and time zone are the same.

    Args:
        minutes, hours, day_month, month, day_week: `*` or a comma list of whole numbers: 0-59, 0-23, 1-31, 1-12 and
            0-6 with 0 for Sunday.
        duration_seconds: 1 to 86,400, in real time.
        time_zone: a name of the IANA database.

    Raises:
        InvalidSchedule: a field breaks the grammar, the duration is out of range, the zone is unknown, or no calendar
            has such a day (31 February).
    """

    minutes: str = "0"
    hours: str = "2"
    day_month: str = "*"
    month: str = "*"
    day_week: str = "1,3"
    duration_seconds: int = 3600
    time_zone: str = "UTC"
    _timeline: Timeline = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        duration: object = self.duration_seconds
        if not isinstance(duration, int) or isinstance(duration, bool) or not 1 <= duration <= LONGEST_DURATION:
            expected = f"a whole number of seconds from 1 to {LONGEST_DURATION}"
            raise InvalidSchedule("duration_seconds", duration, expected)
        minutes = cron_bits("minutes", self.minutes)
        months = cron_bits("month", self.month)
        key = (
            # Every minute and every month are the same as `*`; with hours and days the star has a meaning of its own.
            (1 << 60) - 1 if minutes is None else minutes,
            cron_bits("hours", self.hours),
            cron_bits("day_month", self.day_month),
            (1 << 13) - 2 if months is None else months,
            cron_bits("day_week", self.day_week),
            duration,
            _text("time_zone", self.time_zone, "a time zone name of the IANA database"),
        )
        found = timeline(key)
        if found.empty:
            raise InvalidSchedule("day_month", self.day_month, f"a day that month {self.month} has")
        object.__setattr__(self, "_timeline", found)

    def __eq__(self, other: object) -> bool:
        return self._timeline.key == other._timeline.key if isinstance(other, RepeatedSchedule) else NotImplemented

    def __hash__(self) -> int:
        return self._timeline.hash

    def window_at(self, instant: datetime) -> Window | None:
        """Return the merged window that is open at `instant`, None where none is.

        Raises:
            InvalidSchedule: `instant` is naive.
        """
        try:
            since = instant - ORIGIN
        except TypeError as error:
            raise InvalidSchedule("instant", instant, _AWARE) from error
        span = self._timeline.at(since.days * DAY + since.seconds)
        return None if span is None else _window_of(span)

    def next_window(self, after: datetime) -> Window | None:
        """Return the first merged window that starts at or after `after`; None where none does.

        A window that is already open at `after` isn't it, so a schedule whose windows never close has no next one.

        Raises:
            InvalidSchedule: `after` is naive.
        """
        try:
            since = after - ORIGIN
        except TypeError as error:
            raise InvalidSchedule("after", after, _AWARE) from error
        instant = since.days * DAY + since.seconds
        span = self._timeline.following(instant + 1 if since.microseconds else instant)
        return None if span is None or span[0] > LAST_SECOND else _window_of(span)

    def windows(self, start: datetime, stop: datetime) -> Iterator[Window]:
        """Return the merged windows that overlap `[start, stop)`, in order; they aren't cut.

        Raises:
            InvalidSchedule: `start` or `stop` is naive.
        """
        return self._windows(utc("start", start), utc("stop", stop))

    def _windows(self, start: datetime, stop: datetime) -> Iterator[Window]:
        found = None if stop <= start else self.window_at(start) or self.next_window(start)
        while found is not None and found.start < stop:
            yield found
            found = None if found.end is None else self.next_window(found.end)


Schedule = SingleSchedule | RepeatedSchedule


def merge(windows: Iterable[Window]) -> tuple[Window, ...]:
    """Return the instants of `windows` as disjoint windows that don't touch, in order."""
    merged: list[Window] = []
    for window in sorted(windows, key=lambda window: window.start):
        last = merged[-1] if merged else None
        if last is None or (last.end is not None and last.end < window.start):
            merged.append(window)
        elif last.end is not None and (window.end is None or window.end > last.end):
            merged[-1] = _make_window(last.start, window.end)
    return tuple(merged)


def subtract(windows: Iterable[Window], blackouts: Iterable[Window]) -> tuple[Window, ...]:
    """Return the instants that lie in one of `windows` and in none of `blackouts`, as `merge` does."""
    left: list[Window] = []
    closed = merge(blackouts)
    place = 0
    for window in merge(windows):
        start: datetime | None = window.start
        while place < len(closed) and start is not None:
            blackout = closed[place]
            if window.end is not None and blackout.start >= window.end:
                break
            if blackout.start > start:
                left.append(_make_window(start, blackout.start))
            if blackout.end is None:
                start = None
            elif window.end is not None and blackout.end > window.end:
                # It may reach into the next window as well.
                start = window.end
                break
            else:
                start = max(start, blackout.end)
                place += 1
        if start is not None and (window.end is None or start < window.end):
            left.append(_make_window(start, window.end))
    return tuple(left)


class _Lengths(dict[int, timedelta]):
    """Seconds → timedelta: windows have few lengths, and making a timedelta costs as much as finding a window."""

    def __missing__(self, seconds: int) -> timedelta:
        length = timedelta(0, seconds)
        if seconds <= LONGEST_DURATION:
            self[seconds] = length
        return length


_LENGTHS: Final = _Lengths()


def _window_of(span: Span) -> Window:
    start, end = span
    if start < 0:
        start = 0
    opened = datetime.fromtimestamp(start - _POSIX_EPOCH, UTC)
    closed = None if end is None or end > LAST_SECOND else opened + _LENGTHS[end - start]
    window = _new_window()
    _set_start(window, opened)
    _set_end(window, closed)
    return window


_new_window = functools.partial(object.__new__, Window)
_set_start = vars(Window)["start"].__set__
_set_end = vars(Window)["end"].__set__


def _make_window(start: datetime, end: datetime | None) -> Window:
    """Return the window without the checks, which cost more than finding it: both are in UTC and in order."""
    window = _new_window()
    _set_start(window, start)
    _set_end(window, end)
    return window
