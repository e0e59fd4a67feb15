"""Linking a fleet: how many statements that is, and how long others wait for it, on both databases."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
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
from edge_day2.domain.resources import Host, Instance, Link, OSResource, OSType, Region, Resource
from edge_day2.errors import Conflict
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


def manager(inventory: Inventory, bench: ReleaseBench, batch_size: int, threads: int = 1) -> OSResourceManager:
    mode = LinkingMode.AUTOMATIC
    return OSResourceManager(
        inventory, bench, revision="~1.0.0", mode=mode, batch_size=batch_size, linking_threads=threads
    )


def fill(inventory: Inventory, count: int, profiles: Sequence[str] = ("edge",)) -> None:
    """Add instances that run the first versions of the profiles in turn."""
    with inventory.writing() as write:
        systems = [write.get(OSResource, "tenant", os_id(profile, "1.0")) for profile in profiles]
        assert {os.os_type for os in systems} == {OSType.IMMUTABLE}
        write.add(Region(resource_id="region", tenant_id="tenant", name="0"))
        write.add_all(resource for number in range(count) for resource in node(number, systems[number % len(systems)]))


def node(number: int, os: OSResource) -> Iterator[Resource]:
    guid = f"00000000-0000-0000-0000-{number:012x}"
    yield Host(resource_id=f"host-{number:05}", tenant_id="tenant", guid=guid, name="node")
    yield Instance(
        resource_id=f"inst-{number:05}",
        tenant_id="tenant",
        host_id=f"host-{number:05}",
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


def test_a_batch_goes_through_instances_by_their_ids_whatever_they_run(url: str, bench: ReleaseBench) -> None:
    bench.publish("1.0.0", "core", "1.0")
    with open_inventory(url) as inventory:
        manager(inventory, bench, BATCH).reconcile("tenant")
        fill(inventory, 40, ("edge", "core"))
        core, edge = os_id("core", "1.0"), os_id("edge", "1.0")
        with inventory.writing() as write:
            for instance in tuple(write.all(Instance, "tenant")):
                write.replace(instance, evolve(instance, desired_os_id=core))
        with inventory.writing() as write:
            links = [Link(OSType.IMMUTABLE, current, core) for current in (core, edge)]
            assert write.relink("tenant", links, edge, at_most=10) == 10
        linked = [instance_id for instance_id, os in desired(inventory).items() if os == edge]

    # Neighbours in the table: a page with rows of several OSs is written once.
    assert sorted(linked) == [f"inst-{number:05}" for number in range(10)]


def publish_update(bench: ReleaseBench, inventory: Inventory, profiles: Sequence[str], count: int) -> None:
    for profile in profiles:
        bench.publish("1.0.0", profile, "1.0")
    manager(inventory, bench, BATCH).reconcile("tenant")
    fill(inventory, count, profiles)
    for profile in profiles:
        bench.publish("1.0.1", profile, "1.1")


def test_two_oss_are_linked_side_by_side(url: str, bench: ReleaseBench) -> None:
    profiles, both, seen = ("core", "edge"), threading.Barrier(2), set[str]()

    def in_a_batch(connection: Any, cursor: Any, statement: str, *_: object) -> None:
        name = threading.current_thread().name
        if statement.startswith("UPDATE instance") and name not in seen:
            seen.add(name)
            if url.startswith("postgresql"):
                both.wait(60)

    with open_inventory(url) as inventory:
        publish_update(bench, inventory, profiles, 40)
        event.listen(Engine, "before_cursor_execute", in_a_batch)
        try:
            report = manager(inventory, bench, 5, threads=2).reconcile("tenant")
        finally:
            event.remove(Engine, "before_cursor_execute", in_a_batch)
        linked = Counter(desired(inventory).values())

    assert report.linked == tuple(sorted((os_id(profile, "1.1"), 20) for profile in profiles))
    assert linked == dict(report.linked)
    assert threading.current_thread().name not in seen


def test_an_os_that_cannot_be_linked_leaves_what_is_done_of_the_others(url: str, bench: ReleaseBench) -> None:
    profiles, gone = ("core", "edge"), os_id("edge", "1.1")

    def delete(connection: Any, cursor: Any, statement: str, parameters: Any, *_: object) -> None:
        values = parameters.values() if isinstance(parameters, dict) else parameters
        if statement.startswith("UPDATE instance") and gone in values:
            raise Conflict("as if it was deleted, and deleted again")

    with open_inventory(url) as inventory:
        publish_update(bench, inventory, profiles, 40)
        event.listen(Engine, "before_cursor_execute", delete)
        try:
            with pytest.raises(Conflict):
                manager(inventory, bench, 5, threads=2).reconcile("tenant")
        finally:
            event.remove(Engine, "before_cursor_execute", delete)
        half = Counter(desired(inventory).values())
        assert manager(inventory, bench, 5, threads=2).reconcile("tenant").held == 0
        linked = Counter(desired(inventory).values())

    assert (half[gone], half[os_id("core", "1.1")] % 5) == (0, 0)
    assert linked == {os_id(profile, "1.1"): 20 for profile in profiles}
