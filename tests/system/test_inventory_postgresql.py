"""The Inventory contract, kept by a real PostgreSQL; skipped where it isn't installed or can't start."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from edge_day2.adapters.storage import open_inventory
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
