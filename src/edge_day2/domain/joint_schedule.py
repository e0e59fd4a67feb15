"""Several schedules as one: the union of those that open windows, minus the blackouts.

Answers agree with `merge` and `subtract` of the schedules' windows. Schedules may join without end, two of them by
turns for example; such a window is followed for 400 days from the instant that is asked about (fewer with thousands of
schedules), and says no more than has been seen: its end is the last that was found. Only one schedule that never closes
makes a window without an end.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from attrs import field, frozen

from edge_day2.domain.schedules import Schedule, SingleSchedule, Window, merge, subtract, utc

_FOLLOWED: Final = timedelta(days=400)
# Longer than any pause of a single schedule: leap days lie up to eight years apart.
_SEARCHED: Final = timedelta(days=40 * 366)
# Bounds the time that one answer takes, whatever the schedules are: questions to single schedules.
_MOST_QUESTIONS: Final = 100_000
_MIN: Final = datetime.min.replace(tzinfo=UTC)
_MAX: Final = datetime.max.replace(tzinfo=UTC)
_TICK: Final = datetime.resolution


class _Source(Protocol):
    def window_at(self, instant: datetime) -> Window | None: ...

    def next_window(self, after: datetime) -> Window | None: ...


class _Windows:
    """Disjoint windows in order, asked like a schedule."""

    __slots__ = ("_starts", "_windows")

    def __init__(self, windows: tuple[Window, ...]) -> None:
        self._windows = windows
        self._starts = [window.start for window in windows]

    def window_at(self, instant: datetime) -> Window | None:
        place = bisect_right(self._starts, instant) - 1
        if place < 0:
            return None
        found = self._windows[place]
        return found if found.end is None or instant < found.end else None

    def next_window(self, after: datetime) -> Window | None:
        place = bisect_left(self._starts, after)
        return self._windows[place] if place < len(self._windows) else None


class _Union:
    """The union of schedules. All instants are in UTC."""

    __slots__ = ("_joins", "_sources")

    def __init__(self, schedules: Iterable[Schedule]) -> None:
        singles = merge(schedule.window for schedule in schedules if isinstance(schedule, SingleSchedule))
        repeated = [schedule for schedule in schedules if not isinstance(schedule, SingleSchedule)]
        self._sources: tuple[_Source, ...] = (*([_Windows(singles)] if singles else ()), *repeated)
        self._joins = max(1, _MOST_QUESTIONS // max(1, len(self._sources)))

    def is_open(self, instant: datetime) -> bool:
        return any(source.window_at(instant) is not None for source in self._sources)

    def around(self, instant: datetime) -> Window | None:
        """Return the window that holds `instant`."""
        found = [window for source in self._sources if (window := source.window_at(instant)) is not None]
        if len(self._sources) <= 1 or not found:
            return found[0] if found else None
        start = min(window.start for window in found)
        for _ in range(self._joins):
            if start == _MIN or instant - start >= _FOLLOWED:
                break
            before = [window for source in self._sources if (window := source.window_at(start - _TICK)) is not None]
            if not before:
                break
            start = min(window.start for window in before)
        return Window(start, self._followed(instant, _last_end(found)))

    def _followed(self, instant: datetime, end: datetime | None) -> datetime | None:
        """Return the end of the window that holds `instant` and is known to be open until `end`."""
        for _ in range(self._joins):
            if end is None or end - instant >= _FOLLOWED:
                break
            after = [window for source in self._sources if (window := source.window_at(end)) is not None]
            if not after:
                break
            end = _last_end(after)
        return end

    def following(self, after: datetime) -> Window | None:
        """Return the first window that starts at or after `after`."""
        while True:
            ahead = [window.start for source in self._sources if (window := source.next_window(after)) is not None]
            if not ahead:
                return None
            found = self.around(min(ahead))
            assert found is not None
            if found.start >= after or found.end is None:
                return found if found.start >= after else None
            after = found.end

    def windows(self, start: datetime, stop: datetime) -> Iterator[Window]:
        """Yield the windows that overlap [start, stop), uncut."""
        ahead: list[tuple[datetime, int, Window]] = []
        for place, source in enumerate(self._sources):
            window = source.window_at(start) or source.next_window(start)
            if window is not None and window.start < stop:
                ahead.append((window.start, place, window))
        heapq.heapify(ahead)
        current: Window | None = None
        while ahead:
            _, place, window = ahead[0]
            if current is None or (current.end is not None and current.end < window.start):
                if current is not None:
                    yield current
                current = window
                if window.start <= start:
                    current = self.around(start)
                    assert current is not None
            elif current.end is not None and (window.end is None or window.end > current.end):
                current = Window(current.start, window.end)
            following = None if window.end is None else self._sources[place].next_window(window.end)
            if following is not None and following.start < stop:
                heapq.heapreplace(ahead, (following.start, place, following))
            else:
                heapq.heappop(ahead)
        if current is not None:
            yield Window(current.start, self._followed(max(start, current.start), current.end))


def _last_end(windows: list[Window]) -> datetime | None:
    ends = [window.end for window in windows]
    return None if None in ends else max(end for end in ends if end is not None)


def _set_of(schedules: Iterable[Schedule]) -> frozenset[Schedule]:
    return frozenset(schedules)


@frozen(cache_hash=True)
class JointSchedule:
    """What several schedules open together, outside of blackouts. Equal when both sets are.

    Asked like one schedule; see the module's text for windows that go on for years.
    """

    opening: frozenset[Schedule] = field(converter=_set_of)
    blackouts: frozenset[Schedule] = field(default=(), converter=_set_of)
    _open: _Union = field(init=False, repr=False, eq=False)
    _closed: _Union = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_open", _Union(self.opening))
        object.__setattr__(self, "_closed", _Union(self.blackouts))

    def is_open(self, instant: datetime) -> bool:
        """Return whether a window is open at `instant`.

        Raises:
            InvalidSchedule: `instant` is naive.
        """
        instant = utc("instant", instant)
        return self._open.is_open(instant) and not self._closed.is_open(instant)

    def blackout_at(self, instant: datetime) -> Window | None:
        """Return the blackout that holds `instant`, None where there is none.

        Raises:
            InvalidSchedule: `instant` is naive.
        """
        return self._closed.around(utc("instant", instant))

    def blackout_windows(self, start: datetime, stop: datetime) -> Iterator[Window]:
        """Return the blackouts that overlap `[start, stop)`, in order; they aren't cut.

        Raises:
            InvalidSchedule: `start` or `stop` is naive.
        """
        start, stop = utc("start", start), utc("stop", stop)
        return self._closed.windows(start, stop) if start < stop else iter(())

    def window_at(self, instant: datetime) -> Window | None:
        """Return the window that is open at `instant`, None where none is.

        Raises:
            InvalidSchedule: `instant` is naive.
        """
        instant = utc("instant", instant)
        if self._closed.is_open(instant):
            return None
        found = self._open.around(instant)
        if found is None or not self.blackouts:
            return found
        return Window(self._start_after_blackouts(found.start, instant), self._end_before_blackouts(instant, found.end))

    def _start_after_blackouts(self, start: datetime, instant: datetime) -> datetime:
        back = timedelta(days=1)
        while True:
            begin = start if instant - start <= back else instant - back
            ended = None
            for blackout in self._closed.windows(begin, instant):
                ended = blackout.end
            if ended is not None or begin == start:
                return start if ended is None else max(start, ended)
            back *= 8

    def _end_before_blackouts(self, instant: datetime, end: datetime | None) -> datetime | None:
        blackout = self._closed.following(instant)
        if blackout is None or (end is not None and end <= blackout.start):
            return end
        return blackout.start

    def next_window(self, after: datetime) -> Window | None:
        """Return the first window that starts at or after `after`.

        None where none does, or where blackouts cover everything for 40 years or tens of thousands of windows.

        Raises:
            InvalidSchedule: `after` is naive.
        """
        begun = instant = utc("after", after)
        if not self.blackouts:
            return self._open.following(instant)
        for _ in range(_MOST_QUESTIONS // (1 + len(self.opening) + len(self.blackouts)) + 1):
            opened = self._open.around(instant) or self._open.following(instant)
            if opened is None or instant - begun >= _SEARCHED:
                return None
            instant = max(instant, opened.start)
            blackout = self._closed.around(instant)
            if blackout is None:
                if instant == opened.start or self._closed.is_open(instant - _TICK):
                    return Window(instant, self._end_before_blackouts(instant, opened.end))
                # Already open: the next start follows the next blackout or the next window.
                closes = self._end_before_blackouts(instant, opened.end)
            else:
                closes = blackout.end
                if closes is not None and (opened.end is None or closes < opened.end):
                    return Window(closes, self._end_before_blackouts(closes, opened.end))
            if closes is None:
                return None
            instant = closes
        return None

    def windows(self, start: datetime, stop: datetime) -> Iterator[Window]:
        """Return the windows that overlap `[start, stop)`, in order; they aren't cut.

        Raises:
            InvalidSchedule: `start` or `stop` is naive.
        """
        start, stop = utc("start", start), utc("stop", stop)
        if start >= stop:
            return iter(())
        opened = self._open.windows(start, stop)
        return self._outside_blackouts(opened, start, stop) if self.blackouts else opened

    def _outside_blackouts(self, opened: Iterator[Window], start: datetime, stop: datetime) -> Iterator[Window]:
        for window in subtract(opened, self._closed.windows(start, stop)):
            if window.start >= stop or (window.end is not None and window.end <= start):
                continue
            if window.start <= start or window.end is None or window.end >= stop:
                # Blackouts before `start` or after `stop` may cut it as well.
                found = self.window_at(max(start, window.start))
                assert found is not None
                yield found
            else:
                yield window
