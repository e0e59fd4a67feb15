"""Simulated nodes and fleets: they run the real agent, have the luck that their plan says, and repeat themselves."""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from attrs import define, evolve, fields

from edge_day2 import (
    Instance,
    InventoryService,
    MaintenanceManager,
    OSResource,
    OSType,
    RepeatedSchedule,
    SingleSchedule,
)
from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.maintenance import MaintenancePolicy
from edge_day2.domain.resources import ScheduleTarget, TargetLevel, os_resource_id
from edge_day2.domain.statuses import FailureReason, InventoryStatus, parse_detail
from edge_day2.ports.inventory import Inventory
from edge_day2.testing import FaultPlan, SimulatedFleet, VirtualClock
from edge_day2.testing.fault_plan import Misfortune
from edge_day2.testing.model_apt_node import ModelAptNode
from edge_day2.testing.model_nodes import Violation
from edge_day2.testing.simulated_node import HistoryKind

TENANT = "11111111-1111-4111-8111-111111111111"
BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
NIGHTS = RepeatedSchedule(minutes="0", hours="1", day_week="*", duration_seconds=3 * 3600)
NODES = 8
OLD, NEW = "3.0.20250101.0100", "3.0.20250202.0200"


@define
class SmallFleet:
    """Eight nodes of one site, every second of them immutable, whose orchestrator wants something newer."""

    inventory: Inventory
    admin: InventoryService
    fleet: SimulatedFleet
    guids: dict[str, str]

    def run(self, days: float) -> None:
        self.fleet.run(BEGIN + timedelta(days=days))

    def instances(self, os_type: OSType | None = None) -> list[Instance]:
        return [found for found in self.admin.instances(TENANT) if os_type in (None, found.os_type)]

    def reasons(self, os_type: OSType) -> set[FailureReason]:
        """The reasons of every report of failure, of all nodes of the type."""
        guids = {self.guids[instance.host_id] for instance in self.instances(os_type)}
        details = (
            parse_detail(event.detail)
            for event in self.fleet.history
            if event.kind is HistoryKind.REPORT and event.text == "FAILED" and event.guid in guids
        )
        return {reason for detail in details if detail is not None for reason in detail.reasons}

    def misfortunes(self) -> Counter[str]:
        return Counter(event.text for event in self.fleet.history if event.kind is HistoryKind.FAULT)


def os_resource(os_type: OSType, image_id: str) -> OSResource:
    profile = "microvisor-nonrt" if os_type is OSType.IMMUTABLE else "ubuntu-22.04-lts-generic"
    return OSResource(
        resource_id=os_resource_id(TENANT, profile, image_id),
        tenant_id=TENANT,
        name=f"{profile} {image_id}",
        os_type=os_type,
        profile_name=profile,
        image_id=image_id,
        sha256=hashlib.sha256(image_id.encode()).hexdigest(),
        image_url=f"images/{profile}-{image_id}.raw.gz",
    )


Build = Callable[..., SmallFleet]


@pytest.fixture
def build() -> Iterator[Build]:
    inventories = []

    def build(plan: FaultPlan, schedule: RepeatedSchedule | SingleSchedule | None = NIGHTS) -> SmallFleet:
        inventory = open_inventory("memory://")
        inventories.append(inventory)
        counter = itertools.count()
        clock = VirtualClock(BEGIN)
        admin = InventoryService(inventory, clock=clock, new_id=lambda: f"{next(counter):04x}")
        manager = MaintenanceManager(inventory, clock=clock, policy=MaintenancePolicy(lost_after=timedelta(hours=3)))
        fleet = SimulatedFleet(manager, clock, faults=plan)
        old, new = os_resource(OSType.IMMUTABLE, OLD), os_resource(OSType.IMMUTABLE, NEW)
        ubuntu = evolve(os_resource(OSType.MUTABLE, "22.04.5"), update_packages=("curl",))
        with inventory.writing() as unit:
            for system in (old, new, ubuntu):
                unit.add(system)
        site = admin.add_site(TENANT, "plant")
        if schedule is not None:
            target = ScheduleTarget(level=TargetLevel.SITE, resource_id=site.resource_id)
            admin.add_schedule(TENANT, "nights", schedule, target=target)
        guids = {}
        for number in range(NODES):
            guid = str(uuid.UUID(int=number * 7919, version=4))
            host = admin.add_host(TENANT, guid, f"node-{number}", site_id=site.resource_id)
            guids[host.resource_id] = guid
            running = old if number % 2 else ubuntu
            instance = admin.add_instance(TENANT, host.resource_id, running.resource_id)
            if running is old:
                admin.link_desired_os(TENANT, instance.resource_id, new.resource_id)
        packages = {"platform-update-agent": "1", "in-band-manageability": "1", "libc6": "1"}
        repository = {"platform-update-agent": "2", "in-band-manageability": "2", "libc6": "2", "curl": "8"}
        fleet.add_tenant(inventory, TENANT, packages=packages, repository=repository)
        return SmallFleet(inventory, admin, fleet, guids)

    yield build
    for inventory in inventories:
        inventory.close()


def test_a_calm_plan_updates_every_node_in_the_first_night(build: Build) -> None:
    small = build(FaultPlan.calm())
    small.run(days=1)
    assert not small.misfortunes()
    for instance in small.instances():
        newest, *earlier = small.admin.history(TENANT, instance.resource_id)
        assert (newest.update.status, earlier) == (InventoryStatus.DONE, [])
    current = {instance.current_os_id for instance in small.instances(OSType.IMMUTABLE)}
    assert current == {os_resource_id(TENANT, "microvisor-nonrt", NEW)}
    for node in small.fleet.nodes.values():
        if isinstance(node.machine, ModelAptNode):
            assert node.version == "4 of 4 packages current"


def test_the_agent_of_a_mutable_node_updates_itself_and_goes_on(build: Build) -> None:
    small = build(FaultPlan.calm())
    small.run(days=1)
    states = {event.text for event in small.fleet.history if event.kind is HistoryKind.STATE}
    assert {"updating_agent", "restarting", "updating_helper"} <= states


def test_without_a_window_nothing_happens(build: Build) -> None:
    small = build(FaultPlan.rough(seed=3), schedule=None)
    small.run(days=3)
    assert {event.kind for event in small.fleet.history} <= {HistoryKind.REPORT, HistoryKind.FAULT}
    assert {instance.update.status for instance in small.instances()} == {InventoryStatus.UP_TO_DATE}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_seed_gives_the_same_history_byte_for_byte(build: Build, seed: int) -> None:
    first, second = build(FaultPlan.rough(seed)), build(FaultPlan.rough(seed))
    first.run(days=4)
    second.run(days=4)
    assert first.fleet.history_bytes() == second.fleet.history_bytes()
    assert first.instances() == second.instances()


def test_another_seed_gives_another_history(build: Build) -> None:
    first, second = build(FaultPlan.rough(1)), build(FaultPlan.rough(2))
    first.run(days=2)
    second.run(days=2)
    assert first.fleet.history_bytes() != second.fleet.history_bytes()


def test_a_run_in_two_halves_is_the_same_as_one(build: Build) -> None:
    whole, halves = build(FaultPlan.rough(5)), build(FaultPlan.rough(5))
    whole.run(days=3)
    halves.run(days=1.06)
    halves.run(days=3)
    assert whole.fleet.history_bytes() == halves.fleet.history_bytes()


AT_REST = {"updated", "up_to_date", "rolled_back", "failed", "scheduled", "fetched", "paused"}


def check_at_rest(small: SmallFleet) -> None:
    """Every node has ended its update, waits for a window, or is lost."""
    for node in small.fleet.nodes.values():
        state = node.agent.record.flow
        assert node.lost or state is None or state.name in AT_REST


PLANS = {
    Misfortune.FAILED_DOWNLOAD: FaultPlan(failed_downloads=1),
    Misfortune.BROKEN_PACKAGE: FaultPlan(broken_packages=1),
    Misfortune.FAILED_COMMIT: FaultPlan(failed_commits=1),
    Misfortune.POWER_CUT: FaultPlan(power_cuts=0.3),
    Misfortune.BAD_IMAGE: FaultPlan(bad_images=1),
    Misfortune.UNHEALTHY_IMAGE: FaultPlan(unhealthy_images=1),
    Misfortune.POWER_CUT_IN_TRIAL: FaultPlan(power_cuts_in_trial=1),
    Misfortune.LOST_NODE: FaultPlan(lost_nodes=1),
    Misfortune.LOST_REPORT: FaultPlan(lost_reports=0.5),
}


def test_there_is_a_kind_of_misfortune_for_every_probability() -> None:
    probabilities = [attribute.name for attribute in fields(FaultPlan) if attribute.name != "seed"]
    assert len(PLANS) == len(Misfortune) == len(probabilities)
    rough = FaultPlan.rough()
    assert all(0 < getattr(rough, name) < 0.1 for name in probabilities)


@pytest.mark.parametrize("misfortune", PLANS, ids=lambda kind: kind.value)
def test_every_kind_of_fault_ends_in_a_defined_state(build: Build, misfortune: Misfortune) -> None:
    small = build(PLANS[misfortune])
    small.run(days=4.5)
    assert set(small.misfortunes()) == {misfortune.value}
    check_at_rest(small)


@pytest.mark.parametrize(
    ("misfortune", "os_type", "reason"),
    [
        (Misfortune.FAILED_DOWNLOAD, OSType.IMMUTABLE, FailureReason.DOWNLOAD_FAIL),
        (Misfortune.FAILED_DOWNLOAD, OSType.MUTABLE, FailureReason.DOWNLOAD_FAIL),
        (Misfortune.BROKEN_PACKAGE, OSType.MUTABLE, FailureReason.UPDATE_TOOL),
        (Misfortune.BAD_IMAGE, OSType.IMMUTABLE, FailureReason.BOOTLOADER_FAIL),
        (Misfortune.UNHEALTHY_IMAGE, OSType.IMMUTABLE, FailureReason.CRITICAL_SERVICES),
        # Few machines can tell a power cut from an image that doesn't boot; these can't.
        (Misfortune.POWER_CUT_IN_TRIAL, OSType.IMMUTABLE, FailureReason.BOOTLOADER_FAIL),
    ],
)
def test_the_inventory_says_why_an_update_failed(
    build: Build, misfortune: Misfortune, os_type: OSType, reason: FailureReason
) -> None:
    small = build(PLANS[misfortune])
    small.run(days=4.5)
    assert {instance.update.status for instance in small.instances(os_type)} == {InventoryStatus.FAILED}
    assert small.reasons(os_type) == {reason}
    assert {instance.current_os_id for instance in small.instances(OSType.IMMUTABLE)} <= {
        os_resource_id(TENANT, "microvisor-nonrt", image)
        for image in ((OLD,) if os_type is OSType.IMMUTABLE else (OLD, NEW))
    }


def test_a_failed_commit_is_rolled_back_even_where_it_took_effect(build: Build) -> None:
    small = build(PLANS[Misfortune.FAILED_COMMIT])
    small.run(days=1)
    assert small.reasons(OSType.IMMUTABLE) == {FailureReason.OS_COMMIT_FAIL}
    for node in small.fleet.nodes.values():
        assert node.os_type is OSType.MUTABLE or node.version == OLD


def test_lost_reports_and_power_cuts_delay_updates_and_prevent_none(build: Build) -> None:
    for plan in (PLANS[Misfortune.LOST_REPORT], FaultPlan(power_cuts=0.05)):
        small = build(plan)
        small.run(days=6)
        for instance in small.instances():
            statuses = {run.update.status for run in small.admin.history(TENANT, instance.resource_id)}
            assert InventoryStatus.DONE in statuses


def test_a_lost_node_is_recorded_as_lost(build: Build) -> None:
    small = build(PLANS[Misfortune.LOST_NODE])
    small.run(days=2)
    lost = {guid for guid, node in small.fleet.nodes.items() if node.lost}
    immutable = small.instances(OSType.IMMUTABLE)
    assert lost == {small.guids[instance.host_id] for instance in immutable}
    assert {instance.update.status for instance in immutable} == {InventoryStatus.LOST}
    assert lost == {event.guid for event in small.fleet.history if event.kind is HistoryKind.LOST}
    for instance in immutable:
        run, *_ = small.admin.history(TENANT, instance.resource_id)
        assert (run.update.status, run.end_time) == (InventoryStatus.LOST, None)


QUIET = {"", "off", "scheduled", "prefetching", "fetched", "paused", "updated", "up_to_date", "rolled_back", "failed"}


@pytest.mark.parametrize("seed", range(4))
def test_nothing_disruptive_begins_outside_the_windows(build: Build, seed: int) -> None:
    small = build(evolve(FaultPlan.rough(seed), power_cuts=0.05), schedule=evolve(NIGHTS, duration_seconds=900))
    small.run(days=6)
    before: dict[str, str] = {}
    for event in small.fleet.history:
        if event.kind is HistoryKind.STATE:
            begins = event.text not in QUIET and before.get(event.guid, "") in QUIET - {"off"}
            assert not begins or NIGHTS.window_at(event.at) is not None, event
            before[event.guid] = event.text
    assert "paused" in {event.text for event in small.fleet.history}


def test_a_model_complains_when_it_is_disturbed_outside_the_window() -> None:
    node = ModelAptNode(packages={"libc6": "1"}, available={"libc6": "2"}, disturbance_allowed=False)
    with pytest.raises(Violation, match="outside the maintenance window"):
        node.reboot()


def test_what_the_orchestrator_does_is_in_the_history_in_its_place(build: Build) -> None:
    small = build(FaultPlan.calm())
    done = []
    small.fleet.at(BEGIN + timedelta(hours=2), "north: upgraded", lambda: done.append(small.fleet.history[-1].at))
    seen: list[datetime] = []
    small.fleet.run(BEGIN + timedelta(hours=3), seen.append)
    found = [event for event in small.fleet.history if event.kind is HistoryKind.ORCHESTRATOR]
    assert [(event.at, event.text, event.guid) for event in found] == [
        (BEGIN + timedelta(hours=2), "north: upgraded", "")
    ]
    assert done[0] <= BEGIN + timedelta(hours=2)
    assert seen == sorted(seen)
    assert seen[-1] == BEGIN + timedelta(hours=3)
