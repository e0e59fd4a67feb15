"""How a resource becomes a row and back. Knows names and plain values; no statement is made here.

A plain value is what both databases, and JSON, carry unchanged: a text, a whole number or None. Enums go by name, so
that a person can read the table; instants are microseconds since 1970; lists are JSON texts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

from attrs import frozen
from sqlalchemy import Column, Table
from sqlalchemy.sql import visitors
from sqlalchemy.sql.schema import ColumnCollectionMixin

from edge_day2.adapters.storage import schema
from edge_day2.adapters.storage.rollout_rows import decode_policy, encode_policy
from edge_day2.domain.reconciled import LinkingMode, ReconciledRevision
from edge_day2.domain.resources import (
    Host,
    Instance,
    OSProvider,
    OSResource,
    OSType,
    OSUpdatePolicy,
    OSUpdateRun,
    Provisioning,
    Region,
    Resource,
    ScheduleResource,
    ScheduleTarget,
    SecurityFeature,
    Site,
    TargetLevel,
    Trust,
    UpdatePolicyKind,
)
from edge_day2.domain.rollout import PausedBy, Rollout, RolloutState
from edge_day2.domain.schedules import RepeatedSchedule, ScheduleKind, SingleSchedule
from edge_day2.domain.statuses import InventoryStatus, UpdateRecord
from edge_day2.errors import EdgeDay2Error, StorageError

R = TypeVar("R", bound=Resource)
E = TypeVar("E", bound=Enum)

Plain = str | int | None

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def to_microseconds(instant: datetime) -> int:
    """Return an aware instant as a column holds it."""
    return (instant - _EPOCH) // _MICROSECOND


def from_microseconds(number: int) -> datetime:
    """Return the aware instant that a column holds."""
    return _EPOCH + timedelta(microseconds=number)


@frozen
class _Codec:
    """How one attribute is written to its column and read from it."""

    encode: Callable[[Any], Plain]
    decode: Callable[[Any], Any]


def _names(kind: type[Enum]) -> _Codec:
    return _Codec(attrgetter("name"), kind.__getitem__)


_INSTANT: Final = _Codec(
    lambda instant: None if instant is None else to_microseconds(instant),
    lambda number: None if number is None else from_microseconds(number),
)
_LIST: Final = _Codec(
    lambda texts: json.dumps(texts, ensure_ascii=False, separators=(",", ":")) if texts else "[]",
    lambda text: () if text == "[]" else tuple(json.loads(text)),
)
_PAIRS: Final = _Codec(_LIST.encode, lambda text: () if text == "[]" else tuple(map(tuple, json.loads(text))))

_Make = Callable[[dict[str, Any]], R]


class Shape(Generic[R]):
    """How resources of one kind are stored: their table, and the way from a resource to a row and back.

    A row is a sequence of plain values in the order of the table's columns.
    """

    def __init__(
        self, kind: type[R], table: Table, make: _Make[R], codecs: dict[str, _Codec], nested: dict[str, str]
    ) -> None:
        self.kind = kind
        self.table = table
        self.names: tuple[str, ...] = tuple(column.name for column in table.columns)
        self.old_names: tuple[str, ...] = tuple(f"old_{name}" for name in self.names)
        # The columns that a reference, a check or a unique index looks at, the latter's WHERE included.
        self.constrained: frozenset[str] = frozenset(_constrained(table))
        self._make = make
        self._read = attrgetter(*(nested.get(name, name) for name in self.names))
        self._coded = [(place, name, codecs[name]) for place, name in enumerate(self.names) if name in codecs]

    def encode(self, resource: R) -> Sequence[Plain]:
        """Return the row of `resource`."""
        row = list(self._read(resource))
        for place, _, codec in self._coded:
            row[place] = codec.encode(row[place])
        return row

    def to_columns(self, resource: R) -> dict[str, Plain]:
        """Return the row of `resource` by the names of its columns."""
        return dict(zip(self.names, self.encode(resource), strict=True))

    def decode(self, row: Sequence[Any]) -> R:
        """Return the resource of a row.

        Raises:
            StorageError: the row holds what no version of this library has written.
        """
        try:
            values = dict(zip(self.names, row, strict=True))
            for _, name, codec in self._coded:
                values[name] = codec.decode(values[name])
            return self._make(values)
        except (EdgeDay2Error, ValueError, KeyError, TypeError, OverflowError) as error:
            key = ", ".join(repr(value) for value in row[:2])
            raise StorageError(f"table {self.table.name}: row {key} can't be read: {error}") from error


def _constrained(table: Table) -> Iterator[str]:
    unique = [index for index in table.indexes if index.unique]
    for rule in (*table.constraints, *unique):
        if isinstance(rule, ColumnCollectionMixin):
            yield from (column.name for column in rule.columns)
    for index in unique:
        condition = index.dialect_options["sqlite"]["where"]
        if condition is not None:
            yield from (part.name for part in visitors.iterate(condition) if isinstance(part, Column))


_UPDATE_NESTED: Final = {
    "update_status": "update.status",
    "update_text": "update.text",
    "update_timestamp": "update.timestamp",
    "update_detail": "update.detail",
}
_UPDATE_CODECS: Final = {"update_status": _names(InventoryStatus), "update_timestamp": _INSTANT}


def _take_update(values: dict[str, Any]) -> UpdateRecord:
    return UpdateRecord(
        status=values.pop("update_status"),
        text=values.pop("update_text"),
        timestamp=values.pop("update_timestamp"),
        detail=values.pop("update_detail"),
    )


def _make_instance(values: dict[str, Any]) -> Instance:
    return Instance(update=_take_update(values), **values)


def _make_host(values: dict[str, Any]) -> Host:
    # It follows from the GUID; it has a column so that the database can choose by it.
    del values["bucket"]
    return Host(**values)


def _make_run(values: dict[str, Any]) -> OSUpdateRun:
    return OSUpdateRun(update=_take_update(values), **values)


_TARGET_COLUMNS: Final = {
    TargetLevel.HOST: "target_host_id",
    TargetLevel.SITE: "target_site_id",
    TargetLevel.REGION: "target_region_id",
}
_CRON_COLUMNS: Final = ("minutes", "hours", "day_month", "month", "day_week", "duration_seconds", "time_zone")


def _make_schedule(values: dict[str, Any]) -> ScheduleResource:
    schedule: SingleSchedule | RepeatedSchedule
    if values["start_time"] is None:
        schedule = RepeatedSchedule(**{name: values[name] for name in _CRON_COLUMNS})
    else:
        schedule = SingleSchedule(values["start_time"], values["end_time"])
    targets = [
        ScheduleTarget(level=level, resource_id=values[column])
        for level, column in _TARGET_COLUMNS.items()
        if values[column] is not None
    ]
    return ScheduleResource(
        resource_id=values["resource_id"],
        tenant_id=values["tenant_id"],
        name=values["name"],
        kind=values["kind"],
        schedule=schedule,
        target=targets[0] if targets else None,
    )


class _ScheduleShape(Shape[ScheduleResource]):
    """Two kinds of schedule and three levels of target lie side by side in one row."""

    def __init__(self) -> None:
        codecs = {"kind": _names(ScheduleKind), "start_time": _INSTANT, "end_time": _INSTANT}
        # The names of the columns aren't those of the attributes, which `encode` sees to.
        super().__init__(ScheduleResource, schema.SCHEDULE, _make_schedule, codecs, {})

    def encode(self, resource: ScheduleResource) -> Sequence[Plain]:
        schedule, target = resource.schedule, resource.target
        values: dict[str, Plain] = {
            "tenant_id": resource.tenant_id,
            "resource_id": resource.resource_id,
            "name": resource.name,
            "kind": resource.kind.name,
        }
        if target is not None:
            values[_TARGET_COLUMNS[target.level]] = target.resource_id
        if isinstance(schedule, SingleSchedule):
            values["start_time"] = to_microseconds(schedule.start)
            values["end_time"] = None if schedule.end is None else to_microseconds(schedule.end)
        else:
            values.update({name: getattr(schedule, name) for name in _CRON_COLUMNS})
        return tuple(values.get(name) for name in self.names)


def _flat(kind: type[R], table: Table, /, **codecs: _Codec) -> Shape[R]:
    return Shape(kind, table, lambda values: kind(**values), codecs, {})


_SHAPES: Final[dict[type[Any], Shape[Any]]] = {
    OSResource: _flat(
        OSResource,
        schema.OS_RESOURCE,
        os_type=_names(OSType),
        os_provider=_names(OSProvider),
        security_feature=_names(SecurityFeature),
        metadata=_PAIRS,
        platform_bundle=_PAIRS,
        update_sources=_LIST,
        update_packages=_LIST,
    ),
    Region: _flat(Region, schema.REGION),
    Site: _flat(Site, schema.SITE),
    Host: Shape(Host, schema.HOST, _make_host, {"trust": _names(Trust)}, {}),
    OSUpdatePolicy: _flat(
        OSUpdatePolicy,
        schema.OS_UPDATE_POLICY,
        kind=_names(UpdatePolicyKind),
        update_sources=_LIST,
        update_packages=_LIST,
    ),
    Instance: Shape(
        Instance,
        schema.INSTANCE,
        _make_instance,
        {
            "os_type": _names(OSType),
            "provisioning": _names(Provisioning),
            "last_seen": _INSTANT,
            "admitted_at": _INSTANT,
            **_UPDATE_CODECS,
        },
        _UPDATE_NESTED,
    ),
    ScheduleResource: _ScheduleShape(),
    OSUpdateRun: Shape(
        OSUpdateRun,
        schema.OS_UPDATE_RUN,
        _make_run,
        {"start_time": _INSTANT, "end_time": _INSTANT, **_UPDATE_CODECS},
        _UPDATE_NESTED,
    ),
    ReconciledRevision: _flat(
        ReconciledRevision, schema.RECONCILED_REVISION, mode=_names(LinkingMode), reconciled_at=_INSTANT
    ),
    Rollout: _flat(
        Rollout,
        schema.ROLLOUT,
        policy=_Codec(encode_policy, decode_policy),
        state=_names(RolloutState),
        started_at=_INSTANT,
        wave_since=_INSTANT,
        well_since=_INSTANT,
        paused_by=_Codec(
            lambda paused_by: None if paused_by is None else paused_by.name,
            lambda name: None if name is None else PausedBy[name],
        ),
    ),
}


def shape_of(kind: type[R]) -> Shape[R]:
    """Return how resources of `kind` are stored."""
    return _SHAPES[kind]
