"""The change feed in an SQL database: how events are stored, in which order they are told, and what was forgotten.

An event's place is (transaction, position). On PostgreSQL transactions end in another order than they began, so what is
told is what lies below the oldest one that still runs (`pg_snapshot_xmin`): nothing can appear there any more, and a
cursor never passes over an event. SQLite has one writer at a time, so a tenant's places just go up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Insert,
    Select,
    Text,
    bindparam,
    cast,
    delete,
    func,
    insert,
    select,
    tuple_,
    union_all,
    update,
)

from edge_day2.adapters.storage.event_places import Place
from edge_day2.adapters.storage.rows import Plain, from_microseconds, to_microseconds
from edge_day2.adapters.storage.schema import INVENTORY_EVENT, INVENTORY_EVENT_FORGOTTEN
from edge_day2.domain.inventory_events import EventKind, InventoryEvent

_E: Final = INVENTORY_EVENT.c
_F: Final = INVENTORY_EVENT_FORGOTTEN.c
_OF_TENANT: Final = _E.tenant_id == bindparam("tenant")
_PLACE: Final = tuple_(_E.transaction_id, _E.position)


def _number(value: ColumnElement[Any]) -> ColumnElement[int]:
    # PostgreSQL's xid8 becomes a number by way of its text alone.
    return cast(cast(value, Text), BigInteger)


def _oldest_running() -> ColumnElement[int]:
    return _number(func.pg_snapshot_xmin(func.pg_current_snapshot()))


_HIGHEST: Final = union_all(
    select(func.max(_E.transaction_id).label("number")).where(_OF_TENANT),
    select(_F.transaction_id).where(_F.tenant_id == bindparam("tenant")),
).subquery()


class EventStatements:
    """The statements for one database."""

    def __init__(self, dialect: str) -> None:
        postgresql = dialect == "postgresql"
        told = (_E.transaction_id < _oldest_running(),) if postgresql else ()
        number: ColumnElement[Any]
        if postgresql:
            number = _number(func.pg_current_xact_id())
        else:
            number = select(func.coalesce(func.max(_HIGHEST.c.number), 0) + 1).scalar_subquery()
        # An event of :tenant, as `to_parameters` has it.
        self.add: Insert = insert(INVENTORY_EVENT).values(
            tenant_id=bindparam("tenant"), transaction_id=number,
            **{name: bindparam(f"new_{name}") for name in ("position", "kind", "resource_id", "recorded_at", "detail")},
        )  # fmt: skip
        beyond = tuple_(bindparam("transaction"), bindparam("place")) < _PLACE
        # The next events of :tenant beyond (:transaction, :place), :at_most of them.
        self.page: Select[Any] = (
            select(INVENTORY_EVENT)
            .where(_OF_TENANT, beyond, *told)
            .order_by(_E.transaction_id, _E.position)
            .limit(bindparam("at_most"))
        )
        highest = func.coalesce(func.max(_HIGHEST.c.number), 0)
        last_told = _oldest_running() - 1 if postgresql else highest
        last = _number(func.pg_snapshot_xmax(func.pg_current_snapshot())) if postgresql else highest
        # The last transaction whose events are told now, and the last one there can be.
        self.end: Select[Any] = select(last_told, last)
        kept = select(_E.transaction_id, _E.position).where(_OF_TENANT, _E.recorded_at >= bindparam("before"))
        # The first event of :tenant that was recorded at :before or later.
        self.first_kept: Select[Any] = kept.order_by(_E.transaction_id, _E.position).limit(1)
        earlier = tuple_(bindparam("transaction"), bindparam("place")) > _PLACE
        # The last event of :tenant before (:transaction, :place) that may be forgotten.
        self.last_forgotten: Select[Any] = (
            select(_E.transaction_id, _E.position)
            .where(_OF_TENANT, earlier, *told)
            .order_by(_E.transaction_id.desc(), _E.position.desc())
            .limit(1)
        )


FORGET: Final = delete(INVENTORY_EVENT).where(
    _OF_TENANT, tuple_(bindparam("transaction"), bindparam("place")) >= _PLACE
)
FORGOTTEN: Final = select(_F.transaction_id, _F.position).where(_F.tenant_id == bindparam("tenant"))
NOTE_FORGOTTEN: Final = (
    update(INVENTORY_EVENT_FORGOTTEN)
    .where(_F.tenant_id == bindparam("tenant"))
    .values(transaction_id=bindparam("transaction"), position=bindparam("place"))
)
NOTE_FIRST_FORGOTTEN: Final = insert(INVENTORY_EVENT_FORGOTTEN).values(
    tenant_id=bindparam("tenant"), transaction_id=bindparam("transaction"), position=bindparam("place")
)

_OF: Final = {dialect: EventStatements(dialect) for dialect in ("sqlite", "postgresql")}


def of(dialect: str) -> EventStatements:
    """Return the statements for a database, by its name in SQLAlchemy."""
    return _OF[dialect]


def to_parameters(events: Iterable[InventoryEvent]) -> list[dict[str, Plain]]:
    """Return the parameters of `EventStatements.add` for the events of one transaction."""
    return [
        {
            "tenant": event.tenant_id,
            "new_position": position,
            "new_kind": event.kind.name,
            "new_resource_id": event.resource_id,
            "new_recorded_at": to_microseconds(event.at),
            "new_detail": json.dumps(dict(event.detail), ensure_ascii=False),
        }
        for position, event in enumerate(events)
    ]


def to_event(row: Sequence[Any]) -> tuple[Place, InventoryEvent]:
    """Return an event, and its place, from its row."""
    tenant_id, transaction, position, kind, resource_id, recorded_at, detail = row
    event = InventoryEvent(
        tenant_id=tenant_id,
        kind=EventKind[kind],
        resource_id=resource_id,
        at=from_microseconds(recorded_at),
        detail=tuple(json.loads(detail).items()),
    )
    return (transaction, position), event
