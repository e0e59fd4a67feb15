"""The merged windows of a repeated schedule, in whole seconds since 0001-01-01T00:00:00Z.

How an answer is found, without stepping through time:

1. A day of the schedule is a sorted list of start times; starts no further apart than the duration form one run. If the
   last run of a day reaches the first one of the next day, days are *linked* and runs may span many days.
2. Within a piece of constant UTC offset (`zone_offsets`) every matching day looks the same, so first, last and merged
   starts follow from the run list and from the day set (`calendar_days`).
3. Where pieces meet, the clock jumps. With restricted hours, starts that the clock skips happen at the first instant
   after the gap, and starts that it shows twice happen the first time alone. With hours `*` a start is every real
   minute that matches. Runs of neighbouring pieces are then joined like any others.

Where no change of the clock is near, step 2 is the whole answer; `at` and `following` take that way first.
"""

from __future__ import annotations

import functools
from bisect import bisect_left, bisect_right
from typing import Final

from edge_day2.domain.calendar_days import BLOCK, BLOCK_BITS, FOREVER, DaySet, day_set
from edge_day2.domain.zone_offsets import CHUNK_BITS, DAY, SETTLED, Piece, Zone, zone

# The clock never jumps by more than a day.
_CALM: Final = 2 * DAY
# A chain of windows over every day of the year that survives three whole years of a zone's last rule survives all.
_PROOF: Final = 3 * 366 * DAY

Key = tuple[int, int | None, int | None, int, int | None, int, str]
Span = tuple[int, int | None]


@functools.lru_cache(maxsize=4096)
def _starts_of_day(minutes: int, hours: int | None) -> tuple[int, ...]:
    chosen = [minute for minute in range(60) if minutes >> minute & 1]
    return tuple(
        hour * 3600 + minute * 60 for hour in range(24) if hours is None or hours >> hour & 1 for minute in chosen
    )


class Timeline:
    """The windows of one repeated schedule. Made by `timeline`, which shares equal ones."""

    __slots__ = (
        "_chunks",
        "_days",
        "_duration",
        "_last_run",
        "_linked",
        "_only",
        "_recent",
        "_run_ends",
        "_run_lasts",
        "_run_starts",
        "_skips_and_repeats",
        "_spill",
        "_starts",
        "_zone",
        "hash",
        "key",
    )

    def __init__(self, key: Key) -> None:
        minutes, hours, days, months, weekdays, duration, time_zone = key
        self.key = key
        self.hash = hash(key)
        self._days: DaySet = day_set(days, months, weekdays)
        self._zone: Zone = zone(time_zone)
        self._chunks = self._zone.chunks
        self._only = self._zone.only
        self._duration = duration
        self._skips_and_repeats = hours is None
        self._starts = starts = _starts_of_day(minutes, hours)
        breaks = [place for place in range(1, len(starts)) if starts[place] - starts[place - 1] > duration]
        self._run_starts = tuple(starts[place] for place in (0, *breaks))
        self._run_lasts = tuple(starts[place - 1] for place in (*breaks, len(starts)))
        self._run_ends = tuple(last + duration for last in self._run_lasts)
        self._last_run = len(self._run_starts) - 1
        self._spill = self._run_ends[-1] - DAY
        self._linked = self._spill >= starts[0]
        # Windows of linked days may span years; the one found last often answers the next question.
        self._recent: Span | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return timeline, (self.key,)

    @property
    def empty(self) -> bool:
        """Whether there is no day on which the schedule fires."""
        return self._days.empty

    def at(self, instant: int) -> Span | None:
        """Return the merged window that holds `instant`; its end is None where it never closes."""
        piece = self._only
        if piece is None:
            starts, pieces = self._chunks[instant >> CHUNK_BITS]
            piece = pieces[bisect_right(starts, instant) - 1]
        _, stop, offset, _, fresh = piece
        local = instant + offset
        day = local // DAY
        second = local - day * DAY
        run = bisect_right(self._run_starts, second) - 1
        if run >= 0 and self._days.has(day):
            if second >= self._run_ends[run]:
                return None if instant - self._duration >= fresh else self._at_near_change(instant)
        elif second < self._spill and self._days.has(day - 1):
            day -= 1
            run = self._last_run
        else:
            return None if instant - self._duration >= fresh else self._at_near_change(instant)
        midnight = day * DAY - offset
        start, end = midnight + self._run_starts[run], midnight + self._run_ends[run]
        if self._linked and (run == 0 or run == self._last_run):
            start, end = self._linked_run(day, run, offset)
        if start - self._duration < fresh or end >= stop:
            return self._at_near_change(instant)
        return start, end

    def following(self, instant: int) -> Span | None:
        """Return the first merged window that starts at or after `instant`; None where no window does."""
        piece = self._only
        if piece is None:
            starts, pieces = self._chunks[instant >> CHUNK_BITS]
            piece = pieces[bisect_right(starts, instant) - 1]
        _, stop, offset, _, fresh = piece
        if instant - self._duration < fresh:
            return self._following_near_change(instant)
        local = instant + offset
        today = local // DAY
        mask, beyond = self._days.blocks[today >> BLOCK_BITS]
        rest = mask >> (today & BLOCK - 1)
        run = bisect_left(self._run_starts, local - today * DAY) if rest & 1 else 0
        if run > self._last_run:
            run = 0
            rest -= 1
        day = today + (rest & -rest).bit_length() - 1 if rest else beyond
        if self._linked and day is not None and run == 0 and self._days.has(day - 1):
            # The day's first run began on an earlier day.
            if self._last_run:
                run = 1
            else:
                day = self._days.next_from(self._days.gap_from(day))
        if day is None:
            return self._following_near_change(instant) if self._days.full else None
        midnight = day * DAY - offset
        start, end = midnight + self._run_starts[run], midnight + self._run_ends[run]
        if self._linked:
            if self._last_run == 0:
                end += (self._days.gap_from(day) - 1 - day) * DAY
            elif run == self._last_run and self._days.has(day + 1):
                end = midnight + DAY + self._run_ends[0]
        if end < stop:
            return start, end
        if stop - instant > _CALM:
            _, stop, other, _, fresh = self._zone.piece(start)
            start, end = start + offset - other, end + offset - other
            if start - self._duration >= fresh and end < stop:
                return start, end
        return self._following_near_change(instant)

    def _linked_run(self, day: int, run: int, offset: int) -> tuple[int, int]:
        """Return start and end of the day's first or last run with what it joins, as if the clock never jumped."""
        first_day = last_day = day
        first = last = run
        if self._last_run == 0:
            first_day, last_day = self._days.gap_until(day) + 1, self._days.gap_from(day) - 1
        elif run == 0 and self._days.has(day - 1):
            first_day, first = day - 1, self._last_run
        elif run == self._last_run and self._days.has(day + 1):
            last_day, last = day + 1, 0
        return (
            first_day * DAY + self._run_starts[first] - offset,
            last_day * DAY + self._run_ends[last] - offset,
        )

    def _at_near_change(self, instant: int) -> Span | None:
        recent = self._recent
        if recent is not None and recent[0] <= instant and (recent[1] is None or instant < recent[1]):
            return recent
        found = self._last_within(instant - self._duration + 1, instant)
        if found is None:
            return None
        self._recent = span = self._window_start(found), self._window_end(found)
        return span

    def _following_near_change(self, instant: int) -> Span | None:
        found = self._first_from(instant)
        span = None if found is None else self._at_near_change(found)
        if span is None or span[0] >= instant:
            return span
        found = None if span[1] is None else self._first_from(span[1])
        return None if found is None else self._at_near_change(found)

    # Starts and runs of a day in local time, as if the clock never jumped.

    def _local_from(self, local: int) -> int | None:
        today, second = divmod(local, DAY)
        day = self._days.next_from(today)
        if day == today:
            place = bisect_left(self._starts, second)
            if place < len(self._starts):
                return day * DAY + self._starts[place]
            day = self._days.next_from(today + 1)
        return None if day is None else day * DAY + self._starts[0]

    def _local_until(self, local: int) -> int | None:
        today, second = divmod(local, DAY)
        day = self._days.last_until(today)
        if day == today:
            place = bisect_right(self._starts, second) - 1
            if place >= 0:
                return day * DAY + self._starts[place]
            day = self._days.last_until(today - 1)
        return None if day is None else day * DAY + self._starts[-1]

    def _run_last(self, local: int) -> int:
        """Return the last start of the run that the start `local` belongs to, `FOREVER` where there is none."""
        day, second = divmod(local, DAY)
        run = bisect_right(self._run_starts, second) - 1
        if self._linked and run == len(self._run_starts) - 1:
            if run == 0:
                gap = self._days.gap_from(day)
                return FOREVER if gap == FOREVER else (gap - 1) * DAY + self._run_lasts[0]
            if self._days.has(day + 1):
                day, run = day + 1, 0
        return day * DAY + self._run_lasts[run]

    def _run_first(self, local: int) -> int:
        """Return the first start of the run that the start `local` belongs to."""
        day, second = divmod(local, DAY)
        run = bisect_right(self._run_starts, second) - 1
        if self._linked and run == 0:
            if len(self._run_starts) == 1:
                day = self._days.gap_until(day) + 1
            elif self._days.has(day - 1):
                day, run = day - 1, -1
        return day * DAY + self._run_starts[run]

    # Starts and windows in real time.

    def _opening(self, piece: Piece) -> tuple[int, bool]:
        """Return from when on starts of `piece` count, and whether skipped starts happen right at its start."""
        start, _, offset, before, fresh = piece
        if self._skips_and_repeats or offset == before:
            return start, False
        if offset < before:
            return fresh, False
        skipped = self._local_from(start + before)
        return start, skipped is not None and skipped < start + offset

    def _first_from(self, instant: int) -> int | None:
        """Return the first start at or after `instant`."""
        while True:
            piece = self._zone.piece(instant)
            opening, late = self._opening(piece)
            if late and instant <= piece.start:
                return piece.start
            local = self._local_from(max(instant, opening) + piece.offset)
            if local is None:
                return None
            if local - piece.offset < piece.stop:
                return local - piece.offset
            # A clock that goes back shows again what lies at most a day before; from further away it's safe to jump.
            far = piece.stop - instant >= _CALM
            instant = max(piece.stop, local - _CALM) if far else piece.stop

    def _last_within(self, floor: int, instant: int) -> int | None:
        """Return the last start in [floor, instant]."""
        while True:
            piece = self._zone.piece(instant)
            opening, late = self._opening(piece)
            local = self._local_until(instant + piece.offset)
            if local is not None and local - piece.offset >= opening:
                found = local - piece.offset
                return found if found >= floor else None
            if late or piece.start <= floor:
                return piece.start if late and piece.start >= floor else None
            instant = piece.start - 1

    def _window_end(self, start: int) -> int | None:
        """Return the end of the merged window that the start `start` belongs to, None where it never closes."""
        proven = max(start, SETTLED) + _PROOF
        while True:
            piece = self._zone.piece(start)
            local = start + piece.offset
            last = start
            if self._local_from(local) == local:
                run_last = self._run_last(local)
                if run_last == piece.stop == FOREVER:
                    return None
                last = run_last - piece.offset
                if last >= piece.stop:
                    before_stop = self._local_until(piece.stop - 1 + piece.offset)
                    assert before_stop is not None
                    last = before_stop - piece.offset
            following = self._first_from(last + 1)
            if following is None or following > last + self._duration:
                return last + self._duration
            if following > proven and self._days.full:
                return None
            start = following

    def _window_start(self, start: int) -> int:
        """Return the start of the merged window that the start `start` belongs to."""
        while True:
            piece = self._zone.piece(start)
            local = start + piece.offset
            first = start
            if self._local_from(local) == local:
                first = self._run_first(local) - piece.offset
                opening, _ = self._opening(piece)
                if first < opening:
                    after_opening = self._local_from(opening + piece.offset)
                    assert after_opening is not None
                    first = after_opening - piece.offset
            previous = self._last_within(first - self._duration, first - 1)
            if previous is None:
                return first
            start = previous


@functools.lru_cache(maxsize=8192)
def timeline(key: Key) -> Timeline:
    """Return the timeline of (minutes, hours, days, months, weekdays, duration in seconds, time zone).

    The fields are bit sets; None stands for `*` where that means something else than every value.

    Raises:
        InvalidSchedule: the time zone doesn't exist.
    """
    return Timeline(key)
