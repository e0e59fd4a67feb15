"""Hostile text, kept exactly or refused by the Inventory in memory and the one in an SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_day2.adapters.storage import open_inventory
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_contents import TENANT, Fleet, plain_fleet, store
from edge_day2.testing.inventory_text_contract import InventoryTextContract


@pytest.fixture
def fleet(inventory: Inventory) -> Fleet:
    fleet = plain_fleet(TENANT)
    store(inventory, *fleet.resources)
    return fleet


class TestMemoryInventoryText(InventoryTextContract):
    @pytest.fixture
    def inventory(self) -> Iterator[Inventory]:
        with open_inventory("memory://") as inventory:
            yield inventory


class TestSqliteInventoryText(InventoryTextContract):
    @pytest.fixture
    def inventory(self, tmp_path: Path) -> Iterator[Inventory]:
        with open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}") as inventory:
            yield inventory
