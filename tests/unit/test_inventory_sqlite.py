"""SQLite when things go wrong, and what a read costs."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
from attrs import evolve
from sqlalchemy import Engine, event

from edge_day2.adapters.storage import open_inventory
from edge_day2.adapters.storage.schema import METADATA
from edge_day2.domain.inventory_filters import InstanceFilter
from edge_day2.domain.resources import Host, Instance, OSUpdatePolicy, Region, UpdatePolicyKind
from edge_day2.domain.statuses import InventoryStatus, UpdateRecord
from edge_day2.errors import StorageError
from edge_day2.ports.inventory import Inventory, UnitOfWork
from edge_day2.testing.inventory_contents import GUID, START, TENANT, load, plain_fleet, store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inventory.db"


@pytest.fixture
def inventory(path: Path) -> Iterator[Inventory]:
    with open_inventory(f"sqlite:///{path}", lock_timeout_seconds=0.2) as inventory:
        yield inventory


@contextmanager
def on_connect(statement: str) -> Iterator[None]:
    """Execute `statement` on every connection that is opened meanwhile."""

    def execute(connection: Any, _: object) -> None:
        connection.execute(statement)

    event.listen(Engine, "connect", execute)
    try:
        yield
    finally:
        event.remove(Engine, "connect", execute)


@contextmanager
def statements() -> Iterator[list[tuple[str, tuple[Any, ...]]]]:
    """Collect the statements that are executed meanwhile, with their parameters."""
    seen: list[tuple[str, tuple[Any, ...]]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: tuple[Any, ...], *_: object) -> None:
        seen.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_a_full_disk_is_a_storage_error_and_old_data_stands(path: Path) -> None:
    policy = OSUpdatePolicy(resource_id="policy-1", tenant_id=TENANT, name="small", kind=UpdatePolicyKind.LATEST)
    with open_inventory(f"sqlite:///{path}") as inventory:
        store(inventory, policy)
    pages = path.stat().st_size // 4096
    with on_connect(f"PRAGMA max_page_count = {pages}"), open_inventory(f"sqlite:///{path}") as inventory:
        with pytest.raises(StorageError, match="full"), inventory.writing() as unit:
            unit.replace(policy, evolve(policy, name="large" * 10_000))
        with pytest.raises(StorageError, match="full"):
            store(inventory, *(evolve(policy, resource_id=f"many-{n}", name="large" * 100) for n in range(100)))
        assert load(inventory, policy) == policy
    with open_inventory(f"sqlite:///{path}") as inventory, inventory.reading() as unit:
        assert list(unit.all(OSUpdatePolicy, TENANT)) == [policy]


def test_a_full_disk_that_was_overlooked_commits_nothing(path: Path) -> None:
    policy = OSUpdatePolicy(resource_id="policy-1", tenant_id=TENANT, name="small", kind=UpdatePolicyKind.LATEST)
    with open_inventory(f"sqlite:///{path}") as inventory:
        store(inventory, policy)

    def overlook() -> None:
        with inventory.writing() as unit:
            unit.replace(policy, evolve(policy, name="renamed"))
            with pytest.raises(StorageError):
                unit.add(evolve(policy, resource_id="policy-2", name="large" * 100_000))
            with pytest.raises(StorageError, match="failed already"):
                unit.add(evolve(policy, resource_id="policy-3"))

    pages = path.stat().st_size // 4096
    with on_connect(f"PRAGMA max_page_count = {pages}"), open_inventory(f"sqlite:///{path}") as inventory:
        with pytest.raises(StorageError, match="full"):
            overlook()
        assert load(inventory, policy) == policy


def test_a_migration_on_a_full_disk_can_be_repeated(path: Path) -> None:
    with on_connect("PRAGMA max_page_count = 20"), pytest.raises(StorageError, match="full"):
        open_inventory(f"sqlite:///{path}")
    with open_inventory(f"sqlite:///{path}") as inventory:
        store(inventory, *plain_fleet().resources)


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("These are my notes, not a database. " * 100)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="not a database"):
        open_inventory(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_writer_that_waits_too_long_for_another_process_gives_up(path: Path, inventory: Inventory) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked"), inventory.writing():
        pass
    with inventory.reading() as unit:
        assert unit.tenants() == ()
    other.close()
    store(inventory, Region(resource_id="region-1", tenant_id=TENANT, name="after"))


@pytest.mark.parametrize("writers", ["in one Inventory", "in two"])
def test_a_writer_gets_in_between_the_batches_of_another(path: Path, writers: str) -> None:
    batches: list[int] = []
    over = threading.Event()

    def write_batch_after_batch(inventory: Inventory) -> None:
        while not over.is_set():
            with inventory.writing():
                batches.append(1)
                # Not a wait for something: how long a batch holds the others up.
                time.sleep(0.05)

    url = f"sqlite:///{path}"
    with open_inventory(url, lock_timeout_seconds=60) as one, open_inventory(url, lock_timeout_seconds=60) as two:
        thread = threading.Thread(target=write_batch_after_batch, args=(one,))
        thread.start()
        waited = []
        try:
            for number in range(4):
                before = len(batches)
                region = Region(resource_id=f"region-{number}", tenant_id=TENANT, name="between")
                store(one if writers == "in one Inventory" else two, region)
                waited.append(len(batches) - before)
        finally:
            over.set()
            thread.join()
    # One each where nothing else runs here; hundreds where a writer meets the moment between two by chance.
    assert sum(waited) < 40


def test_opening_waits_for_another_that_switches_to_the_write_ahead_log(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [sqlite3.OperationalError("database is locked")] * 2

    class Refusing(sqlite3.Cursor):
        def execute(self, statement: str, *parameters: Any) -> Self:
            if "journal_mode" in statement and refusals:
                raise refusals.pop()
            return super().execute(statement, *parameters)

    class Connection(sqlite3.Connection):
        def cursor(self, *_: Any) -> Any:
            return super().cursor(Refusing)

    monkeypatch.setattr("sqlite3.dbapi2.connect", partial(sqlite3.connect, factory=Connection))
    open_inventory(f"sqlite:///{path}").close()
    assert refusals == []


def test_a_writer_inside_a_writer_gives_up_instead_of_waiting_for_ever(inventory: Inventory) -> None:
    with inventory.writing(), pytest.raises(StorageError, match="writing for"), inventory.writing():
        pass


_READ_ONLY = """
import os, sys
from edge_day2.adapters.storage import open_inventory
from edge_day2.errors import StorageError
from edge_day2.testing.inventory_contents import plain_fleet, store
path = sys.argv[1]
with open_inventory("sqlite:///" + path) as inventory, inventory.reading() as unit:
    unit.tenants()
if os.getuid() == 0:
    os.setuid(65534)  # nothing is read-only for root, who has imported everything by now
try:
    with open_inventory("sqlite:///" + path) as inventory:
        store(inventory, *plain_fleet("tenant-b").resources)
except StorageError as error:
    print(error)
"""


def test_a_read_only_file_is_a_storage_error(tmp_path: Path, path: Path) -> None:
    with open_inventory(f"sqlite:///{path}") as inventory:
        store(inventory, *plain_fleet().resources)
    path.chmod(0o444)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o755)
    before = path.read_bytes()
    source = str(Path(__file__).parents[2] / "src")
    child = subprocess.run(
        [sys.executable, "-c", _READ_ONLY, str(path)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": source},
    )
    assert "the database failed" in child.stdout
    assert path.read_bytes() == before


def test_a_row_that_nobody_wrote_is_named(path: Path, inventory: Inventory) -> None:
    fleet = plain_fleet()
    store(inventory, *fleet.resources)
    other = sqlite3.connect(path)
    other.execute("UPDATE host SET trust = 'PERHAPS'")
    other.commit()
    other.close()
    with pytest.raises(StorageError, match=r"host.*host-1.*PERHAPS"):
        load(inventory, fleet.host)


def test_a_transaction_that_is_over_says_so(inventory: Inventory) -> None:
    with inventory.reading() as unit:
        pass
    with pytest.raises(StorageError, match="transaction is over"):
        unit.tenants()


def test_the_database_itself_keeps_the_rules(path: Path, inventory: Inventory) -> None:
    store(inventory, *plain_fleet().resources)
    other = sqlite3.connect(path)
    other.execute("PRAGMA foreign_keys = ON")
    for statement in (
        "UPDATE instance SET os_type = 'MUTABLE'",
        "UPDATE instance SET current_os_id = 'nowhere'",
        "UPDATE schedule SET start_time = NULL, duration_seconds = NULL",
        "DELETE FROM region",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            other.execute(statement)
    other.close()


def test_regions_that_another_program_put_into_each_other_are_passed_once(path: Path, inventory: Inventory) -> None:
    fleet = plain_fleet()
    store(inventory, *fleet.resources)
    other = sqlite3.connect(path)
    other.execute("UPDATE region SET parent_id = 'region-town' WHERE resource_id = 'region-country'")
    other.commit()
    other.close()
    with inventory.reading() as unit:
        context = unit.report_context(TENANT, GUID)
        assert context.schedules == (fleet.for_region, fleet.for_host, fleet.for_site)
        assert unit.report_contexts(TENANT, [GUID]) == {GUID: context}
        inside = unit.page(InstanceFilter(region_id="region-country"), tenant_id=TENANT, at_most=10)
        assert inside.items == (fleet.instance,)
    alone = evolve(fleet.country, parent_id=None)
    with inventory.writing() as unit:
        unit.replace(evolve(fleet.country, parent_id="region-town"), alone)


def test_commits_reach_the_disk(inventory: Inventory) -> None:
    seen: dict[str, object] = {}

    def look(connection: Any) -> None:
        for name in ("journal_mode", "synchronous", "foreign_keys"):
            seen[name] = connection.exec_driver_sql(f"PRAGMA {name}").scalar()

    event.listen(Engine, "commit", look)
    try:
        store(inventory, Region(resource_id="region-1", tenant_id=TENANT, name="durable"))
    finally:
        event.remove(Engine, "commit", look)
    assert seen == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_report_context_is_one_select(inventory: Inventory) -> None:
    store(inventory, *plain_fleet().resources)
    with statements() as seen, inventory.reading() as unit:
        unit.report_context(TENANT, GUID)
    assert [statement.split()[0] for statement, _ in seen] == ["BEGIN", "WITH"]


def test_report_contexts_are_two_selects_for_any_number_of_hosts(inventory: Inventory) -> None:
    store(inventory, *plain_fleet().resources)
    with statements() as seen, inventory.reading() as unit:
        unit.report_contexts(TENANT, [GUID, *(str(number) for number in range(1000))])
    assert [statement.split()[0] for statement, _ in seen] == ["BEGIN", "SELECT", "WITH"]


LOOK_UPS: dict[str, Callable[[UnitOfWork], object]] = {
    "get": lambda unit: unit.get(Host, TENANT, "host-1"),
    "host by GUID": lambda unit: unit.host_by_guid(TENANT, GUID),
    "instance of host": lambda unit: unit.instance_of_host(TENANT, "host-1"),
    "page": lambda unit: list(unit.all(Instance, TENANT)),
    "report context": lambda unit: unit.report_context(TENANT, GUID),
    "report contexts": lambda unit: unit.report_contexts(TENANT, [GUID]),
    "runs": lambda unit: unit.runs_of_instance(TENANT, "instance-1"),
    "unheard": lambda unit: list(unit.unheard_since(TENANT, START)),
    "OS without lists": lambda unit: list(unit.os_without_lists(TENANT)),
    "tenants": lambda unit: unit.tenants(),
}


@pytest.mark.parametrize("name", LOOK_UPS)
def test_a_look_up_reads_neither_a_table_nor_a_tenant_from_end_to_end(
    path: Path, inventory: Inventory, name: str
) -> None:
    store(inventory, *plain_fleet().resources)
    with statements() as seen, inventory.reading() as unit:
        LOOK_UPS[name](unit)
    other = sqlite3.connect(path)
    (_, begun), *asked = seen
    plan = [
        row[3]
        for statement, parameters in asked
        for row in other.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
    ]
    other.close()
    assert begun == ()
    tables = "|".join(METADATA.tables)
    every_row = rf"SCAN ({tables})\b|SEARCH .*\(tenant_id=\?\)$"
    assert [step for step in plan if re.match(every_row, step)] == []
    assert any(step.startswith("SEARCH") for step in plan)
    assert not any("TEMP B-TREE" in step for step in plan if name != "runs")


def test_an_event_costs_one_insert_of_its_transaction_and_no_event_costs_nothing(inventory: Inventory) -> None:
    fleet = plain_fleet()
    store(inventory, *fleet.resources)
    failed = evolve(fleet.instance, update=UpdateRecord(status=InventoryStatus.FAILED, text="failed"))
    with statements() as told, inventory.writing() as unit:
        unit.replace(fleet.instance, evolve(failed, desired_os_id=failed.current_os_id))
        unit.delete(fleet.for_nothing)
    with statements() as quiet, inventory.writing() as unit:
        unit.replace(fleet.host, evolve(fleet.host, name="renamed"))

    words = [[statement.split()[0] for statement, _ in found] for found in (told, quiet)]
    assert words == [["BEGIN", "UPDATE", "DELETE", "INSERT"], ["BEGIN", "UPDATE"]]
