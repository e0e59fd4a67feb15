"""A tenant's part of an Inventory as JSON lines: one resource on each, so that a fleet can move in, out or elsewhere.

    {"resource":"Host","resource_id":"host-1","tenant_id":"…","name":"node","guid":"…","site_id":"site-1"}

Fields have the names of the attributes, enums go by name, instants are ISO 8601 texts with an offset, durations are
seconds; a field at its default may be left out. What a resource refers to comes on a line before it, as `export_fleet`
writes them.
"""

from __future__ import annotations

import enum
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from itertools import islice
from typing import Final, TypeVar

import attrs
from cattrs import Converter
from cattrs.gen import make_dict_unstructure_fn

from edge_day2.adapters.storage.references import KINDS, Kind
from edge_day2.adapters.strict_json import strict_converter
from edge_day2.domain.reconciled import LinkingMode
from edge_day2.domain.resources import (
    OSProvider,
    OSType,
    Provisioning,
    Region,
    Resource,
    ScheduleTarget,
    SecurityFeature,
    TargetLevel,
    Trust,
    UpdatePolicyKind,
)
from edge_day2.domain.rollout import PausedBy, RolloutPolicy, RolloutState
from edge_day2.domain.schedules import RepeatedSchedule, Schedule, ScheduleKind, SingleSchedule
from edge_day2.domain.statuses import InventoryStatus, UpdateRecord
from edge_day2.errors import InvalidResource, shown
from edge_day2.ports.inventory import Inventory

E = TypeVar("E", bound=enum.Enum)

# In their order: what is referred to comes first.
_KINDS: Final[Mapping[str, Kind]] = {kind.__name__: kind for kind in KINDS}
_ENUMS: Final = (
    InventoryStatus, LinkingMode, OSProvider, OSType, PausedBy, Provisioning, RolloutState, ScheduleKind,
    SecurityFeature, TargetLevel, Trust, UpdatePolicyKind,
)  # fmt: skip
_BATCH: Final = 5_000
# The largest resource is an OS Resource with its lists of CVEs.
_LONGEST_LINE: Final = 4 << 20


def export_fleet(inventory: Inventory, tenant_id: str) -> Iterator[str]:
    """Yield a line for each resource of the tenant, without the line's end. All of one instant.

    The transaction stays open until the last line was taken.

    Raises:
        StorageError: the Inventory can't be read.
    """
    with inventory.reading() as unit:
        for name, kind in _KINDS.items():
            resources = unit.all(kind, tenant_id)
            if kind is Region:
                resources = _outer_first(resources)
            for resource in resources:
                document = {"resource": name, **_CONVERTER.unstructure(resource)}
                yield json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def import_fleet(inventory: Inventory, lines: Iterable[str], *, tenant_id: str | None = None) -> Counter[str]:
    """Store every resource that `lines` say, or none of them; return how many there were of each kind.

    Args:
        inventory: where to.
        lines: as `export_fleet` yields them; empty ones are skipped. Consumed as a stream.
        tenant_id: whose they become; None: whose they say.

    Raises:
        InvalidResource: a line isn't JSON, names no kind of resource, or breaks a rule; the message says which line.
        AlreadyExists, NotFound: as `UnitOfWork.add_all`.
        StorageError: the Inventory failed.
    """
    counts: Counter[str] = Counter()
    with inventory.writing() as unit:
        resources = _resources(lines, tenant_id)
        while batch := list(islice(resources, _BATCH)):
            unit.add_all(batch)
            counts.update(type(resource).__name__ for resource in batch)
    return counts


def _resources(lines: Iterable[str], tenant_id: str | None) -> Iterator[Resource]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield _resource(line, tenant_id)
            except Exception as error:  # there is no end to what foreign content makes a converter raise
                raise InvalidResource(f"line {number}", line, f"a resource as JSON, but {_reason(error)}") from error


def _resource(line: str, tenant_id: str | None) -> Resource:
    if len(line) > _LONGEST_LINE:
        raise ValueError(f"it has more than {_LONGEST_LINE} characters")
    document = json.loads(line)
    if not isinstance(document, dict):
        raise TypeError("it is no object")
    kind = _KINDS.get(str(document.pop("resource", "")))
    if kind is None:
        raise ValueError(f"`resource` is none of {', '.join(_KINDS)}")
    if tenant_id is not None:
        document["tenant_id"] = tenant_id
    resource: Resource = _CONVERTER.structure(document, kind)
    return resource


def _reason(error: Exception) -> str:
    return shown(str(error)) if str(error) else type(error).__name__


def _outer_first(regions: Iterable[Region]) -> Iterator[Region]:
    """Yield regions after those around them. Those of a circle can't be stored one by one: they come last."""
    waiting = {region.resource_id: region for region in regions}
    inside: dict[str | None, list[Region]] = {}
    for region in waiting.values():
        inside.setdefault(region.parent_id, []).append(region)
    ready = list(inside.get(None, ()))
    while ready:
        region = ready.pop()
        yield waiting.pop(region.resource_id)
        ready += inside.get(region.resource_id, ())
    yield from waiting.values()


def _make_converter() -> Converter:
    converter = strict_converter()
    for kind in _ENUMS:
        _by_name(converter, kind)

    def schedule(value: object, _: object) -> Schedule:
        if isinstance(value, dict) and "start" in value:
            return converter.structure(value, SingleSchedule)
        return converter.structure(value, RepeatedSchedule)

    converter.register_structure_hook(Schedule, schedule)

    def duration(value: object, _: object) -> timedelta:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError(f"found {value!r}, expected a number of seconds")
        return timedelta(seconds=value)

    converter.register_structure_hook(timedelta, duration)
    converter.register_unstructure_hook(timedelta, timedelta.total_seconds)
    for nested in (UpdateRecord, ScheduleTarget, SingleSchedule, RepeatedSchedule, RolloutPolicy, *_KINDS.values()):
        assert attrs.has(nested)
        shorten = make_dict_unstructure_fn(nested, converter, _cattrs_omit_if_default=True)
        converter.register_unstructure_hook(nested, shorten)
    return converter


def _by_name(converter: Converter, kind: type[E]) -> None:
    def member(value: object, _: object) -> E:
        if not isinstance(value, str) or value not in kind.__members__:
            raise ValueError(f"found {value!r}, expected one of {', '.join(kind.__members__)}")
        return kind[value]

    converter.register_structure_hook(kind, member)
    converter.register_unstructure_hook(kind, lambda value: value.name)


_CONVERTER: Final = _make_converter()
