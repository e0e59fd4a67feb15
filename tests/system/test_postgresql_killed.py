"""PostgreSQL itself is killed or cuts connections: nothing is half done, and the library goes on by itself."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from attrs import evolve

from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.resources import Region
from edge_day2.errors import Conflict, StorageError
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_contents import TENANT, load, store
from edge_day2.testing.inventory_transaction_contract import in_threads
from inventory_crowd import Crowd, Life, until
from inventory_worker import WORKERS
from postgresql_server import PostgresqlServer

ONE, TWO = (Region(resource_id=f"region-{number}", tenant_id=TENANT, name="old") for number in (1, 2))


def stored_by(life: Life) -> int:
    """Return how often a worker has said that something was stored."""
    return sum(word in ("reported", "added", "imported") for word, _ in life.said())


def test_a_connection_that_is_cut_in_a_transaction_is_a_storage_error_and_undoes_it(
    postgresql_server: PostgresqlServer, postgresql_url: str
) -> None:
    with open_inventory(postgresql_url) as inventory:
        store(inventory, ONE)

        def change_and_lose_the_connection() -> None:
            with inventory.writing() as unit:
                unit.replace(ONE, evolve(ONE, name="new"))
                postgresql_server.cut_connections()
                with pytest.raises(StorageError):
                    unit.add(TWO)

        with pytest.raises(StorageError):
            change_and_lose_the_connection()
        assert load(inventory, ONE) == ONE
        store(inventory, TWO)


def test_connections_that_died_in_the_pool_cost_one_error_in_all(
    postgresql_server: PostgresqlServer, postgresql_url: str
) -> None:
    with open_inventory(postgresql_url) as inventory:
        store(inventory, ONE)
        together = threading.Barrier(3)

        def read() -> None:
            with inventory.reading() as unit:
                unit.tenants()
                together.wait()

        in_threads(read, read, read)
        postgresql_server.cut_connections()
        with pytest.raises(StorageError):
            load(inventory, ONE)
        in_threads(read, read, read)
        store(inventory, TWO)


def test_a_server_that_is_killed_leaves_what_was_committed_and_its_clients_go_on(
    postgresql_server: PostgresqlServer, postgresql_url: str, tmp_path: Path
) -> None:
    with Crowd.on(postgresql_url, tmp_path) as crowd:
        crowd.start_all()
        for _ in range(2):
            until(lambda: all(len(life.said()) > 10 for life in crowd.lives.values()), "workers work")
            postgresql_server.kill()
            before = {number: stored_by(life) for number, life in crowd.lives.items()}
            postgresql_server.start_again()
            until(
                lambda before=before: all(  # type: ignore[misc]
                    stored_by(life) > before[number] for number, life in crowd.lives.items()
                ),
                "workers go on",
            )
            assert [life.process.poll() for life in crowd.lives.values()] == [None] * WORKERS
        for number in range(WORKERS):
            crowd.end(number)
        with open_inventory(postgresql_url) as inventory:
            crowd.check(inventory)
    assert crowd.errors["StorageError"]


def test_transactions_that_wait_for_each_other_end_with_a_conflict_for_one(postgresql_url: str) -> None:
    with open_inventory(postgresql_url) as inventory:
        store(inventory, ONE, TWO)
        both_hold_one, ends = threading.Barrier(2), []

        def swap(inventory: Inventory, first: Region, second: Region) -> None:
            try:
                with inventory.writing() as unit:
                    unit.replace(first, evolve(first, name=second.resource_id))
                    both_hold_one.wait()
                    unit.replace(second, evolve(second, name=first.resource_id))
            except Conflict:
                ends.append("conflict")
            else:
                ends.append("stored")

        in_threads(lambda: swap(inventory, ONE, TWO), lambda: swap(inventory, TWO, ONE))
        assert sorted(ends) == ["conflict", "stored"]
        names = {load(inventory, ONE).name, load(inventory, TWO).name}
        assert names == {"region-1", "region-2"}
