"""Which resource refers to which, and what must be unique. Every Inventory keeps to this, each by its own means.

A run keeps the id of the policy that it applied as a note, not as a reference: history doesn't hinder an admin.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from edge_day2.domain.reconciled import ReconciledRevision
from edge_day2.domain.resources import (
    Host,
    Instance,
    OSResource,
    OSUpdatePolicy,
    OSUpdateRun,
    Region,
    Resource,
    ScheduleResource,
    Site,
    TargetLevel,
)
from edge_day2.domain.rollout import Rollout

# One of the classes in `Resource`.
Kind = type[Any]

# A resource refers to kinds before its own, or to its own kind.
KINDS: Final[tuple[Kind, ...]] = (
    OSResource,
    Region,
    Site,
    Host,
    OSUpdatePolicy,
    Instance,
    ScheduleResource,
    OSUpdateRun,
    ReconciledRevision,
    Rollout,
)
TARGET_KIND: Final[dict[TargetLevel, Kind]] = {
    TargetLevel.HOST: Host,
    TargetLevel.SITE: Site,
    TargetLevel.REGION: Region,
}


def references(resource: Resource) -> Iterator[tuple[Kind, str]]:
    """Yield (kind, id) of everything that `resource` refers to, all of it in its own tenant."""
    match resource:
        case Region(parent_id=str(region)) | Site(region_id=str(region)):
            yield Region, region
        case Host(site_id=str(site)):
            yield Site, site
        case OSUpdatePolicy(target_os_id=str(os)):
            yield OSResource, os
        case Instance():
            yield Host, resource.host_id
            yield OSResource, resource.current_os_id
            if resource.desired_os_id != resource.current_os_id:
                yield OSResource, resource.desired_os_id
            if resource.os_update_policy_id is not None:
                yield OSUpdatePolicy, resource.os_update_policy_id
        case ScheduleResource(target=target) if target is not None:
            yield TARGET_KIND[target.level], target.resource_id
        case OSUpdateRun():
            yield Instance, resource.instance_id
        case Rollout():
            yield OSResource, resource.target_os_id


def unique_key(resource: Resource) -> tuple[str, ...] | None:
    """Return what only one resource of this kind may have in its tenant, beside its id; None where there is no such."""
    match resource:
        case OSResource():
            return "identity", resource.profile_name, resource.image_id
        case Host():
            return "guid", resource.guid.lower()
        case Instance():
            return "instance of host", resource.host_id
        case OSUpdateRun(end_time=None):
            return "open run of instance", resource.instance_id
        case Rollout(state=state) if state.is_open:
            return "open rollout of profile and architecture", resource.profile_name, resource.architecture
    return None
