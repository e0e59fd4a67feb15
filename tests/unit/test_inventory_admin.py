"""The admin's calls on what is there already: moving, renaming, removing, and looking at lists."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from attrs import evolve, frozen

from edge_day2 import InventoryService, MaintenanceManager, RepeatedSchedule, ScheduleKind, SingleSchedule
from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.inventory_filters import HostFilter, InstanceFilter, PolicyFilter, RunFilter, RunState, SiteFilter
from edge_day2.domain.messages import PlatformUpdateStatusRequest, UpdateStatus
from edge_day2.domain.resources import (
    Host,
    Instance,
    OSResource,
    OSUpdatePolicy,
    OSUpdateRun,
    Provisioning,
    Region,
    ScheduleResource,
    ScheduleTarget,
    Site,
    TargetLevel,
    Trust,
    UpdatePolicyKind,
)
from edge_day2.domain.statuses import InventoryStatus, UpdateStatusType
from edge_day2.errors import FailedPrecondition, InvalidResource, InvalidValue, NotFound, Unauthenticated
from edge_day2.ports.inventory import Inventory
from edge_day2.testing import VirtualClock
from edge_day2.testing.inventory_contents import GUID, START, TENANT, Fleet, plain_fleet, store


@frozen
class World:
    """The plain fleet of one tenant, and its admin."""

    inventory: Inventory
    admin: InventoryService
    fleet: Fleet
    clock: VirtualClock


@pytest.fixture
def world() -> Iterator[World]:
    fleet, clock, counter = plain_fleet(), VirtualClock(START), itertools.count()
    with open_inventory("memory://") as inventory:
        store(inventory, *fleet.resources)
        admin = InventoryService(inventory, clock=clock, new_id=lambda: f"new-{next(counter)}")
        yield World(inventory, admin, fleet, clock)


def report(world: World, kind: UpdateStatusType) -> None:
    request = PlatformUpdateStatusRequest(host_guid=GUID, update_status=UpdateStatus(status_type=kind))
    MaintenanceManager(world.inventory, clock=world.clock).platform_update_status(request, tenant=TENANT)


# Where things are


def test_a_host_that_moves_takes_the_schedules_of_its_new_place(world: World) -> None:
    harbour = world.admin.add_site(TENANT, "harbour")

    moved = world.admin.move_host(TENANT, "host-1", harbour.resource_id)

    assert moved.site_id == harbour.resource_id
    with world.inventory.reading() as unit:
        assert unit.report_context(TENANT, GUID).schedules == (world.fleet.for_host,)
    assert world.admin.move_host(TENANT, "host-1", None).site_id is None


def test_a_site_and_a_region_move_with_everything_inside(world: World) -> None:
    asia = world.admin.add_region(TENANT, "Asia")

    world.admin.move_region(TENANT, "region-town", asia.resource_id)
    assert world.admin.count(TENANT, InstanceFilter(region_id=asia.resource_id)) == 1
    assert world.admin.count(TENANT, InstanceFilter(region_id="region-country")) == 0

    world.admin.move_site(TENANT, "site-1", "region-country")
    assert world.admin.count(TENANT, HostFilter(region_id=asia.resource_id)) == 0
    assert world.admin.count(TENANT, HostFilter(region_id="region-country")) == 1
    assert world.admin.move_region(TENANT, "region-town", None).parent_id is None


def test_a_region_is_never_put_into_itself(world: World) -> None:
    village = world.admin.add_region(TENANT, "village", parent_id="region-town")

    for inner in ("region-country", "region-town", village.resource_id):
        with pytest.raises(InvalidResource, match="parent_id"):
            world.admin.move_region(TENANT, "region-country", inner)

    assert world.admin.get(Region, TENANT, "region-country") == world.fleet.country


def test_nothing_moves_to_where_nothing_is(world: World) -> None:
    for call in (
        lambda: world.admin.move_host(TENANT, "host-1", "site-9"),
        lambda: world.admin.move_site(TENANT, "site-1", "region-9"),
        lambda: world.admin.move_region(TENANT, "region-town", "region-9"),
        lambda: world.admin.move_host("tenant-b", "host-1", None),
        lambda: world.admin.rename(Host, TENANT, "host-9", "x"),
        lambda: world.admin.remove(Host, TENANT, "host-9"),
        lambda: world.admin.remove_with_history("tenant-b", "instance-1"),
    ):
        with pytest.raises(NotFound):
            call()


def test_what_has_a_name_can_be_renamed(world: World) -> None:
    named: list[tuple[type[Any], str]] = [
        (Region, "region-town"),
        (Site, "site-1"),
        (Host, "host-1"),
        (ScheduleResource, "schedule-3"),
        (OSUpdatePolicy, "policy-1"),
    ]
    for kind, resource_id in named:
        assert world.admin.rename(kind, TENANT, resource_id, "new").name == "new"
        assert world.admin.get(kind, TENANT, resource_id).name == "new"
        with pytest.raises(InvalidResource, match="name"):
            world.admin.rename(kind, TENANT, resource_id, "")


# Trust, provisioning, schedules


def test_a_host_that_is_trusted_again_is_heard_again(world: World) -> None:
    world.admin.distrust_host(TENANT, "host-1")
    with pytest.raises(Unauthenticated):
        report(world, UpdateStatusType.UP_TO_DATE)

    assert world.admin.trust_host(TENANT, "host-1").trust is Trust.TRUSTED
    report(world, UpdateStatusType.UP_TO_DATE)


def test_an_instance_is_heard_from_when_it_is_provisioned(world: World) -> None:
    world.admin.set_provisioning(TENANT, "instance-1", Provisioning.PENDING)
    with pytest.raises(FailedPrecondition):
        report(world, UpdateStatusType.UP_TO_DATE)

    world.admin.set_provisioning(TENANT, "instance-1", Provisioning.PROVISIONED)
    report(world, UpdateStatusType.UP_TO_DATE)


def test_a_schedule_changes_its_time_its_kind_and_its_place(world: World) -> None:
    weekly = RepeatedSchedule(hours="4", day_week="6")
    old = world.fleet.for_host

    assert world.admin.change_schedule(TENANT, old.resource_id, schedule=weekly) == evolve(old, schedule=weekly)
    changed = world.admin.change_schedule(TENANT, old.resource_id, kind=ScheduleKind.BLACKOUT)
    assert changed == evolve(old, schedule=weekly, kind=ScheduleKind.BLACKOUT)
    target = ScheduleTarget(level=TargetLevel.SITE, resource_id="site-1")
    assert world.admin.move_schedule(TENANT, old.resource_id, target) == evolve(changed, target=target)
    assert world.admin.move_schedule(TENANT, old.resource_id, None).target is None
    assert world.admin.remove(ScheduleResource, TENANT, old.resource_id).target is None


def test_a_single_schedule_becomes_a_repeated_one_and_back(world: World) -> None:
    single = SingleSchedule(START, START + timedelta(hours=1))
    for schedule in (RepeatedSchedule(), single):
        assert world.admin.change_schedule(TENANT, "schedule-2-site", schedule=schedule).schedule == schedule


# Removing


def test_an_instance_with_runs_is_removed_with_them_or_not_at_all(world: World) -> None:
    with pytest.raises(FailedPrecondition, match=r"run-1.*run-2"):
        world.admin.remove(Instance, TENANT, "instance-1")
    assert world.admin.count(TENANT, RunFilter()) == 2

    assert world.admin.remove_with_history(TENANT, "instance-1") == world.fleet.instance
    assert world.admin.count(TENANT, RunFilter()) == world.admin.count(TENANT, InstanceFilter()) == 0
    assert world.admin.remove(ScheduleResource, TENANT, "schedule-1-host") == world.fleet.for_host
    assert world.admin.remove(Host, TENANT, "host-1") == world.fleet.host


def test_old_runs_are_forgotten_in_parts_and_the_open_one_stays(world: World) -> None:
    old = [evolve(world.fleet.past_run, resource_id=f"run-old-{number}") for number in range(2500)]
    store(world.inventory, *old)

    assert world.admin.forget_runs(TENANT, START) == 0
    assert world.admin.forget_runs(TENANT, START + timedelta(days=400)) == 2501
    assert world.admin.history(TENANT, "instance-1") == (world.fleet.open_run,)
    with pytest.raises(InvalidValue, match="aware"):
        world.admin.forget_runs(TENANT, datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(InvalidValue, match="aware"):
        world.admin.forget_events(TENANT, datetime(2026, 1, 1))  # noqa: DTZ001


# Lists


def test_pages_lead_from_one_to_the_next(world: World) -> None:
    for number in range(5):
        world.admin.add_site(TENANT, f"site {number}")

    first = world.admin.page(TENANT, SiteFilter(), at_most=4)
    last = world.admin.page(TENANT, SiteFilter(), after=first.cursor, at_most=4)

    assert (len(first.items), len(last.items), last.cursor) == (4, 2, "")
    assert list(world.admin.each(TENANT, SiteFilter())) == [*first.items, *last.items]


def test_each_goes_on_while_its_reader_changes_things(world: World) -> None:
    store(world.inventory, *(evolve(world.fleet.past_run, resource_id=f"run-{n:04}") for n in range(2100)))

    for run in world.admin.each(TENANT, RunFilter(state=RunState.ENDED)):
        world.admin.remove(OSUpdateRun, TENANT, run.resource_id)

    assert world.admin.page(TENANT, RunFilter()).items == (world.fleet.open_run,)


def test_a_dashboard_counts_statuses_and_looks_at_one(world: World) -> None:
    report(world, UpdateStatusType.FAILED)

    assert world.admin.status_counts(TENANT)[InventoryStatus.FAILED] == 1
    (view,) = world.admin.instance_views(TENANT, InstanceFilter(status=InventoryStatus.FAILED)).items
    assert (view.host_name, view.site_name, view.desired_os.image_id) == ("line 4", "plant", "3.1")
    assert world.admin.instance_views(TENANT).items == (view,)


def test_only_get_has_the_list_of_cves(world: World) -> None:
    full = evolve(world.fleet.new_os, existing_cves="[1]")
    with world.inventory.writing() as unit:
        unit.replace(world.fleet.new_os, full)

    assert world.admin.get(OSResource, TENANT, "os-new") == full
    assert full in world.admin.os_resources(TENANT)


@pytest.mark.parametrize(
    "make",
    [
        lambda: InstanceFilter(status="FAILED"),  # type: ignore[arg-type]  # what a caller without types may do
        lambda: HostFilter(site_id=4),  # type: ignore[arg-type]  # the same
        lambda: RunFilter(since=datetime(2026, 1, 1)),  # noqa: DTZ001
        lambda: InstanceFilter(update_due=None),  # type: ignore[arg-type]  # the same
    ],
)
def test_a_filter_that_would_silently_match_nothing_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(InvalidValue, match=r"Filter\."):
        make()


def test_two_policies_of_one_kind_are_one_list(world: World) -> None:
    latest = world.admin.add_policy(TENANT, "latest", UpdatePolicyKind.LATEST)
    assert world.admin.page(TENANT, PolicyFilter(policy_kind=UpdatePolicyKind.LATEST)).items == (latest,)


def test_instants_of_any_zone_are_one_list(world: World) -> None:
    berlin = START.astimezone(timezone(timedelta(hours=1)))
    store(world.inventory, evolve(world.fleet.past_run, resource_id="run-0"))
    page = world.admin.page(TENANT, RunFilter(since=START), at_most=1)
    following = world.admin.page(TENANT, RunFilter(since=berlin), after=page.cursor, at_most=9)
    assert len(following.items) == 2
