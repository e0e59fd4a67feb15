"""The admin's calls: hosts and where they are, instances, schedules, policies, linking, history, and why."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from datetime import datetime

from attrs import evolve

from edge_day2.domain import window_outlook
from edge_day2.domain.inventory_events import EventPage
from edge_day2.domain.maintenance import MaintenancePolicy, explain
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
    check_link,
    link_desired_os,
    patch_os_resource,
)
from edge_day2.domain.schedule_book import ScheduleBook
from edge_day2.domain.schedules import Schedule, ScheduleKind
from edge_day2.ports.clock import Clock
from edge_day2.ports.inventory import Inventory, R


def random_id() -> str:
    """Return 16 random hex digits, for the id of a new resource."""
    return secrets.token_hex(8)


class InventoryService:
    """What an administrator does to an Inventory. Each call is one transaction; all of it is stored, or none.

    Args:
        inventory: where everything is stored.
        clock: the time, for `explain`.
        new_id: gives the distinguishing part of a new resource's id.
        policy: which schedules open windows, for `explain`.

    Every call may raise NotFound (what it names doesn't exist in the tenant), InvalidResource or another InvalidValue
    (a value breaks a rule), AlreadyExists, Conflict (somebody else changed it in this moment; repeat) and
    StorageError. What it raises beyond that is said there.
    """

    def __init__(
        self,
        inventory: Inventory,
        *,
        clock: Clock,
        new_id: Callable[[], str] = random_id,
        policy: MaintenancePolicy = MaintenancePolicy(),  # noqa: B008  # frozen
    ) -> None:
        self._inventory = inventory
        self._clock = clock
        self._new_id = new_id
        self._policy = policy

    def add_region(self, tenant: str, name: str, *, parent_id: str | None = None) -> Region:
        """Add a region, inside the region `parent_id` or at the top."""
        region = Region(resource_id=f"region-{self._new_id()}", tenant_id=tenant, name=name, parent_id=parent_id)
        return self._add(region)

    def add_site(self, tenant: str, name: str, *, region_id: str | None = None) -> Site:
        """Add a site, in a region or in none."""
        site = Site(resource_id=f"site-{self._new_id()}", tenant_id=tenant, name=name, region_id=region_id)
        return self._add(site)

    def add_host(self, tenant: str, guid: str, name: str, *, site_id: str | None = None) -> Host:
        """Add a host, known by the UUID of its machine."""
        host = Host(resource_id=f"host-{self._new_id()}", tenant_id=tenant, guid=guid, name=name, site_id=site_id)
        return self._add(host)

    def distrust_host(self, tenant: str, host_id: str) -> Host:
        """Refuse what this host reports from now on."""
        return self._change(Host, tenant, host_id, lambda host: evolve(host, trust=Trust.UNTRUSTED))

    def add_instance(self, tenant: str, host_id: str, os_id: str) -> Instance:
        """Say that the host runs the OS Resource `os_id`, and should go on doing so."""
        with self._inventory.writing() as unit:
            os = unit.get(OSResource, tenant, os_id)
            instance = Instance(
                resource_id=f"inst-{self._new_id()}",
                tenant_id=tenant,
                host_id=host_id,
                os_type=os.os_type,
                current_os_id=os_id,
                desired_os_id=os_id,
            )
            unit.add(instance)
        return instance

    def add_schedule(
        self,
        tenant: str,
        name: str,
        schedule: Schedule,
        *,
        target: ScheduleTarget | None,
        kind: ScheduleKind = ScheduleKind.OS_UPDATE,
    ) -> ScheduleResource:
        """Add a schedule for a host, or for all hosts of a site or region."""
        resource = ScheduleResource(
            resource_id=f"sche-{self._new_id()}",
            tenant_id=tenant,
            name=name,
            schedule=schedule,
            kind=kind,
            target=target,
        )
        return self._add(resource)

    def patch_mutable_os(
        self,
        tenant: str,
        os_id: str,
        *,
        update_sources: Iterable[str] | None = None,
        update_packages: Iterable[str] | None = None,
        kernel_command_line: str | None = None,
    ) -> OSResource:
        """Change what an update of the instances of a mutable OS applies. What isn't named stays as it is."""

        def patch(old: OSResource) -> OSResource:
            new = evolve(
                old,
                update_sources=old.update_sources if update_sources is None else tuple(update_sources),
                update_packages=old.update_packages if update_packages is None else tuple(update_packages),
                kernel_command_line=old.kernel_command_line if kernel_command_line is None else kernel_command_line,
            )
            return patch_os_resource(old, new)

        return self._change(OSResource, tenant, os_id, patch)

    def link_desired_os(self, tenant: str, instance_id: str, os_id: str) -> Instance:
        """Make `os_id` the desired OS of an immutable instance.

        Raises:
            ImmutableLinkError: the instance's OS is mutable, or OS type, profile name or architecture differ.
        """
        with self._inventory.writing() as unit:
            instance = unit.get(Instance, tenant, instance_id)
            current = unit.get(OSResource, tenant, instance.current_os_id)
            changed = link_desired_os(instance, current, unit.get(OSResource, tenant, os_id))
            if changed != instance:
                unit.replace(instance, changed)
        return changed

    def add_policy(
        self,
        tenant: str,
        name: str,
        kind: UpdatePolicyKind,
        *,
        target_os_id: str | None = None,
        update_sources: Iterable[str] = (),
        update_packages: Iterable[str] = (),
        kernel_command_line: str = "",
    ) -> OSUpdatePolicy:
        """Add an update policy."""
        policy = OSUpdatePolicy(
            resource_id=f"osupdatepolicy-{self._new_id()}",
            tenant_id=tenant,
            name=name,
            kind=kind,
            target_os_id=target_os_id,
            update_sources=tuple(update_sources),
            update_packages=tuple(update_packages),
            kernel_command_line=kernel_command_line,
        )
        return self._add(policy)

    def assign_policy(self, tenant: str, instance_id: str, policy_id: str | None) -> Instance:
        """Let an instance follow an update policy, or none.

        Raises:
            ImmutableLinkError: the policy names an OS that the instance can't be linked to.
        """
        with self._inventory.writing() as unit:
            instance = unit.get(Instance, tenant, instance_id)
            if policy_id is not None:
                policy = unit.get(OSUpdatePolicy, tenant, policy_id)
                if policy.target_os_id is not None:
                    current = unit.get(OSResource, tenant, instance.current_os_id)
                    check_link(instance, current, unit.get(OSResource, tenant, policy.target_os_id))
            changed = evolve(instance, os_update_policy_id=policy_id)
            if changed != instance:
                unit.replace(instance, changed)
        return changed

    def delete(self, resource: Resource) -> None:
        """Delete a resource.

        Raises:
            FailedPrecondition: another resource refers to it.
        """
        with self._inventory.writing() as unit:
            unit.delete(resource)

    def os_resources(self, tenant: str, os_type: OSType | None = None) -> tuple[OSResource, ...]:
        """Return the tenant's OS Resources, of one type or of both, in the order of profile and version."""
        with self._inventory.reading() as unit:
            found = [os for os in unit.all(OSResource, tenant) if os_type in (None, os.os_type)]
        return tuple(sorted(found, key=lambda os: (os.profile_name, os.image_version)))

    def instances(self, tenant: str) -> tuple[Instance, ...]:
        """Return the tenant's instances in the order of their ids."""
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

    def forget_events(self, tenant: str, before: datetime) -> int:
        """Forget the events up to the first one that was recorded at `before` or later; return how many."""
        with self._inventory.writing() as unit:
            return unit.forget_events(tenant, before)

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
        book.put(*reversed(places), context.host, *context.schedules)
        return explain(context, window_outlook.explain(book, context.host.resource_id, self._clock.now()))

    def _add(self, resource: R) -> R:
        with self._inventory.writing() as unit:
            unit.add(resource)
        return resource

    def _change(self, kind: type[R], tenant: str, resource_id: str, change: Callable[[R], R]) -> R:
        with self._inventory.writing() as unit:
            old = unit.get(kind, tenant, resource_id)
            new = change(old)
            if new != old:
                unit.replace(old, new)
        return new
