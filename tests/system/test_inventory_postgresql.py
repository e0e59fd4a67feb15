"""The Inventory contract, kept by a real PostgreSQL; skipped where it isn't installed or can't start."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from attrs import evolve
from sqlalchemy import MetaData, create_engine, text

from edge_day2.adapters.storage import list_statements, open_inventory
from edge_day2.adapters.storage.schema import METADATA
from edge_day2.domain.resources import Resource, UpdatePolicyKind
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.contracts import SharedInventoryContract
from edge_day2.testing.inventory_contents import START, TENANT, Fleet, plain_fleet, store
from edge_day2.testing.inventory_events_contract import end, os_resource, told
from edge_day2.testing.inventory_lists_contract import InventoryListsContract
from edge_day2.testing.inventory_process_contract import InventoryProcessContract
from edge_day2.testing.inventory_rollout_contract import InventoryRolloutContract
from inventory_lists import BY_INDEX, first_and_next, statements


class TestPostgresqlInventory(SharedInventoryContract):
    @pytest.fixture
    def inventory(self, postgresql_url: str) -> Iterator[Inventory]:
        with open_inventory(postgresql_url) as inventory:
            yield inventory

    @pytest.fixture
    def open_another(self, postgresql_url: str) -> Callable[[], Inventory]:
        return lambda: open_inventory(postgresql_url)


@pytest.fixture
def along_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every place holds much."""
    monkeypatch.setattr(list_statements, "NOT_MUCH", 0)


@pytest.mark.usefixtures("along_the_list")
class TestPostgresqlAlongTheList(InventoryListsContract):
    @pytest.fixture
    def inventory(self, postgresql_url: str) -> Iterator[Inventory]:
        with open_inventory(postgresql_url) as inventory:
            yield inventory

    @pytest.fixture
    def fleet(self, inventory: Inventory) -> Fleet:
        fleet = plain_fleet(TENANT)
        store(inventory, *fleet.resources)
        return fleet


def many_instances() -> Iterator[Resource]:
    """Yield the plain fleet and 3000 instances beside it, each with a run, of which few match any filter."""
    fleet = plain_fleet()
    yield from fleet.resources
    yield evolve(fleet.new_os, resource_id="os-most", image_id="3.2")
    for number in range(3000):
        name = f"{number:04}"
        guid = f"0000{name}-0000-4000-8000-000000000000"
        yield evolve(fleet.site, resource_id=f"site-{name}", name=f"site {name}")
        yield evolve(fleet.town, resource_id=f"region-{name}", name=f"region {name}")
        yield evolve(fleet.host, resource_id=f"h-{name}", guid=guid, name=name, site_id=f"site-{name}")
        yield evolve(
            fleet.instance,
            resource_id=f"i-{name}",
            host_id=f"h-{name}",
            current_os_id="os-most",
            os_update_policy_id=None,
            desired_os_id="os-most" if number % 100 else "os-old",
        )
        yield evolve(fleet.policy, resource_id=f"p-{name}", kind=UpdatePolicyKind.LATEST, target_os_id=None)
        yield evolve(fleet.for_host, resource_id=f"s-{name}", target=None)
        yield evolve(
            fleet.past_run, resource_id=f"r-{name}", instance_id=f"i-{name}", start_time=START + timedelta(hours=number)
        )


def test_a_filter_finds_its_rows_by_an_index(postgresql_url: str) -> None:
    url = postgresql_url
    psycopg = pytest.importorskip("psycopg", reason="psycopg isn't installed")
    with open_inventory(url) as inventory, psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True) as server:
        with inventory.writing() as unit:
            unit.add_all(many_instances())
        server.execute("ANALYZE")
        # What a few thousand rows would make cheaper, and millions don't.
        server.execute("SET enable_seqscan = off")
        server.execute("SET enable_bitmapscan = off")
        for wanted, index in BY_INDEX:
            with statements() as asked, inventory.reading() as unit:
                first_and_next(unit, wanted)
            for statement, parameters in asked:
                plan = "\n".join(row[0] for row in server.execute(f"EXPLAIN {statement}", parameters).fetchall())
                assert "Seq Scan" not in plan, plan
                if "count(" not in statement:
                    assert f" {index} " in plan, (wanted, plan)


class TestPostgresqlRollouts(InventoryRolloutContract):
    @pytest.fixture
    def inventory(self, postgresql_url: str) -> Iterator[Inventory]:
        with open_inventory(postgresql_url) as inventory:
            yield inventory


class TestPostgresqlInventoryInProcesses(InventoryProcessContract):
    @pytest.fixture
    def url(self, postgresql_url: str) -> str:
        return postgresql_url


def test_an_event_of_a_slow_transaction_is_told_before_those_that_came_later(
    postgresql_url: str,
) -> None:
    with open_inventory(postgresql_url) as inventory, inventory.writing() as slow:
        slow.add(os_resource(1))
        with inventory.writing() as quick:
            quick.add(os_resource(2))
        # What the quick one stored has to wait: its place is behind that of the slow one.
        assert told(inventory) == ()
        cursor = end(inventory)
    with open_inventory(postgresql_url) as inventory:
        assert [event.resource_id for event in told(inventory, cursor)] == ["os-1", "os-2"]


def partition_by_tenant(url: str) -> None:
    """Put partitioned tables in the place of the Inventory's, which are empty; docs/operations.md tells of it."""
    with open_inventory(url):
        pass
    partitioned = MetaData(naming_convention=METADATA.naming_convention)
    for table in METADATA.sorted_tables:
        table.to_metadata(partitioned).dialect_options["postgresql"]["partition_by"] = "HASH (tenant_id)"
    engine = create_engine(url)
    with engine.begin() as connection:
        METADATA.drop_all(connection)
        partitioned.create_all(connection)
        for name, part in itertools.product(METADATA.tables, range(2)):
            values = f"FOR VALUES WITH (MODULUS 2, REMAINDER {part})"
            connection.execute(text(f"CREATE TABLE {name}_{part} PARTITION OF {name} {values}"))
    engine.dispose()


class TestInventoryPartitionedByTenant(SharedInventoryContract):
    @pytest.fixture
    def partitioned_url(self, postgresql_url: str) -> str:
        partition_by_tenant(postgresql_url)
        return postgresql_url

    @pytest.fixture
    def inventory(self, partitioned_url: str) -> Iterator[Inventory]:
        with open_inventory(partitioned_url) as inventory:
            yield inventory

    @pytest.fixture
    def open_another(self, partitioned_url: str) -> Callable[[], Inventory]:
        return lambda: open_inventory(partitioned_url)

    def test_what_a_tenant_asks_is_read_from_one_partition(self, inventory: Inventory, partitioned_url: str) -> None:
        engine = create_engine(partitioned_url)
        with engine.connect() as connection:
            explain = text("EXPLAIN SELECT * FROM instance WHERE tenant_id = 'tenant-a' AND host_id = 'host-1'")
            plan = "\n".join(connection.execute(explain).scalars())
        engine.dispose()
        assert len(re.findall(r" on instance_\d", plan)) == 1
