"""Any sequence of calls does to the Inventory in PostgreSQL what it does to the plain model."""

from __future__ import annotations

from edge_day2.adapters.storage import open_inventory
from edge_day2.testing.inventory_machine import check_against_model
from machine_settings import sequences


def test_postgresql_is_what_the_model_is(postgresql_url: str) -> None:
    with open_inventory(postgresql_url) as inventory:
        check_against_model(inventory, sequences(40))
