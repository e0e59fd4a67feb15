"""Turns of the Inventory in memory and of the one in an SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_day2.adapters.storage import open_inventory
from edge_day2.errors import StorageError
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_turn_contract import InventoryTurnContract, InventoryTurnProcessContract, taken


class TestMemoryTurns(InventoryTurnContract):
    @pytest.fixture
    def inventory(self) -> Iterator[Inventory]:
        with open_inventory("memory://") as inventory:
            yield inventory


class TestSqliteTurns(InventoryTurnContract):
    @pytest.fixture
    def inventory(self, tmp_path: Path) -> Iterator[Inventory]:
        with open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}") as inventory:
            yield inventory


class TestSqliteTurnsInProcesses(InventoryTurnProcessContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'inventory.db'}"


def test_who_reaches_the_file_by_a_link_excludes_the_others(tmp_path: Path) -> None:
    with open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}") as inventory:
        (tmp_path / "link.db").symlink_to(tmp_path / "inventory.db")
        with open_inventory(f"sqlite:///{tmp_path / 'link.db'}") as other, inventory.turn("work"):
            assert not taken(other, "work")


def test_a_relative_path_counts_from_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_inventory("sqlite:///inventory.db") as inventory:
        monkeypatch.chdir("/")
        assert taken(inventory)
    assert sorted(path.name for path in tmp_path.glob("*-turns")) == ["inventory.db-turns"]


def test_a_link_in_the_place_of_the_file_for_turns_is_not_followed(tmp_path: Path) -> None:
    with open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}") as inventory:
        (tmp_path / "inventory.db-turns").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(StorageError, match="turns"), inventory.turn("work"):
            pass
    assert not (tmp_path / "elsewhere").exists()
