"""What a node makes of the windows that it was sent: when to download, what fits, and which clock to believe.

Pure: the node's clock is read elsewhere and comes in as data.
"""

from __future__ import annotations

import enum
import hashlib
from datetime import datetime, timedelta
from typing import Final, Protocol

from attrs import field, frozen

from edge_day2.domain.schedules import Window, utc

DOWNLOAD_SPREAD: Final = timedelta(hours=6)
DOWNLOAD_AT_ONCE: Final = timedelta(minutes=10)
# The longest window of a repeated schedule: whatever was begun this far in the future was begun by a wrong clock.
_DAY: Final = timedelta(days=1)
_MOST_MISSED: Final = 100
_MOST_BEGUN: Final = 10


class _Asked(Protocol):
    def window_at(self, instant: datetime) -> Window | None: ...

    def next_window(self, after: datetime) -> Window | None: ...


def download_start(
    window: Window,
    host_guid: str,
    salt: str,
    *,
    spread: timedelta = DOWNLOAD_SPREAD,
    at_once: timedelta = DOWNLOAD_AT_ONCE,
) -> datetime:
    """Return when this node begins to download for `window`.

    It lies in the `spread` before the last `at_once` before the window's start, evenly distributed over the nodes, and
    is always the same for a node, window and salt, so that a restart changes nothing. Another salt deals anew. From the
    last `at_once` on, a node that hasn't downloaded yet begins right away. (6 h and 10 min are the original's figures.)
    """
    begins = f"{window.start:%Y-%m-%dT%H:%M:%S.%f}"
    drawn = hashlib.sha256("\0".join((host_guid.lower(), begins, salt)).encode()).digest()
    share = int.from_bytes(drawn[:8], "big")
    microseconds = (spread // timedelta(microseconds=1)) * share >> 64
    try:
        return window.start - at_once - spread + timedelta(microseconds=microseconds)
    except OverflowError:
        # A window that has been open for as long as the calendar reaches.
        return window.start


@frozen(kw_only=True)
class WindowFit:
    """Whether what is left of an update fits into what is left of its window.

    Attributes:
        window: the window that is asked about.
        needed: how long the rest of the update takes, by the caller's estimate, reboot and verification included.
        left: how long the window stays open, None where it never closes.
    """

    window: Window
    needed: timedelta
    left: timedelta | None

    @property
    def fits(self) -> bool:
        """Whether the update may be started, or go on, in this window."""
        return self.left is None or self.needed <= self.left

    @property
    def sentence(self) -> str:
        """What to tell the Maintenance Manager."""
        if self.left is None:
            return f"the update needs {_minutes(self.needed)}, the window never closes"
        if self.fits:
            return f"the update needs {_minutes(self.needed)}, the window stays open for {_minutes(self.left)}"
        return f"not started: the update needs {_minutes(self.needed)}, the window closes in {_minutes(self.left)}"


def window_fit(window: Window, now: datetime, needed: timedelta) -> WindowFit:
    """Return whether an update that takes `needed` from `now` on ends within `window`.

    Raises:
        InvalidSchedule: `now` is naive.
    """
    return WindowFit(window=window, needed=needed, left=window.remaining(now))


def _minutes(length: timedelta) -> str:
    seconds = int(length.total_seconds())
    return f"{seconds} s" if seconds < 60 else f"{seconds // 60} min"


class ClockState(enum.Enum):
    """What a node thinks of its wall clock."""

    BELIEVED = "believed"
    UNSET = "not set yet: before the earliest possible time"
    BEHIND = "behind what was journalled before"


@frozen(kw_only=True)
class ClockMemory:
    """What a node must not forget over a restart, to neither skip nor double a window.

    Attributes:
        latest: the latest instant at which the clock was believed.
        begun: the windows that were begun last, oldest first, 10 at the most.
    """

    latest: datetime | None = None
    begun: tuple[Window, ...] = ()


@frozen(kw_only=True)
class ClockRules:
    """When a node believes its clock.

    Attributes:
        earliest: the clock is wrong before this instant; the day on which the agent was built is a good choice.
        settles: how long a clock that was set back must have run on without a jump before it is believed.
    """

    earliest: datetime
    settles: timedelta = timedelta(hours=1)


@frozen(kw_only=True)
class ClockJudgement:
    """What a node may do at one reading of its clock.

    Attributes:
        state: whether the clock is believed; where it isn't, no window is open.
        window: the window that is open, None where none is.
        begins: whether the window hasn't been begun yet; False for the rest of it, also after a restart or a jump back.
        missed: windows that lie wholly between the last reading and this one, oldest first, 100 at the most. The node
            was off, or its clock was put forward over them; they aren't made up for outside of a window.
        memory: what to store.
    """

    state: ClockState
    window: Window | None = None
    begins: bool = False
    missed: tuple[Window, ...] = field(default=())
    memory: ClockMemory


def judge_clock(
    memory: ClockMemory, now: datetime, steady: timedelta, schedule: _Asked, rules: ClockRules
) -> ClockJudgement:
    """Return what the node may do at `now`.

    - A clock that isn't set (1970) opens nothing. Once it is set in the middle of a window, that window is used.
    - A clock that was put forward by mistake and back again is believed once it has run steadily for `rules.settles`;
      what was begun more than a day in its future is forgotten then, so that no window is skipped.
    - A clock that is put back by less, into or before a window that was begun, doesn't begin it again.
    - A clock that is put forward over a window misses it, and says so.

    Args:
        memory: what the last judgement gave to store.
        now: the wall clock's reading.
        steady: for how long wall clock and monotonic clock have agreed, since the boot or the last jump.
        schedule: what opens windows.
        rules: when the clock is believed.

    Raises:
        InvalidSchedule: `now` is naive.
    """
    now = utc("now", now)
    if now < rules.earliest:
        return ClockJudgement(state=ClockState.UNSET, memory=memory)
    latest = memory.latest
    if latest is not None and now < latest and steady < rules.settles:
        return ClockJudgement(state=ClockState.BEHIND, memory=memory)
    begun = tuple(window for window in memory.begun if window.start - now <= _DAY)
    window = schedule.window_at(now)
    missed = _missed(schedule, latest, begun, now) if latest is not None and latest < now else ()
    begins = window is not None and not any(_covers(earlier, window) for earlier in begun)
    return ClockJudgement(
        state=ClockState.BELIEVED,
        window=window,
        begins=begins,
        missed=missed,
        memory=ClockMemory(latest=now, begun=(*begun, window)[-_MOST_BEGUN:] if window and begins else begun),
    )


def _covers(begun: Window, window: Window) -> bool:
    """Whether `window` was over, or under way, when `begun` was.

    A schedule that is edited while its window is open makes a window with another start; it isn't a new one.
    """
    return begun.start >= window.start or begun.end is None or begun.end > window.start


def _missed(schedule: _Asked, latest: datetime, begun: tuple[Window, ...], now: datetime) -> tuple[Window, ...]:
    found: list[Window] = []
    window = schedule.window_at(latest) or schedule.next_window(latest)
    while window is not None and window.end is not None and window.end <= now and len(found) < _MOST_MISSED:
        if not any(_covers(earlier, window) for earlier in begun):
            found.append(window)
        window = schedule.next_window(window.end)
    return tuple(found)
