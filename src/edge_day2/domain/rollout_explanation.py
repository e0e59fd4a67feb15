"""What a rollout means for one host: as data and as a part of a sentence. Pure."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta
from typing import Final

from attrs import frozen

from edge_day2.domain.maintenance import ReportContext
from edge_day2.domain.resources import Link, OSResource
from edge_day2.domain.rollout import Rollout, RolloutCounts, RolloutState, WaveCounts, frontier
from edge_day2.domain.rollout_progress import (
    PlacesInFlight,
    Standing,
    has_failed,
    may_be_admitted,
    opens_at,
    standing,
)


class RolloutVerdict(enum.Enum):
    """Whether the rollout gives the host its target, and what it waits for."""

    DONE = "it runs the target, or a later OS"
    IN_FLIGHT = "it was admitted and hasn't got the target yet"
    FAILED = "it was admitted, and the update failed"
    NOT_COVERED = "rollouts don't reach it"
    LATER_TARGET = "its desired OS is a later one"
    RELEASED = "the rollout is done, it is linked with the next run"
    CANCELLED = "the rollout was cancelled"
    SUPERSEDED = "a later target superseded the rollout"
    PAUSED = "the rollout is paused"
    WAVE_AHEAD = "its wave isn't open"
    BLACKOUT = "nobody is admitted in a blackout"
    JITTER = "its wave is open, its turn comes"
    NO_ROOM = "as many as may be are in flight"
    SITE_FULL = "as many as may be are in flight at its site"
    REGION_FULL = "as many as may be are in flight in its region"
    NEXT = "it is admitted with the next run"

    @property
    def holds_back(self) -> bool:
        """Whether the rollout is why the host isn't updated."""
        return self not in _FREE


_FREE: Final = frozenset(
    {
        RolloutVerdict.DONE,
        RolloutVerdict.IN_FLIGHT,
        RolloutVerdict.FAILED,
        RolloutVerdict.NOT_COVERED,
        RolloutVerdict.LATER_TARGET,
    }
)


@frozen(kw_only=True)
class RolloutExplanation:
    """What a rollout means for one host.

    Attributes:
        rollout: the latest that is about the OS that the host runs.
        wave: the host's wave, counted from 0.
        open_wave: how the instances of the wave stand that is open; nothing where the rollout is over.
        opens_at: when the next wave opens if all stays well, None where that can't be said.
        text: the verdict in English, part of a sentence.
    """

    rollout: Rollout
    verdict: RolloutVerdict
    wave: int
    open_wave: WaveCounts
    opens_at: datetime | None
    text: str


def explain_rollout(
    rollout: Rollout,
    counts: RolloutCounts,
    context: ReportContext,
    *,
    target: OSResource,
    region_id: str | None,
    places: PlacesInFlight,
    now: datetime,
) -> RolloutExplanation:
    """Return what `rollout` means for a host with an immutable OS that it covers.

    `region_id` is the region that the host's site lies in; `places` may be empty where the policy doesn't limit places.
    """
    place = rollout.place_of(context.host.bucket)
    wave, open_wave = rollout.wave_at(place), counts.waves[rollout.wave]
    verdict = (
        _of_instance(rollout, context, target)
        or _of_state(rollout)
        or _of_time(rollout, wave, place, now)
        or _of_room(rollout, counts, context, region_id, places)
        or RolloutVerdict.NEXT
    )
    return RolloutExplanation(
        rollout=rollout,
        verdict=verdict,
        wave=wave,
        open_wave=open_wave,
        opens_at=opens_at(rollout, now),
        text=_text(rollout, verdict, wave, open_wave),
    )


def _of_instance(rollout: Rollout, context: ReportContext, target: OSResource) -> RolloutVerdict | None:
    instance, current, desired = context.instance, context.current_os, context.desired_os
    assert instance is not None
    assert current is not None
    assert desired is not None
    link = Link(instance.os_type, current.resource_id, desired.resource_id)
    resources = {resource.resource_id: resource for resource in (target, current, desired)}
    match standing(link, target, resources, failed=has_failed(instance, rollout)):
        case None:
            return RolloutVerdict.LATER_TARGET
        case Standing.DONE:
            return RolloutVerdict.DONE
        case Standing.IN_FLIGHT:
            return RolloutVerdict.IN_FLIGHT
        case Standing.FAILED:
            return RolloutVerdict.FAILED
    return None if may_be_admitted(instance, context.host, context.policy) else RolloutVerdict.NOT_COVERED


def _of_state(rollout: Rollout) -> RolloutVerdict | None:
    return {
        RolloutState.PAUSED: RolloutVerdict.PAUSED,
        RolloutState.DONE: RolloutVerdict.RELEASED,
        RolloutState.CANCELLED: RolloutVerdict.CANCELLED,
        RolloutState.SUPERSEDED: RolloutVerdict.SUPERSEDED,
    }.get(rollout.state)


def _of_time(rollout: Rollout, wave: int, place: int, now: datetime) -> RolloutVerdict | None:
    if wave > rollout.wave:
        return RolloutVerdict.WAVE_AHEAD
    if rollout.policy.in_blackout(now):
        return RolloutVerdict.BLACKOUT
    return RolloutVerdict.JITTER if place >= frontier(rollout, now) else None


def _of_room(
    rollout: Rollout, counts: RolloutCounts, context: ReportContext, region_id: str | None, places: PlacesInFlight
) -> RolloutVerdict | None:
    policy, site_id = rollout.policy, context.host.site_id
    if policy.max_in_flight is not None and counts.total.in_flight >= policy.max_in_flight:
        return RolloutVerdict.NO_ROOM
    if policy.max_per_site is not None and places.sites.get(site_id or "", 0) >= policy.max_per_site:
        return RolloutVerdict.SITE_FULL
    if policy.max_per_region is not None and places.regions.get(region_id or "", 0) >= policy.max_per_region:
        return RolloutVerdict.REGION_FULL
    return None


def _text(rollout: Rollout, verdict: RolloutVerdict, wave: int, open_wave: WaveCounts) -> str:
    policy = rollout.policy
    where = f"in wave {wave + 1} of {len(policy.waves)} of rollout {rollout.name}"
    match verdict:
        case RolloutVerdict.WAVE_AHEAD:
            well = f"when wave {wave} was well for {_span(policy.soak)}"
            return f"{where}, which opens {well} ({_so_far(rollout, open_wave)})"
        case RolloutVerdict.PAUSED:
            assert rollout.paused_by is not None
            return f"{where}, which {rollout.paused_by.value} paused: {rollout.reason}"
        case RolloutVerdict.CANCELLED:
            return f"{where}, which was cancelled: {rollout.reason}"
        case RolloutVerdict.SUPERSEDED:
            return f"{where}, which was superseded: {rollout.reason}"
        case RolloutVerdict.JITTER:
            return f"{where}, which began {_instant(rollout.wave_since)} and takes {_span(policy.jitter)} to reach all"
        case RolloutVerdict.NO_ROOM:
            return f"{where}, of which {policy.max_in_flight} may be in flight at once"
        case RolloutVerdict.SITE_FULL:
            return f"{where}, of which {policy.max_per_site} may be in flight at its site"
        case RolloutVerdict.REGION_FULL:
            return f"{where}, of which {policy.max_per_region} may be in flight in its region"
    return f"{where}: {verdict.value}"


def _so_far(rollout: Rollout, open_wave: WaveCounts) -> str:
    number = rollout.wave + 1
    if rollout.well_since is not None:
        return f"wave {number} is well since {_instant(rollout.well_since)}"
    waiting = f", {open_wave.not_yet} not admitted yet" if open_wave.not_yet else ""
    failed = f", {open_wave.failed} failed" if open_wave.failed else ""
    flying = f"{open_wave.in_flight} of {open_wave.due} still in flight"
    return f"wave {number} is open since {_instant(rollout.wave_since)}, {flying}{waiting}{failed}"


def _instant(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min"
