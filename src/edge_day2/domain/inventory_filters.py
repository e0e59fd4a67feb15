"""What a list of the Inventory can be narrowed to: one filter for each kind of resource.

A field that isn't set asks for nothing; those that are set must all hold. What a filter means is its `matches`, for
every storage. Ids are compared as texts within one tenant, so what doesn't exist, or belongs to another, matches
nothing. Lists come in the order of `place`: ids, which never change; update runs newest first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Generic, Protocol, TypeVar

import attrs
from attrs import field, frozen

from edge_day2.domain.resources import (
    Host,
    Instance,
    OSResource,
    OSType,
    OSUpdatePolicy,
    OSUpdateRun,
    Region,
    Resource,
    ScheduleResource,
    ScheduleTarget,
    Site,
    Trust,
    UpdatePolicyKind,
)
from edge_day2.domain.schedules import ScheduleKind
from edge_day2.domain.statuses import InventoryStatus
from edge_day2.errors import InvalidValue

R = TypeVar("R", bound=Resource)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Places(Protocol):
    """Where things are in one tenant."""

    def site_of_host(self, host_id: str) -> str | None:
        """Return the id of the host's site; None where it has none, or there is no such host."""
        ...

    def regions_around(self, site_id: str) -> Collection[str]:
        """Return the ids of all regions that the site lies in, the outermost too."""
        ...


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // datetime.resolution


def plain(value: object) -> str | int | tuple[str, str] | None:
    """Return a field's value as a plain one, the same in every process; instants are microseconds since 1970."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, datetime):
        return _microseconds(value)
    if isinstance(value, ScheduleTarget):
        return value.level.name, value.resource_id
    if value is None or isinstance(value, str | bool):
        return value
    raise InvalidValue("filter", value, "a text, an instant, an enum or a schedule's target")


def _fits(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuse a value of another type, which would silently match nothing."""
    expected = attribute.metadata["kind"]
    name = f"{type(instance).__name__}.{attribute.name}"
    if not isinstance(value, expected) and (value is not None or expected is bool):
        raise InvalidValue(name, value, f"{expected.__name__}")
    if isinstance(value, datetime) and value.tzinfo is None:
        raise InvalidValue(name, value, "an aware datetime")


def _only(kind: type[Any], default: object = None) -> Any:
    return field(default=default, validator=_fits, metadata={"kind": kind})


@frozen
class ResourceFilter(ABC, Generic[R]):
    """Which resources of one kind a list has.

    Raises:
        InvalidValue: a field has a value of another type, or a naive datetime.
    """

    @property
    @abstractmethod
    def kind(self) -> type[R]:
        """The class of what is listed."""

    @abstractmethod
    def matches(self, resource: R, places: Places) -> bool:
        """Return whether `resource` belongs on the list."""

    @property
    def descending(self) -> bool:
        """Whether the list begins with the highest place."""
        return False

    def place(self, resource: R) -> tuple[str | int, ...]:
        """Return the resource's place on the list."""
        return (resource.resource_id,)

    def fields(self) -> dict[str, str | int | tuple[str, str] | None]:
        """Return every field as a plain value."""
        return {name: plain(value) for name, value in attrs.asdict(self, recurse=False).items()}


def _agrees(wanted: object, found: object) -> bool:
    return wanted is None or wanted == found


@frozen(kw_only=True)
class InstanceFilter(ResourceFilter[Instance]):
    """Instances: by update status, OS, policy, and where their host is.

    `region_id` means everything inside the region, at any depth. `update_due` lists those alone whose desired OS isn't
    the one that they run.
    """

    status: InventoryStatus | None = _only(InventoryStatus)
    os_type: OSType | None = _only(OSType)
    current_os_id: str | None = _only(str)
    desired_os_id: str | None = _only(str)
    policy_id: str | None = _only(str)
    host_id: str | None = _only(str)
    site_id: str | None = _only(str)
    region_id: str | None = _only(str)
    update_due: bool = _only(bool, default=False)

    @property
    def kind(self) -> type[Instance]:
        return Instance

    def matches(self, resource: Instance, places: Places) -> bool:
        return (
            _agrees(self.status, resource.update.status)
            and _agrees(self.os_type, resource.os_type)
            and _agrees(self.current_os_id, resource.current_os_id)
            and _agrees(self.desired_os_id, resource.desired_os_id)
            and _agrees(self.policy_id, resource.os_update_policy_id)
            and _agrees(self.host_id, resource.host_id)
            and not (self.update_due and resource.desired_os_id == resource.current_os_id)
            and _lies_in(places.site_of_host(resource.host_id), self.site_id, self.region_id, places)
        )


@frozen(kw_only=True)
class HostFilter(ResourceFilter[Host]):
    """Hosts: by exact name, trust, and where they are; `region_id` means everything inside the region."""

    name: str | None = _only(str)
    trust: Trust | None = _only(Trust)
    site_id: str | None = _only(str)
    region_id: str | None = _only(str)

    @property
    def kind(self) -> type[Host]:
        return Host

    def matches(self, resource: Host, places: Places) -> bool:
        return (
            _agrees(self.name, resource.name)
            and _agrees(self.trust, resource.trust)
            and _lies_in(resource.site_id, self.site_id, self.region_id, places)
        )


@frozen(kw_only=True)
class SiteFilter(ResourceFilter[Site]):
    """Sites: by exact name and by region, which means everything inside it."""

    name: str | None = _only(str)
    region_id: str | None = _only(str)

    @property
    def kind(self) -> type[Site]:
        return Site

    def matches(self, resource: Site, places: Places) -> bool:
        return _agrees(self.name, resource.name) and _lies_in(resource.resource_id, None, self.region_id, places)


@frozen(kw_only=True)
class RegionFilter(ResourceFilter[Region]):
    """Regions: by exact name; right inside `parent_id`; `outermost`: those alone that lie in none."""

    name: str | None = _only(str)
    parent_id: str | None = _only(str)
    outermost: bool = _only(bool, default=False)

    @property
    def kind(self) -> type[Region]:
        return Region

    def matches(self, resource: Region, places: Places) -> bool:
        return (
            _agrees(self.name, resource.name)
            and _agrees(self.parent_id, resource.parent_id)
            and not (self.outermost and resource.parent_id is not None)
        )


@frozen(kw_only=True)
class OSResourceFilter(ResourceFilter[OSResource]):
    """OS Resources: by type, profile name and image version."""

    os_type: OSType | None = _only(OSType)
    profile_name: str | None = _only(str)
    image_id: str | None = _only(str)

    @property
    def kind(self) -> type[OSResource]:
        return OSResource

    def matches(self, resource: OSResource, places: Places) -> bool:
        return (
            _agrees(self.os_type, resource.os_type)
            and _agrees(self.profile_name, resource.profile_name)
            and _agrees(self.image_id, resource.image_id)
        )


@frozen(kw_only=True)
class PolicyFilter(ResourceFilter[OSUpdatePolicy]):
    """Update policies: by kind and by the OS Resource that they name."""

    policy_kind: UpdatePolicyKind | None = _only(UpdatePolicyKind)
    target_os_id: str | None = _only(str)

    @property
    def kind(self) -> type[OSUpdatePolicy]:
        return OSUpdatePolicy

    def matches(self, resource: OSUpdatePolicy, places: Places) -> bool:
        return _agrees(self.policy_kind, resource.kind) and _agrees(self.target_os_id, resource.target_os_id)


@frozen(kw_only=True)
class ScheduleFilter(ResourceFilter[ScheduleResource]):
    """Schedules: by kind and by the very place that they are attached to, not what they apply to."""

    schedule_kind: ScheduleKind | None = _only(ScheduleKind)
    target: ScheduleTarget | None = _only(ScheduleTarget)

    @property
    def kind(self) -> type[ScheduleResource]:
        return ScheduleResource

    def matches(self, resource: ScheduleResource, places: Places) -> bool:
        return _agrees(self.schedule_kind, resource.kind) and _agrees(self.target, resource.target)


class RunState(Enum):
    """Whether an update run is over."""

    OPEN = "open"
    ENDED = "ended"


@frozen(kw_only=True)
class RunFilter(ResourceFilter[OSUpdateRun]):
    """Update runs, newest first: by instance, status, state, and when they started.

    That is at `since` or later, and before `until`.
    """

    instance_id: str | None = _only(str)
    status: InventoryStatus | None = _only(InventoryStatus)
    state: RunState | None = _only(RunState)
    since: datetime | None = _only(datetime)
    until: datetime | None = _only(datetime)

    @property
    def kind(self) -> type[OSUpdateRun]:
        return OSUpdateRun

    def matches(self, resource: OSUpdateRun, places: Places) -> bool:
        return (
            _agrees(self.instance_id, resource.instance_id)
            and _agrees(self.status, resource.update.status)
            and _agrees(self.state, RunState.OPEN if resource.end_time is None else RunState.ENDED)
            and (self.since is None or self.since <= resource.start_time)
            and (self.until is None or resource.start_time < self.until)
        )

    @property
    def descending(self) -> bool:
        return True

    def place(self, resource: OSUpdateRun) -> tuple[str | int, ...]:
        return (_microseconds(resource.start_time), resource.resource_id)


def _lies_in(site_id: str | None, wanted_site: str | None, wanted_region: str | None, places: Places) -> bool:
    if not _agrees(wanted_site, site_id):
        return False
    if wanted_region is None:
        return True
    return site_id is not None and wanted_region in places.regions_around(site_id)
