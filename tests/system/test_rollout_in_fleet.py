"""A rollout over a fleet of simulated nodes with real agents, real managers and SQLite: good images reach everybody, a
bad one stops with its first wave."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attrs import frozen

from edge_day2 import InventoryService, LinkingMode, MaintenanceManager, RepeatedSchedule
from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.maintenance import MaintenancePolicy
from edge_day2.domain.resources import ScheduleTarget, TargetLevel
from edge_day2.domain.rollout import PausedBy, RolloutPolicy, RolloutState, wave_of
from edge_day2.domain.statuses import InventoryStatus
from edge_day2.testing import FaultPlan, SimulatedFleet, VirtualClock
from orchestrator import EDGE, NEW_EDGE, OLD_EDGE, manager, os_id

TENANT = "tenant"
BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
NIGHTS = RepeatedSchedule(minutes="0", hours="1", day_week="*", duration_seconds=3 * 3600)
OLD, NEW = os_id(EDGE, OLD_EDGE), os_id(EDGE, NEW_EDGE)
POLICY = RolloutPolicy(waves=(2_000, 6_000, 10_000), max_failed=1, max_failed_share=None, settled_share=10_000)


@frozen
class Story:
    """How thirty nodes stand after six days in which the manager ran every two hours."""

    admin: InventoryService
    guids: dict[str, str]


Live = Callable[[FaultPlan], Story]


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    with open_inventory(f"sqlite:///{tmp_path}/inventory.db") as inventory:

        def live(faults: FaultPlan) -> Story:
            clock, counter = VirtualClock(BEGIN), itertools.count()
            for revision in ("0.9.0", "0.9.8"):
                manager(inventory, revision=revision).reconcile(TENANT)
            linking = manager(inventory, mode=LinkingMode.AUTOMATIC, clock=clock, batch_size=5)
            discovery = linking.discover()
            admin = InventoryService(inventory, clock=clock, new_id=lambda: f"{next(counter):04x}")
            site = admin.add_site(TENANT, "plant")
            target = ScheduleTarget(level=TargetLevel.SITE, resource_id=site.resource_id)
            admin.add_schedule(TENANT, "nights", NIGHTS, target=target)
            guids = {}
            for number in range(30):
                guid = str(uuid.UUID(int=number * 7919, version=4))
                host = admin.add_host(TENANT, guid, f"node-{number}", site_id=site.resource_id)
                guids[admin.add_instance(TENANT, host.resource_id, OLD).resource_id] = guid
            admin.add_rollout(TENANT, NEW, POLICY, salt="salt")
            maintenance = MaintenanceManager(
                inventory, clock=clock, policy=MaintenancePolicy(lost_after=timedelta(hours=3))
            )
            fleet = SimulatedFleet(maintenance, clock, faults=faults)
            fleet.add_tenant(inventory, TENANT, packages={}, repository={})

            def reconcile() -> None:
                linking.reconcile(TENANT, discovery)

            for hours in range(0, 6 * 24, 2):
                fleet.at(BEGIN + timedelta(hours=hours), "reconcile", reconcile)
            fleet.run(BEGIN + timedelta(days=6))
            return Story(admin, guids)

        yield live


def test_a_bad_image_reaches_the_first_wave_and_nobody_else(live: Live) -> None:
    story = live(FaultPlan(bad_images=1.0))

    (rollout,) = story.admin.rollouts(TENANT)
    assert (rollout.state, rollout.paused_by, rollout.wave) == (RolloutState.PAUSED, PausedBy.ERROR_BUDGET, 0)
    instances = story.admin.instances(TENANT)
    assert {instance.current_os_id for instance in instances} == {OLD}
    tried = {instance.resource_id for instance in instances if instance.desired_os_id == NEW}
    assert tried == {name for name, guid in story.guids.items() if wave_of(guid, rollout) == 0}
    assert 0 < len(tried) < 15
    failed = {
        name
        for name in story.guids
        if any(run.update.status is InventoryStatus.FAILED for run in story.admin.history(TENANT, name))
    }
    assert failed == tried
    assert {instance.update.status for instance in instances if instance.resource_id in tried} == {
        InventoryStatus.FAILED
    }
    spared = next(guid for guid in story.guids.values() if wave_of(guid, rollout) > 0)
    assert "which the error budget paused" in story.admin.explain(TENANT, spared)


def test_a_good_image_reaches_everybody_wave_by_wave(live: Live) -> None:
    story = live(FaultPlan.calm())

    (rollout,) = story.admin.rollouts(TENANT)
    assert (rollout.state, rollout.admitted) == (RolloutState.DONE, 30)
    assert {instance.current_os_id for instance in story.admin.instances(TENANT)} == {NEW}
    began: dict[int, list[datetime]] = {}
    for name, guid in story.guids.items():
        # A night in which there was nothing to do is in the history too.
        (run,) = (run for run in story.admin.history(TENANT, name) if run.update.status is InventoryStatus.DONE)
        began.setdefault(wave_of(guid, rollout), []).append(run.start_time)
    for wave in (1, 2):
        assert min(began[wave]) - max(began[wave - 1]) >= POLICY.soak
