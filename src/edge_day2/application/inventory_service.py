"""The admin's calls: hosts and where they are, instances, schedules, policies, linking. Lists are in
`inventory_questions`."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final, TypeVar

from attrs import evolve

from edge_day2.application.rollout_service import RolloutService
from edge_day2.domain.maintenance import MaintenancePolicy
from edge_day2.domain.resources import (
    Host,
    Instance,
    OSResource,
    OSUpdatePolicy,
    Provisioning,
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
from edge_day2.domain.schedules import Schedule, ScheduleKind
from edge_day2.errors import InvalidValue
from edge_day2.ports.clock import Clock
from edge_day2.ports.inventory import Inventory, R

# Seconds of work at most, so that others who write wait no longer.
_RUNS_AT_ONCE: Final = 1000

N = TypeVar("N", Region, Site, Host, ScheduleResource, OSUpdatePolicy)


def _check_aware(before: datetime) -> None:
    if before.tzinfo is None:
        raise InvalidValue("before", before, "an aware datetime")


def random_id() -> str:
    """Return 16 random hex digits, for the id of a new resource."""
    return secrets.token_hex(8)


class InventoryService(RolloutService):
    """What an administrator does to an Inventory. Each call is one transaction; all of it is stored, or none.

    What only asks is in `InventoryQuestions`, what is about rollouts in `RolloutService`.

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
        super().__init__(inventory, clock=clock, policy=policy, new_id=new_id)

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

    def rename(self, kind: type[N], tenant: str, resource_id: str, name: str) -> N:
        """Give a region, site, host, schedule or policy another name."""
        return self._change(kind, tenant, resource_id, lambda old: evolve(old, name=name))

    def move_region(self, tenant: str, region_id: str, parent_id: str | None) -> Region:
        """Put a region, with everything inside, into another one, or at the top (None).

        Raises:
            InvalidResource: the other one lies in it, or comes to lie in it at the same time.
        """
        return self._change(Region, tenant, region_id, lambda region: evolve(region, parent_id=parent_id))

    def move_site(self, tenant: str, site_id: str, region_id: str | None) -> Site:
        """Put a site, with its hosts, into another region, or into none."""
        return self._change(Site, tenant, site_id, lambda site: evolve(site, region_id=region_id))

    def move_host(self, tenant: str, host_id: str, site_id: str | None) -> Host:
        """Put a host at another site, or at none. The schedules of where it is then apply from its next report on."""
        return self._change(Host, tenant, host_id, lambda host: evolve(host, site_id=site_id))

    def trust_host(self, tenant: str, host_id: str) -> Host:
        """Believe again what this host reports."""
        return self._change(Host, tenant, host_id, lambda host: evolve(host, trust=Trust.TRUSTED))

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

    def set_provisioning(self, tenant: str, instance_id: str, provisioning: Provisioning) -> Instance:
        """Say how far an instance's onboarding has come. What isn't provisioned is told FAILED_PRECONDITION."""
        return self._change(Instance, tenant, instance_id, lambda old: evolve(old, provisioning=provisioning))

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

    def change_schedule(
        self, tenant: str, schedule_id: str, *, schedule: Schedule | None = None, kind: ScheduleKind | None = None
    ) -> ScheduleResource:
        """Change when a schedule is, or what it is for. What isn't named stays.

        Nodes hear of it with their next report.
        """

        def change(old: ScheduleResource) -> ScheduleResource:
            return evolve(old, schedule=schedule or old.schedule, kind=kind or old.kind)

        return self._change(ScheduleResource, tenant, schedule_id, change)

    def move_schedule(self, tenant: str, schedule_id: str, target: ScheduleTarget | None) -> ScheduleResource:
        """Attach a schedule to another host, site or region, or to nothing."""
        return self._change(ScheduleResource, tenant, schedule_id, lambda old: evolve(old, target=target))

    def patch_mutable_os(
        self,
        tenant: str,
        os_id: str,
        *,
        update_sources: Iterable[str] | None = None,
        update_packages: Iterable[str] | None = None,
        kernel_command_line: str | None = None,
    ) -> OSResource:
        """Change what an update of the instances of a mutable OS applies. What isn't named stays as it is.

        Of an immutable OS the kernel command line alone can be changed.

        Raises:
            InvalidResource: sources or packages for an immutable OS, or a value that isn't one.
        """

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

    def remove(self, kind: type[R], tenant: str, resource_id: str) -> R:
        """Delete a resource by its id, and return what it was.

        Raises:
            FailedPrecondition: another resource refers to it, an instance's update runs for example.
        """
        with self._inventory.writing() as unit:
            resource = unit.get(kind, tenant, resource_id)
            unit.delete(resource)
        return resource

    def remove_with_history(self, tenant: str, instance_id: str) -> Instance:
        """Delete an instance with all of its update runs, the open one too; its host stays."""
        with self._inventory.writing() as unit:
            instance = unit.get(Instance, tenant, instance_id)
            for run in unit.runs_of_instance(tenant, instance_id):
                unit.delete(run)
            unit.delete(instance)
        return instance

    def forget_runs(self, tenant: str, before: datetime) -> int:
        """Delete the update runs that began and ended before `before`, an aware instant; return how many it was.

        An open run stays, however old. Takes a transaction for every thousand: stopped in the middle it leaves the
        rest, and is repeated.
        """
        _check_aware(before)
        forgotten = 0
        while True:
            with self._inventory.writing() as unit:
                taken = unit.forget_runs(tenant, before, at_most=_RUNS_AT_ONCE)
            forgotten += taken
            if taken < _RUNS_AT_ONCE:
                return forgotten

    def forget_events(self, tenant: str, before: datetime) -> int:
        """Forget the events up to the first one recorded at `before`, an aware instant, or later; return how many."""
        _check_aware(before)
        with self._inventory.writing() as unit:
            return unit.forget_events(tenant, before)

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
