"""The one SELECT that reads all that the Maintenance Manager needs for one report.

Every row says of which table it is and carries its columns as one JSON array, so that tables of different shape fit one
result and each resource is sent once. Every table is entered by an index: the cost depends on the host's surroundings,
not on the size of the Inventory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import CompoundSelect, Select, Table, Text, bindparam, func, literal_column, select, union_all
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement, Label
from sqlalchemy.sql.functions import FunctionElement

from edge_day2.adapters.storage.rows import shape_of
from edge_day2.adapters.storage.schema import (
    HOST,
    INSTANCE,
    OS_RESOURCE,
    OS_UPDATE_POLICY,
    OS_UPDATE_RUN,
    REGION,
    SCHEDULE,
    SITE,
)
from edge_day2.domain.maintenance import ReportContext
from edge_day2.domain.resources import (
    Host,
    Instance,
    OSResource,
    OSType,
    OSUpdatePolicy,
    OSUpdateRun,
    Resource,
    ScheduleResource,
)
from edge_day2.errors import NotFound

R = TypeVar("R", bound=Resource)


class _JsonArray(FunctionElement[str]):
    """The JSON text of an array of columns, which each database names differently."""

    name = "json_array_text"
    type = Text()
    inherit_cache = True


@compiles(_JsonArray, "sqlite")
def _json_array_of_sqlite(element: _JsonArray, compiler: Any, **options: Any) -> str:
    return f"json_array({compiler.process(element.clauses, **options)})"


@compiles(_JsonArray, "postgresql")
def _json_array_of_postgresql(element: _JsonArray, compiler: Any, **options: Any) -> str:
    return f"CAST(json_build_array({compiler.process(element.clauses, **options)}) AS TEXT)"


def _rows(table: Table, *where: ColumnElement[bool]) -> Select[Any]:
    source: Label[Any] = literal_column(f"'{table.name}'").label("source")
    content: Label[Any] = _JsonArray(*table.columns).label("content")
    return select(source, content).where(table.c.tenant_id == _TENANT, *where)


_TENANT: Final = bindparam("tenant_id", type_=Text())
_GUID: Final = bindparam("guid", type_=Text())


def _statement() -> CompoundSelect[Any]:
    here = (
        select(HOST.c.resource_id, HOST.c.site_id)
        .where(HOST.c.tenant_id == _TENANT, func.lower(HOST.c.guid) == _GUID)
        .cte("here")
    )
    running = (
        select(
            INSTANCE.c.resource_id,
            INSTANCE.c.os_type,
            INSTANCE.c.current_os_id,
            INSTANCE.c.desired_os_id,
            INSTANCE.c.os_update_policy_id,
        )
        .join(here, INSTANCE.c.host_id == here.c.resource_id)
        .where(INSTANCE.c.tenant_id == _TENANT)
        .cte("running")
    )
    around = (
        select(SITE.c.region_id.label("region_id"))
        .join(here, SITE.c.resource_id == here.c.site_id)
        .where(SITE.c.tenant_id == _TENANT, SITE.c.region_id.is_not(None))
        .cte("around", recursive=True)
    )
    # UNION, not UNION ALL: regions that form a circle come once each and the recursion ends.
    around = around.union(
        select(REGION.c.parent_id)
        .join(around, REGION.c.resource_id == around.c.region_id)
        .where(REGION.c.tenant_id == _TENANT, REGION.c.parent_id.is_not(None))
    )
    current = OS_RESOURCE.alias("current_os")
    profile = (
        select(current.c.profile_name)
        .join(running, current.c.resource_id == running.c.current_os_id)
        .where(current.c.tenant_id == _TENANT, running.c.os_type == literal_column(f"'{OSType.IMMUTABLE.name}'"))
    )
    of_profile = OS_RESOURCE.alias("profile_os")
    systems = union_all(
        select(running.c.current_os_id),
        select(running.c.desired_os_id),
        select(of_profile.c.resource_id).where(
            of_profile.c.tenant_id == _TENANT, of_profile.c.profile_name.in_(profile)
        ),
    )
    return union_all(
        _rows(HOST, HOST.c.resource_id.in_(select(here.c.resource_id))),
        _rows(INSTANCE, INSTANCE.c.resource_id.in_(select(running.c.resource_id))),
        _rows(OS_RESOURCE, OS_RESOURCE.c.resource_id.in_(systems)),
        _rows(OS_UPDATE_POLICY, OS_UPDATE_POLICY.c.resource_id.in_(select(running.c.os_update_policy_id))),
        _rows(
            OS_UPDATE_RUN,
            OS_UPDATE_RUN.c.instance_id.in_(select(running.c.resource_id)),
            OS_UPDATE_RUN.c.end_time.is_(None),
        ),
        _rows(SCHEDULE, SCHEDULE.c.target_host_id.in_(select(here.c.resource_id))),
        _rows(SCHEDULE, SCHEDULE.c.target_site_id.in_(select(here.c.site_id))),
        _rows(SCHEDULE, SCHEDULE.c.target_region_id.in_(select(around.c.region_id))),
    )


REPORT_CONTEXT: Final = _statement()


def to_report_context(rows: Iterable[Sequence[Any]], tenant_id: str, guid: str) -> ReportContext:
    """Return what the rows of `REPORT_CONTEXT` say.

    Raises:
        NotFound: there is no row, so no such host.
        StorageError: a row can't be read.
    """
    found: dict[str, list[list[Any]]] = {}
    for source, content in rows:
        found.setdefault(source, []).append(json.loads(content))

    def all_of(kind: type[R]) -> tuple[R, ...]:
        shape = shape_of(kind)
        resources = (shape.decode(row) for row in found.get(shape.table.name, ()))
        return tuple(sorted(resources, key=lambda resource: resource.resource_id))

    def one_of(kind: type[R]) -> R | None:
        return next(iter(all_of(kind)), None)

    host = one_of(Host)
    if host is None:
        raise NotFound(f"tenant {tenant_id!r} has no host with GUID {guid!r}")
    instance = one_of(Instance)
    systems = {system.resource_id: system for system in all_of(OSResource)}
    current = None if instance is None else systems[instance.current_os_id]
    profile_os: tuple[OSResource, ...] = ()
    if instance is not None and instance.os_type is OSType.IMMUTABLE and current is not None:
        profile_os = tuple(system for system in systems.values() if system.profile_name == current.profile_name)
    return ReportContext(
        host=host,
        instance=instance,
        current_os=current,
        desired_os=None if instance is None else systems[instance.desired_os_id],
        policy=one_of(OSUpdatePolicy),
        open_run=one_of(OSUpdateRun),
        schedules=all_of(ScheduleResource),
        profile_os=profile_os,
    )
