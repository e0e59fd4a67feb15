"""The tables of the SQL Inventory, the same on SQLite and PostgreSQL. What is stored how is in `rows`.

Two plain column types do: text, and 64-bit integers (instants are microseconds since 1970 in UTC, exact on both
databases). The tenant is part of every key, index and reference, so that nothing can refer across tenants. A change
here needs a new migration; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    func,
    literal_column,
)

METADATA: Final = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

# By code point, as SQLite and Python compare, whatever the locale of a PostgreSQL database says.
_TEXT: Final = Text().with_variant(Text(collation="C"), "postgresql")


def _text(name: str) -> Column[str]:
    return Column(name, _TEXT, nullable=False)


def _maybe_text(name: str) -> Column[str | None]:
    return Column(name, _TEXT, nullable=True)


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _maybe_number(name: str) -> Column[int | None]:
    return Column(name, BigInteger, nullable=True)


def _key() -> tuple[Column[str], Column[str], PrimaryKeyConstraint]:
    return _text("tenant_id"), _text("resource_id"), PrimaryKeyConstraint("tenant_id", "resource_id")


def _refers(column: str, table: str) -> ForeignKeyConstraint:
    remote = [f"{table}.tenant_id", f"{table}.resource_id"]
    return ForeignKeyConstraint(["tenant_id", column], remote, name=f"{column}_fkey")


def _listed(name: str, column: str) -> Index:
    """Return an index from which the rows with one value of a column come as they are listed, by their ids.

    OS Resources and the parents of regions have none: with one, SQLite would read all of them for a report, and a page
    that looks at all OS Resources, or sorts the regions inside one, looks at few.
    """
    return Index(name, "tenant_id", column, "resource_id")


OS_RESOURCE: Final = Table(
    "os_resource",
    METADATA,
    *_key(),
    _text("name"),
    _text("os_type"),
    _text("profile_name"),
    _text("image_id"),
    _text("sha256"),
    _text("image_url"),
    _text("profile_version"),
    _text("architecture"),
    _text("os_provider"),
    _text("security_feature"),
    _text("description"),
    _text("metadata"),
    _text("platform_bundle"),
    _text("package_manifest_url"),
    _text("existing_cves_url"),
    _text("fixed_cves_url"),
    _text("existing_cves"),
    _text("fixed_cves"),
    _text("tls_ca_cert"),
    _text("update_sources"),
    _text("update_packages"),
    _text("kernel_command_line"),
    # With a default: it came with v0002, when there were rows.
    Column("installed_packages", _TEXT, nullable=False, server_default=""),
    Index("os_resource_identity", "tenant_id", "profile_name", "image_id", unique=True),
)

REGION: Final = Table(
    "region",
    METADATA,
    *_key(),
    _text("name"),
    _maybe_text("parent_id"),
    _refers("parent_id", "region"),
    Index("region_parent", "tenant_id", "parent_id"),
    _listed("region_name", "name"),
)

SITE: Final = Table(
    "site",
    METADATA,
    *_key(),
    _text("name"),
    _maybe_text("region_id"),
    _refers("region_id", "region"),
    _listed("site_region", "region_id"),
    _listed("site_name", "name"),
)

HOST: Final = Table(
    "host",
    METADATA,
    *_key(),
    _text("guid"),
    _text("name"),
    _maybe_text("site_id"),
    _text("trust"),
    # With a default: it came with v0005, when there were rows.
    Column("bucket", BigInteger, nullable=False, server_default="0"),
    _refers("site_id", "site"),
    _listed("host_site", "site_id"),
    _listed("host_name", "name"),
    _listed("host_trust", "trust"),
)
# A GUID is kept as it was given and found in any case of its letters.
Index("host_guid", HOST.c.tenant_id, func.lower(HOST.c.guid), unique=True)

OS_UPDATE_POLICY: Final = Table(
    "os_update_policy",
    METADATA,
    *_key(),
    _text("name"),
    _text("kind"),
    _text("description"),
    _maybe_text("target_os_id"),
    _text("update_sources"),
    _text("update_packages"),
    _text("kernel_command_line"),
    _refers("target_os_id", "os_resource"),
    _listed("os_update_policy_target_os", "target_os_id"),
    _listed("os_update_policy_kind", "kind"),
)

INSTANCE: Final = Table(
    "instance",
    METADATA,
    *_key(),
    _text("host_id"),
    _text("os_type"),
    _text("current_os_id"),
    _text("desired_os_id"),
    _maybe_text("os_update_policy_id"),
    _text("provisioning"),
    _text("update_status"),
    _text("update_text"),
    _maybe_number("update_timestamp"),
    _text("update_detail"),
    _maybe_number("last_seen"),
    _text("os_update_available"),
    _text("existing_cves"),
    _maybe_number("admitted_at"),
    _refers("host_id", "host"),
    _refers("current_os_id", "os_resource"),
    _refers("desired_os_id", "os_resource"),
    _refers("os_update_policy_id", "os_update_policy"),
    CheckConstraint("os_type <> 'MUTABLE' OR current_os_id = desired_os_id", name="mutable_link"),
    Index("instance_host", "tenant_id", "host_id", unique=True),
    _listed("instance_desired_os", "desired_os_id"),
    _listed("instance_current_os", "current_os_id"),
    _listed("instance_type", "os_type"),
    _listed("instance_status", "update_status"),
)
_DUE: Final = INSTANCE.c.current_os_id != INSTANCE.c.desired_os_id
Index("instance_due", INSTANCE.c.tenant_id, INSTANCE.c.resource_id, sqlite_where=_DUE, postgresql_where=_DUE)
# Few instances have a policy of their own, and PostgreSQL puts each changed row into every index that may have it.
_POLICY: Final = INSTANCE.c.os_update_policy_id.is_not(None)
Index(
    "instance_policy",
    INSTANCE.c.tenant_id,
    INSTANCE.c.os_update_policy_id,
    INSTANCE.c.resource_id,
    sqlite_where=_POLICY,
    postgresql_where=_POLICY,
)
_UNHEARD: Final = INSTANCE.c.last_seen.is_not(None)
Index(
    "instance_last_seen",
    INSTANCE.c.tenant_id,
    INSTANCE.c.last_seen,
    INSTANCE.c.resource_id,
    sqlite_where=_UNHEARD,
    postgresql_where=_UNHEARD,
)

SCHEDULE: Final = Table(
    "schedule",
    METADATA,
    *_key(),
    _text("name"),
    _text("kind"),
    _maybe_text("target_host_id"),
    _maybe_text("target_site_id"),
    _maybe_text("target_region_id"),
    # A single schedule has a start and maybe an end, a repeated one everything below them.
    _maybe_number("start_time"),
    _maybe_number("end_time"),
    _maybe_text("minutes"),
    _maybe_text("hours"),
    _maybe_text("day_month"),
    _maybe_text("month"),
    _maybe_text("day_week"),
    _maybe_number("duration_seconds"),
    _maybe_text("time_zone"),
    _refers("target_host_id", "host"),
    _refers("target_site_id", "site"),
    _refers("target_region_id", "region"),
    CheckConstraint("(start_time IS NULL) <> (duration_seconds IS NULL)", name="single_or_repeated"),
    _listed("schedule_target_host", "target_host_id"),
    _listed("schedule_target_site", "target_site_id"),
    _listed("schedule_target_region", "target_region_id"),
    _listed("schedule_kind", "kind"),
)

OS_UPDATE_RUN: Final = Table(
    "os_update_run",
    METADATA,
    *_key(),
    _text("instance_id"),
    _text("name"),
    _text("description"),
    _maybe_text("applied_policy_id"),
    _number("start_time"),
    _maybe_number("end_time"),
    _text("update_status"),
    _text("update_text"),
    _maybe_number("update_timestamp"),
    _text("update_detail"),
    _refers("instance_id", "instance"),
    # Runs are listed newest first.
    Index("os_update_run_instance", "tenant_id", "instance_id", "start_time", "resource_id"),
    Index("os_update_run_status", "tenant_id", "update_status", "start_time", "resource_id"),
    Index("os_update_run_start", "tenant_id", "start_time", "resource_id"),
)
_OPEN: Final = OS_UPDATE_RUN.c.end_time.is_(None)
Index(
    "os_update_run_open",
    OS_UPDATE_RUN.c.tenant_id,
    OS_UPDATE_RUN.c.instance_id,
    unique=True,
    sqlite_where=_OPEN,
    postgresql_where=_OPEN,
)
Index(
    "os_update_run_open_start",
    OS_UPDATE_RUN.c.tenant_id,
    OS_UPDATE_RUN.c.start_time,
    OS_UPDATE_RUN.c.resource_id,
    sqlite_where=_OPEN,
    postgresql_where=_OPEN,
)

RECONCILED_REVISION: Final = Table(
    "reconciled_revision",
    METADATA,
    *_key(),
    _text("revision"),
    _text("newest"),
    _text("digest"),
    _text("mode"),
    _number("reconciled_at"),
)

# The change feed. The order in which events are told is that of the key: see `event_statements`.
INVENTORY_EVENT: Final = Table(
    "inventory_event",
    METADATA,
    _text("tenant_id"),
    _number("transaction_id"),
    _number("position"),
    _text("kind"),
    _text("resource_id"),
    _number("recorded_at"),
    _text("detail"),
    PrimaryKeyConstraint("tenant_id", "transaction_id", "position"),
)

# The last event of a tenant that isn't kept any more.
INVENTORY_EVENT_FORGOTTEN: Final = Table(
    "inventory_event_forgotten",
    METADATA,
    _text("tenant_id"),
    _number("transaction_id"),
    _number("position"),
    PrimaryKeyConstraint("tenant_id"),
)

ROLLOUT: Final = Table(
    "rollout",
    METADATA,
    *_key(),
    _text("name"),
    _text("profile_name"),
    _text("architecture"),
    _text("target_os_id"),
    _text("salt"),
    _text("policy"),
    _text("state"),
    _text("reason"),
    _number("started_at"),
    _number("wave_since"),
    _number("wave"),
    _number("admitted"),
    _number("forgiven"),
    _maybe_number("well_since"),
    _maybe_text("paused_by"),
    _refers("target_os_id", "os_resource"),
    CheckConstraint("(paused_by IS NULL) = (state <> 'PAUSED')", name="paused_by"),
    Index("rollout_target_os", "tenant_id", "target_os_id"),
)
_ROLLOUT_OPEN: Final = ROLLOUT.c.state.in_([literal_column("'RUNNING'"), literal_column("'PAUSED'")])
Index(
    "rollout_open",
    ROLLOUT.c.tenant_id,
    ROLLOUT.c.profile_name,
    ROLLOUT.c.architecture,
    unique=True,
    sqlite_where=_ROLLOUT_OPEN,
    postgresql_where=_ROLLOUT_OPEN,
)
