"""Lists of the Inventory in memory: every page looks at everything of its kind, and says by definition what it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Protocol, TypeVar

from attrs import frozen

from edge_day2.domain.inventory_filters import InstanceFilter, ResourceFilter
from edge_day2.domain.inventory_pages import Page, page_of
from edge_day2.domain.inventory_views import InstanceView, view_instance
from edge_day2.domain.resources import Host, Instance, OSResource, OSUpdatePolicy, Region, Resource, Site
from edge_day2.domain.statuses import InventoryStatus
from edge_day2.errors import NotFound

R = TypeVar("R", bound=Resource)


class _Content(Protocol):
    """What is looked at: a transaction."""

    def get(self, kind: type[R], tenant_id: str, resource_id: str) -> R: ...

    def all(self, kind: type[R], tenant_id: str) -> Iterator[R]: ...


def regions_around(content: _Content, tenant_id: str, region_id: str | None) -> dict[str, None]:
    """Return the ids of a region and of those around it, from the inside out; of a circle each once."""
    found: dict[str, None] = {}
    while region_id is not None and region_id not in found:
        found[region_id] = None
        try:
            region_id = content.get(Region, tenant_id, region_id).parent_id
        except NotFound:
            break
    return found


@frozen
class _Places:
    """See `edge_day2.domain.inventory_filters.Places`."""

    content: _Content
    tenant_id: str

    def site_of_host(self, host_id: str) -> str | None:
        try:
            return self.content.get(Host, self.tenant_id, host_id).site_id
        except NotFound:
            return None

    def regions_around(self, site_id: str) -> Collection[str]:
        return regions_around(self.content, self.tenant_id, self.content.get(Site, self.tenant_id, site_id).region_id)


class MemoryLists:
    """See `edge_day2.ports.inventory_lists.InventoryLists`; `forget_runs` is for who writes."""

    def page(self: _Content, wanted: ResourceFilter[R], *, tenant_id: str, after: str = "", at_most: int) -> Page[R]:
        """See `InventoryLists.page`."""
        places = _Places(self, tenant_id)
        everything = self.all(wanted.kind, tenant_id)
        return page_of(everything, wanted, places, tenant_id=tenant_id, after=after, at_most=at_most)

    def count(self: _Content, wanted: ResourceFilter[R], *, tenant_id: str) -> int:
        """See `InventoryLists.count`."""
        places = _Places(self, tenant_id)
        return sum(wanted.matches(resource, places) for resource in self.all(wanted.kind, tenant_id))

    def status_counts(self: _Content, tenant_id: str) -> Mapping[InventoryStatus, int]:
        """See `InventoryLists.status_counts`."""
        found = Counter(instance.update.status for instance in self.all(Instance, tenant_id))
        return {status: found[status] for status in InventoryStatus}

    def instance_views(
        self: _Content, wanted: InstanceFilter, *, tenant_id: str, after: str = "", at_most: int
    ) -> Page[InstanceView]:
        """See `InventoryLists.instance_views`."""
        places = _Places(self, tenant_id)
        everything = self.all(Instance, tenant_id)
        page = page_of(everything, wanted, places, tenant_id=tenant_id, after=after, at_most=at_most)
        return Page(tuple(_view(self, instance) for instance in page.items), page.cursor)


def _view(content: _Content, instance: Instance) -> InstanceView:
    tenant_id, policy_id = instance.tenant_id, instance.os_update_policy_id
    host = content.get(Host, tenant_id, instance.host_id)
    return view_instance(
        instance,
        host=host,
        site=None if host.site_id is None else content.get(Site, tenant_id, host.site_id),
        current_os=content.get(OSResource, tenant_id, instance.current_os_id),
        desired_os=content.get(OSResource, tenant_id, instance.desired_os_id),
        policy=None if policy_id is None else content.get(OSUpdatePolicy, tenant_id, policy_id),
    )
