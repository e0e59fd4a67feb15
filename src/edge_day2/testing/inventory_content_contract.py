"""The half of the Inventory's contract that is about content: what comes back, what is found, what is refused."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_day2.domain.resources import (
    Host,
    Instance,
    Link,
    OSResource,
    OSType,
    OSUpdateRun,
    Region,
    Resource,
    ScheduleResource,
    ScheduleTarget,
    Site,
    TargetLevel,
    without_lists,
)
from edge_day2.domain.statuses import InventoryStatus, UpdateRecord
from edge_day2.errors import (
    AlreadyExists,
    FailedPrecondition,
    ImmutableLinkError,
    InvalidResource,
    NotFound,
)
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_contents import GUID, START, TENANT, Fleet, contents, load, plain_fleet, store

OTHER_GUID = "00000000-0000-4000-8000-000000000000"
THIRD_GUID = "00000000-0000-4000-8000-000000000003"

_numbers = itertools.count()
# One Inventory serves all examples of a test, each of which takes a tenant of its own; several classes inherit a test,
# so examples aren't kept for a replay by another class.
_shared = settings(
    deadline=None,
    max_examples=40,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


def _instance(number: int, system: OSResource, **content: Any) -> Instance:
    """Return an instance of `system` on host-`number`."""
    return Instance(
        resource_id=f"instance-{number}",
        tenant_id=system.tenant_id,
        host_id=f"host-{number}",
        os_type=system.os_type,
        current_os_id=system.resource_id,
        desired_os_id=system.resource_id,
        **content,
    )


class InventoryContentContract:
    """What an Inventory keeps, finds and refuses. Needs the fixtures `inventory` and `fleet` of `InventoryContract`."""

    # What comes back

    @_shared
    @given(data=st.data())
    def test_every_kind_of_resource_comes_back_as_it_was_stored(
        self, inventory: Inventory, data: st.DataObject
    ) -> None:
        stored = data.draw(contents(plain_fleet(f"tenant-{next(_numbers)}")))
        with inventory.writing() as unit:
            for resource in stored.resources:
                unit.add(resource)
        for resource in stored.resources:
            assert load(inventory, resource) == resource
        with inventory.reading() as unit:
            context = unit.report_context(stored.host.tenant_id, stored.host.guid)
            together = unit.report_contexts(stored.host.tenant_id, [stored.host.guid])
        assert together == {stored.host.guid: context}
        assert (context.host, context.instance) == (stored.host, stored.instance)
        assert context.current_os == without_lists(stored.old_os)
        assert context.open_run == stored.open_run
        assert context.schedules == (stored.for_region, stored.for_host, stored.for_site)

    @_shared
    @given(data=st.data())
    def test_replacing_stores_every_field(self, inventory: Inventory, data: st.DataObject) -> None:
        fleet = plain_fleet(f"tenant-{next(_numbers)}")
        before, after = data.draw(contents(fleet)), data.draw(contents(fleet))
        # A link follows the OS type, so an instance keeps its own here.
        after = evolve(after, instance=before.instance, policy=before.policy)
        store(inventory, *before.resources)
        with inventory.writing() as unit:
            for old, new in zip(before.resources, after.resources, strict=True):
                unit.replace(old, new)
        for resource in after.resources:
            assert load(inventory, resource) == resource

    def test_all_yields_each_kind_of_one_tenant_in_the_order_of_ids(self, inventory: Inventory, fleet: Fleet) -> None:
        store(inventory, *plain_fleet("tenant-b").resources)
        with inventory.reading() as unit:
            assert list(unit.all(OSResource, TENANT)) == [fleet.new_os, fleet.old_os]
            assert list(unit.all(Instance, TENANT)) == [fleet.instance]
            assert list(unit.all(OSUpdateRun, TENANT)) == [fleet.past_run, fleet.open_run]

    def test_all_yields_thousands_once_while_they_are_being_changed(self, inventory: Inventory) -> None:
        ids = [f"region-{number:04}-{'ZaÄ𝄞'[number % 4]}" for number in range(2500)]
        store(inventory, *(Region(resource_id=name, tenant_id=TENANT, name="old") for name in reversed(ids)))
        with inventory.writing() as unit:
            seen = []
            for region in unit.all(Region, TENANT):
                seen.append(region.resource_id)
                unit.replace(region, evolve(region, name="new"))
        assert seen == ids
        with inventory.reading() as unit:
            assert {region.name for region in unit.all(Region, TENANT)} == {"new"}

    # Look-ups

    def test_a_host_is_found_by_its_guid_in_any_case(self, inventory: Inventory, fleet: Fleet) -> None:
        with inventory.reading() as unit:
            assert unit.host_by_guid(TENANT, GUID.upper()) == unit.host_by_guid(TENANT, GUID.lower()) == fleet.host
            with pytest.raises(NotFound):
                unit.host_by_guid(TENANT, OTHER_GUID)

    def test_a_host_has_its_instance_or_none(self, inventory: Inventory, fleet: Fleet) -> None:
        store(inventory, Host(resource_id="host-2", tenant_id=TENANT, name="empty", guid=OTHER_GUID))
        with inventory.reading() as unit:
            assert unit.instance_of_host(TENANT, "host-1") == fleet.instance
            assert unit.instance_of_host(TENANT, "host-2") is None

    def test_runs_come_newest_first(self, inventory: Inventory, fleet: Fleet) -> None:
        same_time = evolve(fleet.past_run, resource_id="run-0")
        store(inventory, same_time)
        with inventory.reading() as unit:
            assert unit.runs_of_instance(TENANT, "instance-1") == (fleet.open_run, fleet.past_run, same_time)
            assert unit.runs_of_instance(TENANT, "instance-2") == ()

    def test_who_was_not_heard_of_while_updating_is_found_longest_first(self, inventory: Inventory) -> None:
        updating = UpdateRecord(status=InventoryStatus.UPDATE_IN_PROGRESS)
        statuses = [updating, updating, updating, UpdateRecord(status=InventoryStatus.DONE), updating]
        last_seen = [START, START - timedelta(hours=1), START + timedelta(hours=1), START - timedelta(hours=2), None]
        with inventory.writing() as unit:
            unit.add(fleet_os := plain_fleet(TENANT).old_os)
            for number, (update, seen) in enumerate(zip(statuses, last_seen, strict=True)):
                guid = f"{number:08}-0000-4000-8000-000000000000"
                unit.add(Host(resource_id=f"host-{number}", tenant_id=TENANT, name="host", guid=guid))
                unit.add(_instance(number, fleet_os, update=update, last_seen=seen))
        with inventory.reading() as unit:
            found = unit.unheard_since(TENANT, START + timedelta(microseconds=1))
            assert [instance.resource_id for instance in found] == ["instance-1", "instance-0"]
            assert [instance.resource_id for instance in unit.unheard_since(TENANT, START)] == ["instance-1"]

    def test_a_tenant_exists_while_it_holds_anything(self, inventory: Inventory) -> None:
        region = Region(resource_id="region-1", tenant_id="tenant-é", name="region")
        schedule = evolve(plain_fleet("tenant-Z").for_nothing)
        store(inventory, region, schedule, *plain_fleet("tenant-a").resources)
        with inventory.writing() as unit:
            assert unit.tenants() == ("tenant-Z", "tenant-a", "tenant-é")
            unit.delete(region)
            assert unit.tenants() == ("tenant-Z", "tenant-a")

    # Links

    def test_links_are_counted_by_what_instances_run_and_should(self, inventory: Inventory, fleet: Fleet) -> None:
        ubuntu = evolve(fleet.old_os, resource_id="os-ubuntu", os_type=OSType.MUTABLE, profile_name="ubuntu")
        hosts = [evolve(fleet.host, resource_id=f"host-{n}", guid=f"{n:08}{OTHER_GUID[8:]}") for n in (2, 3)]
        alike = evolve(fleet.instance, resource_id="instance-3", host_id="host-3")
        store(inventory, ubuntu, *hosts, _instance(2, ubuntu), alike)
        store(inventory, *plain_fleet("tenant-b").resources)
        with inventory.reading() as unit:
            assert unit.links(TENANT) == {
                Link(OSType.IMMUTABLE, fleet.old_os.resource_id, fleet.new_os.resource_id): 2,
                Link(OSType.MUTABLE, "os-ubuntu", "os-ubuntu"): 1,
            }
            assert unit.links("tenant-c") == {}

    def test_relinking_changes_the_desired_os_of_those_that_have_the_link(
        self, inventory: Inventory, fleet: Fleet
    ) -> None:
        hosts = [evolve(fleet.host, resource_id=f"host-{n}", guid=f"{n:08}{OTHER_GUID[8:]}") for n in (2, 3, 4)]
        alike = [evolve(fleet.instance, resource_id=f"instance-{n}", host_id=f"host-{n}") for n in (2, 3)]
        other = evolve(fleet.instance, resource_id="instance-4", host_id="host-4", desired_os_id="os-old")
        store(inventory, *hosts, *alike, other, *plain_fleet("tenant-b").resources)
        link = Link(OSType.IMMUTABLE, fleet.old_os.resource_id, fleet.new_os.resource_id)
        with inventory.writing() as unit:
            assert unit.relink(TENANT, [link], "os-old", at_most=2) == 2
            assert unit.links(TENANT)[link] == 1
            assert unit.relink(TENANT, [link], "os-old", at_most=2) == 1
            assert unit.relink(TENANT, [link], "os-old", at_most=2) == 0
        with inventory.reading() as unit:
            for instance in (fleet.instance, *alike, other):
                assert unit.get(Instance, TENANT, instance.resource_id) == evolve(instance, desired_os_id="os-old")
            assert unit.links("tenant-b") == {link: 1}

    def test_several_links_are_relinked_together(self, inventory: Inventory, fleet: Fleet) -> None:
        newest = evolve(fleet.new_os, resource_id="os-newest", image_id="9.9")
        places = {2: ("os-old", "os-old"), 3: ("os-new", "os-new"), 4: ("os-new", "os-old"), 5: ("os-old", "os-new")}
        hosts = [evolve(fleet.host, resource_id=f"host-{n}", guid=f"{n:08}{OTHER_GUID[8:]}") for n in places]
        linked = [
            evolve(
                fleet.instance,
                resource_id=f"instance-{n}",
                host_id=f"host-{n}",
                current_os_id=current,
                desired_os_id=desired,
            )
            for n, (current, desired) in places.items()
        ]
        store(inventory, newest, *hosts, *linked)
        links = [Link(OSType.IMMUTABLE, *places[n]) for n in (2, 3, 5)]
        with inventory.writing() as unit:
            assert unit.relink(TENANT, links, "os-newest", at_most=3) == 3
            assert unit.relink(TENANT, links, "os-newest", at_most=3) == 1
            assert unit.relink(TENANT, links, "os-newest", at_most=3) == 0
            assert unit.relink(TENANT, [], "os-newest", at_most=3) == 0
        with inventory.reading() as unit:
            # Not the one whose current and desired OS are those of different links.
            assert unit.get(Instance, TENANT, "instance-4") == linked[2]
            assert sum(unit.links(TENANT).values()) == 5
            assert unit.links(TENANT)[Link(OSType.IMMUTABLE, "os-old", "os-newest")] == 3

    def test_relinking_to_nothing_is_refused_and_changes_nothing(self, inventory: Inventory, fleet: Fleet) -> None:
        link = Link(OSType.IMMUTABLE, fleet.old_os.resource_id, fleet.new_os.resource_id)
        with inventory.writing() as unit:
            for nothing in ("os-9", "\0"):
                with pytest.raises(NotFound):
                    unit.relink(TENANT, [link], nothing, at_most=10)
            with pytest.raises(NotFound):
                unit.relink("tenant-c", [link], "os-old", at_most=10)
            with pytest.raises(ImmutableLinkError):
                unit.relink(TENANT, [link, Link(OSType.MUTABLE, "os-old", "os-old")], "os-new", at_most=10)
            assert unit.links(TENANT) == {link: 1}
        with inventory.reading() as unit, pytest.raises(FailedPrecondition):
            unit.relink(TENANT, [link], "os-old", at_most=10)

    # The context of a report

    def test_a_report_context_holds_everything_about_one_host(self, inventory: Inventory, fleet: Fleet) -> None:
        other_profile = evolve(fleet.old_os, resource_id="os-other", profile_name="other")
        elsewhere = Site(resource_id="site-2", tenant_id=TENANT, name="elsewhere")
        not_here = ScheduleTarget(level=TargetLevel.SITE, resource_id="site-2")
        store(inventory, other_profile, elsewhere, evolve(fleet.for_site, resource_id="schedule-9", target=not_here))
        with inventory.reading() as unit:
            context = unit.report_context(TENANT, GUID.upper())
        assert context.host == fleet.host
        assert context.instance == fleet.instance
        assert (context.current_os, context.desired_os) == (fleet.old_os, fleet.new_os)
        assert context.policy == fleet.policy
        assert context.open_run == fleet.open_run
        assert context.schedules == (fleet.for_region, fleet.for_host, fleet.for_site)
        assert context.profile_os == (fleet.new_os, fleet.old_os)

    def test_a_report_context_without_an_instance_has_its_schedules(self, inventory: Inventory, fleet: Fleet) -> None:
        with inventory.writing() as unit:
            for resource in (fleet.open_run, fleet.past_run, fleet.instance):
                unit.delete(resource)
            context = unit.report_context(TENANT, GUID)
        assert (context.instance, context.current_os, context.desired_os, context.policy) == (None, None, None, None)
        assert (context.open_run, context.profile_os) == (None, ())
        assert context.schedules == (fleet.for_region, fleet.for_host, fleet.for_site)

    def test_a_report_context_of_a_mutable_instance_has_no_profile(self, inventory: Inventory, fleet: Fleet) -> None:
        ubuntu = evolve(fleet.old_os, resource_id="os-ubuntu", os_type=OSType.MUTABLE, profile_name="ubuntu")
        host = Host(resource_id="host-2", tenant_id=TENANT, name="alone", guid=OTHER_GUID)
        store(inventory, ubuntu, host, _instance(2, ubuntu))
        with inventory.reading() as unit:
            context = unit.report_context(TENANT, OTHER_GUID)
        assert context.current_os == context.desired_os == ubuntu
        assert (context.profile_os, context.schedules, context.open_run, context.policy) == ((), (), None, None)

    def test_an_ended_run_is_no_open_one(self, inventory: Inventory, fleet: Fleet) -> None:
        with inventory.writing() as unit:
            unit.replace(fleet.open_run, evolve(fleet.open_run, end_time=datetime(2026, 4, 1, tzinfo=UTC)))
            assert unit.report_context(TENANT, GUID).open_run is None

    def test_contexts_of_several_hosts_are_what_each_has_alone(self, inventory: Inventory, fleet: Fleet) -> None:
        ubuntu = evolve(fleet.old_os, resource_id="os-ubuntu", os_type=OSType.MUTABLE, profile_name="ubuntu")
        hosts = [
            evolve(fleet.host, resource_id="host-2", guid=OTHER_GUID, site_id=None),
            evolve(fleet.host, resource_id="host-3", guid=GUID.replace("1", "3")),
            evolve(fleet.host, resource_id="host-4", guid=GUID.replace("1", "4")),
        ]
        alike = evolve(fleet.instance, resource_id="instance-4", host_id="host-4", os_update_policy_id=None)
        only_here = ScheduleTarget(level=TargetLevel.HOST, resource_id="host-4")
        special = evolve(fleet.for_host, resource_id="schedule-0", target=only_here)
        store(inventory, ubuntu, *hosts, _instance(2, ubuntu), alike, special)
        store(inventory, *plain_fleet("tenant-b").resources)
        guids = [GUID.upper(), *(host.guid for host in hosts)]
        with inventory.reading() as unit:
            together = unit.report_contexts(TENANT, [*guids, "nobody", "lone \ud800"])
            assert together == {guid: unit.report_context(TENANT, guid) for guid in guids}
            assert unit.report_contexts(TENANT, []) == {}
            assert unit.report_contexts("tenant-c", guids) == {}

    def test_a_report_context_carries_no_lists_of_cves_and_packages(self, inventory: Inventory, fleet: Fleet) -> None:
        with inventory.writing() as unit:
            for system in (fleet.old_os, fleet.new_os):
                full = evolve(system, existing_cves="[1]", fixed_cves="[2]", installed_packages="[3]")
                unit.replace(system, full)
            context = unit.report_context(TENANT, GUID)
            assert unit.report_contexts(TENANT, [GUID]) == {GUID: context}
            assert unit.get(OSResource, TENANT, fleet.old_os.resource_id).existing_cves == "[1]"
        assert (context.current_os, context.desired_os) == (fleet.old_os, fleet.new_os)
        assert context.profile_os == (fleet.new_os, fleet.old_os)

    def test_os_resources_may_be_read_without_their_lists(self, inventory: Inventory, fleet: Fleet) -> None:
        with inventory.writing() as unit:
            full = evolve(fleet.old_os, existing_cves="[1]", fixed_cves="[2]", installed_packages="[3]")
            unit.replace(fleet.old_os, full)
            assert list(unit.os_without_lists(TENANT)) == [fleet.new_os, fleet.old_os]
            assert list(unit.os_without_lists("tenant-c")) == []

    def test_a_report_of_an_unknown_host_is_not_found(self, inventory: Inventory, fleet: Fleet) -> None:
        with inventory.reading() as unit, pytest.raises(NotFound, match=OTHER_GUID):
            unit.report_context(TENANT, OTHER_GUID)

    # What is refused

    @pytest.mark.parametrize("name", [attribute.name for attribute in attrs.fields(Fleet)])
    def test_an_id_is_given_once(self, inventory: Inventory, fleet: Fleet, name: str) -> None:
        with inventory.writing() as unit, pytest.raises(AlreadyExists):
            unit.add(getattr(fleet, name))

    def test_what_must_be_unique_is_refused_twice(self, inventory: Inventory, fleet: Fleet) -> None:
        doubles: tuple[Resource, ...] = (
            evolve(fleet.old_os, resource_id="os-2"),
            evolve(fleet.host, resource_id="host-2", guid=GUID.upper()),
            evolve(fleet.instance, resource_id="instance-2"),
            evolve(fleet.open_run, resource_id="run-3"),
        )
        for double in doubles:
            with inventory.writing() as unit, pytest.raises(AlreadyExists):
                unit.add(double)
        with inventory.writing() as unit:
            with pytest.raises(AlreadyExists):
                unit.replace(fleet.past_run, evolve(fleet.past_run, end_time=None))
            unit.replace(fleet.past_run, evolve(fleet.past_run, name="still ended"))
        second = Host(resource_id="host-2", tenant_id=TENANT, name="second", guid=OTHER_GUID)
        store(inventory, second)
        with inventory.writing() as unit:
            with pytest.raises(AlreadyExists):
                unit.replace(second, evolve(second, guid=GUID.lower()))
            unit.replace(second, evolve(second, name="still there"))

    @pytest.mark.parametrize(
        ("name", "reference"),
        [
            ("town", {"parent_id": "nowhere"}),
            ("site", {"region_id": "nowhere"}),
            ("host", {"site_id": "nowhere"}),
            ("policy", {"target_os_id": "nowhere"}),
            ("instance", {"host_id": "nowhere"}),
            ("instance", {"current_os_id": "nowhere"}),
            ("instance", {"desired_os_id": "nowhere"}),
            ("instance", {"os_update_policy_id": "nowhere"}),
            ("for_host", {"target": ScheduleTarget(level=TargetLevel.HOST, resource_id="nowhere")}),
            ("for_site", {"target": ScheduleTarget(level=TargetLevel.SITE, resource_id="nowhere")}),
            ("for_region", {"target": ScheduleTarget(level=TargetLevel.REGION, resource_id="nowhere")}),
            ("past_run", {"instance_id": "nowhere"}),
        ],
    )
    def test_a_reference_to_nothing_is_refused(
        self, inventory: Inventory, fleet: Fleet, name: str, reference: dict[str, Any]
    ) -> None:
        stored = getattr(fleet, name)
        broken = evolve(stored, **reference)
        unique = {"host": {"guid": THIRD_GUID}, "instance": {"host_id": "host-2"}}.get(name, {})
        with inventory.writing() as unit:
            unit.add(Host(resource_id="host-2", tenant_id=TENANT, name="second", guid=OTHER_GUID))
            with pytest.raises(NotFound, match="nowhere"):
                unit.replace(stored, broken)
            with pytest.raises(NotFound, match="nowhere"):
                unit.add(evolve(stored, **({"resource_id": "another"} | unique | reference)))
        assert load(inventory, stored) == stored

    def test_a_reference_into_another_tenant_is_refused(self, inventory: Inventory, fleet: Fleet) -> None:
        foreign = Site(resource_id="site-2", tenant_id="tenant-b", name="plant", region_id="region-town")
        with inventory.writing() as unit, pytest.raises(NotFound):
            unit.add(foreign)

    @pytest.mark.parametrize(
        ("name", "user"),
        [
            ("old_os", "instance-1"),
            ("new_os", "instance-1"),
            ("country", "region-town"),
            ("town", "site-1"),
            ("site", "host-1"),
            ("host", "instance-1"),
            ("policy", "instance-1"),
            ("instance", "run-1"),
        ],
    )
    def test_what_is_in_use_stays(self, inventory: Inventory, fleet: Fleet, name: str, user: str) -> None:
        with inventory.writing() as unit, pytest.raises(FailedPrecondition, match=user):
            unit.delete(getattr(fleet, name))
        assert load(inventory, getattr(fleet, name)) == getattr(fleet, name)

    def test_what_is_out_of_use_can_be_deleted_in_any_lawful_order(self, inventory: Inventory, fleet: Fleet) -> None:
        with inventory.writing() as unit:
            for resource in reversed(fleet.resources):
                unit.delete(resource)
        with inventory.reading() as unit:
            assert unit.tenants() == ()

    def test_history_does_not_keep_a_policy(self, inventory: Inventory, fleet: Fleet) -> None:
        with inventory.writing() as unit:
            unit.replace(fleet.instance, evolve(fleet.instance, os_update_policy_id=None))
            unit.delete(fleet.policy)
        assert load(inventory, fleet.past_run).applied_policy_id == "policy-1"

    def test_what_is_gone_is_not_found(self, inventory: Inventory, fleet: Fleet) -> None:
        with inventory.writing() as unit:
            unit.delete(fleet.for_host)
            for attempt in (
                lambda: unit.get(ScheduleResource, TENANT, "schedule-1-host"),
                lambda: unit.delete(fleet.for_host),
                lambda: unit.replace(fleet.for_host, evolve(fleet.for_host, name="other")),
                lambda: unit.replace(fleet.for_host, fleet.for_host),
            ):
                with pytest.raises(NotFound):
                    attempt()

    def test_replacing_never_moves_a_resource(self, inventory: Inventory, fleet: Fleet) -> None:
        for change in ({"resource_id": "site-2"}, {"tenant_id": "tenant-b"}):
            with inventory.writing() as unit, pytest.raises(InvalidResource):
                unit.replace(fleet.site, evolve(fleet.site, **change))
