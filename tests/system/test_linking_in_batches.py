"""Linking a fleet: how many statements that is, and how long others wait for it, on both databases."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from sqlalchemy import Engine, event

from edge_day2.adapters.storage import open_inventory
from edge_day2.adapters.storage.writers import Writers
from edge_day2.application.os_resource_manager import OSResourceManager
from edge_day2.domain.linking import LinkingMode
from edge_day2.domain.resources import Host, Instance, OSResource, OSType, Region, Resource
from edge_day2.ports.inventory import Inventory
from orchestrator import desired, os_id
from release_bench import ReleaseBench

FLEET = 20_000
BATCH = 5_000


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    return f"sqlite:///{tmp_path / 'inventory.db'}"


@pytest.fixture
def bench() -> ReleaseBench:
    bench = ReleaseBench()
    bench.publish("1.0.0", "edge", "1.0")
    return bench


def manager(inventory: Inventory, bench: ReleaseBench, batch_size: int) -> OSResourceManager:
    return OSResourceManager(inventory, bench, revision="~1.0.0", mode=LinkingMode.AUTOMATIC, batch_size=batch_size)


def fill(inventory: Inventory, count: int) -> None:
    with inventory.writing() as write:
        os = write.get(OSResource, "tenant", os_id("edge", "1.0"))
        assert os.os_type is OSType.IMMUTABLE
        write.add(Region(resource_id="region", tenant_id="tenant", name="0"))
        write.add_all(resource for number in range(count) for resource in node(number, os))


def node(number: int, os: OSResource) -> Iterator[Resource]:
    guid = f"00000000-0000-0000-0000-{number:012x}"
    yield Host(resource_id=f"host-{number}", tenant_id="tenant", guid=guid, name="node")
    yield Instance(
        resource_id=f"inst-{number}",
        tenant_id="tenant",
        host_id=f"host-{number}",
        os_type=os.os_type,
        current_os_id=os.resource_id,
        desired_os_id=os.resource_id,
    )


@contextmanager
def statements() -> Iterator[Counter[str]]:
    """Count the statements that are executed meanwhile by their verb and, for a change, their table."""
    seen: Counter[str] = Counter()

    def note(connection: Any, cursor: Any, statement: str, *_: object) -> None:
        words = statement.split()
        place = {"UPDATE": 1, "INSERT": 2}.get(words[0])
        seen[words[0] if place is None else f"{words[0]} {words[place]}"] += 1

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_a_fleet_is_linked_by_a_statement_for_each_batch(url: str, bench: ReleaseBench) -> None:
    with open_inventory(url) as inventory:
        manager(inventory, bench, BATCH).reconcile("tenant")
        fill(inventory, FLEET)
        bench.publish("1.0.1", "edge", "1.1")
        with statements() as seen:
            report = manager(inventory, bench, BATCH).reconcile("tenant")
        linked = set(desired(inventory).values())

    assert (report.linked_instances, report.held, linked) == (FLEET, 0, {os_id("edge", "1.1")})
    # One more than there are batches: that nothing is left is seen by a statement, too.
    assert seen["UPDATE instance"] == FLEET // BATCH + 1
    # What was reconciled, the OS Resources, the rollouts, and the links before and after; also whether there is such
    # an OS, where a statement found nothing to change, and on PostgreSQL how it is to look for instances.
    assert 5 <= seen["SELECT"] <= 5 + 2 + FLEET // BATCH
    assert seen["INSERT os_resource"] == 1
    assert seen["UPDATE reconciled_revision"] == 1


def test_a_report_waits_for_the_batch_that_is_being_written_and_for_no_other(url: str, bench: ReleaseBench) -> None:
    batches, threads, entered = Counter[str](), list[threading.Thread](), list[int]()

    def report() -> None:
        with inventory.writing() as write:
            entered.append(batches["begun"])
            old = write.get(Region, "tenant", "region")
            write.replace(old, evolve(old, name=str(int(old.name) + 1)))

    def in_a_batch(connection: Any, cursor: Any, statement: str, *_: object) -> None:
        if not statement.startswith("UPDATE instance"):
            return
        batches["begun"] += 1
        thread = threading.Thread(target=report)
        threads.append(thread)
        thread.start()
        if url.startswith("sqlite"):
            writers: Writers = inventory._writers  # type: ignore[attr-defined]  # who waits there is nobody's business
            while not writers.waiting:
                threading.Event().wait(0.001)
        else:
            thread.join()

    with open_inventory(url, lock_timeout_seconds=60) as inventory:
        manager(inventory, bench, BATCH).reconcile("tenant")
        fill(inventory, 100)
        bench.publish("1.0.1", "edge", "1.1")
        event.listen(Engine, "before_cursor_execute", in_a_batch)
        try:
            manager(inventory, bench, 10).reconcile("tenant")
        finally:
            event.remove(Engine, "before_cursor_execute", in_a_batch)
            for thread in threads:
                thread.join()
        with inventory.reading() as read:
            assert read.get(Region, "tenant", "region").name == "11"

    assert entered == list(range(1, 12))
