"""Several processes report, link, delete and administer at once, and nobody breaks a rule or hangs."""

from __future__ import annotations

from pathlib import Path

from edge_day2.adapters.storage import open_inventory
from inventory_crowd import Crowd

ROUNDS = 150


def let_them_work(url: str, folder: Path) -> Crowd:
    """Let every worker do its rounds, then look."""
    with Crowd.on(url, folder) as crowd:
        crowd.start_all(ROUNDS)
        crowd.finish()
        with open_inventory(url) as inventory:
            crowd.check(inventory)
    assert crowd.errors["StorageError"] == 0
    return crowd


def test_processes_at_once_keep_the_rules_in_an_sqlite_file(tmp_path: Path) -> None:
    let_them_work(f"sqlite:///{tmp_path / 'inventory.db'}", tmp_path)


def test_processes_at_once_keep_the_rules_in_postgresql(postgresql_url: str, tmp_path: Path) -> None:
    let_them_work(postgresql_url, tmp_path)
