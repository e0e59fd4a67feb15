"""The schedules of a tenant's hosts, sites and regions, and what they mean for each host and for the whole fleet.

A schedule applies to its target and to everything below it: region → region → site → host. Hosts that stand in the same
place and have equal schedules of their own form one group, and groups with equal schedules share one `JointSchedule`;
a question about the fleet is asked once for each of these, however many hosts there are. A change marks the groups
below it; they are looked at again when somebody asks.

The book is mutable and belongs to one thread. It holds no clock: every question names its instant.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import chain
from typing import Final, TypeVar

from attrs import frozen

from edge_day2.domain.joint_schedule import JointSchedule
from edge_day2.domain.resources import Host, Region, ScheduleResource, Site, TargetLevel
from edge_day2.domain.schedules import ScheduleKind, Window, utc
from edge_day2.errors import InvalidResource, NotFound

OPENING_KINDS: Final = frozenset({ScheduleKind.OS_UPDATE})

_Place = tuple[TargetLevel, str]
# A group of hosts: their site, and what their own schedules are.
_Group = tuple[str | None, JointSchedule | None]
_NOTHING: Final = JointSchedule(frozenset())


_R = TypeVar("_R", Host, Site, Region, ScheduleResource)


@frozen
class AppliedSchedule:
    """A schedule that applies to a host, and the place that it comes from.

    `place_name` is the place's id where the book doesn't know the place.
    """

    resource: ScheduleResource
    level: TargetLevel
    place_id: str
    place_name: str


@frozen
class Opening:
    """A window and all hosts for which it opens."""

    window: Window
    host_ids: tuple[str, ...]


class ScheduleBook:
    """What applies where, and when.

    Args:
        tenant_id: whose resources these are; those of others are refused.
        kinds: the kinds of schedule that open an update window. BLACKOUT always closes, all others are ignored.
    """

    def __init__(self, tenant_id: str, kinds: frozenset[ScheduleKind] = OPENING_KINDS) -> None:
        self.tenant_id = tenant_id
        self.kinds = kinds - {ScheduleKind.BLACKOUT}
        self._regions: dict[str, Region] = {}
        self._sites: dict[str, Site] = {}
        self._hosts: dict[str, Host] = {}
        self._schedules: dict[str, ScheduleResource] = {}
        self._attached: dict[_Place, dict[str, ScheduleResource]] = {}
        # Dicts stand for sets that keep their order, so that answers don't depend on hash seeds.
        self._regions_below: dict[str, dict[str, None]] = {}
        self._sites_below: dict[str, dict[str, None]] = {}
        self._group_of: dict[str, _Group] = {}
        self._members: dict[_Group, dict[str, None]] = {}
        self._groups_at: dict[str | None, dict[_Group, None]] = {}
        self._joint: dict[_Group, JointSchedule] = {}
        self._groups_of: dict[JointSchedule, dict[_Group, None]] = {}
        self._shared: dict[JointSchedule, JointSchedule] = {}
        self._stale: dict[_Group, None] = {}

    # Changing the book.

    def put(self, *resources: Region | Site | Host | ScheduleResource) -> None:
        """Add resources, or replace those with the same ids. What they refer to may come later, or never.

        Raises:
            InvalidResource: a resource is another tenant's, or a region would lie within itself. What comes before it
                has been added.
        """
        for resource in resources:
            if resource.tenant_id != self.tenant_id:
                raise InvalidResource(f"{type(resource).__name__}.tenant_id", resource.tenant_id, self.tenant_id)
            if isinstance(resource, Host):
                self._put_host(resource)
            elif isinstance(resource, Site):
                self._put_site(resource)
            elif isinstance(resource, Region):
                self._put_region(resource)
            else:
                self._put_schedule(resource)

    def remove(self, resource: Region | Site | Host | ScheduleResource) -> None:
        """Remove the resource with this id; what lies below it stays and no longer inherits through it.

        Raises:
            NotFound: the book has no such resource.
        """
        if isinstance(resource, Host):
            self._leave_group(_taken(self._hosts, resource))
        elif isinstance(resource, Site):
            site = _taken(self._sites, resource)
            self._sites_below.get(site.region_id or "", {}).pop(site.resource_id, None)
            self._mark((TargetLevel.SITE, site.resource_id))
        elif isinstance(resource, Region):
            region = _taken(self._regions, resource)
            self._regions_below.get(region.parent_id or "", {}).pop(region.resource_id, None)
            self._mark((TargetLevel.REGION, region.resource_id))
        else:
            self._detach(_taken(self._schedules, resource))

    def _put_host(self, host: Host) -> None:
        if (stored := self._hosts.get(host.resource_id)) is not None:
            self._leave_group(stored)
        self._hosts[host.resource_id] = host
        self._join_group(host)

    def _put_site(self, site: Site) -> None:
        if (stored := self._sites.get(site.resource_id)) is not None:
            self._sites_below.get(stored.region_id or "", {}).pop(stored.resource_id, None)
        self._sites[site.resource_id] = site
        if site.region_id is not None:
            self._sites_below.setdefault(site.region_id, {})[site.resource_id] = None
        self._mark((TargetLevel.SITE, site.resource_id))

    def _put_region(self, region: Region) -> None:
        above = region.parent_id
        while above is not None:
            if above == region.resource_id:
                raise InvalidResource("Region.parent_id", region.parent_id, "a region that doesn't lie within this one")
            above = self._regions[above].parent_id if above in self._regions else None
        if (stored := self._regions.get(region.resource_id)) is not None:
            self._regions_below.get(stored.parent_id or "", {}).pop(stored.resource_id, None)
        self._regions[region.resource_id] = region
        if region.parent_id is not None:
            self._regions_below.setdefault(region.parent_id, {})[region.resource_id] = None
        self._mark((TargetLevel.REGION, region.resource_id))

    def _put_schedule(self, resource: ScheduleResource) -> None:
        if (stored := self._schedules.get(resource.resource_id)) is not None:
            self._detach(stored)
        self._schedules[resource.resource_id] = resource
        if resource.target is not None:
            place = resource.target.level, resource.target.resource_id
            self._attached.setdefault(place, {})[resource.resource_id] = resource
            self._mark(place)

    def _detach(self, resource: ScheduleResource) -> None:
        if resource.target is not None:
            place = resource.target.level, resource.target.resource_id
            self._attached[place].pop(resource.resource_id)
            self._mark(place)

    def _mark(self, place: _Place) -> None:
        """Note that the schedules of `place` changed, and so those of everything below it."""
        level, resource_id = place
        if level is TargetLevel.HOST:
            if (host := self._hosts.get(resource_id)) is not None:
                self._leave_group(host)
                self._join_group(host)
        elif level is TargetLevel.SITE:
            self._stale.update(self._groups_at.get(resource_id, {}))
        else:
            waiting = [resource_id]
            while waiting:
                region = waiting.pop()
                for site in self._sites_below.get(region, {}):
                    self._stale.update(self._groups_at.get(site, {}))
                waiting.extend(self._regions_below.get(region, {}))

    def _join_group(self, host: Host) -> None:
        attached = self._attached.get((TargetLevel.HOST, host.resource_id))
        own = self._joined(attached.values()) if attached else _NOTHING
        group = host.site_id, None if own == _NOTHING else own
        if group not in self._members:
            self._members[group] = {}
            self._groups_at.setdefault(host.site_id, {})[group] = None
            self._stale[group] = None
        self._members[group][host.resource_id] = None
        self._group_of[host.resource_id] = group

    def _leave_group(self, host: Host) -> None:
        group = self._group_of.pop(host.resource_id)
        members = self._members[group]
        del members[host.resource_id]
        if not members:
            self._forget(group)

    def _forget(self, group: _Group) -> None:
        del self._members[group]
        del self._groups_at[group[0]][group]
        self._stale.pop(group, None)
        joint = self._joint.pop(group, None)
        if joint is not None:
            self._drop(group, joint)

    def _drop(self, group: _Group, joint: JointSchedule) -> None:
        groups = self._groups_of[joint]
        del groups[group]
        if not groups:
            del self._groups_of[joint], self._shared[joint]

    def _joined(self, resources: Iterable[ScheduleResource]) -> JointSchedule:
        resources = tuple(resources)
        return JointSchedule(
            frozenset(resource.schedule for resource in resources if resource.kind in self.kinds),
            frozenset(resource.schedule for resource in resources if resource.kind is ScheduleKind.BLACKOUT),
        )

    def _refresh(self) -> None:
        if not self._stale:
            return
        inherited: dict[str | None, JointSchedule] = {}
        for group in self._stale:
            site_id, own = group
            if site_id not in inherited:
                places = self._places_from_site(site_id)
                attached = [self._attached[place].values() for place in places if place in self._attached]
                inherited[site_id] = self._joined(chain.from_iterable(attached))
            joint = inherited[site_id]
            if own is not None:
                joint = JointSchedule(joint.opening | own.opening, joint.blackouts | own.blackouts)
            joint = self._shared.setdefault(joint, joint)
            before = self._joint.get(group)
            if before is not joint:
                if before is not None:
                    self._drop(group, before)
                self._joint[group] = joint
                self._groups_of.setdefault(joint, {})[group] = None
        self._stale.clear()

    def _places_from_site(self, site_id: str | None) -> list[_Place]:
        """Return the site and the regions around it, from the inside out."""
        if site_id is None:
            return []
        places = [(TargetLevel.SITE, site_id)]
        site = self._sites.get(site_id)
        region_id = site.region_id if site is not None else None
        while region_id is not None:
            places.append((TargetLevel.REGION, region_id))
            region = self._regions.get(region_id)
            region_id = region.parent_id if region is not None else None
        return places

    # Asking about one host.

    def host(self, host_id: str) -> Host:
        """Return the host with this id.

        Raises:
            NotFound: the book has no such host.
        """
        try:
            return self._hosts[host_id]
        except KeyError:
            raise NotFound(f"host {host_id!r} isn't in the schedule book") from None

    def applying(self, host_id: str) -> tuple[AppliedSchedule, ...]:
        """Return all schedules that apply to the host, of every kind: its own first, then from the inside out.

        Raises:
            NotFound: the book has no such host.
        """
        host = self.host(host_id)
        found: list[AppliedSchedule] = []
        for place in [(TargetLevel.HOST, host_id), *self._places_from_site(host.site_id)]:
            attached = self._attached.get(place, {})
            name = self._name(place)
            found.extend(AppliedSchedule(attached[key], *place, name) for key in sorted(attached))
        return tuple(found)

    def _name(self, place: _Place) -> str:
        level, place_id = place
        table: Mapping[str, Host | Site | Region] = self._hosts
        if level is not TargetLevel.HOST:
            table = self._sites if level is TargetLevel.SITE else self._regions
        return table[place_id].name if place_id in table else place_id

    def schedule_of(self, host_id: str) -> JointSchedule:
        """Return what opens and closes windows for the host, as one schedule. Hosts alike share one object.

        Raises:
            NotFound: the book has no such host.
        """
        self.host(host_id)
        self._refresh()
        return self._joint[self._group_of[host_id]]

    def window_at(self, host_id: str, instant: datetime) -> Window | None:
        """Return the window in which the host may be updated at `instant`, None where none is open.

        Raises:
            NotFound: the book has no such host.
            InvalidSchedule: `instant` is naive.
        """
        return self.schedule_of(host_id).window_at(instant)

    def next_window(self, host_id: str, after: datetime) -> Window | None:
        """Return the host's first window that starts at or after `after`, None where there is none.

        Raises:
            NotFound: the book has no such host.
            InvalidSchedule: `after` is naive.
        """
        return self.schedule_of(host_id).next_window(after)

    def windows(self, host_id: str, start: datetime, stop: datetime) -> Iterator[Window]:
        """Return the host's windows that overlap `[start, stop)`, in order.

        Raises:
            NotFound: the book has no such host.
            InvalidSchedule: `start` or `stop` is naive.
        """
        return self.schedule_of(host_id).windows(start, stop)

    # Asking about the fleet.

    def fleet(self) -> Iterator[tuple[JointSchedule, tuple[str, ...]]]:
        """Yield each distinct schedule with the ids of the hosts that it applies to; every host comes once."""
        self._refresh()
        for joint, groups in self._groups_of.items():
            yield joint, tuple(chain.from_iterable(self._members[group] for group in groups))

    def open_hosts(self, instant: datetime) -> Iterator[str]:
        """Return the ids of the hosts that are in a window at `instant`.

        Raises:
            InvalidSchedule: `instant` is naive.
        """
        instant = utc("instant", instant)
        self._refresh()
        found = [groups for joint, groups in self._groups_of.items() if joint.is_open(instant)]
        return chain.from_iterable(self._members[group] for groups in found for group in groups)

    def openings(self, after: datetime) -> Iterator[Opening]:
        """Return which windows open from `after` on, in order of time, each with its hosts; endless for most fleets.

        Windows that open at the same instant come in the order in which the book learnt of their hosts. The iterator
        stands for the book as it is now; later changes don't show.

        Raises:
            InvalidSchedule: `after` is naive.
        """
        return _openings(list(self.fleet()), utc("after", after))


def _taken(table: dict[str, _R], resource: _R) -> _R:
    try:
        return table.pop(resource.resource_id)
    except KeyError:
        raise NotFound(f"{type(resource).__name__} {resource.resource_id!r} isn't in the schedule book") from None


def _openings(fleet: list[tuple[JointSchedule, tuple[str, ...]]], after: datetime) -> Iterator[Opening]:
    ahead: list[tuple[datetime, int, Window]] = []
    for place, (joint, _) in enumerate(fleet):
        if (window := joint.next_window(after)) is not None:
            ahead.append((window.start, place, window))
    heapq.heapify(ahead)
    while ahead:
        _, place, window = ahead[0]
        joint, host_ids = fleet[place]
        yield Opening(window, host_ids)
        following = None if window.end is None else joint.next_window(window.end)
        if following is None:
            heapq.heappop(ahead)
        else:
            heapq.heapreplace(ahead, (following.start, place, following))
