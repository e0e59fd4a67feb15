"""What must hold in an Inventory whatever happened to its processes and its database."""

from __future__ import annotations

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
    Site,
)
from edge_day2.domain.statuses import InventoryStatus
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_model import Key, exclude_each_other, key_of, referred

KINDS: tuple[type[Resource], ...] = (
    OSResource, Region, Site, Host, OSUpdatePolicy, Instance, ScheduleResource, OSUpdateRun,
)  # fmt: skip


def everything(inventory: Inventory) -> dict[Key, Resource]:
    """Return all that is stored, of one instant."""
    with inventory.reading() as unit:
        return {
            key_of(resource): resource
            for tenant in unit.tenants()
            for kind in KINDS
            for resource in unit.all(kind, tenant)
        }


def check_invariants(stored: dict[Key, Resource]) -> None:
    """Refuse references to nothing, doubles, two links of a mutable instance, and a run that its instance belies."""
    for resource in stored.values():
        assert [key for key in referred(resource) if key not in stored] == []
    unique = [resource for resource in stored.values() if isinstance(resource, OSResource | Host | Instance)]
    runs = [resource for resource in stored.values() if isinstance(resource, OSUpdateRun) and resource.end_time is None]
    for some in (unique, runs):
        # Those that exclude each other are of one tenant and one kind.
        groups: dict[tuple[type[Resource], str], list[Resource]] = {}
        for resource in some:
            groups.setdefault((type(resource), resource.tenant_id), []).append(resource)
        for group in groups.values():
            for place, one in enumerate(group):
                assert [other.resource_id for other in group[:place] if exclude_each_other(one, other)] == []
    open_runs = {(run.tenant_id, run.instance_id): run for run in runs if isinstance(run, OSUpdateRun)}
    for instance in stored.values():
        if isinstance(instance, Instance):
            if instance.os_type is OSType.MUTABLE:
                assert instance.current_os_id == instance.desired_os_id
            run = open_runs.get((instance.tenant_id, instance.resource_id))
            if run is None:
                assert instance.update.status is not InventoryStatus.UPDATE_IN_PROGRESS
            else:
                assert run.update == instance.update
