"""The Inventory contract, kept by the Inventory in memory and the one in an SQLite file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_day2.adapters.storage import open_inventory
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.contracts import InventoryContract, SharedInventoryContract


class TestMemoryInventory(InventoryContract):
    @pytest.fixture
    def inventory(self) -> Iterator[Inventory]:
        with open_inventory("memory://") as inventory:
            yield inventory


class TestSqliteInventory(SharedInventoryContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'inventory.db'}"

    @pytest.fixture
    def inventory(self, url: str) -> Iterator[Inventory]:
        with open_inventory(url) as inventory:
            yield inventory

    @pytest.fixture
    def open_another(self, url: str) -> Callable[[], Inventory]:
        return lambda: open_inventory(url)
