"""The two SELECTs that read what the Maintenance Manager needs for many reports of one tenant.

Hosts share most of it: sites, regions, schedules, OS Resources. The first SELECT reads what each host has of its own,
the second what any of them refer to, each resource once. Which host has which schedule is put together here. As in
`report_context`, every table is entered by an index.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, TypeVar

from attrs import frozen
from sqlalchemy import CompoundSelect, Text, bindparam, func, select, union_all
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from edge_day2.adapters.storage.report_context import TENANT_ID, Among, decode, on, rows_of
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
from edge_day2.domain.maintenance import ReportContext, nothing_installed
from edge_day2.domain.resources import (
    Host,
    Instance,
    OSResource,
    OSType,
    OSUpdatePolicy,
    OSUpdateRun,
    Region,
    Resource,
    ScheduleResource,
    Site,
    TargetLevel,
)

R = TypeVar("R", bound=Resource)
Ask = Callable[[CompoundSelect[Any], Mapping[str, Plain]], Sequence[Sequence[Any]]]
_Target = tuple[TargetLevel, str]


class _Listed(FunctionElement[str]):
    """The texts of a parameter that is a JSON list: one statement for any number of them."""

    name = "listed"
    type = Text()
    inherit_cache = True


@compiles(_Listed, "sqlite")
def _listed_of_sqlite(element: _Listed, compiler: Any, **options: Any) -> str:
    parameter = compiler.process(element.clauses, **options)
    return f"(SELECT value FROM json_each({parameter}))"  # noqa: S608  # a placeholder, not a value


@compiles(_Listed, "postgresql")
def _listed_of_postgresql(element: _Listed, compiler: Any, **options: Any) -> str:
    return f"(SELECT json_array_elements_text(CAST({compiler.process(element.clauses, **options)} AS JSON)))"


def listed(name: str) -> FunctionElement[str]:
    """Return the values of a parameter of this name, which is a JSON list of texts."""
    return _Listed(bindparam(name, type_=Text()))


def _own() -> CompoundSelect[Any]:
    here = (HOST.c.tenant_id == TENANT_ID, Among(func.lower(HOST.c.guid), listed("guids")))
    instance = HOST.join(*on(HOST.c.resource_id, INSTANCE, "host_id"))
    run = instance.join(*on(INSTANCE.c.resource_id, OS_UPDATE_RUN, "instance_id"))
    return union_all(
        rows_of(HOST, HOST).where(*here),
        rows_of(INSTANCE, instance).where(*here),
        rows_of(OS_UPDATE_RUN, run).where(*here, OS_UPDATE_RUN.c.end_time.is_(None)),
        rows_of(SITE, HOST.join(*on(HOST.c.site_id, SITE))).where(*here),
    )


def _shared() -> CompoundSelect[Any]:
    around = select(REGION.c.resource_id, REGION.c.parent_id).where(
        REGION.c.tenant_id == TENANT_ID, Among(REGION.c.resource_id, listed("region_ids"))
    )
    regions = around.cte("regions", recursive=True)
    # UNION, not UNION ALL: regions that form a circle come once each and the recursion ends.
    regions = regions.union(
        select(REGION.c.resource_id, REGION.c.parent_id).select_from(regions.join(*on(regions.c.parent_id, REGION)))
    )
    profiles = select(OS_RESOURCE.c.profile_name).where(
        OS_RESOURCE.c.tenant_id == TENANT_ID, Among(OS_RESOURCE.c.resource_id, listed("immutable_os_ids"))
    )
    return union_all(
        rows_of(REGION, regions.join(*on(regions.c.resource_id, REGION))),
        *(
            rows_of(table, table).where(table.c.tenant_id == TENANT_ID, Among(column, wanted))
            for table, column, wanted in (
                (OS_RESOURCE, OS_RESOURCE.c.resource_id, listed("mutable_os_ids")),
                (OS_RESOURCE, OS_RESOURCE.c.profile_name, profiles.scalar_subquery()),
                (OS_UPDATE_POLICY, OS_UPDATE_POLICY.c.resource_id, listed("policy_ids")),
                (SCHEDULE, SCHEDULE.c.target_host_id, listed("host_ids")),
                (SCHEDULE, SCHEDULE.c.target_site_id, listed("site_ids")),
                (SCHEDULE, SCHEDULE.c.target_region_id, select(regions.c.resource_id).scalar_subquery()),
            )
        ),
    )


OWN: Final = _own()
SHARED: Final = _shared()

_BY_ID: Final = attrgetter("resource_id")


class _Found:
    """Resources that rows say, by kind."""

    def __init__(self, rows: Iterable[Sequence[Any]]) -> None:
        self._contents: dict[str, set[str]] = {}
        for source, content in rows:
            self._contents.setdefault(source, set()).add(content)

    def all(self, kind: type[R]) -> Iterator[R]:
        return (decode(kind, content) for content in self._contents.get(shape_of(kind).table.name, ()))

    def by_id(self, kind: type[R]) -> dict[str, R]:
        return {resource.resource_id: resource for resource in self.all(kind)}


@frozen
class _Places:
    """Sites and regions, and the schedules that target them or a host."""

    sites: Mapping[str, Site]
    regions: Mapping[str, Region]
    schedules: Mapping[_Target, Sequence[ScheduleResource]]
    known: dict[str | None, tuple[ScheduleResource, ...]]

    def of_host(self, host: Host) -> tuple[ScheduleResource, ...]:
        """Return the schedules of a host, its site and the regions around it, in the order of their ids."""
        around = self.known.get(host.site_id)
        if around is None:
            around = self.known[host.site_id] = self._in_order(self._around(host.site_id))
        own = self.schedules.get((TargetLevel.HOST, host.resource_id))
        return self._in_order([*own, *around]) if own else around

    def _around(self, site_id: str | None) -> Iterator[ScheduleResource]:
        if site_id is None:
            return
        yield from self.schedules.get((TargetLevel.SITE, site_id), ())
        region_id = self.sites[site_id].region_id
        passed: set[str] = set()
        while region_id is not None and region_id not in passed:
            yield from self.schedules.get((TargetLevel.REGION, region_id), ())
            passed.add(region_id)
            region_id = self.regions[region_id].parent_id

    @staticmethod
    def _in_order(schedules: Iterable[ScheduleResource]) -> tuple[ScheduleResource, ...]:
        return tuple(sorted(schedules, key=_BY_ID))


def _list(items: Iterable[str | None]) -> str:
    return json.dumps(sorted({item for item in items if item is not None}))


def _places(sites: Mapping[str, Site], shared: _Found) -> _Places:
    schedules: dict[_Target, list[ScheduleResource]] = {}
    for schedule in shared.all(ScheduleResource):
        assert schedule.target is not None
        schedules.setdefault((schedule.target.level, schedule.target.resource_id), []).append(schedule)
    return _Places(sites=sites, regions=shared.by_id(Region), schedules=schedules, known={})


def _profiles(systems: Mapping[str, OSResource]) -> dict[str, tuple[OSResource, ...]]:
    profiles: dict[str, list[OSResource]] = {}
    for system in sorted(systems.values(), key=_BY_ID):
        profiles.setdefault(system.profile_name, []).append(system)
    return {name: tuple(members) for name, members in profiles.items()}


def read_report_contexts(ask: Ask, tenant_id: str, guids: Collection[str]) -> dict[str, ReportContext]:
    """Return the context of each of these hosts that exists, by its GUID in small letters.

    `ask` executes a SELECT. `guids` are in small letters, at least one.

    Raises:
        StorageError: a row can't be read.
    """
    own = _Found(ask(OWN, {"tenant_id": tenant_id, "guids": _list(guids)}))
    hosts, sites = list(own.all(Host)), own.by_id(Site)
    instances = {instance.host_id: instance for instance in own.all(Instance)}
    runs = {run.instance_id: run for run in own.all(OSUpdateRun)}
    links: dict[OSType, set[str]] = {kind: set() for kind in OSType}
    for instance in instances.values():
        links[instance.os_type] |= {instance.current_os_id, instance.desired_os_id}
    wanted: dict[str, Plain] = {
        "tenant_id": tenant_id,
        "region_ids": _list(site.region_id for site in sites.values()),
        "immutable_os_ids": _list(links[OSType.IMMUTABLE]),
        "mutable_os_ids": _list(links[OSType.MUTABLE]),
        "policy_ids": _list(instance.os_update_policy_id for instance in instances.values()),
        "host_ids": _list(host.resource_id for host in hosts),
        "site_ids": _list(sites),
    }
    shared = _Found(ask(SHARED, wanted))
    places = _places(sites, shared)
    systems, policies = shared.by_id(OSResource), shared.by_id(OSUpdatePolicy)
    profiles = _profiles(systems)

    def context(host: Host) -> ReportContext:
        schedules, instance = places.of_host(host), instances.get(host.resource_id)
        if instance is None:
            return nothing_installed(host, schedules)
        current = systems[instance.current_os_id]
        return ReportContext(
            host=host,
            instance=instance,
            current_os=current,
            desired_os=systems[instance.desired_os_id],
            policy=policies.get(instance.os_update_policy_id or ""),
            open_run=runs.get(instance.resource_id),
            schedules=schedules,
            profile_os=profiles[current.profile_name] if instance.os_type is OSType.IMMUTABLE else (),
        )

    return {host.guid.lower(): context(host) for host in hosts}
