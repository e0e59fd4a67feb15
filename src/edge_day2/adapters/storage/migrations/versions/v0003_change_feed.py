"""The change feed."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "v0003"
down_revision: Final = "v0002"

_TEXT: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables of events and of what was forgotten of them."""
    op.create_table(
        "inventory_event",
        *_place(),
        sa.Column("kind", _TEXT, nullable=False),
        sa.Column("resource_id", _TEXT, nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("detail", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "transaction_id", "position", name=op.f("inventory_event_pkey")),
    )
    op.create_table(
        "inventory_event_forgotten",
        *_place(),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("inventory_event_forgotten_pkey")),
    )


def _place() -> tuple[sa.Column[str] | sa.Column[int], ...]:
    return (
        sa.Column("tenant_id", _TEXT, nullable=False),
        sa.Column("transaction_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
    )
