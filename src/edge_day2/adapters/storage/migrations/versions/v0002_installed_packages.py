"""The packages that are installed in an image."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "v0002"
down_revision: Final = "v0001"

_TEXT: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the column."""
    op.add_column("os_resource", sa.Column("installed_packages", _TEXT, nullable=False, server_default=""))
