"""Any sequence of calls on an Inventory, compared with the plain model of `inventory_model`.

An integrator runs it against an adapter of their own:

    def test_my_inventory_is_what_the_model_is():
        with MyInventory() as inventory:
            check_against_model(inventory, settings(max_examples=50, stateful_step_count=30))

Two tenants have the same ids. Each call must return what it returns on the model, or raise the same class of error;
readers see what was committed and nothing of what is going on. Needs hypothesis.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar, cast

from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from edge_day2.application.inventory_service import InventoryService
from edge_day2.application.maintenance_manager import MaintenanceManager, Report
from edge_day2.domain.messages import PlatformUpdateStatusRequest, UpdateStatus
from edge_day2.domain.resources import (
    Host,
    Instance,
    Link,
    OSResource,
    OSType,
    OSUpdatePolicy,
    OSUpdateRun,
    Provisioning,
    Region,
    Resource,
    ScheduleResource,
    ScheduleTarget,
    Site,
    TargetLevel,
    Trust,
    UpdatePolicyKind,
)
from edge_day2.domain.statuses import InventoryStatus, UpdateRecord, UpdateStatusType
from edge_day2.errors import Conflict, EdgeDay2Error
from edge_day2.ports.inventory import Inventory, UnitOfWork
from edge_day2.testing.agent_bench import SetClock
from edge_day2.testing.inventory_contents import GUID, plain_fleet, schedules
from edge_day2.testing.inventory_model import Key, ModelInventory, ModelUnitOfWork, key_of

__all__ = ["InventoryMachine", "check_against_model"]

T = TypeVar("T")

# What refers to another kind comes after it.
_KINDS: Final[tuple[type[Resource], ...]] = (
    OSResource, Region, Site, Host, OSUpdatePolicy, Instance, ScheduleResource, OSUpdateRun,
)  # fmt: skip
_SIDES: Final = ("a", "b")
_START: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)
_GUIDS: Final = (GUID, "00000000-0000-4000-8000-00000000000A", "00000000-0000-4000-8000-00000000000b")
_tenants: Final = itertools.count()


class _Undone(Exception):
    """A transaction that its user gives up."""


def _pool(*ids: str) -> st.SearchStrategy[str]:
    return st.sampled_from(ids)


_OS_IDS: Final = _pool("os-old", "os-new", "os-3")
_REGION_IDS: Final = _pool("region-country", "region-town", "region-3")
_SITE_IDS: Final = _pool("site-1", "site-2")
_HOST_IDS: Final = _pool("host-1", "host-2", "host-3")
_POLICY_IDS: Final = _pool("policy-1", "policy-2")
_INSTANCE_IDS: Final = _pool("instance-1", "instance-2", "instance-3")
_FRESH_IDS: Final = _pool("fresh-1", "fresh-2", "fresh-3")
_NAMES: Final = _pool("a", "b", "ä")
_ANY_GUID: Final = _pool(*_GUIDS, *(guid.upper() for guid in _GUIDS))
_INSTANTS: Final = st.integers(-120, 120).map(lambda minutes: _START + timedelta(minutes=minutes))
_UPDATES: Final = st.builds(
    UpdateRecord,
    status=st.sampled_from(InventoryStatus),
    text=_NAMES,
    timestamp=st.none() | _INSTANTS,
    detail=st.just("") | _NAMES,
)
_TARGETS: Final = (
    st.builds(ScheduleTarget, level=st.just(TargetLevel.HOST), resource_id=_HOST_IDS)
    | st.builds(ScheduleTarget, level=st.just(TargetLevel.SITE), resource_id=_SITE_IDS)
    | st.builds(ScheduleTarget, level=st.just(TargetLevel.REGION), resource_id=_REGION_IDS)
)


def _instance(mutable: bool, current: str, desired: str, **content: Any) -> Instance:
    kind = OSType.MUTABLE if mutable else OSType.IMMUTABLE
    return Instance(os_type=kind, current_os_id=current, desired_os_id=current if mutable else desired, **content)


def _os_resource(mutable: bool, **content: Any) -> OSResource:
    if mutable:
        return OSResource(os_type=OSType.MUTABLE, update_packages=("vim",), **content)
    return OSResource(os_type=OSType.IMMUTABLE, image_url="file", **content)


def _policy(target_os_id: str | None, **content: Any) -> OSUpdatePolicy:
    kind = UpdatePolicyKind.LATEST if target_os_id is None else UpdatePolicyKind.TARGET
    return OSUpdatePolicy(kind=kind, target_os_id=target_os_id, **content)


def _resources(kind: type[Resource], tenant: str) -> st.SearchStrategy[Resource]:
    """Resources of one kind that often meet others: few ids, few names. What they refer to needn't exist."""
    named = {"tenant_id": st.just(tenant), "name": _NAMES}
    strategies: dict[type[Resource], st.SearchStrategy[Resource]] = {
        OSResource: st.builds(
            _os_resource,
            mutable=st.booleans(),
            resource_id=_OS_IDS,
            profile_name=_pool("microvisor-nonrt", "ubuntu"),
            image_id=_pool("3.0.20251104.0140", "3.1", "4"),
            sha256=st.just("0" * 64),
            existing_cves=_pool("", "[]"),
            **named,
        ),
        Region: st.builds(Region, resource_id=_REGION_IDS, parent_id=st.none() | _REGION_IDS, **named),
        Site: st.builds(Site, resource_id=_SITE_IDS, region_id=st.none() | _REGION_IDS, **named),
        Host: st.builds(
            Host,
            resource_id=_HOST_IDS,
            guid=_ANY_GUID,
            site_id=st.none() | _SITE_IDS,
            trust=_mostly(Trust.TRUSTED, Trust.UNTRUSTED),
            **named,
        ),
        OSUpdatePolicy: st.builds(_policy, resource_id=_POLICY_IDS, target_os_id=st.none() | _OS_IDS, **named),
        Instance: st.builds(
            _instance,
            mutable=st.booleans(),
            current=_OS_IDS,
            desired=_OS_IDS,
            resource_id=_INSTANCE_IDS,
            tenant_id=st.just(tenant),
            host_id=_HOST_IDS,
            os_update_policy_id=st.none() | _POLICY_IDS,
            provisioning=_mostly(Provisioning.PROVISIONED, Provisioning.PENDING),
            update=_UPDATES,
            last_seen=st.none() | _INSTANTS,
        ),
        ScheduleResource: st.builds(
            ScheduleResource,
            resource_id=_pool("schedule-1-host", "schedule-2-site", "schedule-4"),
            schedule=schedules(),
            target=st.none() | _TARGETS,
            **named,
        ),
        OSUpdateRun: st.builds(
            OSUpdateRun,
            resource_id=_pool("run-1", "run-2", "run-3"),
            instance_id=_INSTANCE_IDS,
            start_time=_INSTANTS,
            end_time=st.none() | _INSTANTS,
            update=_UPDATES,
            **named,
        ),
    }
    return strategies[kind]


def _mostly(usual: T, other: T) -> st.SearchStrategy[T]:
    return st.sampled_from([usual] * 4 + [other])


def _any_kind() -> st.SearchStrategy[type[Resource]]:
    return st.sampled_from(_KINDS)


def _outcome(call: Callable[[], object]) -> object:
    """Return what a call returns, or the class of the error of ours that it raises."""
    try:
        found = call()
    except EdgeDay2Error as error:
        return type(error)
    return list(found) if isinstance(found, Iterator) else found


def everything(unit: UnitOfWork, tenant: str) -> dict[str, object]:
    """Return all that can be read of a tenant."""
    found: dict[str, object] = {kind.__name__: list(unit.all(kind, tenant)) for kind in _KINDS}
    hosts, instances = list(unit.all(Host, tenant)), list(unit.all(Instance, tenant))
    guids = [*_GUIDS, *(host.guid.swapcase() for host in hosts)]
    for guid in guids:
        found[f"host {guid}"] = _outcome(partial(unit.host_by_guid, tenant, guid))
        found[f"context {guid}"] = _outcome(partial(unit.report_context, tenant, guid))
    found["contexts"] = dict(unit.report_contexts(tenant, guids))
    for host in hosts:
        found[f"on {host.resource_id}"] = unit.instance_of_host(tenant, host.resource_id)
    for instance in instances:
        found[f"runs of {instance.resource_id}"] = unit.runs_of_instance(tenant, instance.resource_id)
    found["links"] = dict(unit.links(tenant))
    for minutes in (-60, 0, 1, 240):
        found[f"unheard {minutes}"] = list(unit.unheard_since(tenant, _START + timedelta(minutes=minutes)))
    found["exists"] = tenant in unit.tenants()
    return found


_REPORTS: Final = st.tuples(
    st.sampled_from(_SIDES),
    st.builds(
        PlatformUpdateStatusRequest,
        host_guid=_ANY_GUID,
        update_status=st.builds(
            UpdateStatus,
            status_type=st.sampled_from(UpdateStatusType),
            status_detail=_pool("", '{"update_log":[]}', "no JSON", "nul \0"),
            profile_name=st.just("microvisor-nonrt"),
            os_image_id=_pool("", "3.1", "4"),
            os_update_available=_pool("", "[]"),
        ),
    ),
)


class InventoryMachine(RuleBasedStateMachine):
    """An Inventory and the model, and everything that can be done to both. See `check_against_model`."""

    def __init__(self, inventory: Inventory) -> None:
        super().__init__()
        self._inventory = inventory
        self._model = ModelInventory()
        number = next(_tenants)
        self._tenants = {side: f"tenant-{number}-{side}" for side in _SIDES}
        self._open: tuple[AbstractContextManager[UnitOfWork], UnitOfWork, ModelUnitOfWork] | None = None
        self._failed = False
        # What was stored once, for changes that come too late.
        self._past: list[Resource] = []
        self._clock = SetClock(_START)
        both = (inventory, cast("Inventory", self._model))
        self._managers = [MaintenanceManager(each, clock=self._clock) for each in both]
        numbers = (itertools.count(), itertools.count())
        self._services = [
            InventoryService(each, clock=self._clock, new_id=lambda ids=ids: str(next(ids)))  # type: ignore[misc]
            for each, ids in zip(both, numbers, strict=True)
        ]

    # What is compared

    def _agree(self, real: Callable[[], object], model: Callable[[], object]) -> object:
        """Do the same on both sides; return what came of it."""
        expected, found = _outcome(model), _outcome(real)
        assert found == expected
        return found

    def _in_transaction(self, change: Callable[[UnitOfWork], object]) -> object:
        """Do the same in the transaction that is open on both sides, or in a new one."""
        if self._open is None:
            context = self._inventory.writing()
            self._open = context, context.__enter__(), ModelUnitOfWork(dict(self._model.stored))
        _, unit, draft = self._open
        came = self._agree(lambda: change(unit), lambda: change(cast("UnitOfWork", draft)))
        self._failed = came is Conflict
        return came

    def _compare(self) -> None:
        with self._inventory.reading() as unit, self._model.reading() as model:
            for tenant in self._tenants.values():
                assert everything(unit, tenant) == everything(cast("UnitOfWork", model), tenant)

    @property
    def _stored(self) -> dict[Key, Resource]:
        return self._model.stored if self._open is None else self._open[2].stored

    def _one_of(self, data: st.DataObject, *kinds: type[Resource]) -> Resource | None:
        """Return something that is stored, of one of these kinds."""
        keys = [key for key in self._stored if not kinds or key[0] in kinds]
        return self._stored[data.draw(st.sampled_from(keys))] if keys else None

    def _new(self, data: st.DataObject, kind: type[Resource], side: str) -> Resource:
        """Return something to add, whose id may be taken."""
        resource = data.draw(_resources(kind, self._tenants[side]))
        return evolve(resource, resource_id=data.draw(_FRESH_IDS)) if data.draw(st.booleans()) else resource

    # Changes, one by one and together

    @initialize()
    def begin_with_a_fleet_in_each_tenant(self) -> None:
        for tenant in self._tenants.values():
            fleet = plain_fleet(tenant)
            ubuntu = evolve(
                fleet.old_os, resource_id="os-3", os_type=OSType.MUTABLE, profile_name="ubuntu", image_url=""
            )
            host = evolve(fleet.host, resource_id="host-2", guid=_GUIDS[1])
            instance = _instance(
                mutable=True,
                current="os-3",
                desired="os-3",
                resource_id="instance-2",
                tenant_id=tenant,
                host_id="host-2",
            )
            everybody = [one for one in fleet.resources if type(one) in _KINDS] + [ubuntu, host, instance]
            self._in_transaction(lambda unit, everybody=everybody: unit.add_all(everybody))  # type: ignore[misc]
        self.commit()

    @precondition(lambda self: not self._failed)
    @rule(data=st.data(), kind=_any_kind(), side=st.sampled_from(_SIDES))
    def add(self, data: st.DataObject, kind: type[Resource], side: str) -> None:
        resource = self._new(data, kind, side)
        if data.draw(_mostly(False, True)):
            resource = _renamed(resource, "nul \0")
        self._in_transaction(lambda unit: unit.add(resource))

    @precondition(lambda self: not self._failed)
    @rule(data=st.data(), sides=st.lists(st.sampled_from(_SIDES), min_size=1, max_size=4))
    def add_all(self, data: st.DataObject, sides: list[str]) -> None:
        kinds = sorted((data.draw(_any_kind()) for _ in sides), key=_KINDS.index)
        # One region at most: another could come before the one around it.
        kinds = [kind for place, kind in enumerate(kinds) if kind is not Region or Region not in kinds[:place]]
        many = [self._new(data, kind, side) for kind, side in zip(kinds, sides, strict=False)]
        self._in_transaction(lambda unit: unit.add_all(iter(many)))

    @precondition(lambda self: not self._failed)
    @rule(data=st.data())
    def replace(self, data: st.DataObject) -> None:
        old = self._one_of(data)
        if old is None:
            return
        new = data.draw(_resources(type(old), old.tenant_id))
        if data.draw(st.booleans()):
            new = evolve(new, resource_id=old.resource_id)
        if self._in_transaction(lambda unit: unit.replace(old, new)) is None:
            self._past.append(old)

    @precondition(lambda self: not self._failed and self._past)
    @rule(data=st.data())
    def replace_what_may_have_changed(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(self._past))
        new = evolve(data.draw(_resources(type(old), old.tenant_id)), resource_id=old.resource_id)
        self._in_transaction(lambda unit: unit.replace(old, new))

    @precondition(lambda self: not self._failed)
    @rule(data=st.data(), count=st.integers(1, 4))
    def replace_all(self, data: st.DataObject, count: int) -> None:
        # What changes in all but the last hinders nobody: an adapter may choose the order.
        changes: list[tuple[Resource, Resource]] = []
        latest = dict(self._stored)
        for _ in range(count):
            found = self._one_of(data)
            if found is not None:
                old = latest[key_of(found)]
                latest[key_of(old)] = new = _renamed(old, data.draw(_NAMES))
                changes.append((old, new))
        if data.draw(st.booleans()) and changes:
            last = changes[-1][1]
            other = data.draw(_resources(type(last), last.tenant_id))
            changes.append((last, evolve(other, resource_id=last.resource_id)))
        if data.draw(_mostly(False, True)) and changes:
            changes.append(changes[0])
        self._in_transaction(lambda unit: unit.replace_all(iter(changes)))

    @precondition(lambda self: not self._failed)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        resource = self._one_of(data)
        if resource is not None and self._in_transaction(lambda unit: unit.delete(resource)) is None:
            self._past.append(resource)

    @precondition(lambda self: not self._failed and self._past)
    @rule(data=st.data())
    def delete_what_may_be_gone(self, data: st.DataObject) -> None:
        resource = data.draw(st.sampled_from(self._past))
        self._in_transaction(lambda unit: unit.delete(resource))

    @precondition(lambda self: not self._failed)
    @rule(
        side=st.sampled_from(_SIDES),
        kind=_mostly(OSType.IMMUTABLE, OSType.MUTABLE),
        current=_OS_IDS,
        desired=_OS_IDS,
        new=_pool("os-old", "os-new", "os-3", "nowhere"),
        at_most=st.integers(0, 3),
    )
    def relink(self, side: str, kind: OSType, current: str, desired: str, new: str, at_most: int) -> None:
        tenant, link = self._tenants[side], Link(kind, current, desired)
        before = dict(self._stored)
        came = self._in_transaction(lambda unit: unit.relink(tenant, [link], new, at_most=at_most))
        if not isinstance(came, int):
            return
        # Which of them it is, is the adapter's choice.
        assert self._open is not None
        _, unit, draft = self._open
        chosen = [found for found in unit.all(Instance, tenant) if found != before[key_of(found)]]
        assert len(chosen) == (0 if new == desired else came)
        draft.stored.clear()
        draft.stored.update(before)
        for instance in chosen:
            old = before[key_of(instance)]
            assert isinstance(old, Instance)
            assert (old.os_type, old.current_os_id, old.desired_os_id) == (kind, current, desired)
            assert instance == evolve(old, desired_os_id=new)
            draft.stored[key_of(instance)] = instance

    # Transactions

    @precondition(lambda self: self._open is not None and not self._failed)
    @rule()
    def look(self) -> None:
        assert self._open is not None
        _, unit, draft = self._open
        for tenant in self._tenants.values():
            assert everything(unit, tenant) == everything(cast("UnitOfWork", draft), tenant)
        self._compare()

    @precondition(lambda self: self._open is not None)
    @rule()
    def commit(self) -> None:
        assert self._open is not None
        context, _, draft = self._open
        self._open = None
        assert _outcome(lambda: context.__exit__(None, None, None)) is (Conflict if self._failed else False)
        if not self._failed:
            self._model.stored = draft.stored
        self._failed = False
        self._compare()

    @precondition(lambda self: self._open is not None)
    @rule()
    def undo(self) -> None:
        assert self._open is not None
        context, _, _ = self._open
        self._open, self._failed = None, False
        with suppress(_Undone):
            context.__exit__(_Undone, _Undone(), None)
        self._compare()

    # Managers, each call of which is a transaction of its own

    def _with_managers(self, call: Callable[[MaintenanceManager], object]) -> None:
        real, model = self._managers
        self._agree(lambda: call(real), lambda: call(model))
        self._compare()

    def _with_services(self, call: Callable[[InventoryService], object]) -> None:
        real, model = self._services
        self._agree(lambda: call(real), lambda: call(model))
        self._compare()

    @precondition(lambda self: self._open is None)
    @rule(reports=st.lists(_REPORTS, min_size=1, max_size=4), way=st.sampled_from(("one", "together", "each")))
    def report(self, reports: list[tuple[str, PlatformUpdateStatusRequest]], way: str) -> None:
        sent = [Report(tenant=self._tenants[side], request=request) for side, request in reports]
        if way == "one":
            first = sent[0]
            self._with_managers(lambda manager: manager.platform_update_status(first.request, tenant=first.tenant))
        elif way == "together":
            self._with_managers(lambda manager: _without_texts(manager.platform_update_statuses(sent)))
        else:
            self._with_managers(lambda manager: _without_texts(manager.answer_each(sent)))

    @precondition(lambda self: self._open is None)
    @rule(side=st.sampled_from(_SIDES))
    def find_lost(self, side: str) -> None:
        self._with_managers(lambda manager: manager.find_lost(self._tenants[side]))

    @rule(minutes=st.sampled_from((0, 1, 20, 70)))
    def wait(self, minutes: int) -> None:
        self._clock.later(timedelta(minutes=minutes))

    @precondition(lambda self: self._open is None)
    @rule(side=st.sampled_from(_SIDES), region=st.none() | _REGION_IDS, site=st.none() | _SITE_IDS, guid=_ANY_GUID)
    def administer_places(self, side: str, region: str | None, site: str | None, guid: str) -> None:
        tenant = self._tenants[side]
        self._with_services(lambda service: service.add_region(tenant, "r", parent_id=region))
        self._with_services(lambda service: service.add_site(tenant, "s", region_id=region))
        self._with_services(lambda service: service.add_host(tenant, guid, "h", site_id=site))

    @precondition(lambda self: self._open is None)
    @rule(
        side=st.sampled_from(_SIDES),
        host=_HOST_IDS,
        instance=_INSTANCE_IDS,
        os=_OS_IDS,
        policy=st.none() | _POLICY_IDS,
    )
    def administer_instances(self, side: str, host: str, instance: str, os: str, policy: str | None) -> None:
        tenant = self._tenants[side]
        self._with_services(lambda service: service.add_instance(tenant, host, os))
        self._with_services(lambda service: service.link_desired_os(tenant, instance, os))
        self._with_services(lambda service: service.assign_policy(tenant, instance, policy))
        self._with_services(lambda service: service.distrust_host(tenant, host))
        self._with_services(lambda service: service.patch_mutable_os(tenant, os, update_packages=["vim", "curl"]))

    def teardown(self) -> None:
        """Leave nothing behind, so that the next example doesn't begin with it."""
        if self._open is not None:
            self.undo()
        with self._inventory.writing() as unit:
            for tenant in self._tenants.values():
                for region in list(unit.all(Region, tenant)):
                    unit.replace(region, evolve(region, parent_id=None))
                for kind in reversed(_KINDS):
                    for resource in list(unit.all(kind, tenant)):
                        unit.delete(resource)
        with self._inventory.reading() as unit:
            assert not set(self._tenants.values()) & set(unit.tenants())


def _renamed(resource: Resource, name: str) -> Resource:
    # Every kind here but that of an instance has a name.
    changed: dict[str, Any] = {"existing_cves" if isinstance(resource, Instance) else "name": name}
    return evolve(resource, **changed)


def _without_texts(answers: list[Any]) -> list[object]:
    return [type(answer) if isinstance(answer, EdgeDay2Error) else answer for answer in answers]


def check_against_model(inventory: Inventory, how: settings) -> None:
    """Run sequences of calls, as many and as long as `how` says, on an Inventory that nobody else uses.

    Raises:
        AssertionError: it isn't what the model is; hypothesis prints the shortest sequence that it found.
    """

    class Machine(InventoryMachine):
        def __init__(self) -> None:
            super().__init__(inventory)

    run_state_machine_as_test(Machine, settings=how)
