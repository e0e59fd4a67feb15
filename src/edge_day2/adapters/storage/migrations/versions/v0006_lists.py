"""An index for each way in which a list is narrowed, with the order of the list at its end."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "v0006"
down_revision: Final = "v0005"

# (table, index, column); those in the second list are in the place of an index without the order.
_NEW: Final = (
    ("region", "region_name", "name"),
    ("site", "site_name", "name"),
    ("host", "host_name", "name"),
    ("host", "host_trust", "trust"),
    ("os_update_policy", "os_update_policy_kind", "kind"),
    ("instance", "instance_current_os", "current_os_id"),
    ("instance", "instance_type", "os_type"),
    ("instance", "instance_status", "update_status"),
    ("schedule", "schedule_kind", "kind"),
)
_ORDERED: Final = (
    ("site", "site_region", "region_id"),
    ("host", "host_site", "site_id"),
    ("os_update_policy", "os_update_policy_target_os", "target_os_id"),
    ("instance", "instance_desired_os", "desired_os_id"),
    ("schedule", "schedule_target_host", "target_host_id"),
    ("schedule", "schedule_target_site", "target_site_id"),
    ("schedule", "schedule_target_region", "target_region_id"),
)


def upgrade() -> None:
    """Make the indexes; three of them for the few rows alone that are due, open, or have a policy of their own."""
    for table, name, _ in _ORDERED:
        op.drop_index(name, table)
    for table, name, column in (*_NEW, *_ORDERED):
        op.create_index(name, table, ["tenant_id", column, "resource_id"])
    # Counting links reads the table now: once in a reconciliation, while PostgreSQL puts a changed row into each index.
    op.drop_index("instance_links", "instance")
    op.drop_index("instance_policy", "instance")
    columns = ["tenant_id", "os_update_policy_id", "resource_id"]
    _partial_index("instance_policy", "instance", columns, "os_update_policy_id IS NOT NULL")
    _partial_index("instance_due", "instance", ["tenant_id", "resource_id"], "current_os_id != desired_os_id")

    in_order = ["start_time", "resource_id"]
    op.drop_index("os_update_run_instance", "os_update_run")
    op.create_index("os_update_run_instance", "os_update_run", ["tenant_id", "instance_id", *in_order])
    op.create_index("os_update_run_status", "os_update_run", ["tenant_id", "update_status", *in_order])
    op.create_index("os_update_run_start", "os_update_run", ["tenant_id", *in_order])
    _partial_index("os_update_run_open_start", "os_update_run", ["tenant_id", *in_order], "end_time IS NULL")


def _partial_index(name: str, table: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)
