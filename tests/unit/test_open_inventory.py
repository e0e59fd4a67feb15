"""Which URL opens what, what is missing, and what is said then."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_day2.adapters.storage import open_inventory
from edge_day2.errors import InvalidValue, MissingExtra, StorageError
from edge_day2.testing.inventory_contents import plain_fleet, store


@pytest.mark.parametrize(
    "url",
    [
        "",
        "inventory.db",
        "mysql://host/db",
        "memory:",
        "memory://x",
        "oracle+psycopg://host",
        "sqlite",
        "://",
        "redis://x",
    ],
)
def test_an_unknown_url_is_refused_with_what_is_known(url: str) -> None:
    with pytest.raises(InvalidValue, match=r"postgresql\+psycopg://"):
        open_inventory(url)


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"]
)
def test_sqlite_needs_a_file(url: str) -> None:
    with pytest.raises(InvalidValue, match="memory://"):
        open_inventory(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://admin:s3cret@host/db",
        "mysql://admin:s3cret@host/db",
        "postgresql+psycopg://admin:s3cret@host:port/db",
        "postgresql+psycopg://admin:s3cret@127.0.0.1:1/db?connect_timeout=2",
    ],
)
def test_a_password_in_a_url_is_never_shown(url: str) -> None:
    with pytest.raises((InvalidValue, StorageError)) as caught:
        open_inventory(url)
    assert "s3cret" not in str(caught.value)


def test_two_inventories_in_memory_share_nothing() -> None:
    with open_inventory("memory://") as first, open_inventory("memory://") as second:
        store(first, *plain_fleet().resources)
        with second.reading() as unit:
            assert unit.tenants() == ()


def test_a_folder_that_does_not_exist_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="unable to open"):
        open_inventory(f"sqlite:///{tmp_path}/nowhere/inventory.db")


@pytest.mark.parametrize("module", ["sqlalchemy", "alembic"])
def test_without_sqlalchemy_the_extra_is_named(tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("edge_day2.adapters.storage.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"edge_day2\[sql\]"):
        open_inventory(f"sqlite:///{tmp_path}/inventory.db")


def test_without_psycopg_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"edge_day2\[postgresql\]"):
        open_inventory("postgresql+psycopg://host/db")


def test_memory_needs_no_extra() -> None:
    code = """
import sys
from edge_day2.adapters.storage import open_inventory
with open_inventory("memory://") as inventory, inventory.writing() as unit:
    assert unit.tenants() == ()
assert "sqlalchemy" not in sys.modules, "SQLAlchemy was imported"
"""
    source = Path(__file__).parents[2] / "src"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(source)})
