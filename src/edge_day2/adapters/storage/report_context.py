"""The one SELECT that reads all that the Maintenance Manager needs for one report.

Every row says of which table it is and carries its columns as one JSON array, so that tables of different shape fit one
result and each resource is sent once. Every table is entered by an index: the cost depends on the host's surroundings,
not on the size of the Inventory.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, Final, TypeVar, cast

from sqlalchemy import (
    CompoundSelect,
    FromClause,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    func,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement, Label
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType

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
from edge_day2.domain.maintenance import ReportContext, nothing_installed
from edge_day2.domain.resources import (
    LISTS,
    Host,
    Instance,
    OSResource,
    OSType,
    OSUpdatePolicy,
    OSUpdateRun,
    Resource,
    ScheduleResource,
)
from edge_day2.errors import NotFound, shown

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


class Among(FunctionElement[Any]):
    """Whether a column is among the few values of a subquery, each looked up in the column's index.

    With IN, PostgreSQL expects a hundred regions and reads all schedules instead; SQLite does the right thing.
    """

    name = "among"
    # Of type Boolean, SQLite would be asked whether it "= 1", and not use the index.
    type = NullType()
    inherit_cache = True


@compiles(Among, "sqlite")
def _among_of_sqlite(element: Among, compiler: Any, **options: Any) -> str:
    column, values = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} IN {values}"


@compiles(Among, "postgresql")
def _among_of_postgresql(element: Among, compiler: Any, **options: Any) -> str:
    column, values = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} = ANY (ARRAY{values})"


_NOTHING: Final[ColumnElement[Any]] = literal_column("''")
TENANT_ID: Final = bindparam("tenant_id", type_=Text())
_GUID: Final = bindparam("guid", type_=Text())
_HERE: Final = (HOST.c.tenant_id == TENANT_ID, func.lower(HOST.c.guid) == _GUID)


def rows_of(table: Table, source: FromClause) -> Select[Any]:
    """Select the rows of `table` in what `source` joins."""
    name: Label[Any] = literal_column(f"'{table.name}'").label("source")
    # Lists of CVEs have half a million characters, and no answer needs them.
    columns = [_NOTHING if table is OS_RESOURCE and column.name in LISTS else column for column in table.columns]
    content: Label[Any] = _JsonArray(*columns).label("content")
    return select(name, content).select_from(source)


def _rows_here(table: Table, source: FromClause, *where: ColumnElement[bool]) -> Select[Any]:
    """Select the rows of `table` in what `source` joins to the host."""
    return rows_of(table, source).where(*_HERE, *where)


def on(left: ColumnElement[Any], right: FromClause, column: str = "resource_id") -> tuple[FromClause, Any]:
    """Return what to join and by what: the tenant's row of `right` whose `column` is `left`."""
    return right, and_(right.c.tenant_id == TENANT_ID, right.c[column] == left)


def _statement() -> CompoundSelect[Any]:
    # Joins from the host in every branch, rather than one CTE for all of them: finding the host again is a look into
    # one index, while SQLite sets up a temporary table for each CTE and each IN, which costs ten times as much.
    instance = HOST.join(*on(HOST.c.resource_id, INSTANCE, "host_id"))
    current_os = OS_RESOURCE.alias("current_os")
    profile = instance.join(*on(INSTANCE.c.current_os_id, current_os)).join(
        *on(current_os.c.profile_name, OS_RESOURCE, "profile_name")
    )
    immutable = INSTANCE.c.os_type == literal_column(f"'{OSType.IMMUTABLE.name}'")
    site = HOST.join(*on(HOST.c.site_id, SITE))
    around = select(SITE.c.region_id.label("region_id")).select_from(site).where(*_HERE, SITE.c.region_id.is_not(None))
    regions = around.cte("regions", recursive=True)
    # UNION, not UNION ALL: regions that form a circle come once each and the recursion ends.
    regions = regions.union(
        select(REGION.c.parent_id)
        .select_from(regions.join(*on(regions.c.region_id, REGION)))
        .where(REGION.c.parent_id.is_not(None))
    )
    return union_all(
        _rows_here(HOST, HOST),
        _rows_here(INSTANCE, instance),
        _rows_here(OS_RESOURCE, instance.join(*on(INSTANCE.c.current_os_id, OS_RESOURCE))),
        _rows_here(
            OS_RESOURCE,
            instance.join(*on(INSTANCE.c.desired_os_id, OS_RESOURCE)),
            INSTANCE.c.desired_os_id != INSTANCE.c.current_os_id,
        ),
        _rows_here(
            OS_RESOURCE,
            profile,
            immutable,
            OS_RESOURCE.c.resource_id.not_in([INSTANCE.c.current_os_id, INSTANCE.c.desired_os_id]),
        ),
        _rows_here(OS_UPDATE_POLICY, instance.join(*on(INSTANCE.c.os_update_policy_id, OS_UPDATE_POLICY))),
        _rows_here(
            OS_UPDATE_RUN,
            instance.join(*on(INSTANCE.c.resource_id, OS_UPDATE_RUN, "instance_id")),
            OS_UPDATE_RUN.c.end_time.is_(None),
        ),
        _rows_here(SCHEDULE, HOST.join(*on(HOST.c.resource_id, SCHEDULE, "target_host_id"))),
        _rows_here(SCHEDULE, HOST.join(*on(HOST.c.site_id, SCHEDULE, "target_site_id"))),
        # No join here: SQLite would begin with every schedule of the tenant.
        rows_of(SCHEDULE, SCHEDULE).where(
            SCHEDULE.c.tenant_id == TENANT_ID,
            Among(SCHEDULE.c.target_region_id, select(regions.c.region_id).scalar_subquery()),
        ),
    )


REPORT_CONTEXT: Final = _statement()


_BY_ID: Final = attrgetter("resource_id")
# Most rows are what they were at the last report, and what hosts share is in every one.
_REMEMBERED_CHARACTERS: Final = 16 << 20


class _Remembered:
    """Resources by the very text that they were read from, so that the text decides, not the time.

    Forgets everything when it holds too much: what is still used comes back with the next report.
    """

    def __init__(self) -> None:
        self._resources: dict[tuple[type[Any], str], Resource] = {}
        self._characters = 0
        self._changing = threading.Lock()

    def get(self, kind: type[R], content: str) -> R:
        found = self._resources.get((kind, content))
        if found is not None:
            return cast(R, found)
        made = shape_of(kind).decode(json.loads(content))
        with self._changing:
            if self._characters + len(content) > _REMEMBERED_CHARACTERS:
                self._resources, self._characters = {}, 0
            self._resources[kind, content] = made
            self._characters += len(content)
        return made


_remembered: Final = _Remembered()


def decode(kind: type[R], content: str) -> R:
    """Return the resource that a row's JSON array says. It is remembered.

    Raises:
        StorageError: the row can't be read.
    """
    return _remembered.get(kind, content)


def to_report_context(rows: Iterable[Sequence[Any]], tenant_id: str, guid: str) -> ReportContext:
    """Return what the rows of `REPORT_CONTEXT` say.

    Raises:
        NotFound: there is no row, so no such host.
        StorageError: a row can't be read.
    """
    found: dict[str, list[str]] = {}
    for source, content in rows:
        found.setdefault(source, []).append(content)

    def all_of(kind: type[R]) -> tuple[R, ...]:
        contents = found.get(shape_of(kind).table.name, ())
        return tuple(sorted((decode(kind, content) for content in contents), key=_BY_ID))

    def one_of(kind: type[R]) -> R | None:
        return next(iter(all_of(kind)), None)

    host = one_of(Host)
    if host is None:
        raise NotFound(f"tenant {shown(tenant_id)} has no host with GUID {shown(guid)}")
    instance, schedules = one_of(Instance), all_of(ScheduleResource)
    if instance is None:
        return nothing_installed(host, schedules)
    systems = {system.resource_id: system for system in all_of(OSResource)}
    current = systems[instance.current_os_id]
    profile_os: tuple[OSResource, ...] = ()
    if instance.os_type is OSType.IMMUTABLE:
        profile_os = tuple(system for system in systems.values() if system.profile_name == current.profile_name)
    return ReportContext(
        host=host,
        instance=instance,
        current_os=current,
        desired_os=systems[instance.desired_os_id],
        policy=one_of(OSUpdatePolicy),
        open_run=one_of(OSUpdateRun),
        schedules=schedules,
        profile_os=profile_os,
    )
