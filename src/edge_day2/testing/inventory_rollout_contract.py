"""The part of the Inventory's contract that is about rollouts: what is counted, who is admitted, what is refused.

Whom an Inventory admits is compared with `choose` of the domain, over any fleet.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import pytest
from attrs import evolve, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_day2.application.rollout_linking import RolloutManager
from edge_day2.domain.resources import (
    Host,
    Instance,
    Link,
    OSResource,
    OSType,
    OSUpdatePolicy,
    Provisioning,
    Region,
    Resource,
    Site,
    Trust,
    UpdatePolicyKind,
)
from edge_day2.domain.rollout import BUCKETS, MOST_WAVES, Admission, PausedBy, Rollout, RolloutPolicy, RolloutState
from edge_day2.domain.rollout_progress import (
    Candidate,
    WaveLink,
    choose,
    has_failed,
    is_in_flight,
    may_be_admitted,
)
from edge_day2.domain.schedules import RepeatedSchedule, SingleSchedule
from edge_day2.domain.statuses import InventoryStatus, UpdateRecord
from edge_day2.errors import (
    AlreadyExists,
    FailedPrecondition,
    ImmutableLinkError,
    InvalidResource,
    NotFound,
)
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.inventory_contents import START, TENANT, Fleet, load, plain_fleet, schedules, store
from edge_day2.testing.inventory_transaction_contract import in_threads

_numbers = itertools.count()
_shared = settings(
    deadline=None,
    max_examples=30,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
_LATER: Final = START + timedelta(hours=5)
_EVERYBODY: Final = Admission(below=BUCKETS, at_most=1000)


def plain_rollout(fleet: Fleet, **changes: Any) -> Rollout:
    """Return a rollout of the fleet's new OS."""
    rollout = Rollout(
        resource_id="rollout-1",
        tenant_id=fleet.host.tenant_id,
        name="3.1",
        profile_name=fleet.new_os.profile_name,
        architecture=fleet.new_os.architecture,
        target_os_id=fleet.new_os.resource_id,
        salt="salt",
        started_at=START,
        wave_since=START,
        policy=RolloutPolicy(waves=(2_000, 6_000, BUCKETS)),
    )
    return evolve(rollout, **changes)


_TEXT: Final = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
_INSTANTS: Final = st.datetimes(timezones=st.just(UTC))
_DURATIONS: Final = st.timedeltas(timedelta(0), timedelta(days=365))
_LIMITS: Final = st.none() | st.integers(1, 2**31 - 1)


@st.composite
def rollouts(draw: st.DrawFn, fleet: Fleet) -> Rollout:
    """Any rollout of the fleet's new OS."""
    state = draw(st.sampled_from(RolloutState))
    waves = (*sorted(draw(st.sets(st.integers(1, BUCKETS - 1), max_size=MOST_WAVES - 1))), BUCKETS)
    policy = RolloutPolicy(
        waves=waves,
        soak=draw(_DURATIONS),
        settled_share=draw(st.integers(1, BUCKETS)),
        jitter=draw(_DURATIONS),
        max_in_flight=draw(_LIMITS),
        max_per_site=draw(_LIMITS),
        max_per_region=draw(_LIMITS),
        max_failed=draw(st.none() | st.integers(0, 2**31 - 1)),
        max_failed_share=draw(st.none() | st.integers(0, BUCKETS)),
        blackouts=tuple(draw(st.lists(schedules(), max_size=2))),
    )
    return plain_rollout(
        fleet,
        name=draw(_TEXT.filter(bool)),
        architecture=draw(_TEXT),
        salt=draw(_TEXT),
        started_at=draw(_INSTANTS),
        wave_since=draw(_INSTANTS),
        well_since=draw(st.none() | _INSTANTS),
        policy=policy,
        state=state,
        wave=draw(st.integers(0, len(waves) - 1)),
        admitted=draw(st.integers(0, 2**62)),
        forgiven=draw(st.integers(0, 2**62)),
        paused_by=draw(st.sampled_from(PausedBy)) if state is RolloutState.PAUSED else None,
        reason=draw(_TEXT),
    )


@frozen
class _Node:
    """One instance with its host and, where it has one, its policy."""

    host: Host
    instance: Instance
    policy: OSUpdatePolicy | None
    region_id: str | None


@st.composite
def _nodes(draw: st.DrawFn, tenant_id: str, fleet: Fleet, regions: dict[str | None, str | None]) -> list[_Node]:
    nodes = []
    policies = [None, evolve(fleet.policy, resource_id="own-target"), _latest(tenant_id)]
    for number, guid in enumerate(draw(st.lists(st.uuids(), min_size=1, max_size=25, unique=True))):
        site_id = draw(st.sampled_from(sorted(regions, key=str)))
        policy = draw(st.sampled_from([None, None, None, *policies]))
        desired = draw(st.sampled_from(["os-old", "os-old", "os-new"]))
        host = Host(
            resource_id=f"host-x{number}",
            tenant_id=tenant_id,
            name="node",
            guid=str(guid).upper() if number % 2 else str(guid),
            site_id=site_id,
            trust=draw(st.sampled_from([Trust.TRUSTED] * 5 + [Trust.UNTRUSTED])),
        )
        instance = Instance(
            resource_id=f"instance-x{number}",
            tenant_id=tenant_id,
            host_id=host.resource_id,
            os_type=OSType.IMMUTABLE,
            current_os_id="os-old",
            desired_os_id=desired,
            os_update_policy_id=None if policy is None else policy.resource_id,
            provisioning=draw(st.sampled_from([Provisioning.PROVISIONED] * 5 + [Provisioning.PENDING])),
            update=UpdateRecord(
                status=draw(st.sampled_from(InventoryStatus)),
                timestamp=draw(st.sampled_from([None, START - timedelta(hours=1), START, _LATER])),
            ),
            admitted_at=draw(st.sampled_from([None, START - timedelta(hours=2), START + timedelta(hours=1)])),
        )
        nodes.append(_Node(host, instance, policy, regions[site_id]))
    return nodes


def _latest(tenant_id: str) -> OSUpdatePolicy:
    return OSUpdatePolicy(resource_id="latest", tenant_id=tenant_id, name="latest", kind=UpdatePolicyKind.LATEST)


def _other_tenant(fleet: Fleet, nodes: list[_Node]) -> list[Resource]:
    """Return the same things of another tenant, which must never be counted or touched."""
    tenant_id = fleet.host.tenant_id + "-other"
    same: list[Resource] = [fleet.old_os, fleet.new_os, *(evolve(node.host, site_id=None) for node in nodes)]
    same += [evolve(node.instance, os_update_policy_id=None) for node in nodes]
    return [evolve(resource, tenant_id=tenant_id) for resource in same]


class InventoryRolloutContract:
    """What holds for rollouts. A subclass gives the fixture `inventory`, empty for each test."""

    @pytest.fixture
    def inventory(self) -> Iterator[Inventory]:
        """The Inventory under test."""
        raise NotImplementedError("a subclass says which Inventory is tested")

    @pytest.fixture
    def fleet(self, inventory: Inventory) -> Fleet:
        """One resource of every kind, stored."""
        fleet = plain_fleet(TENANT)
        store(inventory, *fleet.resources)
        return fleet

    def test_a_rollout_comes_back_as_it_was_stored(self, inventory: Inventory, fleet: Fleet) -> None:
        policy = RolloutPolicy(
            waves=(1, BUCKETS),
            soak=timedelta(microseconds=1),
            settled_share=1,
            jitter=timedelta(days=365),
            max_in_flight=1,
            max_per_site=2,
            max_per_region=3,
            max_failed=0,
            max_failed_share=None,
            blackouts=(
                RepeatedSchedule(minutes="0,30", time_zone="Europe/Berlin"),
                SingleSchedule(START, None),
                SingleSchedule(START, _LATER),
            ),
        )
        paused = plain_rollout(
            fleet,
            name="ü 😀",
            policy=policy,
            state=RolloutState.PAUSED,
            paused_by=PausedBy.ERROR_BUDGET,
            reason="3 failed",
            wave=1,
            well_since=_LATER,
            admitted=7,
            forgiven=2,
        )
        store(inventory, paused)
        assert load(inventory, paused) == paused
        running = evolve(paused, state=RolloutState.RUNNING, paused_by=None, policy=RolloutPolicy())
        with inventory.writing() as unit:
            unit.replace(paused, running)
        assert load(inventory, paused) == running

    @given(data=st.data())
    @_shared
    def test_any_rollout_is_stored_exactly(self, inventory: Inventory, data: st.DataObject) -> None:
        fleet = plain_fleet(f"tenant-rollout-{next(_numbers)}")
        first, second = data.draw(rollouts(fleet)), data.draw(rollouts(fleet))
        store(inventory, fleet.old_os, fleet.new_os, first)
        assert load(inventory, first) == first
        with inventory.writing() as unit:
            unit.replace(first, second)
        assert load(inventory, second) == second

    def test_a_profile_and_architecture_has_one_open_rollout(self, inventory: Inventory, fleet: Fleet) -> None:
        first = plain_rollout(fleet)
        second = evolve(first, resource_id="rollout-2", state=RolloutState.PAUSED, paused_by=PausedBy.ADMIN)
        store(inventory, first)
        with pytest.raises(AlreadyExists, match="rollout-1"):
            store(inventory, second)
        store(inventory, evolve(first, resource_id="rollout-arm", architecture="aarch64"))
        with inventory.writing() as unit:
            unit.replace(first, evolve(first, state=RolloutState.DONE))
            unit.add(second)
        with pytest.raises(AlreadyExists, match="rollout-2"), inventory.writing() as unit:
            unit.replace(evolve(first, state=RolloutState.DONE), first)

    def test_a_target_of_a_rollout_exists_and_stays(self, inventory: Inventory, fleet: Fleet) -> None:
        other = evolve(fleet.new_os, resource_id="os-other", image_id="3.2")
        rollout = plain_rollout(fleet, target_os_id="os-other")
        with pytest.raises(NotFound, match="os-other"):
            store(inventory, rollout)
        store(inventory, other, rollout)
        with pytest.raises(FailedPrecondition, match="rollout-1"), inventory.writing() as unit:
            unit.delete(other)
        with inventory.writing() as unit:
            unit.delete(rollout)
            unit.delete(other)

    @given(data=st.data())
    @_shared
    def test_an_inventory_counts_and_admits_as_the_domain_says(self, inventory: Inventory, data: st.DataObject) -> None:
        tenant_id = f"tenant-rollout-{next(_numbers)}"
        fleet = plain_fleet(tenant_id)
        region = Region(resource_id="region-2", tenant_id=tenant_id, name="second")
        sites = [
            fleet.site,
            evolve(fleet.site, resource_id="site-2"),
            evolve(fleet.site, resource_id="site-3", region_id="region-2"),
            evolve(fleet.site, resource_id="site-4", region_id=None),
        ]
        regions: dict[str | None, str | None] = {None: None, **{site.resource_id: site.region_id for site in sites}}
        nodes = data.draw(_nodes(tenant_id, fleet, regions))
        rollout = plain_rollout(fleet, salt=data.draw(st.text("abc", max_size=3)))
        admission = Admission(
            below=data.draw(st.sampled_from([1, 500, 5_000, 9_999, BUCKETS])),
            at_most=data.draw(st.integers(1, 30)),
            per_site=data.draw(st.none() | st.integers(1, 4)),
            per_region=data.draw(st.none() | st.integers(1, 6)),
        )
        policies = [evolve(fleet.policy, resource_id="own-target"), _latest(tenant_id)]
        places: list[Resource] = [fleet.old_os, fleet.new_os, fleet.country, fleet.town, region, *sites, *policies]
        stored: list[Resource] = [rollout, *(node.host for node in nodes), *(node.instance for node in nodes)]
        foreign = _other_tenant(fleet, nodes)
        store(inventory, *places, *stored, *foreign)

        counted = [node for node in nodes if may_be_admitted(node.instance, node.host, node.policy)]
        expected: dict[WaveLink, int] = {}
        for node in counted:
            link = Link(OSType.IMMUTABLE, "os-old", node.instance.desired_os_id)
            wave = rollout.wave_at(rollout.place_of(node.host.bucket))
            alike = WaveLink(wave, link, has_failed(node.instance, rollout))
            expected[alike] = expected.get(alike, 0) + 1
        with inventory.reading() as unit:
            assert dict(unit.wave_links(rollout)) == expected
            in_flight = unit.places_in_flight(rollout)
        flying = [node for node in counted if is_in_flight(node.instance, rollout)]
        at_sites = [node.host.site_id for node in flying if node.host.site_id is not None]
        in_regions = [node.region_id for node in flying if node.region_id is not None]
        assert dict(in_flight.sites) == {site: at_sites.count(site) for site in at_sites}
        assert dict(in_flight.regions) == {place: in_regions.count(place) for place in in_regions}

        waiting = Link(OSType.IMMUTABLE, "os-old", "os-old")
        candidates = [
            Candidate(
                instance_id=node.instance.resource_id,
                place=rollout.place_of(node.host.bucket),
                site_id=node.host.site_id,
                region_id=node.region_id,
            )
            for node in counted
            if node.instance.desired_os_id == "os-old"
        ]
        chosen = choose(candidates, admission, in_flight, at_most=1000)
        with inventory.writing() as unit:
            assert unit.admit(rollout, waiting, admission, _LATER, at_most=1000) == len(chosen)
        with inventory.reading() as unit:
            found = {instance.resource_id: instance for instance in unit.all(Instance, tenant_id)}
            others = list(unit.all(Instance, f"{tenant_id}-other"))
        admitted = {name for name, instance in found.items() if instance.admitted_at == _LATER}
        limited = admission.per_site is not None or admission.per_region is not None
        if limited or len(chosen) < admission.at_most:
            assert admitted == set(chosen)
        assert len(admitted) == len(chosen)
        for node in nodes:
            name = node.instance.resource_id
            changed = evolve(node.instance, desired_os_id="os-new", admitted_at=_LATER)
            assert found[name] == (changed if name in admitted else node.instance)
        assert others == sorted(
            (resource for resource in foreign if isinstance(resource, Instance)), key=lambda one: one.resource_id
        )

    def test_a_host_that_gets_another_guid_gets_another_place(self, inventory: Inventory, fleet: Fleet) -> None:
        rollout = plain_rollout(fleet)
        guids = [f"00000000-0000-4000-8000-{number:012x}" for number in range(10)]
        waves = set()
        old = fleet.host
        for guid in guids:
            new = evolve(old, guid=guid)
            with inventory.writing() as unit:
                unit.replace(old, new)
                unit.replace(unit.get(Instance, TENANT, "instance-1"), _without_policy(fleet))
            with inventory.reading() as unit:
                (alike,) = unit.wave_links(rollout)
            assert alike.wave == rollout.wave_at(rollout.place_of(new.bucket))
            waves.add(alike.wave)
            old = new
        assert len(waves) > 1

    def test_who_is_admitted_has_limits(self, inventory: Inventory, fleet: Fleet) -> None:
        rollout = plain_rollout(fleet)
        store(inventory, rollout)
        waiting = Link(OSType.IMMUTABLE, "os-old", "os-old")
        with inventory.writing() as unit:
            unit.replace(fleet.instance, _without_policy(fleet))
            with pytest.raises(ImmutableLinkError):
                unit.admit(rollout, Link(OSType.MUTABLE, "os-old", "os-old"), _EVERYBODY, _LATER, at_most=9)
            with pytest.raises(NotFound, match="nothing"):
                unit.admit(evolve(rollout, target_os_id="nothing"), waiting, _EVERYBODY, _LATER, at_most=9)
            with pytest.raises(InvalidResource):
                unit.admit(evolve(rollout, target_os_id="nul \0"), waiting, _EVERYBODY, _LATER, at_most=9)
            with pytest.raises(InvalidResource):
                unit.wave_links(evolve(rollout, tenant_id="nul \0"))
            assert unit.admit(rollout, Link(OSType.IMMUTABLE, "\0", "\0"), _EVERYBODY, _LATER, at_most=9) == 0
            assert unit.admit(rollout, waiting, evolve(_EVERYBODY, at_most=0), _LATER, at_most=9) == 0
            assert unit.admit(rollout, waiting, _EVERYBODY, _LATER, at_most=0) == 0
            assert unit.admit(rollout, waiting, _EVERYBODY, _LATER, at_most=9) == 1
            assert unit.admit(rollout, waiting, _EVERYBODY, _LATER, at_most=9) == 0
        with pytest.raises(FailedPrecondition), inventory.reading() as unit:
            unit.admit(rollout, waiting, _EVERYBODY, _LATER, at_most=9)

    def test_managers_at_once_admit_no_more_than_one_would(self, inventory: Inventory, fleet: Fleet) -> None:
        limits = RolloutPolicy(waves=(BUCKETS,), max_in_flight=9, max_per_site=7)
        rollout = plain_rollout(fleet, policy=limits)
        sites = [evolve(fleet.site, resource_id=f"site-x{number}") for number in range(2)]
        hosts = [
            evolve(
                fleet.host,
                resource_id=f"host-x{number}",
                guid=f"00000000-0000-4000-8000-{number:012x}",
                site_id=f"site-x{number % 2}",
            )
            for number in range(60)
        ]
        instances = [
            evolve(_without_policy(fleet), resource_id=f"instance-x{number}", host_id=host.resource_id)
            for number, host in enumerate(hosts)
        ]
        store(inventory, rollout, *sites, *hosts, *instances)
        managers = [RolloutManager(inventory, clock=_Later(), batch_size=2) for _ in range(3)]

        for round_number in range(3):
            in_threads(*(partial(manager.advance, TENANT) for manager in managers))
            # Others were in the way of everybody now and then; when it is quiet one fills what is left.
            managers[0].advance(TENANT)
            with inventory.writing() as unit:
                admitted = [one for one in unit.all(Instance, TENANT) if one.admitted_at is not None]
                flying = [one for one in admitted if one.current_os_id == "os-old"]
                assert len(flying) == 9
                assert max(unit.places_in_flight(rollout).sites.values()) <= 7
                assert unit.get(Rollout, TENANT, "rollout-1").admitted == len(admitted) == 9 * (round_number + 1)
                unit.replace_all([(one, evolve(one, current_os_id="os-new")) for one in flying])

    def test_an_os_of_another_architecture_or_profile_is_not_counted(self, inventory: Inventory, fleet: Fleet) -> None:
        with inventory.writing() as unit:
            unit.replace(fleet.instance, _without_policy(fleet))
            assert sum(unit.wave_links(plain_rollout(fleet)).values()) == 1
            assert unit.wave_links(plain_rollout(fleet, architecture="aarch64")) == {}
            assert unit.wave_links(plain_rollout(fleet, profile_name="another")) == {}
            assert list(unit.all(OSResource, TENANT)) == [fleet.new_os, fleet.old_os]
            assert list(unit.all(Site, TENANT)) == [fleet.site]


class _Later:
    def now(self) -> datetime:
        return _LATER


def _without_policy(fleet: Fleet) -> Instance:
    """Return the fleet's instance waiting, and following no policy."""
    return evolve(fleet.instance, desired_os_id="os-old", os_update_policy_id=None)
