"""Whom a rollout covers and how far each of them is: what `advance` counts, and what an Inventory chooses by. Pure.

Covered are immutable instances of the rollout's profile and architecture that are provisioned, on a trusted host, and
follow no update policy that picks an OS (LATEST, or TARGET with one): all others don't go by their desired OS, take
the new one at their own time or never, and would hold up a wave for ever.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from attrs import frozen

from edge_day2.domain.resources import (
    Host,
    Instance,
    Link,
    OSResource,
    OSType,
    OSUpdatePolicy,
    Provisioning,
    Trust,
    UpdatePolicyKind,
)
from edge_day2.domain.rollout import Admission, Rollout, RolloutCounts, WaveCounts
from edge_day2.domain.statuses import InventoryStatus

FAILURES: Final = frozenset({InventoryStatus.FAILED, InventoryStatus.LOST})
"""The update statuses that count against the error budget."""


class Standing(enum.Enum):
    """How far an instance is on its way to a rollout's target. The value is its name in `WaveCounts`."""

    NOT_YET = "not_yet"
    IN_FLIGHT = "in_flight"
    DONE = "done"
    FAILED = "failed"


@frozen
class WaveLink:
    """What many instances of a rollout have in common: wave, link, and whether their update failed or was LOST."""

    wave: int
    link: Link
    failed: bool


@frozen(kw_only=True)
class PlacesInFlight:
    """How many instances are in flight at each site, and in each region that a site lies in directly."""

    sites: Mapping[str, int]
    regions: Mapping[str, int]


def covers(rollout: Rollout, current: OSResource) -> bool:
    """Return whether the rollout is about instances that run `current`."""
    return current.os_type is OSType.IMMUTABLE and (current.profile_name, current.architecture) == (
        rollout.profile_name,
        rollout.architecture,
    )


def may_be_admitted(instance: Instance, host: Host, policy: OSUpdatePolicy | None) -> bool:
    """Return whether a rollout that covers the instance's OS counts and admits the instance."""
    return (
        instance.provisioning is Provisioning.PROVISIONED
        and host.trust is Trust.TRUSTED
        and (policy is None or (policy.kind is UpdatePolicyKind.TARGET and policy.target_os_id is None))
    )


def has_failed(instance: Instance, rollout: Rollout) -> bool:
    """Return whether the instance's last update failed or was LOST since it was admitted.

    One without an admission was linked by hand; it counts from the rollout's beginning.
    """
    at = instance.update.timestamp
    began = rollout.started_at if instance.admitted_at is None else instance.admitted_at
    return instance.update.status in FAILURES and at is not None and at >= began


def is_in_flight(instance: Instance, rollout: Rollout) -> bool:
    """Return whether a covered instance takes up room at its site and in its region."""
    target = rollout.target_os_id
    return instance.desired_os_id == target != instance.current_os_id and not has_failed(instance, rollout)


def standing(
    link: Link, target: OSResource, resources: Mapping[str, OSResource], *, failed: bool = False
) -> Standing | None:
    """Return how far instances with `link` are; None where their desired OS is another, later one, or unknown."""
    current, desired = resources.get(link.current_os_id), resources.get(link.desired_os_id)
    if current is None or desired is None:
        return None
    if current.image_version >= target.image_version:
        return Standing.DONE
    if desired.resource_id == target.resource_id:
        return Standing.FAILED if failed else Standing.IN_FLIGHT
    return Standing.NOT_YET if desired.image_version < target.image_version else None


def count_rollout(
    rollout: Rollout, links: Mapping[WaveLink, int], resources: Mapping[str, OSResource]
) -> RolloutCounts:
    """Return how the instances stand that `links` counts; the rollout's target is among `resources`."""
    target = resources[rollout.target_os_id]
    found: list[Counter[str]] = [Counter() for _ in rollout.policy.waves]
    for alike, count in links.items():
        stands = standing(alike.link, target, resources, failed=alike.failed)
        if stands is not None:
            found[alike.wave][stands.value] += count
    return RolloutCounts(waves=tuple(WaveCounts(**counts) for counts in found))


def waiting_links(
    rollout: Rollout, links: Mapping[WaveLink, int], resources: Mapping[str, OSResource]
) -> tuple[Link, ...]:
    """Return the links of instances that wait to be admitted, in waves that are open."""
    target = resources[rollout.target_os_id]
    waiting = dict.fromkeys(alike.link for alike in links if alike.wave <= rollout.wave)
    return tuple(link for link in waiting if standing(link, target, resources) is Standing.NOT_YET)


@frozen(kw_only=True)
class Candidate:
    """An instance that waits: its id, its place in the rollout's order, and where its host is."""

    instance_id: str
    place: int
    site_id: str | None
    region_id: str | None


def choose(
    candidates: Iterable[Candidate],
    admission: Admission,
    in_flight: PlacesInFlight,
    *,
    at_most: int,
) -> tuple[str, ...]:
    """Return the ids of those who are admitted: at each site the first by place and id, of these in each region.

    The SQL Inventories choose the same way in one statement.
    """
    order = sorted(
        (found for found in candidates if found.place < admission.below), key=lambda c: (c.place, c.instance_id)
    )
    sites, regions = Counter(in_flight.sites), Counter(in_flight.regions)
    chosen: list[str] = []
    of_sites: list[Candidate] = []
    for found in order:
        if admission.per_site is None or found.site_id is None or sites[found.site_id] < admission.per_site:
            of_sites.append(found)
            if found.site_id is not None:
                sites[found.site_id] += 1
    for found in of_sites:
        if admission.per_region is None or found.region_id is None or regions[found.region_id] < admission.per_region:
            chosen.append(found.instance_id)
            if found.region_id is not None:
                regions[found.region_id] += 1
    return tuple(chosen[: min(at_most, admission.at_most)])


def latest_rollout(rollouts: Iterable[Rollout]) -> Rollout | None:
    """Return the rollout that began last, None where there is none."""
    return max(rollouts, key=lambda rollout: (rollout.started_at, rollout.resource_id), default=None)


def decisive_rollout(rollouts: Iterable[Rollout], target: OSResource) -> Rollout | None:
    """Return the rollout that decides who is linked to `target`: of its own the latest; else the open, or latest, one.

    None where its profile and architecture never had a rollout.
    """
    group = [rollout for rollout in rollouts if covers(rollout, target)]
    own = [rollout for rollout in group if rollout.target_os_id == target.resource_id]
    return latest_rollout(own or [rollout for rollout in group if rollout.state.is_open] or group)


def opens_at(rollout: Rollout, now: datetime) -> datetime | None:
    """Return when the next wave opens if all stays well; None where that isn't settled, or it is the last."""
    if rollout.well_since is None or rollout.wave == len(rollout.policy.waves) - 1:
        return None
    return max(now, rollout.well_since + rollout.policy.soak)
