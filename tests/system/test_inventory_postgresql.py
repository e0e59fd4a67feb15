"""The Inventory contract, kept by a real PostgreSQL; skipped where it isn't installed or can't start."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import MetaData, create_engine, text

from edge_day2.adapters.storage import open_inventory
from edge_day2.adapters.storage.schema import METADATA
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.contracts import SharedInventoryContract
from edge_day2.testing.inventory_events_contract import end, os_resource, told
from edge_day2.testing.inventory_process_contract import InventoryProcessContract


class TestPostgresqlInventory(SharedInventoryContract):
    @pytest.fixture
    def inventory(self, postgresql_url: str) -> Iterator[Inventory]:
        with open_inventory(postgresql_url) as inventory:
            yield inventory

    @pytest.fixture
    def open_another(self, postgresql_url: str) -> Callable[[], Inventory]:
        return lambda: open_inventory(postgresql_url)


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
