"""The first tables."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "v0001"
down_revision: Final = None

_TEXT: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make every table and index."""
    _table(
        "os_resource",
        """name os_type profile_name image_id sha256 image_url profile_version architecture os_provider
        security_feature description metadata platform_bundle package_manifest_url existing_cves_url fixed_cves_url
        existing_cves fixed_cves tls_ca_cert update_sources update_packages kernel_command_line""",
    )
    op.create_index("os_resource_identity", "os_resource", ["tenant_id", "profile_name", "image_id"], unique=True)

    _table("region", "name parent_id?", _refers("parent_id", "region"))
    op.create_index("region_parent", "region", ["tenant_id", "parent_id"])

    _table("site", "name region_id?", _refers("region_id", "region"))
    op.create_index("site_region", "site", ["tenant_id", "region_id"])

    _table("host", "guid name site_id? trust", _refers("site_id", "site"))
    op.create_index("host_site", "host", ["tenant_id", "site_id"])
    op.create_index("host_guid", "host", ["tenant_id", sa.text("lower(guid)")], unique=True)

    _table(
        "os_update_policy",
        "name kind description target_os_id? update_sources update_packages kernel_command_line",
        _refers("target_os_id", "os_resource"),
    )
    op.create_index("os_update_policy_target_os", "os_update_policy", ["tenant_id", "target_os_id"])

    _table(
        "instance",
        """host_id os_type current_os_id desired_os_id os_update_policy_id? provisioning update_status update_text
        update_timestamp:? update_detail last_seen:? os_update_available existing_cves""",
        _refers("host_id", "host"),
        _refers("current_os_id", "os_resource"),
        _refers("desired_os_id", "os_resource"),
        _refers("os_update_policy_id", "os_update_policy"),
        sa.CheckConstraint(
            "os_type <> 'MUTABLE' OR current_os_id = desired_os_id", name=op.f("instance_mutable_link_check")
        ),
    )
    op.create_index("instance_host", "instance", ["tenant_id", "host_id"], unique=True)
    op.create_index("instance_current_os", "instance", ["tenant_id", "current_os_id"])
    op.create_index("instance_desired_os", "instance", ["tenant_id", "desired_os_id"])
    op.create_index("instance_policy", "instance", ["tenant_id", "os_update_policy_id"])
    last_seen = ["tenant_id", "last_seen", "resource_id"]
    _partial_index("instance_last_seen", "instance", last_seen, "last_seen IS NOT NULL")

    _table(
        "schedule",
        """name kind target_host_id? target_site_id? target_region_id? start_time:? end_time:? minutes? hours?
        day_month? month? day_week? duration_seconds:? time_zone?""",
        _refers("target_host_id", "host"),
        _refers("target_site_id", "site"),
        _refers("target_region_id", "region"),
        sa.CheckConstraint(
            "(start_time IS NULL) <> (duration_seconds IS NULL)", name=op.f("schedule_single_or_repeated_check")
        ),
    )
    for level in ("host", "site", "region"):
        op.create_index(f"schedule_target_{level}", "schedule", ["tenant_id", f"target_{level}_id"])

    _table(
        "os_update_run",
        """instance_id name description applied_policy_id? start_time: end_time:? update_status update_text
        update_timestamp:? update_detail""",
        _refers("instance_id", "instance"),
    )
    op.create_index("os_update_run_instance", "os_update_run", ["tenant_id", "instance_id", "start_time"])
    _partial_index("os_update_run_open", "os_update_run", ["tenant_id", "instance_id"], "end_time IS NULL", unique=True)


def _table(name: str, columns: str, *constraints: sa.Constraint) -> None:
    """Make a table with the columns that are named: `:` is a whole number, else a text; `?` may be NULL."""
    op.create_table(
        name,
        sa.Column("tenant_id", _TEXT, nullable=False),
        sa.Column("resource_id", _TEXT, nullable=False),
        *(
            sa.Column(column.rstrip(":?"), sa.BigInteger() if ":" in column else _TEXT, nullable="?" in column)
            for column in columns.split()
        ),
        sa.PrimaryKeyConstraint("tenant_id", "resource_id", name=op.f(f"{name}_pkey")),
        *constraints,
    )


def _refers(column: str, table: str) -> sa.ForeignKeyConstraint:
    remote = [f"{table}.tenant_id", f"{table}.resource_id"]
    return sa.ForeignKeyConstraint(["tenant_id", column], remote, name=op.f(f"{column}_fkey"))


def _partial_index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)
