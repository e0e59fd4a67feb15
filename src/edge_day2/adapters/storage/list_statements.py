"""The statements of lists, made for the fields that a filter sets, so that each can take the index of one of them.

Indexes that lists take end with the order of the list: rows come out of them as they are shown, and a page reads what
it shows. Where things lie is different, because instances know their host and hosts their site only. A page of what
lies in a region or a site is read in one of two ways: from the place inwards, all of it, where that isn't much; else
along the list, looking up of each row where it lies, which then finds enough of them soon.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeVar

from sqlalchemy import (
    CTE,
    BigInteger,
    Delete,
    Select,
    Table,
    Text,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement

from edge_day2.adapters.storage.references import Kind
from edge_day2.adapters.storage.report_context import TENANT_ID, Among, on
from edge_day2.adapters.storage.rows import Plain, shape_of
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
from edge_day2.domain.inventory_filters import ResourceFilter, RunState
from edge_day2.domain.inventory_pages import Place
from edge_day2.domain.resources import (
    LISTS,
    Host,
    Instance,
    OSResource,
    OSUpdatePolicy,
    OSUpdateRun,
    Region,
    Resource,
    ScheduleResource,
    Site,
    TargetLevel,
)

R = TypeVar("R", bound=Resource)

# A region with more hosts than this is read along the list: a page of 1000 then looks up at most 100,000 of a million.
NOT_MUCH: Final = 10_000

# Fields that ask for one value of a column.
_COLUMNS: Final[dict[Kind, dict[str, ColumnElement[Any]]]] = {
    Instance: {
        "status": INSTANCE.c.update_status,
        "os_type": INSTANCE.c.os_type,
        "current_os_id": INSTANCE.c.current_os_id,
        "desired_os_id": INSTANCE.c.desired_os_id,
        "policy_id": INSTANCE.c.os_update_policy_id,
        "host_id": INSTANCE.c.host_id,
    },
    Host: {"name": HOST.c.name, "trust": HOST.c.trust, "site_id": HOST.c.site_id},
    Site: {"name": SITE.c.name},
    Region: {"name": REGION.c.name, "parent_id": REGION.c.parent_id},
    OSResource: {
        "os_type": OS_RESOURCE.c.os_type,
        "profile_name": OS_RESOURCE.c.profile_name,
        "image_id": OS_RESOURCE.c.image_id,
    },
    OSUpdatePolicy: {"policy_kind": OS_UPDATE_POLICY.c.kind, "target_os_id": OS_UPDATE_POLICY.c.target_os_id},
    ScheduleResource: {"schedule_kind": SCHEDULE.c.kind},
    OSUpdateRun: {"instance_id": OS_UPDATE_RUN.c.instance_id, "status": OS_UPDATE_RUN.c.update_status},
}
_TARGETS: Final = {
    TargetLevel.HOST: SCHEDULE.c.target_host_id,
    TargetLevel.SITE: SCHEDULE.c.target_site_id,
    TargetLevel.REGION: SCHEDULE.c.target_region_id,
}


class _Unindexed(FunctionElement[Any]):
    """A column for which SQLite, which keeps no statistics, isn't to take an index; PostgreSQL knows better itself."""

    name = "unindexed"
    inherit_cache = True


@compiles(_Unindexed, "sqlite")
def _unindexed_of_sqlite(element: _Unindexed, compiler: Any, **options: Any) -> str:
    return f"+{compiler.process(element.clauses, **options)}"


@compiles(_Unindexed, "postgresql")
def _unindexed_of_postgresql(element: _Unindexed, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


class Conditions:
    """What the rows of a list, or of a page of it, fulfil. `parameters` go with every statement made of them."""

    def __init__(self, wanted: ResourceFilter[R], tenant_id: str, behind: Place | None) -> None:
        self.kind: Kind = wanted.kind
        self.table: Table = shape_of(wanted.kind).table
        self.parameters: dict[str, Plain] = {"tenant_id": tenant_id}
        # Whether a page is read along the list.
        self.walk = False
        self._behind = behind
        self._set = {name: value for name, value in wanted.fields().items() if value is not None and value is not False}
        for name, value in self._set.items():
            if isinstance(value, tuple):
                self.parameters |= {name: value[1]}
            elif not isinstance(value, bool):
                self.parameters |= {name: value}
        if behind is not None:
            self.parameters["behind"] = behind[-1]
            if len(behind) > 1:
                self.parameters["behind_start"] = behind[0]

    @property
    def place(self) -> tuple[str, ...]:
        """The fields that ask where something lies, and need other tables to tell."""
        asked = ("region_id",) if self.kind is Host else ("site_id", "region_id")
        return tuple(name for name in asked if name in self._set)

    def probe(self) -> Select[Any] | None:
        """Select one row where much lies in the place that is asked for; None where no place is."""
        if not self.place:
            return None
        table = SITE if self.kind is Site else HOST
        there: Select[Any] = select(literal_column("1")).where(table.c.tenant_id == TENANT_ID, self._inwards(table))
        return there.limit(1).offset(NOT_MUCH)

    def all(self) -> Iterator[ColumnElement[bool]]:
        """Yield every condition."""
        inwards = bool(self.place) and not self.walk
        yield self.table.c.tenant_id == TENANT_ID
        if self.place:
            yield self._along() if self.walk else self._inwards(self.table)
        # What lies behind a cursor began before `until` too; of two upper bounds SQLite would take either.
        needless = (*self.place, "until") if self._behind is not None else self.place
        for name in self._set:
            if name not in needless:
                yield self._field(name, inwards=inwards)
        if self._behind is not None:
            yield self._beyond(inwards=inwards)

    def _field(self, name: str, *, inwards: bool) -> ColumnElement[bool]:
        if name == "update_due":
            return INSTANCE.c.current_os_id != INSTANCE.c.desired_os_id
        if name == "outermost":
            return REGION.c.parent_id.is_(None)
        if name == "state":
            ended = OS_UPDATE_RUN.c.end_time
            return ended.is_(None) if self._set[name] == RunState.OPEN.name else ended.is_not(None)
        if name == "since":
            return OS_UPDATE_RUN.c.start_time >= bindparam("since")
        if name == "until":
            return OS_UPDATE_RUN.c.start_time < bindparam("until")
        if name == "target":
            target = self._set[name]
            assert isinstance(target, tuple)
            return _TARGETS[TargetLevel[target[0]]] == bindparam("target")
        column = _COLUMNS[self.kind][name]
        return (_Unindexed(column) if inwards else column) == bindparam(name, type_=Text())

    def _beyond(self, *, inwards: bool) -> ColumnElement[bool]:
        table, behind = self.table, bindparam("behind", type_=Text())
        if self.kind is OSUpdateRun:
            there = tuple_(bindparam("behind_start", type_=BigInteger()), behind)
            return tuple_(table.c.start_time, table.c.resource_id) < there
        return (_Unindexed(table.c.resource_id) if inwards else table.c.resource_id) > behind

    def _regions(self) -> CTE:
        here = (REGION.c.tenant_id == TENANT_ID, REGION.c.resource_id == bindparam("region_id", type_=Text()))
        regions = select(REGION.c.resource_id.label("region_id")).where(*here).cte("regions", recursive=True)
        # UNION, not UNION ALL: regions that form a circle come once each and the recursion ends.
        inside = select(REGION.c.resource_id).select_from(regions.join(*on(regions.c.region_id, REGION, "parent_id")))
        return regions.union(inside)

    def _inwards(self, table: Table) -> ColumnElement[Any]:
        """What rows of `table` lie in the place, found from the place."""
        if table is SITE:
            return Among(SITE.c.region_id, select(self._regions().c.region_id).scalar_subquery())
        if table is HOST:
            if "region_id" not in self._set:
                return HOST.c.site_id == bindparam("site_id", type_=Text())
            sites = select(SITE.c.resource_id).where(SITE.c.tenant_id == TENANT_ID, self._inwards(SITE))
            if "site_id" in self._set:
                sites = sites.where(SITE.c.resource_id == bindparam("site_id", type_=Text()))
            return Among(HOST.c.site_id, sites.scalar_subquery())
        hosts = select(HOST.c.resource_id).where(HOST.c.tenant_id == TENANT_ID, self._inwards(HOST))
        return Among(INSTANCE.c.host_id, hosts.scalar_subquery())

    def _along(self) -> ColumnElement[bool]:
        """Whether a row lies in the place, found from the row."""
        if self.kind is Site:
            return _Unindexed(SITE.c.region_id).in_(select(self._regions().c.region_id))
        found: list[ColumnElement[bool]] = []
        source: Any = HOST
        if "region_id" in self._set:
            source = HOST.join(*on(HOST.c.site_id, SITE)) if self.kind is Instance else SITE
            found.append(_Unindexed(SITE.c.region_id).in_(select(self._regions().c.region_id)))
        if self.kind is Instance:
            found = [*found, HOST.c.tenant_id == TENANT_ID, HOST.c.resource_id == INSTANCE.c.host_id]
            if "site_id" in self._set:
                found.append(_Unindexed(HOST.c.site_id) == bindparam("site_id", type_=Text()))
            return exists(select(literal_column("1")).select_from(source).where(*found).correlate(INSTANCE))
        found = [*found, SITE.c.tenant_id == TENANT_ID, SITE.c.resource_id == HOST.c.site_id]
        return exists(select(literal_column("1")).select_from(source).where(*found).correlate(HOST))


def _shown(table: Table) -> list[ColumnElement[Any]]:
    """Return the columns of a list: lists of CVEs and packages, half a million characters each, come empty."""
    left_out = LISTS if table in (OS_RESOURCE, INSTANCE) else ()
    return [literal_column("''").label(column.name) if column.name in left_out else column for column in table.columns]


def page(conditions: Conditions) -> Select[Any]:
    """Select the first :at_most rows."""
    table = conditions.table
    rows = select(*_shown(table)).where(*conditions.all()).limit(bindparam("at_most"))
    if conditions.kind is OSUpdateRun:
        return rows.order_by(table.c.start_time.desc(), table.c.resource_id.desc())
    inwards = conditions.place and not conditions.walk
    return rows.order_by(_Unindexed(table.c.resource_id) if inwards else table.c.resource_id)


def count(conditions: Conditions) -> Select[Any]:
    """Select the number of rows."""
    return select(func.count()).select_from(conditions.table).where(*conditions.all())


def views(conditions: Conditions) -> Select[Any]:
    """Select the first :at_most instances, and of each what its host and all that it refers to are called."""
    listed = page(conditions).subquery("listed")
    current, desired = OS_RESOURCE.alias("current_os"), OS_RESOURCE.alias("desired_os")
    source = (
        listed.join(*on(listed.c.host_id, HOST))
        .outerjoin(*on(HOST.c.site_id, SITE))
        .join(*on(listed.c.current_os_id, current))
        .join(*on(listed.c.desired_os_id, desired))
        .outerjoin(*on(listed.c.os_update_policy_id, OS_UPDATE_POLICY))
    )
    named = [
        column for system in (current, desired) for column in (system.c.name, system.c.profile_name, system.c.image_id)
    ]
    return (
        select(*listed.columns, HOST.c.name, HOST.c.guid, HOST.c.site_id, SITE.c.name, *named, OS_UPDATE_POLICY.c.name)
        .select_from(source)
        .order_by(listed.c.resource_id)
    )


STATUS_COUNTS: Final = (
    select(INSTANCE.c.update_status, func.count())
    .where(INSTANCE.c.tenant_id == TENANT_ID)
    .group_by(INSTANCE.c.update_status)
)

_OVER: Final = (
    select(OS_UPDATE_RUN.c.resource_id)
    .where(
        OS_UPDATE_RUN.c.tenant_id == TENANT_ID,
        OS_UPDATE_RUN.c.start_time < bindparam("before"),
        OS_UPDATE_RUN.c.end_time < bindparam("before"),
    )
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)
)
FORGET_RUNS: Final[Delete] = delete(OS_UPDATE_RUN).where(
    OS_UPDATE_RUN.c.tenant_id == TENANT_ID, Among(OS_UPDATE_RUN.c.resource_id, _OVER.scalar_subquery())
)
