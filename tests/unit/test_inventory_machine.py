"""Any sequence of calls does to the Inventory in memory and the one in a file what it does to the plain model.

EDGE_DAY2_EXAMPLES says how many sequences there are; without it the same ones come in every run.
"""

from __future__ import annotations

from pathlib import Path

from edge_day2.adapters.storage import open_inventory
from edge_day2.testing.inventory_machine import check_against_model
from machine_settings import sequences


def test_memory_is_what_the_model_is() -> None:
    with open_inventory("memory://") as inventory:
        check_against_model(inventory, sequences(200))


def test_an_sqlite_file_is_what_the_model_is(tmp_path: Path) -> None:
    with open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}") as inventory:
        check_against_model(inventory, sequences(100))
