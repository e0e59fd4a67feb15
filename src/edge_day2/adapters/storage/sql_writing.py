"""One transaction of the SQL Inventory that writes: what each call executes, and what it says when that fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime
from itertools import islice
from typing import Final, TypeVar

from sqlalchemy import Connection, Executable, insert
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from edge_day2.adapters.storage import event_statements, list_statements, rollout_statements, statements
from edge_day2.adapters.storage.failures import translate
from edge_day2.adapters.storage.references import KINDS, references, unique_key
from edge_day2.adapters.storage.rows import Plain, shape_of, to_microseconds
from edge_day2.adapters.storage.sql_reading import SqlUnitOfWork
from edge_day2.adapters.storage.storable import check_new, check_storable, is_id, is_text
from edge_day2.domain.inventory_events import InventoryEvent, events_of, linked_event
from edge_day2.domain.resources import (
    Link,
    OSResource,
    OSType,
    Resource,
    check_region,
    check_relinkable,
    check_unused,
    moves_region,
)
from edge_day2.domain.rollout import Admission, Rollout
from edge_day2.errors import AlreadyExists, Conflict, InvalidResource, NotFound, shown
from edge_day2.ports.clock import Clock

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

_BULK_ROWS: Final = 5000


class _NotTogether(Exception):
    """A batch can't be stored by one statement."""


class SqlWritingUnitOfWork(SqlUnitOfWork):
    """One transaction that may write.

    A statement that may break a constraint runs in a savepoint where the database needs one, so that the error which
    follows from it leaves the transaction usable. Which rule was broken is asked afterwards: a transaction that breaks
    none pays nothing for good messages. Events are stored together, by `store_events`.
    """

    def __init__(self, connection: Connection, clock: Clock) -> None:
        super().__init__(connection)
        self._clock = clock
        self._happened: list[InventoryEvent] = []

    def _note(self, old: Resource | None, new: Resource | None) -> None:
        self._happened.extend(events_of(old, new, self._clock.now()))

    def _note_links(self, tenant_id: str, from_os_id: str, desired_os_id: str, count: int) -> None:
        if count:
            self._happened.append(linked_event(tenant_id, from_os_id, desired_os_id, count, self._clock.now()))

    def store_events(self) -> None:
        """Store what happened in this transaction, at its end."""
        if self._happened:
            parameters = event_statements.to_parameters(self._happened)
            try:
                self._connection.execute(self._events.add, parameters)
            except SQLAlchemyError as error:
                raise self._fail(translate(error)) from error

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        """Undo everything since the beginning when an exception passes."""
        savepoint = self._connection.begin_nested()
        try:
            yield
        except BaseException:
            try:
                savepoint.rollback()
            except SQLAlchemyError as error:
                # SQLite has rolled back the whole transaction, for want of space for example. The first error says why.
                self._fail(translate(error))
            raise
        savepoint.commit()

    def _attempt(self) -> AbstractContextManager[None]:
        # SQLite undoes a failed statement and goes on; PostgreSQL refuses everything that follows.
        return nullcontext() if self._connection.dialect.name == "sqlite" else self._savepoint()

    def _change(self, statement: Executable, parameters: Mapping[str, Plain], *, constrained: bool) -> int | None:
        """Execute and return the number of rows that changed, None where a constraint forbids it."""
        self._check_usable()
        try:
            with self._attempt() if constrained else nullcontext():
                return self._connection.execute(statement, parameters).rowcount
        except SQLAlchemyError as error:
            if constrained and isinstance(error, IntegrityError):
                return None
            raise self._fail(translate(error)) from error

    def add(self, resource: Resource) -> None:
        check_new(resource)
        shape = shape_of(type(resource))
        if self._change(insert(shape.table), shape.to_columns(resource), constrained=True) is None:
            self._raise_broken_rule(resource, is_new=True)
        self._note(None, resource)

    def add_all(self, resources: Iterable[Resource]) -> None:
        self._in_bulk(resources, self._add_rows, self.add)

    def _add_rows(self, resources: Sequence[Resource]) -> bool:
        """Add resources kind by kind, so that what they refer to comes first."""
        for kind in KINDS:
            found = [resource for resource in resources if type(resource) is kind]
            for resource in found:
                check_new(resource)
            if found:
                shape = shape_of(kind)
                self._connection.execute(insert(shape.table), [shape.to_columns(resource) for resource in found])
        for resource in resources:
            self._note(None, resource)
        return True

    def _in_bulk(
        self, items: Iterable[T], together: Callable[[Sequence[T]], bool], singly: Callable[[T], None]
    ) -> None:
        """Do all `items` or none: many `together`, and those `singly`, for the right error, where that doesn't work."""
        self._check_usable()
        stream, happened = iter(items), len(self._happened)
        try:
            with self._savepoint():
                while batch := list(islice(stream, _BULK_ROWS)):
                    with suppress(IntegrityError, _NotTogether), self._savepoint():
                        if together(batch):
                            continue
                        raise _NotTogether
                    for item in batch:
                        singly(item)
        except BaseException as error:
            del self._happened[happened:]
            if isinstance(error, SQLAlchemyError):
                raise self._fail(translate(error)) from error
            raise

    def replace(self, old: R, new: R) -> None:
        kind, tenant_id, resource_id = type(old), old.tenant_id, old.resource_id
        _check_replacement(old, new)
        if moves_region(new, old):
            check_region(new, self._regions_around(tenant_id, new.parent_id))
        if self._replace_row(old, new):
            self._note(old, new)
            return
        stored = self.get(kind, tenant_id, resource_id)
        # Equal resources may be written differently, a cron field as "1,3" and as "3,1" for example.
        if stored == old and self._replace_row(stored, new):
            self._note(old, new)
            return
        raise self._fail(Conflict(f"{kind.__name__} {resource_id!r} was changed in the meantime; repeat"))

    def _regions_around(self, tenant_id: str, region_id: str | None) -> dict[str, None]:
        """Return a region and those around it, from the inside out, and keep others from moving them."""
        found: dict[str, None] = {}
        while region_id is not None and region_id not in found and is_text(region_id):
            found[region_id] = None
            rows = self._rows(statements.REGION_AROUND, {"tenant_id": tenant_id, "resource_id": region_id})
            region_id = rows[0][0] if rows else None
        return found

    def _replace_row(self, old: R, new: R) -> bool:
        """Write `new` where the row is that of `old`, and return whether it was."""
        changed, parameters = _changes(old, new)
        if not changed:
            return self._find(type(old), old.tenant_id, old.resource_id) == old
        constrained = not shape_of(type(old)).constrained.isdisjoint(changed)
        rows = self._change(statements.of(type(old)).change(changed), parameters, constrained=constrained)
        if rows is None:
            self._raise_broken_rule(new, is_new=False)
        return rows == 1

    def replace_all(self, changes: Iterable[tuple[R, R]]) -> None:
        self._in_bulk(changes, self._replace_rows, lambda change: self.replace(*change))

    def _replace_rows(self, changes: Sequence[tuple[R, R]]) -> bool:
        """Replace what changes in the same columns by one statement; return False where not every row was its old."""
        alike: dict[tuple[type[R], tuple[str, ...]], list[Mapping[str, Plain]]] = {}
        for old, new in changes:
            _check_replacement(old, new)
            changed, parameters = _changes(old, new)
            if not changed or moves_region(new, old):
                return False
            alike.setdefault((type(old), changed), []).append(parameters)
        for (kind, changed), rows in alike.items():
            done = self._connection.execute(statements.of(kind).change(changed), rows)
            if done.rowcount != len(rows):
                return False
        for old, new in changes:
            self._note(old, new)
        return True

    def relink(self, tenant_id: str, links: Collection[Link], desired_os_id: str, *, at_most: int) -> int:
        running: dict[tuple[OSType, str], list[str]] = {}
        for link in links:
            check_relinkable(link)
            if is_text(link.current_os_id) and is_text(link.desired_os_id):
                running.setdefault((link.os_type, link.desired_os_id), []).append(link.current_os_id)
        if not (is_text(tenant_id) and is_id(desired_os_id)):
            raise _no_os(tenant_id, desired_os_id)
        if self._connection.dialect.name == "postgresql":
            self._rows(statements.ONE_BY_ONE_BY_INDEX, {})
        count = 0
        for (os_type, old_desired), current in running.items():
            wanted: dict[str, Plain] = {
                "tenant": tenant_id,
                "kind": os_type.name,
                "current": json.dumps(current),
                "desired": old_desired,
                "new_desired": desired_os_id,
                "at_most": at_most - count,
            }
            done = self._change(statements.RELINK, wanted, constrained=True)
            if done is None:
                raise _no_os(tenant_id, desired_os_id)
            self._note_links(tenant_id, old_desired, desired_os_id, done)
            count += done
            if count == at_most:
                break
        if not count and not self._exists(OSResource, tenant_id, desired_os_id):
            raise _no_os(tenant_id, desired_os_id)
        return count

    def forget_events(self, tenant_id: str, before: datetime) -> int:
        """See `UnitOfWork.forget_events`."""
        if not is_text(tenant_id):
            return 0
        tenant: dict[str, Plain] = {"tenant": tenant_id}
        kept = self._rows(self._events.first_kept, {**tenant, "before": to_microseconds(before)})
        transaction, position = kept[0] if kept else self._events_end(tenant_id)[1]
        forgotten = self._rows(self._events.last_forgotten, {**tenant, "transaction": transaction, "place": position})
        if not forgotten:
            return 0
        last = {**tenant, "transaction": forgotten[0][0], "place": forgotten[0][1]}
        count = self._change(event_statements.FORGET, last, constrained=False)
        if not self._change(event_statements.NOTE_FORGOTTEN, last, constrained=False):
            self._change(event_statements.NOTE_FIRST_FORGOTTEN, last, constrained=False)
        return count or 0

    def admit(self, rollout: Rollout, link: Link, admission: Admission, at: datetime, *, at_most: int) -> int:
        check_relinkable(link)
        check_storable(rollout)
        if not (is_text(link.current_os_id) and is_text(link.desired_os_id)):
            return 0
        statement, parameters = rollout_statements.ADMIT, rollout_statements.admitting
        if admission.per_site is not None or admission.per_region is not None:
            statement, parameters = rollout_statements.ADMIT_BY_PLACE, rollout_statements.admitting_by_place
        wanted = parameters(rollout, link, admission, to_microseconds(at), at_most)
        done = self._change(statement, wanted, constrained=True)
        if done is None or (not done and not self._exists(OSResource, rollout.tenant_id, rollout.target_os_id)):
            raise _no_os(rollout.tenant_id, rollout.target_os_id)
        self._note_links(rollout.tenant_id, link.desired_os_id, rollout.target_os_id, done)
        return done

    def delete(self, resource: Resource) -> None:
        kind, tenant_id, resource_id = type(resource), resource.tenant_id, resource.resource_id
        key = {"tenant_id": tenant_id, "resource_id": resource_id}
        storable = is_text(tenant_id) and is_text(resource_id)
        rows = self._change(statements.of(kind).remove, key, constrained=True) if storable else 0
        if rows == 0:
            raise NotFound(f"tenant {shown(tenant_id)} has no {kind.__name__} {shown(resource_id)}")
        if rows is None:
            self._raise_used(resource)
        self._note(resource, None)

    def forget_runs(self, tenant_id: str, before: datetime, *, at_most: int) -> int:
        if not is_text(tenant_id):
            return 0
        over: dict[str, Plain] = {"tenant_id": tenant_id, "before": to_microseconds(before), "at_most": at_most}
        return self._change(list_statements.FORGET_RUNS, over, constrained=False) or 0

    def _raise_used(self, resource: Resource) -> None:
        kind, users = type(resource), statements.of(type(resource)).users
        key = {"tenant_id": resource.tenant_id, "resource_id": resource.resource_id}
        rows = [] if users is None else self._rows(users, key)
        check_unused(resource, tuple(f"{user} {user_id}" for user, user_id in rows))
        raise self._fail(Conflict(f"{kind.__name__} {resource.resource_id!r} has just been put to use; repeat"))

    def _raise_broken_rule(self, resource: Resource, *, is_new: bool) -> None:
        """Say which rule the database has found broken."""
        kind, tenant_id, key = type(resource), resource.tenant_id, unique_key(resource)
        if is_new and self._exists(kind, tenant_id, resource.resource_id):
            raise AlreadyExists(f"tenant {tenant_id!r} has a {kind.__name__} {resource.resource_id!r} already")
        if key is not None:
            holder = self._holder(kind, tenant_id, *key[1:])
            if holder is not None and holder.resource_id != resource.resource_id:
                named = f"{kind.__name__} {holder.resource_id!r}"
                raise AlreadyExists(f"{named} has {key[0]} {', '.join(map(repr, key[1:]))} already")
        for target, target_id in references(resource):
            if not self._exists(target, tenant_id, target_id):
                named = f"{kind.__name__} {resource.resource_id!r} refers to {target.__name__} {target_id!r}"
                raise NotFound(f"{named}, which tenant {tenant_id!r} doesn't have")
        raise self._fail(Conflict("somebody else's transaction broke a rule together with this one; repeat it"))


def _check_replacement(old: Resource, new: Resource) -> None:
    """Refuse `new` where it can't take the place of `old`."""
    key = type(old), old.tenant_id, old.resource_id
    if (type(new), new.tenant_id, new.resource_id) != key:
        expected = f"{old.resource_id!r} of {old.tenant_id!r}"
        raise InvalidResource(f"{type(old).__name__}.resource_id", new.resource_id, expected)
    check_storable(new, old)


def _changes(old: R, new: R) -> tuple[tuple[str, ...], dict[str, Plain]]:
    """Return the columns that change, and the parameters of the statement that changes them."""
    shape = shape_of(type(old))
    before, after = shape.encode(old), shape.encode(new)
    parameters = dict(zip(shape.old_names, before, strict=True))
    changed = [place for place, value in enumerate(before) if value != after[place]]
    parameters.update((f"new_{shape.names[place]}", after[place]) for place in changed)
    return tuple(shape.names[place] for place in changed), parameters


def _no_os(tenant_id: str, resource_id: str) -> NotFound:
    return NotFound(f"tenant {shown(tenant_id)} has no OSResource {shown(resource_id)}")
