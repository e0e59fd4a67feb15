"""Rollouts, the bucket of each host, and when an instance was admitted."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from edge_day2.domain.rollout import bucket_of

revision: Final = "v0005"
down_revision: Final = "v0004"

_TEXT: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_PAGE: Final = 5000
_HOST: Final = sa.table("host", *map(sa.column, ("tenant_id", "resource_id", "guid", "bucket")))


def upgrade() -> None:
    """Add the columns, give every host its bucket, and make the table."""
    op.add_column("instance", sa.Column("admitted_at", sa.BigInteger(), nullable=True))
    op.add_column("host", sa.Column("bucket", sa.BigInteger(), nullable=False, server_default="0"))
    _fill_buckets()

    texts = "name profile_name architecture target_os_id salt policy state reason"
    numbers = "started_at wave_since wave admitted forgiven"
    op.create_table(
        "rollout",
        *(sa.Column(name, _TEXT, nullable=False) for name in f"tenant_id resource_id {texts}".split()),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in numbers.split()),
        sa.Column("well_since", sa.BigInteger(), nullable=True),
        sa.Column("paused_by", _TEXT, nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "resource_id", name=op.f("rollout_pkey")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "target_os_id"],
            ["os_resource.tenant_id", "os_resource.resource_id"],
            name=op.f("target_os_id_fkey"),
        ),
        sa.CheckConstraint("(paused_by IS NULL) = (state <> 'PAUSED')", name=op.f("rollout_paused_by_check")),
    )
    op.create_index("rollout_target_os", "rollout", ["tenant_id", "target_os_id"])
    still_open = sa.text("state IN ('RUNNING', 'PAUSED')")
    columns = ["tenant_id", "profile_name", "architecture"]
    op.create_index(
        "rollout_open", "rollout", columns, unique=True, sqlite_where=still_open, postgresql_where=still_open
    )


def _fill_buckets() -> None:
    """Page by page, so that a fleet of any size fits into memory."""
    key, connection = sa.tuple_(_HOST.c.tenant_id, _HOST.c.resource_id), op.get_bind()
    page = (
        sa.select(_HOST.c.tenant_id, _HOST.c.resource_id, _HOST.c.guid)
        .where(key > sa.tuple_(sa.bindparam("tenant", type_=_TEXT), sa.bindparam("host", type_=_TEXT)))
        .order_by(_HOST.c.tenant_id, _HOST.c.resource_id)
        .limit(_PAGE)
    )
    fill = (
        sa.update(_HOST)
        .where(_HOST.c.tenant_id == sa.bindparam("tenant"), _HOST.c.resource_id == sa.bindparam("host"))
        .values(bucket=sa.bindparam("place"))
    )
    tenant, host = "", ""
    while rows := connection.execute(page, {"tenant": tenant, "host": host}).fetchall():
        connection.execute(
            fill, [{"tenant": tenant, "host": host, "place": bucket_of(guid)} for tenant, host, guid in rows]
        )
        tenant, host, _ = rows[-1]
