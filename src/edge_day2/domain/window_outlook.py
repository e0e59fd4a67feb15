"""Why a host can or can't be updated at an instant, and when it can be: as data and as one English sentence."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from attrs import frozen

from edge_day2.domain.joint_schedule import JointSchedule
from edge_day2.domain.resources import Host, Instance, OSType, Provisioning, TargetLevel, Trust
from edge_day2.domain.schedule_book import AppliedSchedule, ScheduleBook
from edge_day2.domain.schedules import RepeatedSchedule, ScheduleKind, Window, utc

# strftime would say the weekday in the machine's language.
_WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_FIRST_YEAR_SAID: Final = 1970
_MOST_TRIED: Final = 1000


class Verdict(enum.Enum):
    """What comes of it."""

    UPDATES = "can be updated now"
    WAITS = "can be updated later"
    NEVER = "isn't updated as things stand"


class ReasonKind(enum.Enum):
    """One link in the chain of reasons."""

    UNTRUSTED = "the host isn't trusted"
    NOT_PROVISIONED = "the instance isn't provisioned"
    UP_TO_DATE = "desired OS equals current OS"
    NO_SCHEDULE = "no schedule applies"
    NO_OPENING_KIND = "no schedule of a kind that opens updates"
    WINDOW_OPEN = "a window is open"
    BLACKOUT = "a blackout closes everything"
    TOO_SHORT = "the window closes too soon for the update"
    WINDOW_AHEAD = "a window comes"
    NO_WINDOW_AHEAD = "no window comes"


@frozen(kw_only=True)
class Reason:
    """Why, with what there is to show for it.

    Attributes:
        text: the reason in English, part of a sentence.
        window: the window or blackout that the reason speaks of.
        source: the schedule that opens or closes it.
    """

    kind: ReasonKind
    text: str
    window: Window | None = None
    source: AppliedSchedule | None = None


@frozen(kw_only=True)
class Explanation:
    """Why a host can or can't be updated at an instant. `reasons` come in the order in which they decide."""

    host_id: str
    at: datetime
    verdict: Verdict
    reasons: tuple[Reason, ...]

    @property
    def sentence(self) -> str:
        """The reasons as one English sentence, without a full stop."""
        said = ", then ".join(reason.text for reason in self.reasons)
        return f"not updated: {said}" if self.verdict is Verdict.NEVER else said


@frozen(kw_only=True)
class Forecast:
    """When hosts can be updated within a stretch of time.

    Attributes:
        windows: host id → its windows that overlap the stretch; hosts without any aren't in it.
        without: host id → why it has none. Its verdict tells those that wait for a later window from those that never
            will be updated as things stand.
    """

    windows: Mapping[str, tuple[Window, ...]]
    without: Mapping[str, Explanation]

    @property
    def never(self) -> Mapping[str, Explanation]:
        """The hosts that won't be updated at all, and why."""
        return {host_id: why for host_id, why in self.without.items() if why.verdict is Verdict.NEVER}


def explain(
    book: ScheduleBook,
    host_id: str,
    at: datetime,
    *,
    instance: Instance | None = None,
    needed: timedelta = timedelta(0),
) -> Explanation:
    """Return why the host can or can't be updated at `at`.

    Args:
        book: the schedules.
        host_id: the host.
        at: the instant.
        instance: the host's instance, where its OS is to be looked at as well.
        needed: how long an update takes; a window that closes earlier isn't used.

    Raises:
        NotFound: the book has no such host.
        InvalidSchedule: `at` is naive.
    """
    at = utc("at", at)
    host = book.host(host_id)
    reason = _standing(host, instance)
    if reason is not None:
        return Explanation(host_id=host_id, at=at, verdict=Verdict.NEVER, reasons=(reason,))
    applying = book.applying(host_id)
    opening = tuple(applied for applied in applying if applied.resource.kind in book.kinds)
    if not opening:
        kind = ReasonKind.NO_OPENING_KIND if applying else ReasonKind.NO_SCHEDULE
        return Explanation(host_id=host_id, at=at, verdict=Verdict.NEVER, reasons=(Reason(kind=kind, text=kind.value),))
    joint = book.schedule_of(host_id)
    reasons: list[Reason] = []
    window = joint.window_at(at)
    if window is not None:
        left = window.remaining(at)
        source = _source(opening, at)
        if left is None or left >= needed:
            text = f"can be updated now, in window {named(window, source)}"
            reasons.append(Reason(kind=ReasonKind.WINDOW_OPEN, text=text, window=window, source=source))
            return Explanation(host_id=host_id, at=at, verdict=Verdict.UPDATES, reasons=tuple(reasons))
        text = f"window {named(window, source)} closes too soon for an update of {_minutes(needed)}"
        reasons.append(Reason(kind=ReasonKind.TOO_SHORT, text=text, window=window, source=source))
    elif (blackout := joint.blackout_at(at)) is not None and any(_opens(applied, at) for applied in opening):
        closing = tuple(applied for applied in applying if applied.resource.kind is ScheduleKind.BLACKOUT)
        source = _source(closing, at)
        text = f"blackout {_until(blackout, source)}{_from(source)}"
        reasons.append(Reason(kind=ReasonKind.BLACKOUT, text=text, window=blackout, source=source))
    return _with_next(joint, opening, host_id, at, reasons, needed)


def _with_next(
    joint: JointSchedule,
    opening: tuple[AppliedSchedule, ...],
    host_id: str,
    at: datetime,
    reasons: list[Reason],
    needed: timedelta,
) -> Explanation:
    ahead = _next_long_enough(joint, at, needed)
    if ahead is None:
        some = joint.next_window(at) is not None
        text = f"no window of {_minutes(needed)} comes" if some else "no window comes"
        reasons.append(Reason(kind=ReasonKind.NO_WINDOW_AHEAD, text=text))
        return Explanation(host_id=host_id, at=at, verdict=Verdict.NEVER, reasons=tuple(reasons))
    source = _source(opening, ahead.start)
    text = f"waits for window {named(ahead, source)}"
    reasons.append(Reason(kind=ReasonKind.WINDOW_AHEAD, text=text, window=ahead, source=source))
    return Explanation(host_id=host_id, at=at, verdict=Verdict.WAITS, reasons=tuple(reasons))


def forecast(
    book: ScheduleBook,
    host_ids: Iterable[str],
    start: datetime,
    stop: datetime,
    *,
    instances: Mapping[str, Instance] | None = None,
    needed: timedelta = timedelta(0),
) -> Forecast:
    """Return when each of the hosts can be updated between `start` and `stop`.

    Args:
        book: the schedules.
        host_ids: the hosts.
        start, stop: the stretch of time, `[start, stop)`.
        instances: host id → its instance, where their OS is to be looked at as well.
        needed: how long an update takes; windows in which it doesn't fit are left out.

    Raises:
        NotFound: the book has no such host.
        InvalidSchedule: `start` or `stop` is naive.
    """
    start, stop = utc("start", start), utc("stop", stop)
    found: dict[str, tuple[Window, ...]] = {}
    without: dict[str, Explanation] = {}
    shared: dict[JointSchedule, tuple[Window, ...]] = {}
    instances = instances or {}
    for host_id in host_ids:
        joint = book.schedule_of(host_id)
        if joint not in shared:
            shared[joint] = tuple(window for window in joint.windows(start, stop) if _fits(window, start, needed))
        instance = instances.get(host_id)
        if shared[joint] and _standing(book.host(host_id), instance) is None:
            found[host_id] = shared[joint]
        else:
            without[host_id] = explain(book, host_id, start, instance=instance, needed=needed)
    return Forecast(windows=found, without=without)


def named(window: Window, source: AppliedSchedule | None) -> str:
    """Return `window` as people say it: `Tue 2026-12-01 02:00–03:00 Europe/Warsaw from region EU`.

    It is said in the time zone of the schedule that opens it, in UTC where that has none.
    """  # noqa: RUF002  # an en dash, as between figures
    zone, name = _zone(source)
    if window.end is None and window.start.year < _FIRST_YEAR_SAID:
        return f"that never closes{_from(source)}"
    start = window.start.astimezone(zone)
    if window.end is None:
        return f"from {_moment(start)} {name} on{_from(source)}"
    end = window.end.astimezone(zone)
    last = f"{end:%H:%M}" if end.date() == start.date() else _moment(end)
    return f"{_moment(start)}–{last} {name}{_from(source)}"  # noqa: RUF001  # an en dash, as between figures


def _standing(host: Host, instance: Instance | None) -> Reason | None:
    """Return what keeps the host from being updated whatever the schedules say."""
    kind = None
    if host.trust is Trust.UNTRUSTED:
        kind = ReasonKind.UNTRUSTED
    elif instance is not None and instance.provisioning is not Provisioning.PROVISIONED:
        kind = ReasonKind.NOT_PROVISIONED
    elif instance is not None and instance.os_type is OSType.IMMUTABLE:
        # A mutable OS is patched in place: its desired OS always equals its current one.
        kind = ReasonKind.UP_TO_DATE if instance.desired_os_id == instance.current_os_id else None
    return None if kind is None else Reason(kind=kind, text=kind.value)


def _fits(window: Window, start: datetime, needed: timedelta) -> bool:
    return window.end is None or window.end - max(window.start, start) >= needed


def _next_long_enough(joint: JointSchedule, at: datetime, needed: timedelta) -> Window | None:
    window = joint.next_window(at)
    for _ in range(_MOST_TRIED):
        if window is None or window.end is None or window.end - window.start >= needed:
            return window
        window = joint.next_window(window.end)
    return None


def _opens(applied: AppliedSchedule, instant: datetime) -> bool:
    return applied.resource.schedule.window_at(instant) is not None


def _source(applied: tuple[AppliedSchedule, ...], instant: datetime) -> AppliedSchedule | None:
    return next((found for found in applied if _opens(found, instant)), None)


def _from(source: AppliedSchedule | None) -> str:
    if source is None:
        return ""
    return f" from {'the host' if source.level is TargetLevel.HOST else f'{source.level.value} {source.place_name}'}"


def _until(window: Window, source: AppliedSchedule | None) -> str:
    zone, name = _zone(source)
    return "without end" if window.end is None else f"until {_moment(window.end.astimezone(zone))} {name}"


def _zone(source: AppliedSchedule | None) -> tuple[tzinfo, str]:
    schedule = source.resource.schedule if source is not None else None
    if isinstance(schedule, RepeatedSchedule) and schedule.time_zone != "UTC":
        return ZoneInfo(schedule.time_zone), schedule.time_zone
    return UTC, "UTC"


def _moment(local: datetime) -> str:
    return f"{_WEEKDAYS[local.weekday()]} {local:%Y-%m-%d %H:%M}"


def _minutes(length: timedelta) -> str:
    return f"{-(-length // timedelta(minutes=1))} min"
