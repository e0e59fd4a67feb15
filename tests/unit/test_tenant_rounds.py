"""Work for every tenant: what is another's is left out, and one tenant's failure stops no other."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from attrs import evolve

from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.maintenance_manager import MaintenanceManager
from edge_day2.application.os_resource_manager import OSResourceManager
from edge_day2.application.tenant_rounds import each_tenant
from edge_day2.domain.resources import Instance
from edge_day2.domain.statuses import InventoryStatus, UpdateRecord
from edge_day2.errors import Conflict, EdgeDay2Error, ImmutableLinkError, NotFound, StorageError, Unavailable
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_contents import START, plain_fleet, store
from orchestrator import stored
from release_bench import CVES, ReleaseBench

TENANTS = ("tenant-a", "tenant-b", "tenant-c")


@pytest.fixture(params=["memory", "sqlite"])
def inventory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Inventory]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'inventory.db'}"
    with open_inventory(url) as opened:
        for tenant in TENANTS:
            store(opened, *plain_fleet(tenant).resources)
        yield opened


@pytest.fixture
def bench() -> ReleaseBench:
    bench = ReleaseBench(content={"cves": CVES})
    bench.publish("1.0.0", "edge", "1.0", osExistingCvesURL="cves")
    return bench


def test_every_tenant_is_reconciled_from_one_discovery(inventory: Inventory, bench: ReleaseBench) -> None:
    outcome = OSResourceManager(inventory, bench, revision="1.0.0", files=bench).reconcile_all()

    assert tuple(outcome.done) == TENANTS
    assert all(report.tenant_id == tenant for tenant, report in outcome.done.items())
    assert (bench.asked, bench.downloads) == (1, {"cves": 1})
    assert list(outcome.problems()) == []


def test_tenants_may_be_named_also_new_ones_and_twice(inventory: Inventory, bench: ReleaseBench) -> None:
    outcome = OSResourceManager(inventory, bench, revision="1.0.0").reconcile_all(["new", "tenant-a", "new"])

    assert tuple(outcome.done) == ("new", "tenant-a")
    assert len(stored(inventory, "new")) == 1


def test_a_tenant_that_another_works_on_is_left_out_and_said(inventory: Inventory, bench: ReleaseBench) -> None:
    manager = OSResourceManager(inventory, bench, revision="1.0.0")
    with ExitStack() as another:
        another.enter_context(inventory.turn("reconcile tenant-b"))
        outcome = manager.reconcile_all()

    assert (tuple(outcome.done), outcome.busy) == (("tenant-a", "tenant-c"), ("tenant-b",))
    assert list(outcome.problems()) == ["tenant tenant-b: somebody else is working on it"]
    assert tuple(manager.reconcile_all().done) == TENANTS


@pytest.mark.parametrize(
    "error",
    [Unavailable("down"), StorageError("full"), Conflict("overtaken"), NotFound("gone"), ImmutableLinkError("never")],
)
def test_one_tenants_failure_stops_no_other_and_is_in_what_is_returned(
    inventory: Inventory, error: EdgeDay2Error, caplog: pytest.LogCaptureFixture
) -> None:
    def step(tenant_id: str) -> str:
        if tenant_id == "tenant-b":
            raise error
        return tenant_id.upper()

    with caplog.at_level(logging.ERROR):
        outcome = each_tenant(inventory, "work", None, step)

    assert outcome.done == {"tenant-a": "TENANT-A", "tenant-c": "TENANT-C"}
    assert outcome.failed == {"tenant-b": error}
    assert list(outcome.problems()) == [f"tenant tenant-b: {type(error).__name__}: {error}"]
    assert f"tenant tenant-b: work: {type(error).__name__}: {error}" in caplog.text
    with inventory.turn("work tenant-b") as mine:
        assert mine


def test_a_defect_gives_the_turn_back_and_is_not_hidden(inventory: Inventory) -> None:
    with pytest.raises(ZeroDivisionError):
        each_tenant(inventory, "work", None, lambda tenant_id: 1 // 0)
    with inventory.turn("work tenant-a") as mine:
        assert mine


def test_lost_nodes_are_found_in_every_tenant_that_no_other_looks_through(inventory: Inventory) -> None:
    for tenant in TENANTS:
        with inventory.writing() as write:
            instance = write.get(Instance, tenant, "instance-1")
            updating = UpdateRecord(status=InventoryStatus.UPDATE_IN_PROGRESS, text="Updating", timestamp=START)
            write.replace(instance, evolve(instance, update=updating, last_seen=START - timedelta(days=365)))
    manager = MaintenanceManager(inventory, clock=SystemClock())

    with inventory.turn("find lost tenant-c"):
        outcome = manager.find_lost_everywhere()

    assert {tenant: len(lost) for tenant, lost in outcome.done.items()} == {"tenant-a": 1, "tenant-b": 1}
    assert outcome.busy == ("tenant-c",)
    assert len(manager.find_lost_everywhere().done["tenant-c"]) == 1
