"""The Inventory in memory: for tests, simulations and trying things out. Nothing here reaches a disk.

All content hangs from one immutable root (`_Content`). A reader keeps the root that it found, a writer makes a new one
and swaps it in when it ends well; so readers never wait, and undoing is forgetting. One writer at a time.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from itertools import groupby, islice
from operator import attrgetter
from types import TracebackType
from typing import Final, Self, TypeVar, cast

from attrs import evolve, frozen

from edge_day2.adapters.storage.event_log import EventLog
from edge_day2.adapters.storage.memory_lists import MemoryLists, regions_around
from edge_day2.adapters.storage.persistent import PersistentMap
from edge_day2.adapters.storage.references import Kind, references, unique_key
from edge_day2.adapters.storage.storable import check_new, check_storable
from edge_day2.adapters.storage.turns import MemoryTurns
from edge_day2.domain.inventory_events import EventPage, InventoryEvent, events_of, linked_event
from edge_day2.domain.maintenance import ReportContext, nothing_installed
from edge_day2.domain.resources import (
    Host,
    Instance,
    Link,
    OSResource,
    OSType,
    OSUpdatePolicy,
    OSUpdateRun,
    Region,
    Resource,
    ScheduleResource,
    Site,
    check_region,
    check_relinkable,
    check_unused,
    moves_region,
    without_lists,
)
from edge_day2.domain.rollout import Admission, Rollout
from edge_day2.domain.rollout_progress import (
    Candidate,
    PlacesInFlight,
    WaveLink,
    choose,
    covers,
    has_failed,
    is_in_flight,
    may_be_admitted,
)
from edge_day2.domain.statuses import StatusIndicator
from edge_day2.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidResource,
    NotFound,
    StorageError,
    shown,
)
from edge_day2.ports.clock import Clock

R = TypeVar("R", bound=Resource)

_Member = tuple[Kind, str]
_Table = PersistentMap[str, Resource]
_Group = PersistentMap[_Member, None]

_EMPTY_TABLE: Final[_Table] = PersistentMap()
_EMPTY_GROUP: Final[_Group] = PersistentMap()


@frozen
class _Content:
    """Everything at one instant: resources by (tenant, kind) and id, groups of them, and what is unique."""

    tables: PersistentMap[tuple[str, Kind], _Table] = PersistentMap()
    groups: PersistentMap[tuple[object, ...], _Group] = PersistentMap()
    unique: PersistentMap[tuple[object, ...], str] = PersistentMap()
    events: PersistentMap[str, EventLog] = PersistentMap()


def _groups(resource: Resource) -> Iterator[tuple[object, ...]]:
    """Yield the groups that `resource` is a member of."""
    tenant = resource.tenant_id
    for kind, resource_id in references(resource):
        yield tenant, kind, resource_id
    if isinstance(resource, OSResource):
        yield tenant, "profile", resource.profile_name
    if isinstance(resource, Instance) and _underway(resource):
        yield tenant, "underway"


def _link(instance: Instance) -> Link:
    return Link(instance.os_type, instance.current_os_id, instance.desired_os_id)


def _underway(instance: Instance) -> bool:
    return instance.update.status.indicator is StatusIndicator.IN_PROGRESS and instance.last_seen is not None


class MemoryUnitOfWork(MemoryLists):
    """One transaction of `MemoryInventory`; see `edge_day2.ports.inventory.UnitOfWork`."""

    def __init__(self, content: _Content) -> None:
        self._content = content
        self._over = False
        self._failed: Conflict | None = None

    @property
    def failed(self) -> Conflict | None:
        """The error after which this transaction may not be committed."""
        return self._failed

    def _now(self) -> _Content:
        if self._over:
            raise StorageError("this transaction is over; begin another one")
        if self._failed is not None:
            raise StorageError(f"this transaction has failed already; begin another one: {self._failed}")
        return self._content

    def end(self) -> _Content:
        """End the transaction and return what it leaves."""
        self._over = True
        return self._content

    def _find(self, kind: type[R], tenant_id: str, resource_id: str) -> R | None:
        table = self._now().tables.get((tenant_id, kind), _EMPTY_TABLE)
        return cast("R | None", table.get(resource_id))

    def _group(self, kind: type[R], *key: object) -> list[R]:
        """Return the members of this kind in the order of their ids."""
        group = self._now().groups.get(key, _EMPTY_GROUP)
        ids = sorted(resource_id for member, resource_id in group if member is kind)
        return [self.get(kind, str(key[0]), resource_id) for resource_id in ids]

    def get(self, kind: type[R], tenant_id: str, resource_id: str) -> R:
        """See `UnitOfWork.get`."""
        found = self._find(kind, tenant_id, resource_id)
        if found is None:
            raise NotFound(f"tenant {shown(tenant_id)} has no {kind.__name__} {shown(resource_id)}")
        return found

    def all(self, kind: type[R], tenant_id: str) -> Iterator[R]:
        """See `UnitOfWork.all`."""
        ids = sorted(self._now().tables.get((tenant_id, kind), _EMPTY_TABLE))
        for resource_id in ids:
            if (resource := self._find(kind, tenant_id, resource_id)) is not None:
                yield resource

    def host_by_guid(self, tenant_id: str, guid: str) -> Host:
        """See `UnitOfWork.host_by_guid`."""
        host_id = self._now().unique.get((tenant_id, "guid", guid.lower()))
        if host_id is None:
            raise NotFound(f"tenant {shown(tenant_id)} has no host with GUID {shown(guid)}")
        return self.get(Host, tenant_id, host_id)

    def instance_of_host(self, tenant_id: str, host_id: str) -> Instance | None:
        """See `UnitOfWork.instance_of_host`."""
        instance_id = self._now().unique.get((tenant_id, "instance of host", host_id))
        return None if instance_id is None else self.get(Instance, tenant_id, instance_id)

    def runs_of_instance(self, tenant_id: str, instance_id: str) -> tuple[OSUpdateRun, ...]:
        """See `UnitOfWork.runs_of_instance`."""
        runs = self._group(OSUpdateRun, tenant_id, Instance, instance_id)
        return tuple(sorted(runs, key=lambda run: (run.start_time, run.resource_id), reverse=True))

    def links(self, tenant_id: str) -> Counter[Link]:
        """See `UnitOfWork.links`."""
        return Counter(map(_link, self.all(Instance, tenant_id)))

    def relink(self, tenant_id: str, links: Collection[Link], desired_os_id: str, *, at_most: int) -> int:
        """See `UnitOfWork.relink`."""
        raise _reading()

    def unheard_since(self, tenant_id: str, deadline: datetime) -> Iterator[Instance]:
        """See `UnitOfWork.unheard_since`."""
        silent = [
            (instance.last_seen, instance.resource_id)
            for instance in self._group(Instance, tenant_id, "underway")
            if instance.last_seen is not None and instance.last_seen < deadline
        ]
        for _, instance_id in sorted(silent):
            yield self.get(Instance, tenant_id, instance_id)

    def os_without_lists(self, tenant_id: str) -> Iterator[OSResource]:
        """See `UnitOfWork.os_without_lists`."""
        return map(without_lists, self.all(OSResource, tenant_id))

    def _covered(self, rollout: Rollout) -> Iterator[tuple[Instance, Host]]:
        """Yield the instances that `rollout` covers and may admit, with their hosts."""
        tenant_id = rollout.tenant_id
        group = {system.resource_id for system in self.all(OSResource, tenant_id) if covers(rollout, system)}
        for instance in self.all(Instance, tenant_id):
            if instance.current_os_id in group:
                host = self.get(Host, tenant_id, instance.host_id)
                policy_id = instance.os_update_policy_id
                policy = None if policy_id is None else self.get(OSUpdatePolicy, tenant_id, policy_id)
                if may_be_admitted(instance, host, policy):
                    yield instance, host

    def _region_of(self, host: Host) -> str | None:
        return None if host.site_id is None else self.get(Site, host.tenant_id, host.site_id).region_id

    def wave_links(self, rollout: Rollout) -> Counter[WaveLink]:
        """See `UnitOfWork.wave_links`."""
        check_storable(rollout)
        return Counter(
            WaveLink(rollout.wave_at(rollout.place_of(host.bucket)), _link(instance), has_failed(instance, rollout))
            for instance, host in self._covered(rollout)
        )

    def places_in_flight(self, rollout: Rollout) -> PlacesInFlight:
        """See `UnitOfWork.places_in_flight`."""
        check_storable(rollout)
        hosts = [host for instance, host in self._covered(rollout) if is_in_flight(instance, rollout)]
        sites = Counter(host.site_id for host in hosts if host.site_id is not None)
        regions = Counter(region for host in hosts if (region := self._region_of(host)) is not None)
        return PlacesInFlight(sites=sites, regions=regions)

    def admit(self, rollout: Rollout, link: Link, admission: Admission, at: datetime, *, at_most: int) -> int:
        """See `UnitOfWork.admit`."""
        raise _reading()

    def tenants(self) -> tuple[str, ...]:
        """See `UnitOfWork.tenants`."""
        tables = self._now().tables
        return tuple(sorted({tenant for tenant, kind in tables if tables.get((tenant, kind), _EMPTY_TABLE)}))

    def report_context(self, tenant_id: str, guid: str) -> ReportContext:
        """See `UnitOfWork.report_context`."""
        host = self.host_by_guid(tenant_id, guid)
        instance = self.instance_of_host(tenant_id, host.resource_id)
        places = [(Host, host.resource_id), *self._places(host)]
        targeting = [found for kind, place in places for found in self._group(ScheduleResource, tenant_id, kind, place)]
        schedules = tuple(sorted(targeting, key=lambda schedule: schedule.resource_id))
        if instance is None:
            return nothing_installed(host, schedules)
        current = without_lists(self.get(OSResource, tenant_id, instance.current_os_id))
        policy_id = instance.os_update_policy_id
        run_id = self._now().unique.get((tenant_id, "open run of instance", instance.resource_id))
        profile_os: list[OSResource] = []
        if instance.os_type is OSType.IMMUTABLE:
            profile_os = self._group(OSResource, tenant_id, "profile", current.profile_name)
        return ReportContext(
            host=host,
            instance=instance,
            current_os=current,
            desired_os=without_lists(self.get(OSResource, tenant_id, instance.desired_os_id)),
            policy=None if policy_id is None else self.get(OSUpdatePolicy, tenant_id, policy_id),
            open_run=None if run_id is None else self.get(OSUpdateRun, tenant_id, run_id),
            schedules=schedules,
            profile_os=tuple(map(without_lists, profile_os)),
        )

    def report_contexts(self, tenant_id: str, guids: Collection[str]) -> dict[str, ReportContext]:
        """See `UnitOfWork.report_contexts`."""
        found = {}
        for guid in guids:
            with suppress(NotFound):
                found[guid] = self.report_context(tenant_id, guid)
        return found

    def _places(self, host: Host) -> Iterator[tuple[Kind, str]]:
        """Yield the host's site and every region around it, once, even where the regions form a circle."""
        if host.site_id is None:
            return
        yield Site, host.site_id
        region_id = self.get(Site, host.tenant_id, host.site_id).region_id
        for around in regions_around(self, host.tenant_id, region_id):
            yield Region, around

    def events(self, tenant_id: str, *, after: str = "", at_most: int) -> EventPage:
        """See `UnitOfWork.events`."""
        return self._now().events.get(tenant_id, EventLog()).page(after, at_most)

    def events_end(self, tenant_id: str) -> str:
        """See `UnitOfWork.events_end`."""
        return self._now().events.get(tenant_id, EventLog()).cursor

    def forget_events(self, tenant_id: str, before: datetime) -> int:
        """See `UnitOfWork.forget_events`."""
        raise _reading()

    def add(self, resource: Resource) -> None:
        """See `UnitOfWork.add`."""
        raise _reading()

    def add_all(self, resources: Iterable[Resource]) -> None:
        """See `UnitOfWork.add_all`."""
        raise _reading()

    def replace(self, old: R, new: R) -> None:
        """See `UnitOfWork.replace`."""
        raise _reading()

    def replace_all(self, changes: Iterable[tuple[R, R]]) -> None:
        """See `UnitOfWork.replace_all`."""
        raise _reading()

    def delete(self, resource: Resource) -> None:
        """See `UnitOfWork.delete`."""
        raise _reading()

    def forget_runs(self, tenant_id: str, before: datetime, *, at_most: int) -> int:
        """See `InventoryLists.forget_runs`."""
        raise _reading()


def _reading() -> FailedPrecondition:
    return FailedPrecondition("a reading transaction changes nothing; use writing()")


class _WritingUnitOfWork(MemoryUnitOfWork):
    """A transaction that makes new content. Each method checks first, so that one that raises has changed nothing."""

    def __init__(self, content: _Content, clock: Clock) -> None:
        super().__init__(content)
        self._owner = object()
        self._clock = clock
        self._happened: list[InventoryEvent] = []

    def end(self) -> _Content:
        """End the transaction and return what it leaves, with the events of what happened in it."""
        content = super().end()
        for tenant, found in groupby(self._happened, attrgetter("tenant_id")):
            log = content.events.get(tenant, EventLog()).extended(list(found))
            content = evolve(content, events=content.events.set(tenant, log, self._owner))
        return content

    def add(self, resource: Resource) -> None:
        check_new(resource)
        self._check_unique(resource)
        self._check_references(resource)
        self._put(None, resource)

    def add_all(self, resources: Iterable[Resource]) -> None:
        with self._all_or_nothing():
            for resource in resources:
                self.add(resource)

    def replace_all(self, changes: Iterable[tuple[R, R]]) -> None:
        with self._all_or_nothing():
            for old, new in changes:
                self.replace(old, new)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        before, happened = self._now(), len(self._happened)
        self._owner = object()  # from here on `before` is somebody else's, so that it stays as it is
        try:
            yield
        except BaseException:
            self._content = before
            del self._happened[happened:]
            raise

    def replace(self, old: R, new: R) -> None:
        kind, tenant_id, resource_id = type(old), old.tenant_id, old.resource_id
        if (type(new), new.tenant_id, new.resource_id) != (kind, tenant_id, resource_id):
            raise InvalidResource(f"{kind.__name__}.resource_id", new.resource_id, f"{resource_id!r} of {tenant_id!r}")
        check_storable(new, old)
        if moves_region(new, old):
            check_region(new, regions_around(self, tenant_id, new.parent_id))
        if self.get(kind, tenant_id, resource_id) != old:
            self._failed = Conflict(f"{kind.__name__} {resource_id!r} was changed in the meantime; repeat")
            raise self._failed
        if unique_key(new) != unique_key(old):
            self._check_unique(new, replacing=True)
        self._check_references(new)
        self._put(old, new)

    def relink(self, tenant_id: str, links: Collection[Link], desired_os_id: str, *, at_most: int) -> int:
        for link in links:
            check_relinkable(link)
        self.get(OSResource, tenant_id, desired_os_id)
        alike = (instance for instance in self.all(Instance, tenant_id) if _link(instance) in links)
        chosen = list(islice(alike, at_most))
        for instance in chosen:
            self._place(instance, evolve(instance, desired_os_id=desired_os_id))
        for former, count in Counter(instance.desired_os_id for instance in chosen).items():
            self._note_links(tenant_id, former, desired_os_id, count)
        return len(chosen)

    def forget_events(self, tenant_id: str, before: datetime) -> int:
        """See `UnitOfWork.forget_events`."""
        content = self._now()
        log = content.events.get(tenant_id, EventLog())
        shorter = log.without(before)
        if shorter.forgotten != log.forgotten:
            self._content = evolve(content, events=content.events.set(tenant_id, shorter, self._owner))
        return shorter.forgotten - log.forgotten

    def admit(self, rollout: Rollout, link: Link, admission: Admission, at: datetime, *, at_most: int) -> int:
        check_relinkable(link)
        check_storable(rollout)
        self.get(OSResource, rollout.tenant_id, rollout.target_os_id)
        candidates = [
            Candidate(
                instance_id=instance.resource_id,
                place=rollout.place_of(host.bucket),
                site_id=host.site_id,
                region_id=self._region_of(host),
            )
            for instance, host in self._covered(rollout)
            if _link(instance) == link
        ]
        chosen = choose(candidates, admission, self.places_in_flight(rollout), at_most=at_most)
        for instance_id in chosen:
            instance = self.get(Instance, rollout.tenant_id, instance_id)
            self._place(instance, evolve(instance, desired_os_id=rollout.target_os_id, admitted_at=at))
        self._note_links(rollout.tenant_id, link.desired_os_id, rollout.target_os_id, len(chosen))
        return len(chosen)

    def delete(self, resource: Resource) -> None:
        kind, tenant_id, resource_id = type(resource), resource.tenant_id, resource.resource_id
        stored = self.get(kind, tenant_id, resource_id)
        users = self._now().groups.get((tenant_id, kind, resource_id), _EMPTY_GROUP)
        others = sorted(
            f"{user.__name__} {user_id}" for user, user_id in users if (user, user_id) != (kind, resource_id)
        )
        check_unused(resource, tuple(others))
        self._put(stored, None)

    def forget_runs(self, tenant_id: str, before: datetime, *, at_most: int) -> int:
        over = (
            run
            for run in self.all(OSUpdateRun, tenant_id)
            if run.start_time < before and run.end_time is not None and run.end_time < before
        )
        chosen = list(islice(over, at_most))
        for run in chosen:
            self._put(run, None)
        return len(chosen)

    def _check_unique(self, resource: Resource, *, replacing: bool = False) -> None:
        kind, tenant_id, key = type(resource), resource.tenant_id, unique_key(resource)
        if not replacing and self._find(kind, tenant_id, resource.resource_id) is not None:
            raise AlreadyExists(f"tenant {tenant_id!r} has a {kind.__name__} {resource.resource_id!r} already")
        if key is not None and (holder := self._now().unique.get((tenant_id, *key))) is not None:
            raise AlreadyExists(f"{kind.__name__} {holder!r} has {key[0]} {', '.join(map(repr, key[1:]))} already")

    def _check_references(self, resource: Resource) -> None:
        for kind, resource_id in references(resource):
            itself = (kind, resource_id) == (type(resource), resource.resource_id)
            if not itself and self._find(kind, resource.tenant_id, resource_id) is None:
                named = f"{type(resource).__name__} {resource.resource_id!r} refers to {kind.__name__} {resource_id!r}"
                raise NotFound(f"{named}, which tenant {resource.tenant_id!r} doesn't have")

    def _note_links(self, tenant_id: str, from_os_id: str, desired_os_id: str, count: int) -> None:
        if count:
            self._happened.append(linked_event(tenant_id, from_os_id, desired_os_id, count, self._clock.now()))

    def _put(self, old: Resource | None, new: Resource | None) -> None:
        self._place(old, new)
        self._happened.extend(events_of(old, new, self._clock.now()))

    def _place(self, old: Resource | None, new: Resource | None) -> None:
        """Take `old` out and put `new` in, with every group and unique key that they have."""
        either = new if new is not None else old
        assert either is not None
        content, owner = self._now(), self._owner
        place = (either.tenant_id, type(either))
        table = content.tables.get(place, _EMPTY_TABLE)
        table = table.remove(either.resource_id, owner) if new is None else table.set(new.resource_id, new, owner)
        self._content = _Content(
            events=content.events,
            tables=content.tables.set(place, table, owner),
            groups=self._regroup(either, old, new),
            unique=self._rename(either, old, new),
        )

    def _regroup(
        self, either: Resource, old: Resource | None, new: Resource | None
    ) -> PersistentMap[tuple[object, ...], _Group]:
        groups, owner = self._content.groups, self._owner
        member = (type(either), either.resource_id)
        left = set() if old is None else set(_groups(old))
        joined = set() if new is None else set(_groups(new))
        for key in left - joined:
            smaller = groups.get(key, _EMPTY_GROUP).remove(member, owner)
            groups = groups.set(key, smaller, owner) if smaller else groups.remove(key, owner)
        for key in joined - left:
            groups = groups.set(key, groups.get(key, _EMPTY_GROUP).set(member, None, owner), owner)
        return groups

    def _rename(
        self, either: Resource, old: Resource | None, new: Resource | None
    ) -> PersistentMap[tuple[object, ...], str]:
        unique, owner, tenant_id = self._content.unique, self._owner, either.tenant_id
        before = None if old is None else unique_key(old)
        after = None if new is None else unique_key(new)
        if before == after:
            return unique
        if before is not None:
            unique = unique.remove((tenant_id, *before), owner)
        if after is not None:
            unique = unique.set((tenant_id, *after), either.resource_id, owner)
        return unique


class MemoryInventory:
    """An Inventory that lives as long as this object; see `edge_day2.ports.inventory.Inventory`."""

    def __init__(self, *, lock_timeout_seconds: float, clock: Clock) -> None:
        self._clock = clock
        self._content: _Content | None = _Content()
        self._writer = threading.Lock()
        self._timeout = lock_timeout_seconds
        self._turns = MemoryTurns()

    def _open(self) -> _Content:
        if self._content is None:
            raise StorageError("this Inventory is closed")
        return self._content

    @contextmanager
    def reading(self) -> Iterator[MemoryUnitOfWork]:
        """See `Inventory.reading`."""
        unit = MemoryUnitOfWork(self._open())
        try:
            yield unit
        finally:
            unit.end()

    @contextmanager
    def writing(self) -> Iterator[MemoryUnitOfWork]:
        """See `Inventory.writing`."""
        if not self._writer.acquire(timeout=self._timeout):
            raise StorageError(f"another transaction has been writing for {self._timeout:g} s; repeat")
        try:
            unit = _WritingUnitOfWork(self._open(), self._clock)
            try:
                yield unit
            except BaseException:
                unit.end()
                raise
            if unit.failed is not None:
                raise unit.failed
            self._content = unit.end()
        finally:
            self._writer.release()

    def turn(self, name: str) -> AbstractContextManager[bool]:
        """See `Inventory.turn`."""
        self._open()
        return self._turns.turn(name)

    def close(self) -> None:
        """See `Inventory.close`."""
        self._content = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
