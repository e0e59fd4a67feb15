"""What the Inventory in memory holds at one instant, as an immutable value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from attrs import frozen

from edge_day2.adapters.storage.event_log import EventLog
from edge_day2.adapters.storage.persistent import PersistentMap
from edge_day2.adapters.storage.references import Kind, references, unique_key
from edge_day2.domain.resources import Instance, OSResource, Resource
from edge_day2.domain.statuses import StatusIndicator

Member = tuple[Kind, str]
Table = PersistentMap[str, Resource]
Group = PersistentMap[Member, None]

EMPTY_TABLE: Final[Table] = PersistentMap()
EMPTY_GROUP: Final[Group] = PersistentMap()


@frozen
class Content:
    """Resources by (tenant, kind) and id, groups of them, what is unique, and events by tenant."""

    tables: PersistentMap[tuple[str, Kind], Table] = PersistentMap()
    groups: PersistentMap[tuple[object, ...], Group] = PersistentMap()
    unique: PersistentMap[tuple[object, ...], str] = PersistentMap()
    events: PersistentMap[str, EventLog] = PersistentMap()

    def replaced(self, old: Resource | None, new: Resource | None, owner: object) -> Content:
        """Return the content with `new` in the place of `old`, with every group and unique key that they have.

        What belongs to `owner` already is changed in place: see `PersistentMap`.
        """
        either = new if new is not None else old
        assert either is not None
        place = (either.tenant_id, type(either))
        table = self.tables.get(place, EMPTY_TABLE)
        table = table.remove(either.resource_id, owner) if new is None else table.set(new.resource_id, new, owner)
        return Content(
            events=self.events,
            tables=self.tables.set(place, table, owner),
            groups=self._regrouped(either, old, new, owner),
            unique=self._renamed(either, old, new, owner),
        )

    def _regrouped(
        self, either: Resource, old: Resource | None, new: Resource | None, owner: object
    ) -> PersistentMap[tuple[object, ...], Group]:
        groups = self.groups
        member = (type(either), either.resource_id)
        left = set() if old is None else set(_groups(old))
        joined = set() if new is None else set(_groups(new))
        for key in left - joined:
            smaller = groups.get(key, EMPTY_GROUP).remove(member, owner)
            groups = groups.set(key, smaller, owner) if smaller else groups.remove(key, owner)
        for key in joined - left:
            groups = groups.set(key, groups.get(key, EMPTY_GROUP).set(member, None, owner), owner)
        return groups

    def _renamed(
        self, either: Resource, old: Resource | None, new: Resource | None, owner: object
    ) -> PersistentMap[tuple[object, ...], str]:
        unique, tenant_id = self.unique, either.tenant_id
        before = None if old is None else unique_key(old)
        after = None if new is None else unique_key(new)
        if before == after:
            return unique
        if before is not None:
            unique = unique.remove((tenant_id, *before), owner)
        if after is not None:
            unique = unique.set((tenant_id, *after), either.resource_id, owner)
        return unique


def _groups(resource: Resource) -> Iterator[tuple[object, ...]]:
    """Yield the groups that `resource` is a member of."""
    tenant = resource.tenant_id
    for kind, resource_id in references(resource):
        yield tenant, kind, resource_id
    if isinstance(resource, OSResource):
        yield tenant, "profile", resource.profile_name
    if isinstance(resource, Instance) and _underway(resource):
        yield tenant, "underway"


def _underway(instance: Instance) -> bool:
    return instance.update.status.indicator is StatusIndicator.IN_PROGRESS and instance.last_seen is not None
