"""The schema: what the migrations make is what the code expects, and nobody's data is guessed at."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from edge_day2.adapters.storage import migrations, open_inventory
from edge_day2.adapters.storage.rows import shape_of
from edge_day2.adapters.storage.schema import METADATA
from edge_day2.errors import NewerFormat, StorageError
from edge_day2.testing.inventory_contents import load, plain_fleet, store
from edge_day2.testing.inventory_transaction_contract import in_threads


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inventory.db"


def run_sql(path: Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        with connection:
            return connection.execute(statement).fetchall()
    finally:
        connection.close()


def parts_of(sql: str) -> list[str]:
    """Return columns and constraints in the order of their letters: an added column comes after the constraints."""
    return sorted(
        " ".join(part.replace('"', "").strip(" ()").split()) for part in re.split(r",\s*(?![^()]*\))|\n", sql)
    )


def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path, path: Path) -> None:
    open_inventory(f"sqlite:///{path}").close()
    engine = create_engine(f"sqlite:///{tmp_path}/declared.db")
    METADATA.create_all(engine)
    engine.dispose()
    schema = f"SELECT name, sql FROM sqlite_master WHERE tbl_name <> '{migrations.VERSION_TABLE}' ORDER BY name"
    migrated, declared = (
        {name: parts_of(str(sql)) for name, sql in run_sql(file, schema)} for file in (path, tmp_path / "declared.db")
    )
    assert migrated == declared


def test_the_current_revision_is_the_last_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_current_head() == migrations.CURRENT_REVISION
    known = {script.revision for script in scripts.walk_revisions()}
    assert known | {None} == migrations.KNOWN_REVISIONS


def test_opening_again_changes_nothing(path: Path) -> None:
    fleet = plain_fleet()
    with open_inventory(f"sqlite:///{path}") as inventory:
        store(inventory, *fleet.resources)
    schema = run_sql(path, "SELECT * FROM sqlite_master")
    with open_inventory(f"sqlite:///{path}") as inventory, inventory.reading() as unit:
        assert list(unit.all(type(fleet.host), fleet.host.tenant_id)) == [fleet.host]
    assert run_sql(path, "SELECT * FROM sqlite_master") == schema


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    open_inventory(f"sqlite:///{path}").close()
    run_sql(path, f"UPDATE {migrations.VERSION_TABLE} SET version_num = 'v9999'")
    with pytest.raises(NewerFormat, match=f"v9999.*{migrations.CURRENT_REVISION}"):
        open_inventory(f"sqlite:///{path}")
    assert run_sql(path, f"SELECT * FROM {migrations.VERSION_TABLE}") == [("v9999",)]


def test_a_migration_that_fails_leaves_no_trace(path: Path) -> None:
    run_sql(path, "CREATE TABLE schedule (of_another_application)")
    with pytest.raises(StorageError, match="schedule"):
        open_inventory(f"sqlite:///{path}")
    assert run_sql(path, "SELECT name FROM sqlite_master") == [("schedule",)]
    run_sql(path, "DROP TABLE schedule")
    open_inventory(f"sqlite:///{path}").close()


def make_older(path: Path, revision: str, current: Path) -> set[str]:
    """Make a database of an older schema with the content of `current`, as far as it goes; return its tables."""
    tables = set()
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["version_table"] = migrations.VERSION_TABLE
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("ATTACH DATABASE ? AS current", (str(current),))
        connection.exec_driver_sql("BEGIN")
        for table in METADATA.sorted_tables:
            known = connection.exec_driver_sql("SELECT name FROM pragma_table_info(?, 'main')", (table.name,))
            columns = ", ".join(row[0] for row in known)
            if columns:
                tables.add(table.name)
                copy = f"INSERT INTO main.{table.name} ({columns}) SELECT {columns} FROM current.{table.name}"
                connection.exec_driver_sql(copy)
    engine.dispose()
    return tables


@pytest.mark.parametrize("revision", sorted(migrations.KNOWN_REVISIONS - {None, migrations.CURRENT_REVISION}, key=str))
def test_a_database_of_an_older_schema_is_brought_up_to_date_with_everything_in_it(
    tmp_path: Path, path: Path, revision: str
) -> None:
    fleet = plain_fleet()
    with open_inventory(f"sqlite:///{tmp_path}/current.db") as inventory:
        store(inventory, *fleet.resources)
    older = make_older(path, revision, tmp_path / "current.db")
    assert run_sql(path, f"SELECT * FROM {migrations.VERSION_TABLE}") == [(revision,)]
    with open_inventory(f"sqlite:///{path}") as inventory:
        for resource in fleet.resources:
            if shape_of(type(resource)).table.name in older:
                assert load(inventory, resource) == resource
    schema = f"SELECT name, sql FROM sqlite_master WHERE tbl_name <> '{migrations.VERSION_TABLE}' ORDER BY name"
    migrated, made = (
        {name: parts_of(str(sql)) for name, sql in run_sql(file, schema)} for file in (path, tmp_path / "current.db")
    )
    assert migrated == made


def test_threads_may_open_new_files_at_once(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/inventory-{number % 2}.db" for number in range(8)]
    in_threads(*(lambda url=url: open_inventory(url).close() for url in urls))


def test_a_folder_with_a_percent_sign_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "50%"
    installed = Path(migrations.__file__).parent
    shutil.copytree(installed, folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrations, "__file__", str(folder / "migrations" / "__init__.py"))
    open_inventory(f"sqlite:///{folder}/inventory.db").close()
    assert (folder / "inventory.db").exists()
