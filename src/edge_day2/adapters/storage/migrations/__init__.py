"""How the database's schema comes to be, and becomes the current one: Alembic migrations, run by opening an Inventory.

One module in `versions` for each step, from the first release on; what is there never changes again. A migration is one
transaction under the database's own lock: several processes may open at once, and a crash leaves the old schema.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from sqlalchemy import Column, Connection, Engine, MetaData, Table, Text, inspect, select

from edge_day2.adapters.storage.databases import migrating
from edge_day2.errors import MissingExtra, NewerFormat

# A name of its own, so that another application's Alembic may live in the same database.
VERSION_TABLE: Final = "edge_day2_schema"
_VERSIONS: Final = Table(VERSION_TABLE, MetaData(), Column("version_num", Text()))

# Alembic keeps the migration that runs in a global variable.
_ONE_AT_A_TIME: Final = threading.Lock()

CURRENT_REVISION: Final = "v0006"
KNOWN_REVISIONS: Final = frozenset({None, "v0001", "v0002", "v0003", "v0004", "v0005", CURRENT_REVISION})


def migrate(engine: Engine) -> None:
    """Bring the database's schema to the current revision; one query where it is there already.

    Raises:
        NewerFormat: a newer version of edge_day2 made the schema.
        MissingExtra: there is something to migrate, and Alembic isn't installed.
        sqlalchemy.exc.SQLAlchemyError: the database failed; the schema is what it was before.
    """
    with engine.connect() as connection:
        revision = _revision(connection)
    if revision == CURRENT_REVISION:
        return
    with migrating(engine) as connection:
        # Another process may have been first.
        if _revision(connection) != CURRENT_REVISION:
            _upgrade(connection)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    revision = connection.execute(select(_VERSIONS.c.version_num)).scalar_one_or_none()
    if revision not in KNOWN_REVISIONS:
        raise NewerFormat(
            f"the database has schema {revision!r}, this version of edge_day2 knows up to {CURRENT_REVISION!r}; "
            "install the version that made it, or a newer one"
        )
    return revision


def _upgrade(connection: Connection) -> None:
    # Imported when needed: an up-to-date database doesn't pay for it.
    try:
        from alembic import command
        from alembic.config import Config
    except ModuleNotFoundError as error:
        raise MissingExtra("alembic", "sql") from error

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = VERSION_TABLE
    with _ONE_AT_A_TIME:
        command.upgrade(config, "head")
