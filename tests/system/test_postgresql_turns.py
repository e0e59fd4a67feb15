"""Turns that a real PostgreSQL gives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge_day2.adapters.storage import open_inventory
from edge_day2.errors import StorageError
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_turn_contract import InventoryTurnContract, InventoryTurnProcessContract, taken
from postgresql_server import PostgresqlServer


@pytest.fixture
def inventory(postgresql_url: str) -> Iterator[Inventory]:
    with open_inventory(postgresql_url) as inventory:
        yield inventory


class TestPostgresqlTurns(InventoryTurnContract):
    @pytest.fixture
    def inventory(self, inventory: Inventory) -> Inventory:
        return inventory


class TestPostgresqlTurnsInProcesses(InventoryTurnProcessContract):
    @pytest.fixture
    def url(self, postgresql_url: str) -> str:
        return postgresql_url


def test_schemas_of_one_database_have_turns_of_their_own(
    inventory: Inventory, postgresql_server: PostgresqlServer
) -> None:
    with open_inventory(postgresql_server.new_schema()) as other, inventory.turn("work"):
        assert taken(other, "work")


def test_a_turn_whose_connection_is_lost_is_free_again_and_ends_without_an_error(
    inventory: Inventory, postgresql_server: PostgresqlServer
) -> None:
    with inventory.turn("work") as mine:
        assert mine
        postgresql_server.cut_connections()
        assert taken(inventory, "work")
    assert taken(inventory, "work")


def test_a_turn_keeps_no_snapshot_and_is_never_too_long_for_the_server(
    inventory: Inventory, postgresql_server: PostgresqlServer
) -> None:
    held = "FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory'"
    with inventory.turn("work"):
        ((snapshot, transaction),) = postgresql_server.execute(f"SELECT backend_xmin, backend_xid {held}")
        assert (snapshot, transaction) == (None, None)
    assert postgresql_server.execute(f"SELECT 1 {held}") == []


def test_a_server_that_ends_idle_transactions_leaves_turns_alone(
    inventory: Inventory, postgresql_server: PostgresqlServer
) -> None:
    ((database,),) = postgresql_server.execute("SELECT current_database()")
    postgresql_server.execute(f"ALTER DATABASE {database} SET idle_in_transaction_session_timeout = '50ms'")
    try:
        with inventory.turn("work") as mine:
            assert mine
            # The server's time, which is what would end the turn.
            postgresql_server.execute("SELECT pg_sleep(0.5)")
            assert not taken(inventory, "work")
    finally:
        postgresql_server.execute(f"ALTER DATABASE {database} RESET idle_in_transaction_session_timeout")


def test_a_server_that_is_gone_is_a_storage_error(postgresql_server: PostgresqlServer, postgresql_url: str) -> None:
    with open_inventory(postgresql_url) as inventory:
        postgresql_server.kill()
        try:
            with pytest.raises(StorageError), inventory.turn("work"):
                pass
        finally:
            postgresql_server.start_again()
        assert taken(inventory, "work")
