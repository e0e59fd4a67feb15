"""Port: the Inventory, where Instances, OS Resources and Schedules live.

An adapter gives transactions. Within one, everything is read from one consistent snapshot, and either all of its
changes are stored or none is; a crash in the middle leaves what was there before. Changes are durable when `writing`
ends without an error; where it ends with one they are undone, except that a connection which breaks during the commit
itself may leave all of them. Adapters are safe to use from several threads and several processes; one transaction
belongs to one thread.

A method that raises leaves the transaction as it was before the call, and the caller may go on in it. StorageError and
Conflict are the exceptions: after them the transaction can only be left, it never commits, and is repeated as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self, TypeVar

from edge_day2.domain.inventory_events import EventPage
from edge_day2.domain.maintenance import ReportContext
from edge_day2.domain.resources import (
    Host,
    Instance,
    Link,
    OSResource,
    OSUpdateRun,
    Resource,
)
from edge_day2.domain.rollout import Admission, Rollout
from edge_day2.domain.rollout_progress import PlacesInFlight, WaveLink
from edge_day2.ports.inventory_lists import InventoryLists

__all__ = ["Inventory", "R", "ReportContext", "UnitOfWork"]

R = TypeVar("R", bound=Resource)


class UnitOfWork(InventoryLists, Protocol):
    """One transaction. All look-ups are within one tenant: what belongs to another doesn't exist.

    Every method may raise StorageError. Those that change something raise FailedPrecondition in a transaction that only
    reads, and InvalidResource for content that no database holds (see `add`).
    """

    def get(self, kind: type[R], tenant_id: str, resource_id: str) -> R:
        """Return the resource.

        Raises:
            NotFound: there is none with this id in this tenant.
        """
        ...

    def all(self, kind: type[R], tenant_id: str) -> Iterator[R]:
        """Yield the tenant's resources of this kind in the order of their ids, without loading all of them at once.

        The caller may change things while iterating; whether a later item shows that is left open.
        """
        ...

    def add(self, resource: Resource) -> None:
        """Store a new resource.

        Raises:
            AlreadyExists: its id, an OS Resource's identity or a host's GUID exists in the tenant, its host has an
                instance, or its instance has an open run.
            NotFound: it refers to something that doesn't exist in its tenant.
            InvalidResource: a text with a NUL character or a lone surrogate, an id (also the name of a profile,
                region, site or host) of more than 300 characters or 800 bytes in UTF-8, or a region inside itself.
        """
        ...

    def add_all(self, resources: Iterable[Resource]) -> None:
        """Store many new resources, or none of them: as `add` for each, at less cost.

        What a resource refers to may come before it in `resources`, not after it. Consumes them as a stream.

        Raises:
            AlreadyExists, NotFound, InvalidResource: as `add`.
        """
        ...

    def replace(self, old: R, new: R) -> None:
        """Store `new` in the place of `old`, which must be what is stored.

        They are compared by value, so `old` may have been read in an earlier transaction.

        Raises:
            Conflict: what is stored isn't `old` any more.
            NotFound: the resource is gone, or `new` refers to something that doesn't exist in its tenant.
            AlreadyExists: as `add`, for what changed.
            InvalidResource: as `add`, or kind, tenant or id of `new` aren't those of `old`. No region comes to lie in
                itself, neither by this nor by this together with others at the same time: one of them is refused.
        """
        ...

    def replace_all(self, changes: Iterable[tuple[R, R]]) -> None:
        """Store many changes (old, new), or none of them: as `replace` for each, at less cost.

        Consumes them as a stream. Changes of one kind that change the same fields are cheapest.

        Raises:
            Conflict, NotFound, AlreadyExists, InvalidResource: as `replace`.
        """
        ...

    def delete(self, resource: Resource) -> None:
        """Remove a resource.

        Raises:
            FailedPrecondition: another resource refers to it.
            NotFound: it is gone already.
        """
        ...

    def host_by_guid(self, tenant_id: str, guid: str) -> Host:
        """Return the host with this GUID, in any case of its letters.

        Raises:
            NotFound: there is none in this tenant.
        """
        ...

    def instance_of_host(self, tenant_id: str, host_id: str) -> Instance | None:
        """Return the instance on this host, None where nothing is installed."""
        ...

    def report_context(self, tenant_id: str, guid: str) -> ReportContext:
        """Return everything about one host at once, at the cost of one read whatever the Inventory's size.

        Raises:
            NotFound: there is no such host in this tenant.
        """
        ...

    def report_contexts(self, tenant_id: str, guids: Collection[str]) -> Mapping[str, ReportContext]:
        """Return `report_context` of each of these hosts that exists, by its GUID as given; cheaper than one by one."""
        ...

    def runs_of_instance(self, tenant_id: str, instance_id: str) -> tuple[OSUpdateRun, ...]:
        """Return the instance's update runs, newest first; of two that started at once, the higher id first."""
        ...

    def links(self, tenant_id: str) -> Mapping[Link, int]:
        """Return how many instances have each link. The cost grows with the instances, the answer doesn't."""
        ...

    def relink(self, tenant_id: str, links: Collection[Link], desired_os_id: str, *, at_most: int) -> int:
        """Give another desired OS to instances that have one of `links`, `at_most` of them; return how many it was.

        Those that another transaction is changing may be left out. Fewer than `at_most` are no sign that none is left.

        Raises:
            NotFound: there is no such OS Resource.
            ImmutableLinkError: one is the link of a mutable OS.
            Conflict: another transaction changed some of them; nothing is stored, repeat the transaction.
        """
        ...

    def unheard_since(self, tenant_id: str, deadline: datetime) -> Iterator[Instance]:
        """Yield the instances whose update is in progress and whose `last_seen` is before `deadline`.

        The one that was unheard longest comes first. In progress is what has the traffic light IN_PROGRESS. The cost
        grows with the updates in progress, not with the Inventory.
        """
        ...

    def events(self, tenant_id: str, *, after: str = "", at_most: int) -> EventPage:
        """Return what happened after the cursor `after`, in order, and the cursor to go on with.

        Told is what other transactions have stored: each event once, in an order that never changes, the events of a
        transaction together. "" is the beginning of what is kept. On PostgreSQL an event is told when no older
        transaction runs any more that writes.

        Raises:
            InvalidValue: no Inventory gave this cursor.
            EventsForgotten: events after the cursor aren't kept any more, or it is of another database.
        """
        ...

    def events_end(self, tenant_id: str) -> str:
        """Return the cursor of a reader who knows what this transaction sees.

        What happens later is told after it; so may be something that this transaction sees already.
        """
        ...

    def forget_events(self, tenant_id: str, before: datetime) -> int:
        """Forget the events up to the first one that was recorded at `before` or later; return how many."""
        ...

    def os_without_lists(self, tenant_id: str) -> Iterator[OSResource]:
        """Yield what `all(OSResource, tenant_id)` does, each without its lists of CVEs and packages, at less cost."""
        ...

    def wave_links(self, rollout: Rollout) -> Mapping[WaveLink, int]:
        """Return how many instances have each wave and link, of those that `rollout` covers and may admit.

        Who that is, and what counts as failed, is in `domain.rollout_progress`. The cost grows with the instances, the
        answer doesn't.
        """
        ...

    def places_in_flight(self, rollout: Rollout) -> PlacesInFlight:
        """Return how many instances are in flight at each site and in each region; those without any aren't there.

        In flight are covered instances whose desired OS is the target, that don't run it and haven't failed.
        """
        ...

    def admit(self, rollout: Rollout, link: Link, admission: Admission, at: datetime, *, at_most: int) -> int:
        """Give the rollout's target to instances that have `link` and that `admission` lets in; return how many it was.

        `at_most` of them; `admitted_at` becomes `at`. Limits of places hold with what is stored in this moment. Those
        that another transaction is changing may be left out.

        Raises:
            NotFound: the target is no OS Resource any more.
            ImmutableLinkError: it is the link of a mutable OS.
            Conflict: another transaction changed some of them; nothing is stored, repeat the transaction.
        """
        ...

    def tenants(self) -> tuple[str, ...]:
        """Return the ids of all tenants that hold any resource, sorted."""
        ...


class Inventory(Protocol):
    """Where transactions come from. Use it as a context manager, or call `close`."""

    def reading(self) -> AbstractContextManager[UnitOfWork]:
        """Begin a transaction that only reads; it never waits for a writer and never makes one wait.

        Raises:
            StorageError: the database failed.
        """
        ...

    def writing(self) -> AbstractContextManager[UnitOfWork]:
        """Begin a transaction that may change things; it is committed at the end, and undone by an exception.

        Raises:
            StorageError: the database failed, or others have been writing for too long; nothing was changed.
            Conflict: somebody else's transaction was in the way; repeat the whole of it.
        """
        ...

    def turn(self, name: str) -> AbstractContextManager[bool]:
        """Take the turn of this name: True for one holder at a time among all who use the storage, else False at once.

        Holders are threads and processes, a holder that asks again included. The turn ends with the block, and with the
        process however that ends; nothing but this ends it, however long it takes. One exception: where a connection to
        a server is lost the turn is free again and its holder doesn't know. So a turn keeps two from doing the same
        work; what must never happen twice is kept by transactions.

        Raises:
            StorageError: the storage can't be asked.
        """
        ...

    def close(self) -> None:
        """Release connections. Safe to call twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
