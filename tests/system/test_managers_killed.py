"""OS Resource Managers in several processes, of which one is killed in the middle, again and again, on real databases.

What they leave is what one undisturbed run leaves; and at no moment is anything half done.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from conftest import MEASURED
from edge_day2.adapters.release_service import DirectoryReleaseService
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.os_resource_manager import OSResourceManager
from edge_day2.domain.linking import LinkingMode
from edge_day2.domain.reconciled import ReconciledRevision
from edge_day2.domain.resources import Host, Instance, OSResource, OSType, Resource, os_resource_id
from edge_day2.domain.versions import ImageVersion
from edge_day2.ports.inventory import Inventory
from orchestrator import EDGE, EXAMPLES, NEW_EDGE, OLD_EDGE
from registry_server import digest_of

ROUNDS = 6
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
UBUNTU = "ubuntu-22.04-lts-generic"

WORK = """
import sys
from edge_day2.adapters.release_service import DirectoryReleaseService
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.os_resource_manager import OSResourceManager
from edge_day2.domain.linking import LinkingMode
from edge_day2.errors import Conflict

url, profiles, turns = sys.argv[1:]
with open_inventory(url, lock_timeout_seconds=60) as inventory:
    service = DirectoryReleaseService(profiles)
    manager = OSResourceManager(inventory, service, revision="0.9.8", mode=LinkingMode.AUTOMATIC, batch_size=3)
    discovery = manager.discover()
    print("ready", flush=True)
    for line in sys.stdin:
        if turns == "turns":
            outcome = manager.reconcile_all(line.split(), discovery=discovery)
            assert not outcome.failed, outcome.failed
        else:
            left = line.split()
            while left:
                try:
                    manager.reconcile(left[0], discovery)
                    left.pop(0)
                except Conflict:
                    pass
        print("done", flush=True)
"""


class Worker:
    """A process that reconciles the tenants that it is told."""

    def __init__(self, url: str, turns: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORK, url, str(EXAMPLES), turns],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self.hear() == "ready\n"

    def tell(self, tenants: Sequence[str]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(tenants) + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    return f"sqlite:///{tmp_path / 'inventory.db'}"


def manager(inventory: Inventory, revision: str) -> OSResourceManager:
    mode = LinkingMode.AUTOMATIC if revision == "0.9.8" else LinkingMode.MANUAL
    return OSResourceManager(inventory, DirectoryReleaseService(EXAMPLES), revision=revision, mode=mode)


def furnish(inventory: Inventory, tenant: str) -> None:
    """Give a tenant the older revision, nodes that run it, nodes with a mutable OS, and one with a newer OS."""
    manager(inventory, "0.9.0").reconcile(tenant)
    with inventory.writing() as write:
        edge = write.get(OSResource, tenant, os_resource_id(tenant, EDGE, OLD_EDGE))
        ubuntu = write.get(OSResource, tenant, os_resource_id(tenant, UBUNTU, "22.04.5"))
        newer = evolve(edge, resource_id="os-newer", image_id="9.0")
        write.add(newer)
        systems = [edge] * 25 + [ubuntu] * 5 + [newer]
        write.add_all(node for number, system in enumerate(systems) for node in nodes(tenant, number, system))


def nodes(tenant: str, number: int, system: OSResource) -> Iterator[Resource]:
    guid = f"00000000-0000-0000-0000-{number:012x}"
    yield Host(resource_id=f"host-{number}", tenant_id=tenant, guid=guid, name=f"node {number}")
    yield Instance(
        resource_id=f"inst-{number}",
        tenant_id=tenant,
        host_id=f"host-{number}",
        os_type=system.os_type,
        current_os_id=system.resource_id,
        desired_os_id=system.resource_id,
    )


def content(inventory: Inventory, tenant: str) -> list[Any]:
    """Return everything that a reconcile may change, without its instant."""
    with inventory.reading() as read:
        records = [evolve(record, reconciled_at=EPOCH) for record in read.all(ReconciledRevision, tenant)]
        return [*read.all(OSResource, tenant), *read.all(Instance, tenant), *records]


def expected(tenant: str) -> list[Any]:
    """Return what one undisturbed run leaves."""
    with open_inventory("memory://") as inventory:
        furnish(inventory, tenant)
        manager(inventory, "0.9.8").reconcile(tenant)
        return content(inventory, tenant)


def wait_until_changed(inventory: Inventory, tenant: str, changes: int, done: list[Any]) -> None:
    """Wait until so many of the resources are as they will be, or are there at all."""
    while True:
        now = content(inventory, tenant)
        if sum(resource in done for resource in now) >= changes or now == done:
            return


@contextmanager
def watching(url: str, tenants: Sequence[str]) -> Iterator[list[str]]:
    """Look at the instances all the time; collect what should never be seen."""
    wrong: list[str] = []
    stop = threading.Event()

    def look() -> None:
        highest: dict[tuple[str, str], ImageVersion] = {}
        with open_inventory(url) as inventory:
            while not stop.wait(0.002):
                for tenant in tenants:
                    with inventory.reading() as read:
                        systems = {found.resource_id: found for found in read.all(OSResource, tenant)}
                        for instance in read.all(Instance, tenant):
                            key, desired = (tenant, instance.resource_id), systems[instance.desired_os_id].image_version
                            if instance.os_type is OSType.MUTABLE and instance.desired_os_id != instance.current_os_id:
                                wrong.append(f"{key} is mutable and was linked")
                            if desired < highest.setdefault(key, desired):
                                wrong.append(f"{key} was linked down")
                            highest[key] = desired

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield wrong
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("turns", ["turns", "no turns"])
def test_processes_that_are_killed_again_and_again_leave_what_one_undisturbed_run_leaves(
    url: str, turns: str, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(digest_of(f"{url.partition(':')[0]} {turns}".encode()))
    with ExitStack() as stack:
        inventory = stack.enter_context(open_inventory(url, lock_timeout_seconds=60))
        workers = [Worker(url, turns) for _ in range(3)]
        stack.callback(kill_all, workers)
        interrupted = 0
        for number in range(ROUNDS):
            tenants = [f"tenant-{number}-{letter}" for letter in "abc"]
            for tenant in tenants:
                furnish(inventory, tenant)
            with watching(url, tenants) as wrong:
                for worker, told in zip(workers, (tenants, tenants[::-1], tenants[1:2]), strict=True):
                    worker.tell(told)
                done = expected(tenants[0])
                wait_until_changed(inventory, tenants[0], chance.randrange(len(done)), done)
                workers.pop(0).kill()
                interrupted += content(inventory, tenants[0]) != done
                assert [worker.hear() for worker in workers] == ["done\n"] * 2
            workers.insert(0, Worker(url, turns))
            finish(inventory, tenants)

            assert wrong == []
            for tenant in tenants:
                assert content(inventory, tenant) == expected(tenant)
    record_property(MEASURED, f"{url.partition(':')[0]}, {turns}: {interrupted} of {ROUNDS} runs killed in the middle")


def kill_all(workers: list[Worker]) -> None:
    for worker in workers:
        worker.kill()


def finish(inventory: Inventory, tenants: Sequence[str]) -> None:
    """Reconcile once more what may have been left; a database takes a moment to notice that a holder is dead."""
    left: tuple[str, ...] = tuple(tenants)
    for _ in range(600):
        outcome = manager(inventory, "0.9.8").reconcile_all(left)
        assert not outcome.failed
        left = outcome.busy
        if not left:
            return
        threading.Event().wait(0.1)
    raise AssertionError(f"still somebody's turn: {left}")


def test_a_process_that_is_killed_in_a_turn_is_succeeded_at_once(url: str) -> None:
    with open_inventory(url, lock_timeout_seconds=60) as inventory:
        furnish(inventory, "tenant")
        worker = Worker(url, "turns")
        worker.tell(["tenant"])
        while content(inventory, "tenant") == []:
            pass
        worker.kill()

        finish(inventory, ["tenant"])

        assert content(inventory, "tenant") == expected("tenant")
        with inventory.reading() as read:
            edge = read.get(Instance, "tenant", "inst-0")
            newer = read.get(Instance, "tenant", "inst-30")
        assert edge.desired_os_id == os_resource_id("tenant", EDGE, NEW_EDGE)
        assert newer.desired_os_id == "os-newer"
