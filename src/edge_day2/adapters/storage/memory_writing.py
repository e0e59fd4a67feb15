"""One transaction of the Inventory in memory that writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import groupby, islice
from operator import attrgetter
from typing import TypeVar

from attrs import evolve

from edge_day2.adapters.storage.event_log import EventLog
from edge_day2.adapters.storage.memory_content import EMPTY_GROUP, Content
from edge_day2.adapters.storage.memory_lists import regions_around
from edge_day2.adapters.storage.memory_reading import MemoryUnitOfWork, link_of
from edge_day2.adapters.storage.references import references, unique_key
from edge_day2.adapters.storage.storable import check_new, check_storable
from edge_day2.domain.inventory_events import InventoryEvent, events_of, linked_event
from edge_day2.domain.resources import (
    Instance,
    Link,
    OSResource,
    OSUpdateRun,
    Resource,
    check_region,
    check_relinkable,
    check_unused,
    moves_region,
)
from edge_day2.domain.rollout import Admission, Rollout
from edge_day2.domain.rollout_progress import Candidate, choose
from edge_day2.errors import AlreadyExists, Conflict, InvalidResource, NotFound
from edge_day2.ports.clock import Clock

R = TypeVar("R", bound=Resource)


class MemoryWritingUnitOfWork(MemoryUnitOfWork):
    """A transaction that makes new content. Each method checks first, so that one that raises has changed nothing."""

    def __init__(self, content: Content, clock: Clock) -> None:
        super().__init__(content)
        self._owner = object()
        self._clock = clock
        self._happened: list[InventoryEvent] = []

    def end(self) -> Content:
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
        alike = (instance for instance in self.all(Instance, tenant_id) if link_of(instance) in links)
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
            if link_of(instance) == link
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
        users = self._now().groups.get((tenant_id, kind, resource_id), EMPTY_GROUP)
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
        self._content = self._now().replaced(old, new, self._owner)
