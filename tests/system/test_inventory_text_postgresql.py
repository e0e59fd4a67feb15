"""Hostile text, kept exactly or refused by the Inventory in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge_day2.adapters.storage import open_inventory
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_contents import TENANT, Fleet, plain_fleet, store
from edge_day2.testing.inventory_text_contract import InventoryTextContract


class TestPostgresqlInventoryText(InventoryTextContract):
    @pytest.fixture
    def inventory(self, postgresql_url: str) -> Iterator[Inventory]:
        with open_inventory(postgresql_url) as inventory:
            yield inventory

    @pytest.fixture
    def fleet(self, inventory: Inventory) -> Fleet:
        fleet = plain_fleet(TENANT)
        store(inventory, *fleet.resources)
        return fleet
