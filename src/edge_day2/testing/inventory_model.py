"""What an Inventory is, as plainly as it can be said: a dictionary, and loops over all of it.

The stateful test of `inventory_machine` compares adapters with it. It's slow, keeps nothing, knows no threads, and
shares no code with an adapter, so that the same mistake isn't made twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar

from attrs import evolve

from edge_day2.domain.maintenance import ReportContext
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
    ScheduleTarget,
    Site,
    TargetLevel,
)
from edge_day2.domain.statuses import InventoryStatus
from edge_day2.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    ImmutableLinkError,
    InvalidResource,
    NotFound,
)

R = TypeVar("R", bound=Resource)

Key = tuple[type[Resource], str, str]
"""Kind, tenant and id."""


def key_of(resource: Resource) -> Key:
    """Return what a resource is stored under."""
    return type(resource), resource.tenant_id, resource.resource_id


def referred(resource: Resource) -> list[Key]:
    """Return the keys of everything that must exist for `resource` to exist."""
    tenant = resource.tenant_id
    ids: list[tuple[type[Resource], str | None]] = []
    if isinstance(resource, Region):
        ids = [(Region, resource.parent_id)]
    if isinstance(resource, Site):
        ids = [(Region, resource.region_id)]
    if isinstance(resource, Host):
        ids = [(Site, resource.site_id)]
    if isinstance(resource, OSUpdatePolicy):
        ids = [(OSResource, resource.target_os_id)]
    if isinstance(resource, Instance):
        ids = [(Host, resource.host_id), (OSUpdatePolicy, resource.os_update_policy_id)]
        ids += [(OSResource, resource.current_os_id), (OSResource, resource.desired_os_id)]
    if isinstance(resource, ScheduleResource) and resource.target is not None:
        kinds: dict[TargetLevel, type[Resource]] = {
            TargetLevel.HOST: Host,
            TargetLevel.SITE: Site,
            TargetLevel.REGION: Region,
        }
        ids = [(kinds[resource.target.level], resource.target.resource_id)]
    if isinstance(resource, OSUpdateRun):
        ids = [(Instance, resource.instance_id)]
    return [(kind, tenant, name) for kind, name in ids if name is not None]


def exclude_each_other(one: Resource, other: Resource) -> bool:
    """Return whether two resources with different ids can't be in one tenant."""
    if isinstance(one, OSResource) and isinstance(other, OSResource):
        return one.identity == other.identity
    if isinstance(one, Host) and isinstance(other, Host):
        return one.guid.upper() == other.guid.upper()
    if isinstance(one, Instance) and isinstance(other, Instance):
        return one.host_id == other.host_id
    if isinstance(one, OSUpdateRun) and isinstance(other, OSUpdateRun):
        return one.instance_id == other.instance_id and one.end_time is None and other.end_time is None
    return False


class ModelUnitOfWork:
    """One transaction on a dictionary; see `edge_day2.ports.inventory.UnitOfWork`."""

    def __init__(self, stored: dict[Key, Resource]) -> None:
        self.stored = stored

    def _of(self, kind: type[R], tenant_id: str, wanted: Callable[[R], bool] = lambda _: True) -> list[R]:
        """Return the tenant's resources of a kind that are `wanted`, in the order of their ids."""
        found = [
            resource
            for resource in self.stored.values()
            if isinstance(resource, kind) and resource.tenant_id == tenant_id and wanted(resource)
        ]
        return sorted(found, key=lambda resource: resource.resource_id)

    def get(self, kind: type[R], tenant_id: str, resource_id: str) -> R:
        """See `UnitOfWork.get`."""
        for resource in self._of(kind, tenant_id):
            if resource.resource_id == resource_id:
                return resource
        raise NotFound(resource_id)

    def all(self, kind: type[R], tenant_id: str) -> Iterator[R]:
        """See `UnitOfWork.all`."""
        return iter(self._of(kind, tenant_id))

    def host_by_guid(self, tenant_id: str, guid: str) -> Host:
        """See `UnitOfWork.host_by_guid`."""
        for host in self._of(Host, tenant_id):
            if host.guid.upper() == guid.upper():
                return host
        raise NotFound(guid)

    def instance_of_host(self, tenant_id: str, host_id: str) -> Instance | None:
        """See `UnitOfWork.instance_of_host`."""
        return next(iter(self._of(Instance, tenant_id, lambda instance: instance.host_id == host_id)), None)

    def runs_of_instance(self, tenant_id: str, instance_id: str) -> tuple[OSUpdateRun, ...]:
        """See `UnitOfWork.runs_of_instance`."""
        runs = self._of(OSUpdateRun, tenant_id, lambda run: run.instance_id == instance_id)
        return tuple(sorted(runs, key=lambda run: (run.start_time, run.resource_id), reverse=True))

    def links(self, tenant_id: str) -> dict[Link, int]:
        """See `UnitOfWork.links`."""
        counts: dict[Link, int] = {}
        for instance in self._of(Instance, tenant_id):
            link = Link(instance.os_type, instance.current_os_id, instance.desired_os_id)
            counts[link] = counts.get(link, 0) + 1
        return counts

    def unheard_since(self, tenant_id: str, deadline: datetime) -> Iterator[Instance]:
        """See `UnitOfWork.unheard_since`."""
        silent = [
            (instance.last_seen, instance.resource_id, instance)
            for instance in self._of(Instance, tenant_id)
            if instance.update.status is InventoryStatus.UPDATE_IN_PROGRESS
            if instance.last_seen is not None and instance.last_seen < deadline
        ]
        return (instance for _, _, instance in sorted(silent, key=lambda item: item[:2]))

    def tenants(self) -> tuple[str, ...]:
        """See `UnitOfWork.tenants`."""
        return tuple(sorted({tenant for _, tenant, _ in self.stored}))

    def report_context(self, tenant_id: str, guid: str) -> ReportContext:
        """See `UnitOfWork.report_context`."""
        host = self.host_by_guid(tenant_id, guid)
        places = [ScheduleTarget(level=TargetLevel.HOST, resource_id=host.resource_id)]
        region_id = None
        if host.site_id is not None:
            places.append(ScheduleTarget(level=TargetLevel.SITE, resource_id=host.site_id))
            region_id = self.get(Site, tenant_id, host.site_id).region_id
        while region_id is not None:
            region = ScheduleTarget(level=TargetLevel.REGION, resource_id=region_id)
            if region in places:
                break
            places.append(region)
            region_id = self.get(Region, tenant_id, region_id).parent_id
        schedules = self._of(ScheduleResource, tenant_id, lambda schedule: schedule.target in places)
        context = ReportContext(
            host=host,
            instance=None,
            current_os=None,
            desired_os=None,
            policy=None,
            open_run=None,
            schedules=tuple(schedules),
            profile_os=(),
        )
        instance = self.instance_of_host(tenant_id, host.resource_id)
        if instance is None:
            return context
        systems = {
            system.resource_id: evolve(system, existing_cves="", fixed_cves="", installed_packages="")
            for system in self._of(OSResource, tenant_id)
        }
        current, policy_id = systems[instance.current_os_id], instance.os_update_policy_id
        alike = [system for system in systems.values() if system.profile_name == current.profile_name]
        open_runs = [run for run in self.runs_of_instance(tenant_id, instance.resource_id) if run.end_time is None]
        return evolve(
            context,
            instance=instance,
            current_os=current,
            desired_os=systems[instance.desired_os_id],
            policy=None if policy_id is None else self.get(OSUpdatePolicy, tenant_id, policy_id),
            open_run=open_runs[0] if open_runs else None,
            profile_os=tuple(alike) if instance.os_type is OSType.IMMUTABLE else (),
        )

    def report_contexts(self, tenant_id: str, guids: Collection[str]) -> dict[str, ReportContext]:
        """See `UnitOfWork.report_contexts`."""
        known = {host.guid.upper() for host in self._of(Host, tenant_id)}
        return {guid: self.report_context(tenant_id, guid) for guid in guids if guid.upper() in known}

    def _check(self, resource: Resource) -> None:
        """Refuse a resource that can't be beside what is stored."""
        for other in self.stored.values():
            another = other.tenant_id == resource.tenant_id and other.resource_id != resource.resource_id
            if another and exclude_each_other(other, resource):
                raise AlreadyExists(other.resource_id)
        for key in referred(resource):
            if key not in self.stored and key != key_of(resource):
                raise NotFound(key[2])

    def _check_around(self, region: Region) -> None:
        around = region.parent_id
        while around is not None:
            if around == region.resource_id:
                raise InvalidResource("parent_id", region.parent_id, "a region that isn't inside this one")
            outer = self.stored.get((Region, region.tenant_id, around))
            around = outer.parent_id if isinstance(outer, Region) else None

    def add(self, resource: Resource) -> None:
        """See `UnitOfWork.add`."""
        _check_text(resource)
        if isinstance(resource, Region) and resource.parent_id == resource.resource_id:
            raise InvalidResource("parent_id", resource.parent_id, "another region")
        if key_of(resource) in self.stored:
            raise AlreadyExists(resource.resource_id)
        self._check(resource)
        self.stored[key_of(resource)] = resource

    def add_all(self, resources: Iterable[Resource]) -> None:
        """See `UnitOfWork.add_all`."""
        with self._all_or_nothing():
            for resource in resources:
                self.add(resource)

    def replace(self, old: R, new: R) -> None:
        """See `UnitOfWork.replace`."""
        if key_of(old) != key_of(new):
            raise InvalidResource("resource_id", new.resource_id, old.resource_id)
        _check_text(new)
        if isinstance(new, Region) and isinstance(old, Region) and new.parent_id != old.parent_id:
            self._check_around(new)
        if self.get(type(old), old.tenant_id, old.resource_id) != old:
            raise Conflict(old.resource_id)
        self._check(new)
        self.stored[key_of(new)] = new

    def replace_all(self, changes: Iterable[tuple[R, R]]) -> None:
        """See `UnitOfWork.replace_all`."""
        with self._all_or_nothing():
            for old, new in changes:
                self.replace(old, new)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        before = dict(self.stored)
        try:
            yield
        except BaseException:
            self.stored.clear()
            self.stored.update(before)
            raise

    def delete(self, resource: Resource) -> None:
        """See `UnitOfWork.delete`."""
        key = key_of(resource)
        if key not in self.stored:
            raise NotFound(resource.resource_id)
        if any(key in referred(other) for other in self.stored.values() if key_of(other) != key):
            raise FailedPrecondition(resource.resource_id)
        del self.stored[key]

    def relink(self, tenant_id: str, links: Collection[Link], desired_os_id: str, *, at_most: int) -> int:
        """See `UnitOfWork.relink`. Takes the instances with the lowest ids."""
        for link in links:
            if link.os_type is OSType.MUTABLE:
                raise ImmutableLinkError(link.current_os_id)
        self.get(OSResource, tenant_id, desired_os_id)
        alike = [
            instance
            for instance in self._of(Instance, tenant_id)
            if Link(instance.os_type, instance.current_os_id, instance.desired_os_id) in links
        ]
        for instance in alike[:at_most]:
            self.stored[key_of(instance)] = evolve(instance, desired_os_id=desired_os_id)
        return len(alike[:at_most])


def _check_text(resource: Resource) -> None:
    if "\0" in repr(resource) or "\\x00" in repr(resource):
        raise InvalidResource("a text", resource, "one without NUL")


class ModelInventory:
    """Everything that is stored, in one dictionary; see `edge_day2.ports.inventory.Inventory`."""

    def __init__(self) -> None:
        self.stored: dict[Key, Resource] = {}

    @contextmanager
    def reading(self) -> Iterator[ModelUnitOfWork]:
        """See `Inventory.reading`."""
        yield ModelUnitOfWork(dict(self.stored))

    @contextmanager
    def writing(self) -> Iterator[ModelUnitOfWork]:
        """See `Inventory.writing`."""
        unit = ModelUnitOfWork(dict(self.stored))
        yield unit
        self.stored = unit.stored

    def close(self) -> None:
        """See `Inventory.close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
