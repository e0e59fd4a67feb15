"""The rollout part of the Inventory's contract, kept in memory and by SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_day2.adapters.storage import open_inventory
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_rollout_contract import InventoryRolloutContract


class TestMemoryRollouts(InventoryRolloutContract):
    @pytest.fixture
    def inventory(self) -> Iterator[Inventory]:
        with open_inventory("memory://") as inventory:
            yield inventory


class TestSqliteRollouts(InventoryRolloutContract):
    @pytest.fixture
    def inventory(self, tmp_path: Path) -> Iterator[Inventory]:
        with open_inventory(f"sqlite:///{tmp_path}/inventory.db") as inventory:
            yield inventory
