"""The part of the Inventory's contract that is about its change feed: what is told, in which order, and what isn't."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve

from edge_day2.domain.inventory_events import EventKind, InventoryEvent
from edge_day2.domain.resources import Link, OSResource, OSType, Region
from edge_day2.domain.statuses import InventoryStatus, UpdateRecord
from edge_day2.errors import AlreadyExists, Conflict, EventsForgotten, FailedPrecondition, InvalidResource, InvalidValue
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_contents import START, TENANT, Fleet, load, store

MANY = 10_000
OTHER = "tenant-b"


def told(inventory: Inventory, after: str = "", tenant: str = TENANT) -> tuple[InventoryEvent, ...]:
    """Return everything that happened after a cursor, read in small pages."""
    found: list[InventoryEvent] = []
    with inventory.reading() as unit:
        while (page := unit.events(tenant, after=after, at_most=2)).events:
            found += page.events
            after = page.cursor
    return tuple(found)


def end(inventory: Inventory) -> str:
    """Return the cursor after everything that has happened."""
    with inventory.reading() as unit:
        return unit.events_end(TENANT)


def failed(text: str, **content: Any) -> UpdateRecord:
    """Return the record of an update that failed."""
    return UpdateRecord(status=InventoryStatus.FAILED, text=text, timestamp=START, **content)


def add(inventory: Inventory, *numbers: int) -> None:
    """Add OS Resources, all in one transaction."""
    with inventory.writing() as unit:
        for number in numbers:
            unit.add(os_resource(number))


def os_resource(number: int, tenant: str = TENANT) -> OSResource:
    """Return an immutable OS Resource."""
    return OSResource(
        resource_id=f"os-{number}",
        tenant_id=tenant,
        name=f"os {number}",
        os_type=OSType.IMMUTABLE,
        profile_name="profile",
        image_id=f"9.{number}",
        sha256="0" * 64,
        image_url="image.raw.gz",
    )


class InventoryEventsContract:
    """Needs the fixtures `inventory` and `fleet` of `InventoryContract`."""

    def test_a_new_os_resource_is_told_and_other_new_things_are_not(self, inventory: Inventory, fleet: Fleet) -> None:
        kinds = {(event.kind, event.resource_id) for event in told(inventory)}

        assert kinds == {
            (EventKind.OS_RESOURCE_ADDED, fleet.old_os.resource_id),
            (EventKind.OS_RESOURCE_ADDED, fleet.new_os.resource_id),
        }

    def test_a_status_is_told_when_it_changes_with_host_and_text(self, inventory: Inventory, fleet: Fleet) -> None:
        before, after = end(inventory), evolve(fleet.instance, update=failed("Update failed"))
        with inventory.writing() as unit:
            unit.replace(fleet.instance, after)
        with inventory.writing() as unit:
            unit.replace(after, evolve(after, os_update_available="3.1"))

        (event,) = told(inventory, before)

        assert (event.kind, event.resource_id) == (EventKind.UPDATE_FAILED, fleet.instance.resource_id)
        assert event.detail == (("host_id", fleet.instance.host_id), ("text", "Update failed"))

    def test_links_are_told_one_by_one_and_many_at_once(self, inventory: Inventory, fleet: Fleet) -> None:
        old, new = fleet.old_os.resource_id, fleet.new_os.resource_id
        before = end(inventory)
        with inventory.writing() as unit:
            unit.relink(TENANT, [Link(OSType.IMMUTABLE, old, new)], old, at_most=MANY)
            unit.relink(TENANT, [Link(OSType.IMMUTABLE, old, new)], old, at_most=MANY)
        changed = load(inventory, fleet.instance)
        with inventory.writing() as unit:
            unit.replace(changed, evolve(changed, current_os_id=new, desired_os_id=new))

        linked, desired, current = told(inventory, before)

        assert (linked.kind, linked.resource_id) == (EventKind.INSTANCES_LINKED, old)
        assert linked.detail == (("from", new), ("count", "1"))
        assert (desired.kind, current.kind) == (EventKind.DESIRED_OS_CHANGED, EventKind.CURRENT_OS_CHANGED)
        assert current.detail == (("host_id", fleet.host.resource_id), ("from", old), ("to", new))

    def test_every_way_of_writing_is_told(self, inventory: Inventory) -> None:
        first, second = os_resource(1), os_resource(2)
        before = end(inventory)
        with inventory.writing() as unit:
            unit.add_all([first, second])
            unit.replace_all([(first, evolve(first, name="a")), (second, evolve(second, description="b"))])
            unit.delete(evolve(first, name="a"))

        found = told(inventory, before)

        assert [(event.kind.name, event.resource_id) for event in found] == [
            ("OS_RESOURCE_ADDED", "os-1"),
            ("OS_RESOURCE_ADDED", "os-2"),
            ("OS_RESOURCE_CHANGED", "os-1"),
            ("OS_RESOURCE_CHANGED", "os-2"),
            ("OS_RESOURCE_REMOVED", "os-1"),
        ]
        assert dict(found[3].detail)["fields"] == "description"

    def test_what_is_undone_is_not_told(self, inventory: Inventory, fleet: Fleet) -> None:
        before, mine = end(inventory), os_resource(4)

        def give_up() -> None:
            with inventory.writing() as unit:
                unit.add(os_resource(1))
                raise ZeroDivisionError

        def be_overtaken() -> None:
            with inventory.writing() as unit:
                unit.add(os_resource(5))
                unit.replace(evolve(mine, name="stale"), evolve(mine, name="new"))

        with pytest.raises(ZeroDivisionError):
            give_up()
        with inventory.writing() as unit:
            with pytest.raises(InvalidResource):
                unit.add_all([os_resource(2), evolve(os_resource(3), description="\0")])
            with pytest.raises(AlreadyExists):
                unit.add_all([os_resource(2), os_resource(2)])
            with pytest.raises(InvalidResource):
                unit.replace_all([(fleet.old_os, evolve(fleet.old_os, name="\0"))])
            unit.add(mine)
        with pytest.raises(Conflict):
            be_overtaken()
        add(inventory, 6)

        assert [event.resource_id for event in told(inventory, before)] == ["os-4", "os-6"]

    def test_a_transaction_is_told_when_it_is_stored(self, inventory: Inventory) -> None:
        before = end(inventory)
        with inventory.writing() as unit:
            unit.add(os_resource(1))
            assert unit.events(TENANT, after=before, at_most=MANY).events == ()
            assert told(inventory, before) == ()
        assert len(told(inventory, before)) == 1

    def test_a_reader_keeps_its_snapshot(self, inventory: Inventory) -> None:
        before = end(inventory)
        with inventory.reading() as unit:
            assert unit.events(TENANT, after=before, at_most=MANY).events == ()
            add(inventory, 1)
            assert unit.events(TENANT, after=before, at_most=MANY).events == ()
        assert len(told(inventory, before)) == 1

    def test_each_tenant_has_a_feed_of_its_own(self, inventory: Inventory, fleet: Fleet) -> None:
        with inventory.writing() as unit:
            unit.add(os_resource(1, OTHER))
            unit.add(os_resource(1))
            unit.add(os_resource(2, OTHER))

        assert [event.resource_id for event in told(inventory, tenant=OTHER)] == ["os-1", "os-2"]
        assert {event.tenant_id for event in told(inventory)} == {TENANT}
        with inventory.reading() as unit:
            for nobody in ("nobody", "\0", "\ud800", "' OR 1=1 --"):
                assert unit.events(nobody, at_most=MANY).events == ()
                unit.events_end(nobody)

    def test_a_page_holds_what_was_asked_for_and_its_cursor_goes_on(self, inventory: Inventory) -> None:
        before = end(inventory)
        add(inventory, *range(5))
        add(inventory, *range(5, 7))
        with inventory.reading() as unit:
            pages = [unit.events(TENANT, after=before, at_most=3)]
            while pages[-1].events:
                pages.append(unit.events(TENANT, after=pages[-1].cursor, at_most=3))

        assert [len(page.events) for page in pages] == [3, 3, 1, 0]
        assert [event.resource_id for page in pages for event in page.events] == [f"os-{number}" for number in range(7)]
        assert pages[-1].cursor == pages[-2].cursor

    @pytest.mark.parametrize(
        "cursor", ["x", "1", "1.", "-1.0", "1.0 ", "१.0", "9" * 30 + ".0", "1.0; DROP TABLE host", "\0"]
    )
    def test_a_cursor_that_nobody_gave_is_refused(self, inventory: Inventory, cursor: str) -> None:
        with inventory.reading() as unit, pytest.raises(InvalidValue, match="cursor"):
            unit.events(TENANT, after=cursor, at_most=1)

    def test_a_cursor_from_the_future_is_of_another_database(self, inventory: Inventory) -> None:
        with inventory.reading() as unit, pytest.raises(EventsForgotten, match="ahead"):
            unit.events(TENANT, after="999999999999999999.1", at_most=1)

    def test_what_was_forgotten_is_missed_by_those_alone_who_had_not_read_it(self, inventory: Inventory) -> None:
        early = end(inventory)
        add(inventory, 1)
        with inventory.reading() as unit:
            late = unit.events(TENANT, after=early, at_most=MANY).cursor
            (event,) = unit.events(TENANT, after=early, at_most=MANY).events
        with inventory.writing() as unit:
            assert unit.forget_events(TENANT, event.at) == 0
            assert unit.forget_events("nobody", event.at) == 0
        assert told(inventory, early) == (event,)
        with inventory.writing() as unit:
            assert unit.forget_events(TENANT, event.at + timedelta(days=1)) >= 1
            assert unit.forget_events(TENANT, event.at + timedelta(days=1)) == 0
        add(inventory, 2)

        assert [event.resource_id for event in told(inventory, late)] == ["os-2"]
        assert [event.resource_id for event in told(inventory)] == ["os-2"]
        with inventory.reading() as unit, pytest.raises(EventsForgotten, match="forgotten"):
            unit.events(TENANT, after=early, at_most=1)

    def test_places_are_never_used_again_after_forgetting(self, inventory: Inventory) -> None:
        add(inventory, 1)
        before = end(inventory)
        with inventory.writing() as unit:
            unit.forget_events(TENANT, START + timedelta(days=365_000))
        assert end(inventory) >= before
        for number in (2, 3):
            add(inventory, number)
        assert [event.resource_id for event in told(inventory, before)] == ["os-2", "os-3"]

    def test_a_reading_transaction_forgets_nothing(self, inventory: Inventory) -> None:
        with inventory.reading() as unit, pytest.raises(FailedPrecondition):
            unit.forget_events(TENANT, START)

    def test_the_feed_tells_as_much_as_the_tables(self, inventory: Inventory, fleet: Fleet) -> None:
        before, instance = end(inventory), fleet.instance
        statuses = [
            InventoryStatus.UPDATE_IN_PROGRESS,
            InventoryStatus.DONE,
            InventoryStatus.LOST,
            InventoryStatus.FAILED,
        ]
        for number, status in enumerate(statuses):
            changed = evolve(instance, update=UpdateRecord(status=status, text=f"{number}", timestamp=START))
            with inventory.writing() as unit:
                unit.replace(instance, changed)
            instance = changed

        assert [(event.kind.name, dict(event.detail)["text"]) for event in told(inventory, before)] == [
            ("UPDATE_STARTED", "0"), ("UPDATE_DONE", "1"), ("UPDATE_LOST", "2"), ("UPDATE_FAILED", "3"),
        ]  # fmt: skip
        store(inventory, Region(resource_id="elsewhere", tenant_id=TENANT, name="elsewhere"))
        assert len(told(inventory, before)) == len(statuses)
