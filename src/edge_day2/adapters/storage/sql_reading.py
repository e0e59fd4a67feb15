"""One transaction of the SQL Inventory that reads: what each call of the port executes.

Statements are in `statements`, rows in `rows`. Where connections come from is `sql`'s business.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Executable
from sqlalchemy.exc import SQLAlchemyError

from edge_day2.adapters.storage import event_statements, rollout_statements, statements
from edge_day2.adapters.storage.event_places import LAST_POSITION, START, Place, check_kept, to_cursor, to_place
from edge_day2.adapters.storage.failures import translate
from edge_day2.adapters.storage.reading_only import ReadingOnly
from edge_day2.adapters.storage.references import Kind
from edge_day2.adapters.storage.report_context import REPORT_CONTEXT, to_report_context
from edge_day2.adapters.storage.report_contexts import read_report_contexts
from edge_day2.adapters.storage.rows import Plain, shape_of, to_microseconds
from edge_day2.adapters.storage.sql_lists import SqlLists
from edge_day2.adapters.storage.storable import check_storable, is_text
from edge_day2.domain.inventory_events import EventPage
from edge_day2.domain.maintenance import ReportContext
from edge_day2.domain.resources import Host, Instance, Link, OSResource, OSType, OSUpdateRun, Resource
from edge_day2.domain.rollout import Rollout
from edge_day2.domain.rollout_progress import PlacesInFlight, WaveLink
from edge_day2.errors import EdgeDay2Error, NotFound, StorageError, shown

R = TypeVar("R", bound=Resource)

_LOWEST_NUMBER: Final = -(2**63)


class SqlUnitOfWork(SqlLists, ReadingOnly):
    """One transaction that only reads; see `edge_day2.ports.inventory.UnitOfWork`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._over = False
        self._failed: EdgeDay2Error | None = None
        self._events = event_statements.of(connection.dialect.name)

    def end(self) -> None:
        """End the transaction for its user."""
        self._over = True

    @property
    def failed(self) -> EdgeDay2Error | None:
        """The error after which this transaction may not be committed."""
        return self._failed

    def _check_usable(self) -> None:
        if self._over:
            raise StorageError("this transaction is over; begin another one")
        if self._failed is not None:
            # SQLite has rolled back by itself after some errors; what followed would be a transaction of its own.
            raise StorageError(f"this transaction has failed already; begin another one: {self._failed}")

    def _fail(self, error: EdgeDay2Error) -> EdgeDay2Error:
        self._failed = error
        return error

    def _rows(self, statement: Executable, parameters: Mapping[str, Plain]) -> Sequence[Sequence[Any]]:
        self._check_usable()
        try:
            return self._connection.execute(statement, parameters).fetchall()
        except SQLAlchemyError as error:
            raise self._fail(translate(error)) from error

    def _find(self, kind: type[R], tenant_id: str, resource_id: str) -> R | None:
        if not (is_text(tenant_id) and is_text(resource_id)):
            return None
        rows = self._rows(statements.of(kind).get, {"tenant_id": tenant_id, "resource_id": resource_id})
        return shape_of(kind).decode(rows[0]) if rows else None

    def _exists(self, kind: Kind, tenant_id: str, resource_id: str) -> bool:
        return bool(self._rows(statements.of(kind).exists, {"tenant_id": tenant_id, "resource_id": resource_id}))

    def _holder(self, kind: type[R], tenant_id: str, *key: str) -> R | None:
        """Return the resource that has this unique key."""
        if not all(map(is_text, (tenant_id, *key))):
            return None
        parts = {f"key_{place}": part for place, part in enumerate(key, start=1)}
        rows = self._rows(statements.of(kind).holder, {"tenant_id": tenant_id, **parts})
        return shape_of(kind).decode(rows[0]) if rows else None

    def get(self, kind: type[R], tenant_id: str, resource_id: str) -> R:
        """See `UnitOfWork.get`."""
        found = self._find(kind, tenant_id, resource_id)
        if found is None:
            raise NotFound(f"tenant {shown(tenant_id)} has no {kind.__name__} {shown(resource_id)}")
        return found

    def all(self, kind: type[R], tenant_id: str) -> Iterator[R]:
        """See `UnitOfWork.all`."""
        return self._pages(kind, statements.of(kind).page, tenant_id)

    def _pages(self, kind: type[R], page: Executable, tenant_id: str) -> Iterator[R]:
        shape, after, full = shape_of(kind), "", is_text(tenant_id)
        while full:
            # Page by page: a cursor left open would see, or not, what its reader changes on the way.
            rows = self._rows(page, {"tenant_id": tenant_id, "after": after})
            full = len(rows) == statements.PAGE_ROWS
            for row in rows:
                resource = shape.decode(row)
                after = resource.resource_id
                yield resource

    def host_by_guid(self, tenant_id: str, guid: str) -> Host:
        """See `UnitOfWork.host_by_guid`."""
        host = self._holder(Host, tenant_id, guid.lower())
        if host is None:
            raise NotFound(f"tenant {shown(tenant_id)} has no host with GUID {shown(guid)}")
        return host

    def instance_of_host(self, tenant_id: str, host_id: str) -> Instance | None:
        """See `UnitOfWork.instance_of_host`."""
        return self._holder(Instance, tenant_id, host_id)

    def report_context(self, tenant_id: str, guid: str) -> ReportContext:
        """See `UnitOfWork.report_context`."""
        rows: Sequence[Sequence[Any]] = ()
        if is_text(tenant_id) and is_text(guid):
            rows = self._rows(REPORT_CONTEXT, {"tenant_id": tenant_id, "guid": guid.lower()})
        return to_report_context(rows, tenant_id, guid)

    def report_contexts(self, tenant_id: str, guids: Collection[str]) -> dict[str, ReportContext]:
        """See `UnitOfWork.report_contexts`."""
        wanted = {guid: guid.lower() for guid in guids if is_text(guid)}
        if not wanted or not is_text(tenant_id):
            return {}
        found = read_report_contexts(self._rows, tenant_id, set(wanted.values()))
        return {guid: found[key] for guid, key in wanted.items() if key in found}

    def runs_of_instance(self, tenant_id: str, instance_id: str) -> tuple[OSUpdateRun, ...]:
        """See `UnitOfWork.runs_of_instance`."""
        if not (is_text(tenant_id) and is_text(instance_id)):
            return ()
        key = {"tenant_id": tenant_id, "instance_id": instance_id}
        return tuple(map(shape_of(OSUpdateRun).decode, self._rows(statements.RUNS_OF_INSTANCE, key)))

    def links(self, tenant_id: str) -> dict[Link, int]:
        """See `UnitOfWork.links`."""
        rows = self._rows(statements.LINKS, {"tenant_id": tenant_id}) if is_text(tenant_id) else ()
        return {Link(OSType[kind], current, desired): count for kind, current, desired, count in rows}

    def unheard_since(self, tenant_id: str, deadline: datetime) -> Iterator[Instance]:
        """See `UnitOfWork.unheard_since`."""
        shape, last_seen, after, full = shape_of(Instance), _LOWEST_NUMBER, "", is_text(tenant_id)
        bound: dict[str, Plain] = {"tenant_id": tenant_id, "deadline": to_microseconds(deadline)}
        while full:
            rows = self._rows(statements.UNHEARD, {**bound, "last_seen": last_seen, "after": after})
            full = len(rows) == statements.PAGE_ROWS
            for row in rows:
                instance = shape.decode(row)
                assert instance.last_seen is not None
                last_seen, after = to_microseconds(instance.last_seen), instance.resource_id
                yield instance

    def os_without_lists(self, tenant_id: str) -> Iterator[OSResource]:
        """See `UnitOfWork.os_without_lists`."""
        return self._pages(OSResource, statements.OS_WITHOUT_LISTS, tenant_id)

    def wave_links(self, rollout: Rollout) -> dict[WaveLink, int]:
        """See `UnitOfWork.wave_links`."""
        check_storable(rollout)
        statement = rollout_statements.wave_links(rollout.policy.waves)
        rows = self._rows(statement, rollout_statements.group_of(rollout))
        return {
            WaveLink(wave, Link(OSType.IMMUTABLE, current, desired), bool(failed)): count
            for wave, current, desired, failed, count in rows
        }

    def places_in_flight(self, rollout: Rollout) -> PlacesInFlight:
        """See `UnitOfWork.places_in_flight`."""
        check_storable(rollout)
        target = {**rollout_statements.since(rollout), "target": rollout.target_os_id}
        sites, regions = (
            {place: busy for place, busy in self._rows(statement, target) if place is not None}
            for statement in (rollout_statements.SITES_IN_FLIGHT, rollout_statements.REGIONS_IN_FLIGHT)
        )
        return PlacesInFlight(sites=sites, regions=regions)

    def tenants(self) -> tuple[str, ...]:
        """See `UnitOfWork.tenants`."""
        found: list[str] = []
        # One look into the indexes for each tenant, instead of reading every row.
        while tenant_id := self._rows(statements.NEXT_TENANT, {"after": found[-1] if found else ""})[0][0]:
            found.append(tenant_id)
        return tuple(found)

    def events(self, tenant_id: str, *, after: str = "", at_most: int) -> EventPage:
        """See `UnitOfWork.events`."""
        place = to_place(after)
        if not is_text(tenant_id):
            return EventPage(events=(), cursor=after)
        check_kept(after, self._forgotten(tenant_id))
        wanted: dict[str, Plain] = {"tenant": tenant_id, "transaction": place[0], "place": place[1], "at_most": at_most}
        found = [event_statements.to_event(row) for row in self._rows(self._events.page, wanted)]
        if not found and after:
            check_kept(after, None, self._events_end(tenant_id)[1])
        return EventPage(events=tuple(event for _, event in found), cursor=to_cursor(found[-1][0]) if found else after)

    def events_end(self, tenant_id: str) -> str:
        """See `UnitOfWork.events_end`."""
        return to_cursor(self._events_end(tenant_id)[0] if is_text(tenant_id) else START)

    def _events_end(self, tenant_id: str) -> tuple[Place, Place]:
        """Return the place up to which everything is told now, and the last one there can be."""
        ((told, last),) = self._rows(self._events.end, {"tenant": tenant_id})
        return (told, LAST_POSITION), (last, LAST_POSITION)

    def _forgotten(self, tenant_id: str) -> Place | None:
        rows = self._rows(event_statements.FORGOTTEN, {"tenant": tenant_id})
        return (rows[0][0], rows[0][1]) if rows else None
