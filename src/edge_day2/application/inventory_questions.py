"""What an administrator asks an Inventory: lists and pages of them, numbers, history, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from edge_day2.application.rollout_outlook import rollout_outlook
from edge_day2.domain import window_outlook
from edge_day2.domain.inventory_events import EventPage
from edge_day2.domain.inventory_filters import InstanceFilter, R, ResourceFilter
from edge_day2.domain.inventory_pages import Page
from edge_day2.domain.inventory_views import InstanceView
from edge_day2.domain.maintenance import MaintenancePolicy, explain
from edge_day2.domain.resources import Instance, OSResource, OSType, OSUpdateRun, Region, Site
from edge_day2.domain.schedule_book import ScheduleBook
from edge_day2.domain.statuses import InventoryStatus
from edge_day2.ports.clock import Clock
from edge_day2.ports.inventory import Inventory

EVERY_INSTANCE: Final = InstanceFilter()
_PAGE: Final = 1000


class InventoryQuestions:
    """The calls of `InventoryService` that change nothing. Each is one transaction, but for `each`."""

    def __init__(self, inventory: Inventory, *, clock: Clock, policy: MaintenancePolicy) -> None:
        self._inventory = inventory
        self._clock = clock
        self._policy = policy

    def page(self, tenant: str, wanted: ResourceFilter[R], *, after: str = "", at_most: int = 100) -> Page[R]:
        """Return a page of the resources that the filter `wanted` matches: hosts for a `HostFilter`, and so on.

        They are in the order of their ids, update runs newest first. `after` is the cursor of the page before; the
        page's own is "" where nothing follows. OS Resources and instances come without their lists of CVEs and
        packages, which `get` has.

        Raises:
            InvalidValue: `after` isn't the cursor of a page of this list, or `at_most` not between 1 and 10,000.
        """
        with self._inventory.reading() as unit:
            return unit.page(wanted, tenant_id=tenant, after=after, at_most=at_most)

    def each(self, tenant: str, wanted: ResourceFilter[R]) -> Iterator[R]:
        """Yield all that `wanted` matches, as on pages, however many there are.

        The pages are read one by one while the caller goes on, so it may change things meanwhile.
        """
        cursor, more = "", True
        while more:
            page = self.page(tenant, wanted, after=cursor, at_most=_PAGE)
            yield from page.items
            cursor, more = page.cursor, page.cursor != ""

    def instance_views(
        self, tenant: str, wanted: InstanceFilter = EVERY_INSTANCE, *, after: str = "", at_most: int = 100
    ) -> Page[InstanceView]:
        """Return a page of instances, each with its host, site, and the names of its current and desired OS and policy.

        Raises:
            InvalidValue: as `page`.
        """
        with self._inventory.reading() as unit:
            return unit.instance_views(wanted, tenant_id=tenant, after=after, at_most=at_most)

    def count(self, tenant: str, wanted: ResourceFilter[R]) -> int:
        """Return how many resources `wanted` matches. What it costs grows with their number."""
        with self._inventory.reading() as unit:
            return unit.count(wanted, tenant_id=tenant)

    def status_counts(self, tenant: str) -> Mapping[InventoryStatus, int]:
        """Return how many of the tenant's instances have each update status."""
        with self._inventory.reading() as unit:
            return unit.status_counts(tenant)

    def get(self, kind: type[R], tenant: str, resource_id: str) -> R:
        """Return one resource, whole."""
        with self._inventory.reading() as unit:
            return unit.get(kind, tenant, resource_id)

    def os_resources(self, tenant: str, os_type: OSType | None = None) -> tuple[OSResource, ...]:
        """Return the tenant's OS Resources, of one type or of both, in the order of profile and version.

        All at once and whole, with their lists of CVEs and packages; `page` is for many.
        """
        with self._inventory.reading() as unit:
            found = [os for os in unit.all(OSResource, tenant) if os_type in (None, os.os_type)]
        return tuple(sorted(found, key=lambda os: (os.profile_name, os.image_version)))

    def instances(self, tenant: str) -> tuple[Instance, ...]:
        """Return the tenant's instances in the order of their ids, all at once and whole; `page` is for many."""
        with self._inventory.reading() as unit:
            return tuple(unit.all(Instance, tenant))

    def history(self, tenant: str, instance_id: str) -> tuple[OSUpdateRun, ...]:
        """Return the instance's update runs, newest first."""
        with self._inventory.reading() as unit:
            return unit.runs_of_instance(tenant, instance_id)

    def events(self, tenant: str, *, after: str = "", at_most: int = 1000) -> EventPage:
        """Return what happened after the cursor `after`, and the cursor to go on with.

        Raises:
            EventsForgotten: events after the cursor aren't kept any more; read everything anew, then `events_end`.
        """
        with self._inventory.reading() as unit:
            return unit.events(tenant, after=after, at_most=at_most)

    def events_end(self, tenant: str) -> str:
        """Return the cursor of a reader who reads everything from now on."""
        with self._inventory.reading() as unit:
            return unit.events_end(tenant)

    def explain(self, tenant: str, guid: str) -> str:
        """Return in one sentence why the host with this UUID is, or isn't, being updated."""
        book = ScheduleBook(tenant, kinds=self._policy.kinds)
        with self._inventory.reading() as unit:
            context = unit.report_context(tenant, guid)
            places: list[Site | Region] = []
            if context.host.site_id is not None:
                site = unit.get(Site, tenant, context.host.site_id)
                places.append(site)
                region_id = site.region_id
                while region_id is not None:
                    region = unit.get(Region, tenant, region_id)
                    places.append(region)
                    region_id = region.parent_id
            rollout = rollout_outlook(unit, context, self._clock.now())
        held_back = rollout.text if rollout is not None and rollout.verdict.holds_back else ""
        book.put(*reversed(places), context.host, *context.schedules)
        outlook = window_outlook.explain(book, context.host.resource_id, self._clock.now())
        return explain(context, outlook, held_back)
