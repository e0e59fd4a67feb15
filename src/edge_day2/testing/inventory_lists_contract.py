"""The part of the Inventory's contract that is about lists: filters, pages, cursors, counts and views.

What a page is says `page_of` in `edge_day2.domain.inventory_pages`; a storage gives the same, whatever is stored, asked
for and written meanwhile.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import pytest
from attrs import evolve, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_day2.domain.inventory_filters import (
    HostFilter,
    InstanceFilter,
    OSResourceFilter,
    PolicyFilter,
    RegionFilter,
    ResourceFilter,
    RunFilter,
    RunState,
    ScheduleFilter,
    SiteFilter,
)
from edge_day2.domain.inventory_pages import for_list, page_of
from edge_day2.domain.inventory_views import InstanceView, OSName, view_instance
from edge_day2.domain.resources import (
    Host,
    Instance,
    OSResource,
    OSType,
    OSUpdatePolicy,
    OSUpdateRun,
    Region,
    Resource,
    ScheduleResource,
    ScheduleTarget,
    Site,
    TargetLevel,
    Trust,
    UpdatePolicyKind,
)
from edge_day2.domain.schedules import ScheduleKind
from edge_day2.domain.statuses import InventoryStatus, UpdateRecord
from edge_day2.errors import Conflict, FailedPrecondition, InvalidResource, InvalidValue, StorageError
from edge_day2.ports.inventory import Inventory, UnitOfWork
from edge_day2.testing.inventory_contents import START, TENANT, Fleet, plain_fleet, store
from edge_day2.testing.inventory_transaction_contract import in_threads

FILTERS: Final[tuple[ResourceFilter[Any], ...]] = (
    InstanceFilter(),
    HostFilter(),
    SiteFilter(),
    RegionFilter(),
    OSResourceFilter(),
    PolicyFilter(),
    ScheduleFilter(),
    RunFilter(),
)
_numbers = itertools.count()
_shared = settings(
    deadline=None,
    max_examples=100,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors, HealthCheck.too_slow],
)
# Texts that SQL, LIKE or a cursor could trip over; ids are in the order of code points.
_ODD: Final = ("%", "_", "'; DROP TABLE host; --", '"', "Zz", "é", "𝄞", "[1]", "\\")
_STATUSES: Final = (InventoryStatus.UP_TO_DATE, InventoryStatus.FAILED, InventoryStatus.UPDATE_IN_PROGRESS)
_NAMES: Final = ("%", "_", "line 4", "Line 4")


@frozen
class KnownPlaces:
    """Where everything of a tenant lies; see `edge_day2.domain.inventory_filters.Places`."""

    sites_of_hosts: Mapping[str, str | None]
    regions_of_sites: Mapping[str, str | None]
    parents: Mapping[str, str | None]

    def site_of_host(self, host_id: str) -> str | None:
        return self.sites_of_hosts[host_id]

    def regions_around(self, site_id: str) -> Collection[str]:
        region_id = self.regions_of_sites[site_id]
        found = []
        while region_id is not None:
            found.append(region_id)
            region_id = self.parents[region_id]
        return found


def places_of(unit: UnitOfWork, tenant_id: str) -> KnownPlaces:
    """Return where everything of a tenant lies."""
    return KnownPlaces(
        {host.resource_id: host.site_id for host in unit.all(Host, tenant_id)},
        {site.resource_id: site.region_id for site in unit.all(Site, tenant_id)},
        {region.resource_id: region.parent_id for region in unit.all(Region, tenant_id)},
    )


def _ids(kind: str, number: int) -> list[str]:
    return [f"{_ODD[place * 4 % len(_ODD)]}{kind}{place}" for place in range(number)]


_REGIONS: Final = _ids("region", 5)
_SITES: Final = _ids("site", 5)
_HOSTS: Final = _ids("host", 12)
_SYSTEMS: Final = _ids("os", 4)
_POLICIES: Final = _ids("policy", 3)


@st.composite
def worlds(draw: st.DrawFn, tenant: str) -> tuple[Resource, ...]:
    """Some resources of every kind, each behind what it refers to."""

    def one_of(values: Iterable[Any]) -> Any:
        return draw(st.sampled_from(list(values)))

    plain = plain_fleet(tenant)
    *images, ubuntu = _SYSTEMS
    systems = [
        evolve(
            plain.old_os,
            resource_id=name,
            image_id=f"3.{number}",
            profile_name="_" if name == images[-1] else "%",
            existing_cves="[1]",
            installed_packages="[2]",
        )
        for number, name in enumerate(images)
    ]
    systems.append(evolve(systems[0], resource_id=ubuntu, os_type=OSType.MUTABLE, profile_name="ubuntu"))
    regions = [
        Region(resource_id=name, tenant_id=tenant, name=one_of(_NAMES), parent_id=one_of([None, *_REGIONS[:number]]))
        for number, name in enumerate(_REGIONS)
    ]
    sites = [
        Site(resource_id=name, tenant_id=tenant, name=one_of(_NAMES), region_id=one_of([None, *_REGIONS]))
        for name in _SITES
    ]
    hosts = [
        evolve(
            plain.host,
            resource_id=name,
            name=one_of(_NAMES),
            guid=f"{number:08}-0000-4000-8000-000000000000",
            site_id=one_of([None, *_SITES]),
            trust=one_of(Trust),
        )
        for number, name in enumerate(_HOSTS[: len(_HOSTS) - draw(st.integers(0, len(_HOSTS)))])
    ]
    policies = [
        evolve(
            plain.policy,
            resource_id=name,
            kind=kind,
            target_os_id=one_of(images) if kind is UpdatePolicyKind.TARGET else None,
        )
        for name in _POLICIES
        for kind in [one_of(UpdatePolicyKind)]
    ]
    instances, runs = [], []
    for number, host in enumerate(hosts):
        system = one_of(_SYSTEMS)
        instance = Instance(
            resource_id=_ids("instance", len(_HOSTS))[number],
            tenant_id=tenant,
            host_id=host.resource_id,
            os_type=OSType.MUTABLE if system == ubuntu else OSType.IMMUTABLE,
            current_os_id=system,
            desired_os_id=system if system == ubuntu else one_of(images),
            os_update_policy_id=one_of([None, *_POLICIES]),
            update=UpdateRecord(status=one_of(_STATUSES)),
            existing_cves="[3]",
        )
        instances.append(instance)
        runs += [
            evolve(
                plain.past_run,
                resource_id=f"{_ODD[number % len(_ODD)]}run-{number}-{place}",
                instance_id=instance.resource_id,
                update=UpdateRecord(status=one_of(_STATUSES)),
                start_time=START + timedelta(hours=draw(st.integers(-2, 2))),
                end_time=one_of([None, START + timedelta(hours=3)]) if place == 0 else START + timedelta(hours=4),
            )
            for place in range(draw(st.integers(0, 2)))
        ]
    targets = [
        None,
        *(ScheduleTarget(level=TargetLevel.REGION, resource_id=name) for name in _REGIONS[:2]),
        *(ScheduleTarget(level=TargetLevel.HOST, resource_id=host.resource_id) for host in hosts[:1]),
    ]
    schedules = [
        evolve(plain.for_nothing, resource_id=name, kind=one_of(ScheduleKind), target=one_of(targets))
        for name in _ids("schedule", 5)
    ]
    return (*systems, *regions, *sites, *hosts, *policies, *instances, *schedules, *runs)


def _maybe(values: Iterable[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.sampled_from(list(values))


# The first regions are those around the others.
_IN_REGION: Final = st.sampled_from(_REGIONS[:3])
_NOWHERE: Final = "elsewhere"
_INSTANTS: Final = [START + timedelta(hours=hours) for hours in (-2, 0, 1, 3)]
_WANTED: Final[st.SearchStrategy[ResourceFilter[Any]]] = st.one_of(
    st.builds(
        InstanceFilter,
        status=_maybe(_STATUSES),
        os_type=_maybe(OSType),
        current_os_id=_maybe(_SYSTEMS),
        desired_os_id=_maybe([*_SYSTEMS, _NOWHERE]),
        policy_id=_maybe(_POLICIES),
        host_id=_maybe(_HOSTS),
        site_id=_maybe([*_SITES, _NOWHERE]),
        region_id=_maybe(_REGIONS),
        update_due=st.booleans(),
    ),
    st.builds(InstanceFilter, region_id=_IN_REGION, site_id=_maybe(_SITES)),
    st.builds(InstanceFilter, region_id=_IN_REGION, status=_maybe(_STATUSES)),
    st.builds(
        HostFilter,
        name=_maybe([*_NAMES, "%4"]),
        trust=_maybe(Trust),
        site_id=_maybe(_SITES),
        region_id=_maybe([*_REGIONS, _NOWHERE]),
    ),
    st.builds(HostFilter, region_id=_IN_REGION),
    st.builds(SiteFilter, region_id=_IN_REGION),
    st.builds(SiteFilter, name=_maybe(_NAMES), region_id=_maybe(_REGIONS)),
    st.builds(RegionFilter, name=_maybe(_NAMES), parent_id=_maybe(_REGIONS), outermost=st.booleans()),
    st.builds(
        OSResourceFilter, os_type=_maybe(OSType), profile_name=_maybe(["%", "_", "%%"]), image_id=_maybe(["3.1", "3._"])
    ),
    st.builds(PolicyFilter, policy_kind=_maybe(UpdatePolicyKind), target_os_id=_maybe(_SYSTEMS)),
    st.builds(
        ScheduleFilter,
        schedule_kind=_maybe(ScheduleKind),
        target=_maybe([ScheduleTarget(level=level, resource_id=_REGIONS[0]) for level in TargetLevel]),
    ),
    st.builds(
        RunFilter,
        instance_id=_maybe(_ids("instance", 4)),
        status=_maybe(_STATUSES),
        state=_maybe(RunState),
        since=_maybe(_INSTANTS),
        until=_maybe(_INSTANTS),
    ),
    st.builds(RunFilter, state=_maybe(RunState), since=_maybe(_INSTANTS)),
)


def _change_something(data: st.DataObject, unit: UnitOfWork, tenant: str) -> None:
    """Do one lawful thing that lists could trip over: something comes, goes, moves, or no longer matches."""
    kind = data.draw(st.sampled_from([Instance, Host, Site, Region, OSUpdateRun, ScheduleResource]))
    stored: list[Resource] = list(unit.all(kind, tenant))
    if not stored:
        return
    one = data.draw(st.sampled_from(stored))
    match one:
        case Instance():
            unit.replace(one, evolve(one, update=UpdateRecord(status=data.draw(st.sampled_from(_STATUSES)))))
        case Host():
            unit.replace(one, evolve(one, site_id=data.draw(_maybe(_SITES))))
            number = next(_numbers)
            guid = f"{number:08x}-0000-4000-9000-000000000000"
            unit.add(evolve(one, resource_id=f"{data.draw(st.sampled_from(_ODD))}{number}", guid=guid))
        case Site():
            unit.replace(one, evolve(one, region_id=data.draw(_maybe(_REGIONS))))
        case Region():
            with suppress(InvalidResource):
                unit.replace(one, evolve(one, parent_id=data.draw(_maybe(_REGIONS))))
        case _:
            unit.delete(one)
            unit.add(evolve(one, resource_id=f"{one.resource_id}-{next(_numbers)}"))


class InventoryListsContract:
    """How lists behave. Needs the fixtures `inventory` and `fleet` of `InventoryContract`."""

    @_shared
    @given(data=st.data())
    def test_pages_are_what_the_filter_says_while_others_write(self, inventory: Inventory, data: st.DataObject) -> None:
        tenant = f"tenant-{next(_numbers)}"
        store(inventory, *data.draw(worlds(tenant)))
        wanted, at_most = data.draw(_WANTED), data.draw(st.integers(1, 9))
        shown: Counter[str] = Counter()
        always: set[str] = set()
        cursor, more = "", True
        while more:
            with inventory.reading() as unit:
                everything, places = list(unit.all(wanted.kind, tenant)), places_of(unit, tenant)
                page = unit.page(wanted, tenant_id=tenant, after=cursor, at_most=at_most)
                expected = page_of(everything, wanted, places, tenant_id=tenant, after=cursor, at_most=at_most)
                assert page == expected
                now = {resource.resource_id for resource in everything if wanted.matches(resource, places)}
                assert unit.count(wanted, tenant_id=tenant) == len(now)
                if isinstance(wanted, InstanceFilter):
                    views = unit.instance_views(wanted, tenant_id=tenant, after=cursor, at_most=at_most)
                    assert views.items == tuple(view_of(unit, instance) for instance in page.items)
                    assert views.cursor == page.cursor
            always = now if cursor == "" else always & now
            shown.update(resource.resource_id for resource in page.items)
            cursor, more = page.cursor, page.cursor != ""
            if more and data.draw(st.booleans()):
                with inventory.writing() as unit:
                    _change_something(data, unit, tenant)
        assert {name: shown[name] for name in always} == dict.fromkeys(always, 1)

    def test_every_place_lists_what_lies_in_it(self, inventory: Inventory) -> None:
        plain, tree = plain_fleet(), {"a": None, "b": "a", "c": "b", "d": None}
        store(inventory, plain.old_os)
        for name, parent in tree.items():
            store(inventory, Region(resource_id=name, tenant_id=TENANT, name=name, parent_id=parent))
        homes = [None, *(f"site-{name}-{number}" for name in (*tree, "none") for number in range(2))]
        for number, home in enumerate(homes):
            if home is not None:
                region_id = home.split("-")[1] if "none" not in home else None
                store(inventory, Site(resource_id=home, tenant_id=TENANT, name=home, region_id=region_id))
            guid = f"{number:08}-0000-4000-8000-000000000000"
            host = evolve(plain.host, resource_id=f"host-{99 - number}", guid=guid, site_id=home)
            store(
                inventory,
                host,
                evolve(
                    plain.instance,
                    resource_id=f"instance-{number:02}",
                    host_id=host.resource_id,
                    desired_os_id="os-old",
                    os_update_policy_id=None,
                ),
            )
        asked: list[ResourceFilter[Any]] = [SiteFilter(region_id=region) for region in tree]
        for kind in (HostFilter, InstanceFilter):
            asked += [kind(region_id=region, site_id=site) for region in (None, *tree) for site in homes]
        with inventory.reading() as unit:
            places = places_of(unit, TENANT)
            for wanted in asked:
                matching = (found for found in unit.all(wanted.kind, TENANT) if wanted.matches(found, places))
                assert unit.page(wanted, tenant_id=TENANT, at_most=99).items == tuple(matching), wanted

    def test_a_view_has_the_names_of_all_that_an_instance_refers_to(self, inventory: Inventory, fleet: Fleet) -> None:
        with inventory.writing() as unit:
            unit.replace(fleet.instance, evolve(fleet.instance, existing_cves="[1]"))
        with inventory.reading() as unit:
            page = unit.instance_views(InstanceFilter(), tenant_id=TENANT, at_most=10)
        assert page.items == (
            InstanceView(
                instance=fleet.instance,
                host_name="line 4",
                host_guid=fleet.host.guid,
                site_id="site-1",
                site_name="plant",
                current_os=OSName(
                    name=fleet.old_os.name, profile_name="microvisor-nonrt", image_id="3.0.20251104.0140"
                ),
                desired_os=OSName(name=fleet.new_os.name, profile_name="microvisor-nonrt", image_id="3.1"),
                policy_name="to 3.1",
            ),
        )

    def test_statuses_are_counted_for_one_tenant(self, inventory: Inventory, fleet: Fleet) -> None:
        failed = evolve(fleet.instance, update=UpdateRecord(status=InventoryStatus.FAILED))
        with inventory.writing() as unit:
            unit.replace(fleet.instance, failed)
        store(inventory, *plain_fleet("tenant-b").resources)
        nothing = dict.fromkeys(InventoryStatus, 0)
        with inventory.reading() as unit:
            assert unit.status_counts(TENANT) == nothing | {InventoryStatus.FAILED: 1}
            assert unit.status_counts("tenant-c") == unit.status_counts("\0") == nothing

    # Cursors and sizes

    @pytest.mark.parametrize("at_most", [0, -1, 10_001, 1 << 70])
    def test_a_page_of_nothing_or_of_too_much_is_refused(self, inventory: Inventory, at_most: int) -> None:
        with inventory.reading() as unit:
            for call in (unit.page, unit.instance_views):
                with pytest.raises(InvalidValue, match="at_most"):
                    call(InstanceFilter(), tenant_id=TENANT, at_most=at_most)

    def test_a_cursor_of_another_list_is_refused(self, inventory: Inventory) -> None:
        store(inventory, *(Region(resource_id=f"region-{n}", tenant_id=TENANT, name="a") for n in range(3)))
        wanted = RegionFilter(name="a")
        with inventory.reading() as unit:
            cursor = unit.page(wanted, tenant_id=TENANT, at_most=1).cursor
            assert len(unit.page(wanted, tenant_id=TENANT, after=cursor, at_most=9).items) == 2
            others: list[tuple[ResourceFilter[Any], str]] = [
                (wanted, "tenant-b"),
                (RegionFilter(), TENANT),
                (SiteFilter(name="a"), TENANT),
            ]
            for other, tenant in others:
                with pytest.raises(InvalidValue, match="cursor"):
                    unit.page(other, tenant_id=tenant, after=cursor, at_most=1)

    @pytest.mark.parametrize(
        "cursor", ["x", "AAAA", "e30=", "\0", "\ud800", "é", "' OR 1=1 --", "A" * 1_000_000, "=" * 400, " "]
    )
    def test_what_is_no_cursor_is_refused(self, inventory: Inventory, cursor: str) -> None:
        with inventory.reading() as unit:
            for wanted in FILTERS:
                with pytest.raises(InvalidValue, match="cursor"):
                    unit.page(wanted, tenant_id=TENANT, after=cursor, at_most=1)

    @pytest.mark.parametrize("place", range(30))
    def test_a_cursor_that_was_changed_anywhere_is_refused(self, inventory: Inventory, place: int) -> None:
        store(inventory, *(Region(resource_id=f"region-{n}", tenant_id=TENANT, name="a") for n in range(3)))
        with inventory.reading() as unit:
            cursor = unit.page(RegionFilter(), tenant_id=TENANT, at_most=1).cursor
            changed = cursor[:place] + ("B" if cursor[place] == "A" else "A") + cursor[place + 1 :]
            with pytest.raises(InvalidValue, match="cursor"):
                unit.page(RegionFilter(), tenant_id=TENANT, after=changed, at_most=1)

    def test_a_cursor_stays_good_when_the_item_that_it_names_is_gone(self, inventory: Inventory) -> None:
        regions = [Region(resource_id=f"region-{n}", tenant_id=TENANT, name="a") for n in range(3)]
        store(inventory, *regions)
        with inventory.writing() as unit:
            first = unit.page(RegionFilter(), tenant_id=TENANT, at_most=2)
            unit.delete(regions[1])
            assert unit.page(RegionFilter(), tenant_id=TENANT, after=first.cursor, at_most=2).items == (regions[2],)

    # Hostile filters

    @pytest.mark.parametrize(
        "text", ["%", "_", "site-%", "' OR '1'='1", '"', "\\", "\0", "site-1\0", "\ud800", "x" * 1_000_000, ""]
    )
    def test_a_text_in_a_filter_is_only_a_text(self, inventory: Inventory, fleet: Fleet, text: str) -> None:
        with inventory.reading() as unit:
            for wanted in _asking_for(text):
                assert unit.page(wanted, tenant_id=TENANT, at_most=10).items == (), wanted
                assert unit.count(wanted, tenant_id=TENANT) == 0
            for everything in FILTERS:
                assert unit.page(everything, tenant_id=text, at_most=10).items == ()
                assert unit.count(everything, tenant_id=text) == 0
                assert unit.count(everything, tenant_id=TENANT) > 0

    def test_ids_of_another_tenant_find_nothing(self, inventory: Inventory, fleet: Fleet) -> None:
        theirs = plain_fleet("tenant-b")
        store(inventory, *theirs.resources)
        empty = "tenant-c"
        with inventory.reading() as unit:
            for resource in theirs.resources:
                for wanted in _asking_for(resource.resource_id):
                    assert unit.page(wanted, tenant_id=empty, at_most=10).items == ()
        names = {resource.resource_id: f"theirs-{resource.resource_id}" for resource in theirs.resources}
        with inventory.writing() as unit:
            unit.add(Region(resource_id=names["region-town"], tenant_id="tenant-b", name="town"))
            unit.add(Site(resource_id=names["site-1"], tenant_id="tenant-b", name="s", region_id=names["region-town"]))
        with inventory.reading() as unit:
            for wanted in (*_asking_for(names["region-town"]), *_asking_for(names["site-1"])):
                assert unit.page(wanted, tenant_id=TENANT, at_most=10).items == ()

    # What is left out, and forgotten

    def test_lists_come_without_lists_of_cves_and_packages(self, inventory: Inventory, fleet: Fleet) -> None:
        full = evolve(fleet.old_os, existing_cves="[1]", fixed_cves="[2]", installed_packages="[3]")
        instance = evolve(fleet.instance, existing_cves="[4]")
        with inventory.writing() as unit:
            unit.replace(fleet.old_os, full)
            unit.replace(fleet.instance, instance)
        with inventory.reading() as unit:
            systems = unit.page(OSResourceFilter(), tenant_id=TENANT, at_most=10).items
            instances = unit.page(InstanceFilter(), tenant_id=TENANT, at_most=10).items
        assert systems == (fleet.new_os, for_list(full))
        assert instances == (fleet.instance,)

    def test_old_runs_are_forgotten_and_the_open_one_stays(self, inventory: Inventory, fleet: Fleet) -> None:
        late = evolve(fleet.past_run, resource_id="run-9", end_time=START + timedelta(days=9))
        store(inventory, late, *plain_fleet("tenant-b").resources)
        with inventory.writing() as unit:
            for nothing in (unit.forget_runs(TENANT, START, at_most=9), unit.forget_runs("\0", START, at_most=9)):
                assert nothing == 0
            assert unit.forget_runs(TENANT, START + timedelta(days=1), at_most=9) == 1
            assert unit.runs_of_instance(TENANT, "instance-1") == (fleet.open_run, late)
            assert unit.forget_runs(TENANT, START + timedelta(days=99), at_most=9) == 1
            assert unit.runs_of_instance(TENANT, "instance-1") == (fleet.open_run,)
        with inventory.reading() as unit:
            assert unit.count(RunFilter(), tenant_id="tenant-b") == 2
            with pytest.raises(FailedPrecondition):
                unit.forget_runs(TENANT, START, at_most=9)

    def test_no_more_runs_are_forgotten_than_were_asked_for(self, inventory: Inventory, fleet: Fleet) -> None:
        store(inventory, *(evolve(fleet.past_run, resource_id=f"run-old-{n}") for n in range(5)))
        with inventory.writing() as unit:
            taken = [unit.forget_runs(TENANT, START + timedelta(days=1), at_most=4) for _ in range(3)]
        assert taken == [4, 2, 0]

    # Regions

    def test_a_region_never_comes_to_lie_in_itself(self, inventory: Inventory, fleet: Fleet) -> None:
        circles = [
            evolve(fleet.country, parent_id="region-town"),
            evolve(fleet.country, parent_id="region-country"),
            evolve(fleet.town, parent_id="region-town"),
        ]
        with inventory.writing() as unit:
            for moved in circles:
                old = fleet.country if moved.resource_id == "region-country" else fleet.town
                with pytest.raises(InvalidResource, match="parent_id"):
                    unit.replace(old, moved)
                with pytest.raises(InvalidResource, match="parent_id"):
                    unit.replace_all([(old, moved)])
            itself = Region(resource_id="region-9", tenant_id=TENANT, name="odd", parent_id="region-9")
            with pytest.raises(InvalidResource, match="parent_id"):
                unit.add(itself)
            with pytest.raises(InvalidResource, match="parent_id"):
                unit.add_all([itself])
            assert list(unit.all(Region, TENANT)) == [fleet.country, fleet.town]

    def test_two_who_move_regions_at_once_never_put_them_into_each_other(self, inventory: Inventory) -> None:
        ring = [Region(resource_id=f"region-{n}", tenant_id=TENANT, name=str(n)) for n in range(3)]

        def move(number: int, ready: threading.Barrier) -> None:
            """Move a region into the next one; the first two look before either of them moves, where they can."""
            with suppress(InvalidResource, Conflict, StorageError), inventory.writing() as unit:
                stored = unit.get(Region, TENANT, f"region-{number}")
                with suppress(threading.BrokenBarrierError):
                    ready.wait(0.05)
                unit.replace(stored, evolve(stored, parent_id=f"region-{(number + 1) % 3}"))

        for _ in range(10):
            store(inventory, *ring)
            ready = threading.Barrier(3)
            in_threads(*(lambda number=number, ready=ready: move(number, ready) for number in range(3)))
            with inventory.writing() as unit:
                tree = {region.resource_id: region for region in unit.all(Region, TENANT)}
                inside = [region for region in tree.values() if region.parent_id is not None]
                assert 1 <= len(inside) <= 2
                for region in inside:
                    unit.replace(region, evolve(region, parent_id=None))
                for region in ring:
                    unit.delete(region)

    def test_a_region_can_be_moved_and_moved_back(self, inventory: Inventory, fleet: Fleet) -> None:
        alone = evolve(fleet.town, parent_id=None)
        with inventory.writing() as unit:
            unit.replace(fleet.town, alone)
            unit.replace_all([(alone, fleet.town)])
            assert list(unit.all(Region, TENANT)) == [fleet.country, fleet.town]


def view_of(unit: UnitOfWork, instance: Instance) -> InstanceView:
    """Return the view of an instance by asking for everything singly."""
    tenant, policy_id = instance.tenant_id, instance.os_update_policy_id
    host = unit.get(Host, tenant, instance.host_id)
    return view_instance(
        instance,
        host=host,
        site=None if host.site_id is None else unit.get(Site, tenant, host.site_id),
        current_os=unit.get(OSResource, tenant, instance.current_os_id),
        desired_os=unit.get(OSResource, tenant, instance.desired_os_id),
        policy=None if policy_id is None else unit.get(OSUpdatePolicy, tenant, policy_id),
    )


def _asking_for(text: str) -> Iterator[ResourceFilter[Any]]:
    """Yield every filter with every field that takes a text."""
    names: tuple[tuple[Any, str], ...] = (
        (InstanceFilter, "current_os_id desired_os_id policy_id host_id site_id region_id"),
        (HostFilter, "name site_id region_id"),
        (SiteFilter, "name region_id"),
        (RegionFilter, "name parent_id"),
        (OSResourceFilter, "profile_name image_id"),
        (PolicyFilter, "target_os_id"),
        (RunFilter, "instance_id"),
    )
    for kind, fields in names:
        yield from (kind(**{name: text}) for name in fields.split())
    if text:
        yield from (ScheduleFilter(target=ScheduleTarget(level=level, resource_id=text)) for level in TargetLevel)
