"""What the Inventory costs: a report's context at 1,000 and at 1,000,000 instances, and transactions against sqlite3.

    python benchmarks/bench_inventory.py [--instances 1000000] [--folder DIR]

Prints figures and their ratios from one run; ends with status 1 where the budget is missed: the context of a report may
cost 1.5 times as much in the large Inventory as in the small one. Calls to the two take turns, so that a change of the
machine's speed meets both.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID

from attrs import evolve

from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.resources import (
    Host,
    Instance,
    OSResource,
    OSType,
    OSUpdateRun,
    Region,
    Resource,
    ScheduleResource,
    ScheduleTarget,
    Site,
    TargetLevel,
)
from edge_day2.domain.schedules import RepeatedSchedule
from edge_day2.domain.statuses import InventoryStatus, UpdateRecord
from edge_day2.ports.inventory import Inventory

TENANT = "3c90a0e4-5b3f-4d0c-9c7e-0123456789ab"
BUDGET = 1.5
NOW = datetime(2026, 3, 2, tzinfo=UTC)
HOSTS_OF_A_SITE = 50
SITES_OF_A_REGION = 20


def guid(number: int) -> str:
    """Return a host's GUID: spread over the index, as real ones are."""
    return str(UUID(int=random.Random(number).getrandbits(128)))


def fleet(instances: int) -> Iterator[Resource]:
    """Yield an Inventory of so many instances: one profile in 8 versions, regions of 20 sites, sites of 50 hosts."""
    systems = [
        OSResource(
            resource_id=f"os-{version}",
            tenant_id=TENANT,
            name=f"Edge Microvisor Toolkit 3.{version}",
            os_type=OSType.IMMUTABLE,
            profile_name="microvisor-nonrt",
            image_id=f"3.{version}",
            sha256="0" * 64,
            image_url=f"files/microvisor-3.{version}.raw.gz",
            existing_cves='[{"cve_id":"CVE-2026-0001","priority":"high","affected_packages":["openssl"]}]' * 10,
        )
        for version in range(8)
    ]
    yield from systems
    yield Region(resource_id="region", tenant_id=TENANT, name="world")
    for number in range(instances):
        if number % (HOSTS_OF_A_SITE * SITES_OF_A_REGION) == 0:
            region = f"region-{number // (HOSTS_OF_A_SITE * SITES_OF_A_REGION)}"
            yield Region(resource_id=region, tenant_id=TENANT, name=region, parent_id="region")
            yield schedule(f"schedule-{region}", TargetLevel.REGION, region)
        if number % HOSTS_OF_A_SITE == 0:
            site = f"site-{number // HOSTS_OF_A_SITE}"
            yield Site(resource_id=site, tenant_id=TENANT, name=site, region_id=region)
            yield schedule(f"schedule-{site}", TargetLevel.SITE, site)
        name = f"{number:08x}"
        yield Host(resource_id=f"host-{name}", tenant_id=TENANT, name=name, guid=guid(number), site_id=site)
        updating = number % 100 == 0
        status = InventoryStatus.UPDATE_IN_PROGRESS if updating else InventoryStatus.UP_TO_DATE
        record = UpdateRecord(status=status, text=status.text, timestamp=NOW)
        yield Instance(
            resource_id=f"inst-{name}",
            tenant_id=TENANT,
            host_id=f"host-{name}",
            os_type=OSType.IMMUTABLE,
            current_os_id=systems[number % 7].resource_id,
            desired_os_id=systems[7].resource_id,
            update=record,
            last_seen=NOW if updating else None,
        )
        if updating:
            yield OSUpdateRun(
                resource_id=f"osupdaterun-{name}",
                tenant_id=TENANT,
                instance_id=f"inst-{name}",
                name=f"{name} update",
                start_time=NOW,
                update=record,
            )


def schedule(name: str, level: TargetLevel, target: str) -> ScheduleResource:
    """Return a nightly schedule for a place."""
    return ScheduleResource(
        resource_id=name,
        tenant_id=TENANT,
        name="nightly",
        schedule=RepeatedSchedule(),
        target=ScheduleTarget(level=level, resource_id=target),
    )


def load(inventory: Inventory, instances: int) -> float:
    """Fill an Inventory and return the seconds that it took."""
    began = time.perf_counter()
    with inventory.writing() as unit:
        unit.add_all(fleet(instances))
    return time.perf_counter() - began


def microseconds(work: Callable[[], object]) -> float:
    """Return how long one call takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1e6


def read_context(inventory: Inventory, number: int) -> None:
    """Read what one report needs, in a transaction of its own."""
    with inventory.reading() as unit:
        unit.report_context(TENANT, guid(number))


def compare_contexts(small: Inventory, few: int, large: Inventory, many: int, calls: int) -> tuple[float, float]:
    """Return the median cost of a report's context in the two Inventories, at random hosts."""
    draw = random.Random(1)
    costs: tuple[list[float], list[float]] = ([], [])
    for _ in range(calls):
        for inventory, instances, cost in ((small, few, costs[0]), (large, many, costs[1])):
            number = draw.randrange(instances)
            cost.append(microseconds(partial(read_context, inventory, number)))
    return statistics.median(costs[0]), statistics.median(costs[1])


def write_instances(inventory: Inventory, instances: int, transactions: int) -> float:
    """Return how many status changes are recorded in a second, each in a transaction of its own."""
    draw = random.Random(2)
    with inventory.reading() as unit:
        stored = [unit.get(Instance, TENANT, f"inst-{draw.randrange(instances):08x}") for _ in range(transactions)]
    by_id = {instance.resource_id: instance for instance in stored}
    began = time.perf_counter()
    for turn, name in enumerate(instance.resource_id for instance in stored):
        changed = evolve(by_id[name], last_seen=NOW + timedelta(seconds=turn))
        with inventory.writing() as unit:
            unit.replace(by_id[name], changed)
        by_id[name] = changed
    return transactions / (time.perf_counter() - began)


def write_raw(path: Path, transactions: int) -> float:
    """Return how many comparable transactions plain sqlite3 does in a second, with the same durability."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE instance (id TEXT PRIMARY KEY, status TEXT, last_seen INTEGER)")
    connection.execute("CREATE INDEX last_seen ON instance (last_seen)")
    connection.executemany("INSERT INTO instance VALUES (?, 'x', 0)", ((f"inst-{n:08x}",) for n in range(1000)))
    draw = random.Random(2)
    began = time.perf_counter()
    for turn in range(transactions):
        connection.execute("BEGIN IMMEDIATE")
        name = f"inst-{draw.randrange(1000):08x}"
        connection.execute("UPDATE instance SET last_seen = ? WHERE id = ? AND status = 'x'", (turn, name))
        connection.execute("COMMIT")
    rate = transactions / (time.perf_counter() - began)
    connection.close()
    return rate


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--folder", type=Path, help="where the databases are made (default: a temporary folder)")
    options = parser.parse_args()
    few, many = 1000, options.instances
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        open_inventory(f"sqlite:///{folder}/small.db") as small,
        open_inventory(f"sqlite:///{folder}/large.db") as large,
    ):
        load(small, few)
        seconds = load(large, many)
        size = Path(folder, "large.db").stat().st_size / 1e6
        print(f"load {many:,} instances: {seconds:.0f} s, {many / seconds:,.0f} instances/s, {size:,.0f} MB")
        compare_contexts(small, few, large, many, options.calls // 10)
        at_few, at_many = compare_contexts(small, few, large, many, options.calls)
        ratio = at_many / at_few
        print(f"report_context at {few:,}: {at_few:.0f} us; at {many:,}: {at_many:.0f} us; ratio {ratio:.2f}")
        raw = write_raw(Path(folder, "raw.db"), 2000)
        ours, again = write_instances(small, few, 2000), write_instances(large, many, 2000)
        print(f"transactions/s: sqlite3 {raw:,.0f}; at {few:,}: {ours:,.0f}, ratio {ours / raw:.2f}", end="; ")
        print(f"at {many:,}: {again:,.0f}, ratio {again / raw:.2f}")
    print("within the budget" if ratio <= BUDGET else f"over the budget of {BUDGET}")


if __name__ == "__main__":
    main()
