"""Processes that do everything that is done to an Inventory, killed with SIGKILL at random moments, on both databases.

EDGE_DAY2_KILLS says how often for each.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from edge_day2.adapters.storage import databases, migrations, open_inventory
from edge_day2.domain.resources import OSResource, Region
from edge_day2.testing.inventory_contents import TENANT, plain_fleet, store
from inventory_crowd import Crowd
from inventory_worker import WORKERS
from postgresql_server import PostgresqlServer

KILLS = int(os.environ.get("EDGE_DAY2_KILLS", "24"))


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'inventory.db'}"


def kill_workers(url: str, folder: Path) -> Crowd:
    """Kill one of several workers after the other, and look each time, while the rest goes on."""
    chance = random.Random(8)
    with Crowd.on(url, folder) as crowd, open_inventory(url) as inventory:
        crowd.start_all()
        for _ in range(KILLS):
            victim = chance.randrange(WORKERS)
            crowd.wait_for(victim)
            # Not a wait for something: the moment of death is what is varied.
            time.sleep(chance.uniform(0.0, 0.25))
            crowd.end(victim)
            crowd.check(inventory)
            crowd.start(victim)
        for number in range(WORKERS):
            crowd.wait_for(number)
            crowd.end(number)
        crowd.check(inventory)
    # Where nothing was stored, nothing was proven.
    assert {word for word, _ in crowd.said} >= {"added", "imported"}
    assert len(crowd.reported) == WORKERS
    return crowd


def test_killed_processes_leave_an_sqlite_file_whole(sqlite_url: str, tmp_path: Path) -> None:
    crowd = kill_workers(sqlite_url, tmp_path)
    assert crowd.errors["StorageError"] == 0
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


def test_killed_processes_leave_postgresql_whole(postgresql_url: str, tmp_path: Path) -> None:
    crowd = kill_workers(postgresql_url, tmp_path)
    assert crowd.errors["StorageError"] == 0


def make_first_schema(url: str) -> None:
    """Make the oldest schema there is, with something in it."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.attributes["version_table"] = migrations.VERSION_TABLE
    engine = databases.open_engine(url, 10.0)
    with databases.migrating(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "v0001")
        connection.execute(text("INSERT INTO region (tenant_id, resource_id, name) VALUES ('t', 'region-1', 'old')"))
    engine.dispose()


def kill_migrations(new_url: Callable[[], str]) -> int:
    """Kill a process that migrates, again and again; return how many were killed before their end."""
    chance, killed = random.Random(9), 0
    for _ in range(KILLS):
        url = new_url()
        make_first_schema(url)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                open_inventory(url).close()
                status = 0
            finally:
                os._exit(status)
        # Not a wait for something: the moment of death is what is varied.
        time.sleep(chance.uniform(0.0, 0.08))
        os.kill(child, signal.SIGKILL)
        killed += os.waitpid(child, 0)[1] == signal.SIGKILL
        with open_inventory(url) as inventory:
            with inventory.reading() as unit:
                assert [region.name for region in unit.all(Region, "t")] == ["old"]
            store(inventory, *plain_fleet().resources)
            with inventory.reading() as unit:
                assert len(list(unit.all(OSResource, TENANT))) == 2
    return killed


def test_a_killed_migration_of_an_sqlite_file_can_be_repeated(tmp_path: Path) -> None:
    numbers = iter(range(KILLS))
    assert kill_migrations(lambda: f"sqlite:///{tmp_path / f'{next(numbers)}.db'}")


def test_a_killed_migration_of_postgresql_can_be_repeated(postgresql_server: PostgresqlServer) -> None:
    assert kill_migrations(postgresql_server.new_schema)
