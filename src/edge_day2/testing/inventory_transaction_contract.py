"""The half of the Inventory's contract that is about transactions: all or nothing, snapshots, conflicts, threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import evolve

from edge_day2.domain.resources import Host, Instance, OSResource, Region, Resource, Site
from edge_day2.domain.schedules import RepeatedSchedule
from edge_day2.errors import AlreadyExists, Conflict, FailedPrecondition, InvalidResource, NotFound, StorageError
from edge_day2.ports.inventory import Inventory, UnitOfWork
from edge_day2.testing.inventory_contents import GUID, TENANT, Fleet, load, plain_fleet, store


class _Interrupted(Exception):
    pass


def count_up(inventory: Inventory, region: Region) -> int:
    """Add one to the number that the region's name is, repeating where somebody else was in the way."""
    while True:
        try:
            with inventory.writing() as unit:
                stored = unit.get(Region, region.tenant_id, region.resource_id)
                counted = int(stored.name) + 1
                unit.replace(stored, evolve(stored, name=str(counted)))
            return counted
        except Conflict:
            continue


def in_threads(*works: Callable[[], object]) -> None:
    """Run `works` at once, each in a thread of its own, and raise what the first of them raised."""
    errors: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class InventoryTransactionContract:
    """How transactions behave. Needs the fixtures `inventory` and `fleet` of `InventoryContract`."""

    # All or nothing

    def test_an_exception_undoes_everything(self, inventory: Inventory, fleet: Fleet) -> None:
        def change_and_fail() -> None:
            with inventory.writing() as unit:
                unit.replace(fleet.host, evolve(fleet.host, name="renamed"))
                unit.delete(fleet.for_nothing)
                unit.add(evolve(fleet.site, resource_id="site-2"))
                unit.add_all([evolve(fleet.site, resource_id="site-3")])
                assert unit.get(Host, TENANT, "host-1").name == "renamed"
                raise _Interrupted

        with pytest.raises(_Interrupted):
            change_and_fail()
        assert load(inventory, fleet.host) == fleet.host
        assert load(inventory, fleet.for_nothing) == fleet.for_nothing
        with inventory.reading() as unit:
            assert list(unit.all(type(fleet.site), TENANT)) == [fleet.site]
            assert unit.report_context(TENANT, GUID).host == fleet.host

    def test_what_was_undone_can_be_done_again(self, inventory: Inventory, fleet: Fleet) -> None:
        site = evolve(fleet.site, resource_id="site-2")

        def add_and_fail() -> None:
            with inventory.writing() as unit:
                unit.add(site)
                raise _Interrupted

        with pytest.raises(_Interrupted):
            add_and_fail()
        store(inventory, site)
        assert load(inventory, site) == site

    def test_a_refused_call_changes_nothing_and_the_transaction_goes_on(
        self, inventory: Inventory, fleet: Fleet
    ) -> None:
        site = evolve(fleet.site, resource_id="site-2", name="second")
        with inventory.writing() as unit:
            unit.add(site)
            for attempt in _refused(unit, fleet):
                with pytest.raises((AlreadyExists, NotFound, FailedPrecondition, InvalidResource)):
                    attempt()
            unit.replace(fleet.site, evolve(fleet.site, name="renamed"))
        with inventory.reading() as unit:
            assert list(unit.all(Site, TENANT)) == [evolve(fleet.site, name="renamed"), site]
            assert list(unit.all(Host, TENANT)) == [fleet.host]
            assert list(unit.all(OSResource, TENANT)) == [fleet.new_os, fleet.old_os]

    def test_many_are_added_or_none(self, inventory: Inventory, fleet: Fleet) -> None:
        many = [Region(resource_id=f"region-{number:05}", tenant_id=TENANT, name="region") for number in range(6000)]
        with inventory.writing() as unit:
            with pytest.raises(AlreadyExists, match="region-town"):
                unit.add_all([*many, fleet.town])
            with pytest.raises(NotFound, match="nowhere"):
                unit.add_all([*many[:10], evolve(many[10], parent_id="nowhere")])
            with pytest.raises(InvalidResource):
                unit.add_all([*many, evolve(many[10], resource_id="region-nul", name="nul \0")])
            assert list(unit.all(Region, TENANT)) == [fleet.country, fleet.town]
            unit.add_all(iter(many))
        with inventory.reading() as unit:
            assert list(unit.all(Region, TENANT)) == [*many, fleet.country, fleet.town]

    def test_many_are_replaced_or_none(self, inventory: Inventory, fleet: Fleet) -> None:
        many = [Region(resource_id=f"region-{number:05}", tenant_id=TENANT, name="old") for number in range(6000)]
        store(inventory, *many)
        renamed: list[tuple[Resource, Resource]] = [(region, evolve(region, name="new")) for region in many]
        gone = evolve(many[0], resource_id="gone")
        with inventory.writing() as unit:
            with pytest.raises(NotFound, match="nowhere"):
                unit.replace_all([*renamed, (fleet.site, evolve(fleet.site, region_id="nowhere"))])
            with pytest.raises(NotFound, match="gone"):
                unit.replace_all([*renamed[:10], (gone, evolve(gone, name="new"))])
            with pytest.raises(InvalidResource):
                unit.replace_all([*renamed, (fleet.site, evolve(fleet.site, name="nul \0"))])
            assert {region.name for region in unit.all(Region, TENANT)} == {"old", "country", "town"}
            unit.replace_all(iter(renamed))
        with inventory.reading() as unit:
            assert {region.name for region in unit.all(Region, TENANT)} == {"new", "country", "town"}

    def test_many_replacements_may_be_of_any_kind_and_follow_each_other(
        self, inventory: Inventory, fleet: Fleet
    ) -> None:
        once, twice = evolve(fleet.host, name="once"), evolve(fleet.host, name="twice", site_id=None)
        spelled = evolve(fleet.for_host, schedule=RepeatedSchedule(day_week="3,1"))
        elsewhere = evolve(fleet.instance, desired_os_id="os-old")
        changes: list[tuple[Resource, Resource]] = [
            (fleet.host, once),
            (fleet.instance, elsewhere),
            (fleet.site, fleet.site),
            (once, twice),
            (spelled, evolve(spelled, name="renamed")),
        ]
        with inventory.writing() as unit:
            unit.replace_all(changes)
        assert load(inventory, fleet.host) == twice
        assert load(inventory, fleet.instance) == elsewhere
        assert load(inventory, fleet.for_host).name == "renamed"

    def test_one_stale_replacement_of_many_is_a_conflict(self, inventory: Inventory, fleet: Fleet) -> None:
        stale = evolve(fleet.town, name="stale")
        changes = [(fleet.country, evolve(fleet.country, name="renamed")), (stale, evolve(stale, name="lost"))]
        with pytest.raises(Conflict), inventory.writing() as unit:
            unit.replace_all(changes)
        assert load(inventory, fleet.country) == fleet.country

    def test_nothing_to_add_or_replace_is_no_error(self, inventory: Inventory) -> None:
        with inventory.writing() as unit:
            unit.add_all([])
            unit.replace_all([])
        with inventory.reading() as unit:
            assert unit.tenants() == ()

    # Conflicts

    def test_a_change_to_something_newer_is_a_conflict(self, inventory: Inventory, fleet: Fleet) -> None:
        newer = evolve(fleet.instance, os_update_available="7 packages")
        with inventory.writing() as unit:
            unit.replace(fleet.instance, newer)
        for late in (evolve(fleet.instance, existing_cves="[]"), fleet.instance):
            with pytest.raises(Conflict), inventory.writing() as unit:
                unit.replace(fleet.instance, late)
        assert load(inventory, fleet.instance) == newer

    def test_after_a_conflict_nothing_is_committed(self, inventory: Inventory, fleet: Fleet) -> None:
        def swallow_the_conflict() -> None:
            with inventory.writing() as unit:
                unit.replace(fleet.site, evolve(fleet.site, name="renamed"))
                with pytest.raises(Conflict):
                    unit.replace(evolve(fleet.host, name="stale"), evolve(fleet.host, name="lost"))
                with pytest.raises(StorageError):
                    unit.get(Host, TENANT, "host-1")

        with pytest.raises(Conflict):
            swallow_the_conflict()
        assert load(inventory, fleet.site) == fleet.site

    def test_old_is_compared_by_value(self, inventory: Inventory, fleet: Fleet) -> None:
        written = evolve(fleet.for_host, schedule=RepeatedSchedule(day_week="1,3"))
        same = evolve(fleet.for_host, schedule=RepeatedSchedule(day_week="3,1,3"))
        renamed = evolve(written, name="renamed")
        with inventory.writing() as unit:
            unit.replace(fleet.for_host, written)
            unit.replace(same, renamed)
        assert load(inventory, written) == renamed

    def test_replacing_by_the_same_is_no_error(self, inventory: Inventory, fleet: Fleet) -> None:
        with inventory.writing() as unit:
            for resource in fleet.resources:
                unit.replace(resource, resource)
        assert load(inventory, fleet.host) == fleet.host

    # Snapshots

    def test_a_reader_keeps_what_it_saw_and_waits_for_nobody(self, inventory: Inventory, fleet: Fleet) -> None:
        renamed = evolve(fleet.host, name="renamed")
        with inventory.reading() as before:
            assert before.get(Host, TENANT, "host-1") == fleet.host
            with inventory.writing() as unit:
                unit.replace(fleet.host, renamed)
                unit.delete(fleet.for_host)
                with inventory.reading() as during:
                    assert during.get(Host, TENANT, "host-1") == fleet.host
            assert before.get(Host, TENANT, "host-1") == fleet.host
            assert before.report_context(TENANT, GUID).schedules[1] == fleet.for_host
            assert load(inventory, fleet.host) == renamed

    def test_a_writer_sees_its_own_changes(self, inventory: Inventory, fleet: Fleet) -> None:
        with inventory.writing() as unit:
            unit.replace(fleet.instance, evolve(fleet.instance, desired_os_id="os-old"))
            context = unit.report_context(TENANT, GUID)
            assert context.desired_os == fleet.old_os
            assert unit.instance_of_host(TENANT, "host-1") == context.instance

    def test_a_reader_changes_nothing(self, inventory: Inventory, fleet: Fleet) -> None:
        with inventory.reading() as unit:
            attempts: tuple[Callable[[], None], ...] = (
                lambda: unit.add(evolve(fleet.site, resource_id="site-2")),
                lambda: unit.add_all([]),
                lambda: unit.replace_all([]),
                lambda: unit.replace(fleet.site, evolve(fleet.site, name="renamed")),
                lambda: unit.delete(fleet.for_nothing),
            )
            for attempt in attempts:
                with pytest.raises(FailedPrecondition):
                    attempt()

    def test_a_transaction_that_is_over_answers_nothing(self, inventory: Inventory, fleet: Fleet) -> None:
        with inventory.writing() as writer:
            pass
        with inventory.reading() as reader:
            unread = reader.all(Region, TENANT)
        for unit in (reader, writer):
            with pytest.raises(StorageError):
                unit.get(Host, TENANT, "host-1")
        with pytest.raises(StorageError):
            next(unread)
        with pytest.raises(StorageError):
            writer.add(evolve(fleet.site, resource_id="site-2"))

    def test_a_closed_inventory_says_so(self, inventory: Inventory) -> None:
        inventory.close()
        inventory.close()
        for begin in (inventory.reading, inventory.writing):
            with pytest.raises(StorageError, match="closed"), begin():
                pass

    # Tenants

    def test_tenants_with_the_same_ids_never_meet(self, inventory: Inventory, fleet: Fleet) -> None:
        other = plain_fleet("tenant-b")
        store(inventory, *other.resources)
        with inventory.writing() as unit:
            unit.replace(other.host, evolve(other.host, name="of b"))
            unit.replace(other.instance, evolve(other.instance, os_update_policy_id=None))
            unit.delete(other.policy)
            unit.delete(other.for_region)
        with inventory.reading() as unit:
            ours, theirs = unit.report_context(TENANT, GUID), unit.report_context("tenant-b", GUID)
            assert (ours.host, ours.policy) == (fleet.host, fleet.policy)
            assert (theirs.host.name, theirs.policy) == ("of b", None)
            assert {schedule.tenant_id for schedule in theirs.schedules} == {"tenant-b"}
            assert len(ours.schedules) == len(theirs.schedules) + 1
            assert [run.tenant_id for run in unit.runs_of_instance("tenant-b", "instance-1")] == ["tenant-b"] * 2
            with pytest.raises(NotFound):
                unit.get(Instance, "tenant-c", "instance-1")
            with pytest.raises(NotFound):
                unit.report_context("tenant-c", GUID)

    # What no database holds

    @pytest.mark.parametrize("text", ["nul \0", "half of a pair \ud800"])
    def test_text_that_a_database_cannot_hold_is_refused(self, inventory: Inventory, fleet: Fleet, text: str) -> None:
        broken: list[tuple[Resource, Resource]] = [
            (fleet.host, evolve(fleet.host, name=text)),
            (fleet.old_os, evolve(fleet.old_os, metadata=(("key", text),))),
            (fleet.instance, evolve(fleet.instance, update=evolve(fleet.instance.update, detail=text))),
            (fleet.past_run, evolve(fleet.past_run, description=text)),
        ]
        for old, new in broken:
            with inventory.writing() as unit:
                with pytest.raises(InvalidResource):
                    unit.replace(old, new)
                with pytest.raises(InvalidResource):
                    unit.add(evolve(new, resource_id="another"))
        with inventory.reading() as unit:
            assert list(unit.all(Region, text)) == []
            assert list(unit.unheard_since(text, fleet.open_run.start_time)) == []
            assert unit.runs_of_instance(TENANT, text) == ()
            assert unit.instance_of_host(TENANT, text) is None
            for attempt in (
                lambda: unit.get(Host, TENANT, text),
                lambda: unit.host_by_guid(TENANT, text),
                lambda: unit.report_context(TENANT, text),
            ):
                with pytest.raises(NotFound):
                    attempt()

    @pytest.mark.parametrize("longest", ["x" * 300, "𝄞" * 200])
    def test_an_id_has_at_most_300_characters_and_800_bytes(
        self, inventory: Inventory, fleet: Fleet, longest: str
    ) -> None:
        store(inventory, evolve(fleet.old_os, tenant_id=longest, resource_id=longest, profile_name=longest))
        with inventory.writing() as unit, pytest.raises(InvalidResource):
            unit.add(evolve(fleet.site, resource_id=longest + "x"))

    # Threads

    def test_threads_that_write_at_once_lose_nothing(self, inventory: Inventory) -> None:
        counter = Region(resource_id="counter", tenant_id=TENANT, name="0")
        store(inventory, counter)
        in_threads(*(lambda: [count_up(inventory, counter) for _ in range(25)] for _ in range(4)))
        assert load(inventory, counter).name == "100"

    def test_readers_in_other_threads_see_whole_transactions(self, inventory: Inventory) -> None:
        regions = [Region(resource_id=f"region-{number}", tenant_id=TENANT, name="0") for number in range(5)]
        store(inventory, *regions)
        written = threading.Event()

        def write() -> None:
            for number in range(1, 30):
                with inventory.writing() as unit:
                    for region in list(unit.all(Region, TENANT)):
                        unit.replace(region, evolve(region, name=str(number)))
            written.set()

        def read() -> None:
            while not written.is_set():
                with inventory.reading() as unit:
                    first = unit.get(Region, TENANT, "region-0").name
                    assert {region.name for region in unit.all(Region, TENANT)} == {first}

        in_threads(write, read, read)


def _refused(unit: UnitOfWork, fleet: Fleet) -> Iterator[Callable[[], Any]]:
    yield lambda: unit.add(fleet.host)
    yield lambda: unit.add(evolve(fleet.old_os, resource_id="os-2"))
    yield lambda: unit.add(evolve(fleet.site, resource_id="site-9", region_id="nowhere"))
    yield lambda: unit.add_all([evolve(fleet.site, resource_id="site-9"), fleet.site])
    yield lambda: unit.replace(fleet.host, evolve(fleet.host, site_id="nowhere"))
    yield lambda: unit.delete(fleet.old_os)
    yield lambda: unit.delete(evolve(fleet.host, resource_id="host-9"))
    yield lambda: unit.get(Host, TENANT, "host-9")
    yield lambda: unit.add(evolve(fleet.site, resource_id="site-9", name="\0"))
