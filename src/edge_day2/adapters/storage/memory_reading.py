"""One transaction of the Inventory in memory that reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import datetime
from typing import TypeVar, cast

from edge_day2.adapters.storage.event_log import EventLog
from edge_day2.adapters.storage.memory_content import EMPTY_GROUP, EMPTY_TABLE, Content
from edge_day2.adapters.storage.memory_lists import MemoryLists, regions_around
from edge_day2.adapters.storage.reading_only import ReadingOnly
from edge_day2.adapters.storage.references import Kind
from edge_day2.adapters.storage.storable import check_storable
from edge_day2.domain.inventory_events import EventPage
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
    without_lists,
)
from edge_day2.domain.rollout import Rollout
from edge_day2.domain.rollout_progress import (
    PlacesInFlight,
    WaveLink,
    covers,
    has_failed,
    is_in_flight,
    may_be_admitted,
)
from edge_day2.errors import Conflict, NotFound, StorageError, shown

R = TypeVar("R", bound=Resource)


class MemoryUnitOfWork(MemoryLists, ReadingOnly):
    """One transaction of `MemoryInventory`; see `edge_day2.ports.inventory.UnitOfWork`."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._over = False
        self._failed: Conflict | None = None

    @property
    def failed(self) -> Conflict | None:
        """The error after which this transaction may not be committed."""
        return self._failed

    def _now(self) -> Content:
        if self._over:
            raise StorageError("this transaction is over; begin another one")
        if self._failed is not None:
            raise StorageError(f"this transaction has failed already; begin another one: {self._failed}")
        return self._content

    def end(self) -> Content:
        """End the transaction and return what it leaves."""
        self._over = True
        return self._content

    def _find(self, kind: type[R], tenant_id: str, resource_id: str) -> R | None:
        table = self._now().tables.get((tenant_id, kind), EMPTY_TABLE)
        return cast("R | None", table.get(resource_id))

    def _group(self, kind: type[R], *key: object) -> list[R]:
        """Return the members of this kind in the order of their ids."""
        group = self._now().groups.get(key, EMPTY_GROUP)
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
        ids = sorted(self._now().tables.get((tenant_id, kind), EMPTY_TABLE))
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
        return Counter(map(link_of, self.all(Instance, tenant_id)))

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
            WaveLink(rollout.wave_at(rollout.place_of(host.bucket)), link_of(instance), has_failed(instance, rollout))
            for instance, host in self._covered(rollout)
        )

    def places_in_flight(self, rollout: Rollout) -> PlacesInFlight:
        """See `UnitOfWork.places_in_flight`."""
        check_storable(rollout)
        hosts = [host for instance, host in self._covered(rollout) if is_in_flight(instance, rollout)]
        sites = Counter(host.site_id for host in hosts if host.site_id is not None)
        regions = Counter(region for host in hosts if (region := self._region_of(host)) is not None)
        return PlacesInFlight(sites=sites, regions=regions)

    def tenants(self) -> tuple[str, ...]:
        """See `UnitOfWork.tenants`."""
        tables = self._now().tables
        return tuple(sorted({tenant for tenant, kind in tables if tables.get((tenant, kind), EMPTY_TABLE)}))

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


def link_of(instance: Instance) -> Link:
    return Link(instance.os_type, instance.current_os_id, instance.desired_os_id)
