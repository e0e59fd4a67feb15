"""The revision of the OS profiles that a tenant's Inventory was last brought in line with."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "v0004"
down_revision: Final = "v0003"

_TEXT: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table."""
    texts = ("tenant_id", "resource_id", "revision", "newest", "digest", "mode")
    op.create_table(
        "reconciled_revision",
        *(sa.Column(name, _TEXT, nullable=False) for name in texts),
        sa.Column("reconciled_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "resource_id", name=op.f("reconciled_revision_pkey")),
    )
