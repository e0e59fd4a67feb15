"""What happened in an Inventory, for those who react to it: the events that follow from a change of a resource.

What lives here: which change is an event, and what it tells. What never will: storing events and handing them out
(the Inventory's adapters).

Told is what edge_day2 itself decides or hears: how updates go, what images there are, which ones nodes run and should
run. What an administrator adds or removes is no event, except OS Resources.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from datetime import datetime
from typing import Final

import attrs
from attrs import field, frozen

from edge_day2.domain.resources import Instance, OSResource, Resource
from edge_day2.domain.statuses import InventoryStatus, UpdateRecord, parse_detail

Detail = tuple[tuple[str, str], ...]


class EventKind(enum.Enum):
    """What happened. The names of the values in an event's `detail` are given for each."""

    OS_RESOURCE_ADDED = "an OS Resource is new: profile_name, image_id, os_type"
    OS_RESOURCE_CHANGED = "an OS Resource was patched: profile_name, image_id, fields (names, separated by commas)"
    OS_RESOURCE_REMOVED = "an OS Resource was removed: profile_name, image_id, os_type"
    DESIRED_OS_CHANGED = "an instance should run another OS: host_id, from, to (ids of OS Resources)"
    CURRENT_OS_CHANGED = "an instance runs another OS: host_id, from, to (ids of OS Resources)"
    INSTANCES_LINKED = "many instances should run the OS Resource: from (id of the former one), count"
    UPDATE_STARTED = "an update is in progress: host_id, text"
    UPDATE_DONE = "an update was completed: host_id, text"
    UPDATE_FAILED = "an update failed, or was rolled back after it did: host_id, text, reason, status"
    UPDATE_LOST = "a node began an update and isn't heard of any more: host_id, text"


_OF_STATUS: Final = {
    InventoryStatus.UPDATE_IN_PROGRESS: EventKind.UPDATE_STARTED,
    InventoryStatus.DONE: EventKind.UPDATE_DONE,
    InventoryStatus.FAILED: EventKind.UPDATE_FAILED,
    InventoryStatus.LOST: EventKind.UPDATE_LOST,
}


@frozen(kw_only=True)
class InventoryEvent:
    """One thing that happened.

    Attributes:
        tenant_id: whose it is.
        kind: what happened.
        resource_id: the OS Resource of events about one and of INSTANCES_LINKED, else the instance.
        at: when the Inventory recorded it.
        detail: (name, value) pairs, as `EventKind` says.
    """

    tenant_id: str
    kind: EventKind
    resource_id: str
    at: datetime
    detail: Detail = field(default=())


@frozen(kw_only=True)
class EventPage:
    """Events in the order in which they are told, and the cursor after the last of them."""

    events: tuple[InventoryEvent, ...]
    cursor: str


def events_of(old: Resource | None, new: Resource | None, at: datetime) -> Iterator[InventoryEvent]:
    """Yield what follows from storing `new` in the place of `old`; None: there was, or is, no such resource."""
    resource = new if new is not None else old
    assert resource is not None
    for kind, detail in _happened(old, new):
        yield InventoryEvent(
            tenant_id=resource.tenant_id, kind=kind, resource_id=resource.resource_id, at=at, detail=detail
        )


def linked_event(tenant_id: str, from_os_id: str, desired_os_id: str, count: int, at: datetime) -> InventoryEvent:
    """Return the one event of giving `count` instances another desired OS than `from_os_id`."""
    return InventoryEvent(
        tenant_id=tenant_id,
        kind=EventKind.INSTANCES_LINKED,
        resource_id=desired_os_id,
        at=at,
        detail=(("from", from_os_id), ("count", str(count))),
    )


def _happened(old: Resource | None, new: Resource | None) -> Iterator[tuple[EventKind, Detail]]:
    match old, new:
        case None, OSResource():
            yield EventKind.OS_RESOURCE_ADDED, _image(new)
        case OSResource(), None:
            yield EventKind.OS_RESOURCE_REMOVED, _image(old)
        case OSResource(), OSResource() if old != new:
            changed = ",".join(
                attribute.name
                for attribute in attrs.fields(OSResource)
                if getattr(old, attribute.name) != getattr(new, attribute.name)
            )
            yield EventKind.OS_RESOURCE_CHANGED, (*_image(new)[:2], ("fields", changed))
        case Instance(), Instance():
            yield from _of_instance(old, new)


def _image(resource: OSResource) -> Detail:
    return (
        ("profile_name", resource.profile_name),
        ("image_id", resource.image_id),
        ("os_type", resource.os_type.name),
    )


def _of_instance(old: Instance, new: Instance) -> Iterator[tuple[EventKind, Detail]]:
    host: Detail = (("host_id", new.host_id),)
    for kind, name in (
        (EventKind.DESIRED_OS_CHANGED, "desired_os_id"),
        (EventKind.CURRENT_OS_CHANGED, "current_os_id"),
    ):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield kind, (*host, ("from", before), ("to", after))
    before, after = old.update, new.update
    told = _OF_STATUS.get(after.status)
    # A failed update that was rolled back is told in a second report, with the same status.
    amended = told is EventKind.UPDATE_FAILED and after.detail != before.detail
    if told is not None and (after.status is not before.status or amended):
        yield told, (*host, ("text", after.text), *(_failure(after) if told is EventKind.UPDATE_FAILED else ()))


def _failure(update: UpdateRecord) -> Detail:
    detail = parse_detail(update.detail)
    if detail is None or not detail.update_log:
        return ()
    last = detail.update_log[-1]
    return ("reason", last.failure_reason.value), ("status", last.status.value)
