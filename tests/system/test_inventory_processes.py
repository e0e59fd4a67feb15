"""An SQLite file shared by real processes, some of which are killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_day2.testing.inventory_process_contract import InventoryProcessContract


class TestSqliteInventoryInProcesses(InventoryProcessContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'inventory.db'}"
