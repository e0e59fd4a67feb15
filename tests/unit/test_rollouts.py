"""Rollouts as managers and admins live with them: on the real Inventories, with manifests of a folder."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, field, frozen

from edge_day2 import InventoryService, LinkingMode, MaintenanceManager, SingleSchedule
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.os_resource_manager import ReconcileReport
from edge_day2.application.rollout_linking import RolloutManager
from edge_day2.domain.linking import SkipReason
from edge_day2.domain.messages import PlatformUpdateStatusRequest, UpdateStatus
from edge_day2.domain.resources import Host, Instance, OSResource, UpdatePolicyKind
from edge_day2.domain.rollout import PausedBy, Rollout, RolloutPolicy, RolloutState, WaveCounts, wave_of
from edge_day2.domain.rollout_explanation import RolloutVerdict
from edge_day2.domain.statuses import InventoryStatus, UpdateRecord, UpdateStatusType
from edge_day2.errors import AlreadyExists, FailedPrecondition, InvalidResource, NotFound, StorageError
from edge_day2.ports.inventory import Inventory, UnitOfWork
from edge_day2.testing import VirtualClock
from orchestrator import EDGE, EXAMPLES, NEW_EDGE, OLD_EDGE, change, desired, install, manager, os_id

TENANT = "tenant"
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAY = timedelta(days=1)
OLD, NEW = os_id(EDGE, OLD_EDGE), os_id(EDGE, NEW_EDGE)
HALVES = RolloutPolicy(waves=(5_000, 10_000), settled_share=10_000, max_failed_share=None, max_failed=2)


@frozen
class World:
    """A tenant of 40 nodes that run the old image; the new one was discovered."""

    inventory: Inventory
    clock: VirtualClock
    admin: InventoryService
    instances: list[str] = field(factory=list)

    def reconcile(self, revision: str = "0.9.8", profiles: Path = EXAMPLES) -> ReconcileReport:
        return manager(
            self.inventory, profiles, revision, mode=LinkingMode.AUTOMATIC, batch_size=3, clock=self.clock
        ).reconcile(TENANT)

    def add(self, policy: RolloutPolicy = HALVES, target: str = NEW) -> Rollout:
        return self.admin.add_rollout(TENANT, target, policy, salt="salt")

    def only(self) -> Rollout:
        (rollout,) = self.admin.rollouts(TENANT)
        return rollout

    def wave(self, instance_id: str) -> int:
        return wave_of(self.guid(instance_id), self.only())

    def guid(self, instance_id: str) -> str:
        with self.inventory.reading() as unit:
            instance = unit.get(Instance, TENANT, instance_id)
            return unit.get(Host, TENANT, instance.host_id).guid

    def admitted(self) -> set[str]:
        return {instance for instance, os in desired(self.inventory).items() if os == NEW}

    def finish(self, *instances: str) -> None:
        for instance in instances:
            change(self.inventory, Instance, instance, current_os_id=NEW)

    def fail(self, *instances: str, status: InventoryStatus = InventoryStatus.FAILED) -> None:
        update = UpdateRecord(status=status, text=status.text, timestamp=self.clock.now())
        for instance in instances:
            change(self.inventory, Instance, instance, update=update)


@pytest.fixture(params=["memory", "sqlite"])
def inventory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Inventory]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'inventory.db'}"
    with open_inventory(url) as opened:
        yield opened


@pytest.fixture
def world(inventory: Inventory) -> World:
    clock, numbers = VirtualClock(NOW), itertools.count(1)
    for revision in ("0.9.0", "0.9.8"):
        manager(inventory, revision=revision).reconcile(TENANT)
    admin = InventoryService(inventory, clock=clock, new_id=lambda: str(next(numbers)))
    return World(inventory, clock, admin, install(inventory, 40))


# Linking


def test_the_first_wave_alone_is_linked_until_it_was_well_for_the_soak_time(world: World) -> None:
    world.add()

    report = world.reconcile()

    first = {instance for instance in world.instances if world.wave(instance) == 0}
    assert world.admitted() == first
    assert 0 < len(first) < 40
    assert dict(report.linked) == {NEW: len(first)}
    assert dict(report.skipped) == {SkipReason.ROLLOUT: 40 - len(first)}
    assert world.only().admitted == len(first)
    world.finish(*first)
    world.reconcile()
    world.clock.instant += DAY - timedelta(seconds=1)
    world.reconcile()
    assert world.admitted() == first
    world.clock.instant += timedelta(seconds=1)
    world.reconcile()
    assert len(world.admitted()) == 40
    world.finish(*(set(world.instances) - first))
    world.reconcile()
    assert world.only().state is RolloutState.DONE


def test_without_a_rollout_everybody_is_linked_at_once(world: World) -> None:
    assert dict(world.reconcile().linked) == {NEW: 40}


def test_a_run_where_nothing_is_new_changes_nothing(world: World) -> None:
    world.add()
    world.reconcile()
    before = world.admin.instances(TENANT), world.admin.rollouts(TENANT)
    world.clock.instant += timedelta(hours=1)

    assert world.reconcile().linked == ()

    assert (world.admin.instances(TENANT), world.admin.rollouts(TENANT)) == before


def test_who_comes_when_the_rollout_is_done_is_linked_at_once(world: World) -> None:
    rollout = world.add()
    change(world.inventory, Rollout, rollout.resource_id, state=RolloutState.DONE)

    assert dict(world.reconcile().linked) == {NEW: 40}


@pytest.mark.parametrize("how", ["pause", "cancel"])
def test_a_rollout_that_was_stopped_links_nobody(world: World, how: str) -> None:
    rollout = world.add()
    getattr(world.admin, f"{how}_rollout")(TENANT, rollout.resource_id, "smells of smoke")

    assert dict(world.reconcile().skipped) == {SkipReason.ROLLOUT: 40}
    assert world.admitted() == set()


def test_another_profile_is_no_business_of_a_rollout(world: World) -> None:
    install(world.inventory, 3, "microvisor-rt", "3.0.20251119.0133")
    world.admin.pause_rollout(TENANT, world.add().resource_id, "wait")

    assert dict(world.reconcile().linked) == {os_id("microvisor-rt", "3.0.20251204.0217"): 3}


def test_a_rollout_goes_on_without_the_release_service(world: World) -> None:
    world.add(RolloutPolicy(waves=(10_000,), max_in_flight=4))
    rollouts = RolloutManager(world.inventory, clock=world.clock, batch_size=3)

    assert rollouts.advance(TENANT) == {NEW: 4}
    assert rollouts.advance(TENANT) == {}
    world.finish(*sorted(world.admitted())[:3])
    assert rollouts.advance(TENANT) == {NEW: 3}


def test_a_blackout_keeps_everybody_back_and_ends(world: World) -> None:
    blackout = SingleSchedule(NOW - DAY, NOW + DAY)
    world.add(RolloutPolicy(waves=(10_000,), blackouts=(blackout,)))

    assert world.reconcile().linked == ()
    world.clock.instant = NOW + DAY
    assert world.reconcile().linked_instances == 40


# Error budget


@pytest.mark.parametrize("status", [InventoryStatus.FAILED, InventoryStatus.LOST])
def test_failures_beyond_the_budget_pause_until_the_admin_resumes(world: World, status: InventoryStatus) -> None:
    rollout = world.add(evolve(HALVES, max_in_flight=10))
    world.reconcile()
    world.clock.instant += timedelta(minutes=30)
    failed = sorted(world.admitted())[:3]
    world.fail(*failed, status=status)

    assert world.reconcile().linked == ()

    assert world.only().paused_by is PausedBy.ERROR_BUDGET
    assert world.only().reason == "3 updates failed, 2 may"
    world.clock.instant += DAY
    assert world.reconcile().linked == ()
    world.admin.resume_rollout(TENANT, rollout.resource_id)
    assert world.reconcile().linked_instances == 3


def test_what_failed_before_it_was_admitted_does_not_count(world: World) -> None:
    world.clock.instant = NOW - DAY
    world.fail(*world.instances)
    world.clock.instant = NOW
    rollout = world.add()
    world.reconcile()

    assert world.only().state is RolloutState.RUNNING
    progress = world.admin.rollout_progress(TENANT, rollout.resource_id)
    assert progress.waves[0] == WaveCounts(in_flight=len(world.admitted()))
    assert progress.waves[1] == WaveCounts(not_yet=40 - len(world.admitted()))


def test_a_node_that_would_never_take_the_target_holds_up_nobody(world: World) -> None:
    one, other, third, *_ = world.instances
    policy = world.admin.add_policy(TENANT, "stay", UpdatePolicyKind.TARGET, target_os_id=OLD)
    world.admin.assign_policy(TENANT, one, policy.resource_id)
    latest = world.admin.add_policy(TENANT, "latest", UpdatePolicyKind.LATEST)
    world.admin.assign_policy(TENANT, third, latest.resource_id)
    with world.inventory.reading() as unit:
        host_id = unit.get(Instance, TENANT, other).host_id
    world.admin.distrust_host(TENANT, host_id)
    rollout = world.add(RolloutPolicy(waves=(10_000,)))

    assert world.reconcile().linked_instances == 37

    assert world.admin.rollout_progress(TENANT, rollout.resource_id).total.due == 37
    for name in (one, other, third):
        explained = world.admin.explain_rollout(TENANT, world.guid(name))
        assert explained is not None
        assert explained.verdict is RolloutVerdict.NOT_COVERED


def test_a_new_rollout_of_the_same_image_begins_with_a_fresh_budget(world: World) -> None:
    rollout = world.add()
    world.reconcile()
    world.clock.instant += timedelta(minutes=30)
    world.fail(*sorted(world.admitted())[:3])
    world.reconcile()
    world.admin.cancel_rollout(TENANT, rollout.resource_id, "the policy was wrong")

    second = world.add()
    world.reconcile()

    assert second.forgiven == 3
    assert world.admin.rollouts(TENANT)[0].state is RolloutState.RUNNING


# Later targets


def _publish(folder: Path, version: str) -> Path:
    """Return a folder of profiles in which there is only an image of this version, under the revision 1.0.0."""
    (folder / version / "1.0.0").mkdir(parents=True)
    manifest = (EXAMPLES / "0.9.8" / f"{EDGE}.yaml").read_text().replace(NEW_EDGE, version)
    (folder / version / "1.0.0" / f"{EDGE}.yaml").write_text(manifest)
    return folder / version


def test_a_later_target_supersedes_and_gets_a_rollout_by_the_same_policy(world: World, tmp_path: Path) -> None:
    first = world.add()
    world.reconcile()
    admitted = world.admitted()
    world.clock.instant += timedelta(hours=1)

    report = world.reconcile("1.0.0", _publish(tmp_path, "3.0.20260101.0001"))

    later = os_id(EDGE, "3.0.20260101.0001")
    second, ended = world.admin.rollouts(TENANT)
    assert (ended.resource_id, ended.state) == (first.resource_id, RolloutState.SUPERSEDED)
    assert (second.target_os_id, second.policy, second.state) == (later, HALVES, RolloutState.RUNNING)
    assert (second.salt, second.wave) == ("salt", 0)
    assert dict(report.linked) == {later: len(admitted)}
    assert world.reconcile("1.0.0", tmp_path / "3.0.20260101.0001").linked == ()
    assert len(world.admin.rollouts(TENANT)) == 2


def test_a_policy_may_be_made_ready_for_the_next_image(world: World) -> None:
    world.add(target=OLD)
    RolloutManager(world.inventory, clock=world.clock).advance(TENANT)
    assert world.only().state is RolloutState.DONE

    report = world.reconcile()

    second, _ = world.admin.rollouts(TENANT)
    assert (second.target_os_id, second.state, second.wave) == (NEW, RolloutState.RUNNING, 0)
    assert 0 < report.linked_instances < 40


def test_without_its_rollouts_a_profile_is_linked_at_once_again(world: World) -> None:
    rollout = world.add()
    world.admin.delete(rollout)

    assert world.reconcile().linked_instances == 40


def test_a_fix_goes_out_although_the_error_budget_paused_the_bad_image(world: World, tmp_path: Path) -> None:
    world.add()
    world.reconcile()
    world.clock.instant += timedelta(hours=1)
    world.fail(*sorted(world.admitted())[:3])
    world.reconcile()

    world.reconcile("1.0.0", _publish(tmp_path, "3.0.20260101.0001"))

    assert [rollout.state for rollout in world.admin.rollouts(TENANT)] == [
        RolloutState.RUNNING,
        RolloutState.SUPERSEDED,
    ]


def test_the_pause_of_an_admin_holds_for_a_later_target_too(world: World, tmp_path: Path) -> None:
    world.admin.pause_rollout(TENANT, world.add().resource_id, "freeze of the year's end")

    assert world.reconcile("1.0.0", _publish(tmp_path, "3.0.20260101.0001")).linked == ()

    second, _ = world.admin.rollouts(TENANT)
    assert (second.state, second.reason) == (RolloutState.PAUSED, "freeze of the year's end")


def test_a_manager_with_an_older_revision_disturbs_nothing(world: World, tmp_path: Path) -> None:
    older = _publish(tmp_path, "3.0.20251130.0001")
    world.add()
    world.reconcile()
    before = world.admin.rollouts(TENANT), desired(world.inventory)

    report = world.reconcile("1.0.0", older)

    assert report.linked == ()
    assert (world.admin.rollouts(TENANT), desired(world.inventory)) == before


# The admin's calls


def test_a_rollout_needs_an_immutable_target_and_no_other_that_is_open(world: World) -> None:
    ubuntu = os_id("ubuntu-22.04-lts-generic", "22.04.5")
    first = world.add()
    with pytest.raises(FailedPrecondition, match="mutable"):
        world.add(target=ubuntu)
    with pytest.raises(NotFound, match="nothing"):
        world.add(target="nothing")
    with pytest.raises(AlreadyExists, match=first.resource_id):
        world.add()
    with pytest.raises(FailedPrecondition, match="RUNNING"):
        world.admin.resume_rollout(TENANT, first.resource_id)
    with pytest.raises(FailedPrecondition, match="rollout-1"), world.inventory.writing() as unit:
        unit.delete(unit.get(OSResource, TENANT, NEW))
    cancelled = world.admin.cancel_rollout(TENANT, first.resource_id, "wrong policy")
    with pytest.raises(FailedPrecondition, match="CANCELLED"):
        world.admin.cancel_rollout(TENANT, first.resource_id, "twice")
    second = world.add()
    assert {rollout.resource_id for rollout in world.admin.rollouts(TENANT)} == {
        cancelled.resource_id,
        second.resource_id,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"waves": ()},
        {"waves": (100,)},
        {"waves": (100, 100, 10_000)},
        {"waves": (5_000, 100, 10_000)},
        {"waves": (0, 10_000)},
        {"waves": (*range(1, 21), 10_000)},
        {"soak": timedelta(seconds=-1)},
        {"soak": 24},
        {"jitter": timedelta(days=366)},
        {"settled_share": 0},
        {"max_in_flight": 0},
        {"max_per_site": 2**31},
        {"max_per_region": True},
        {"max_failed": -1},
        {"max_failed_share": 10_001},
        {"blackouts": (SingleSchedule(NOW),) * 101},
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidResource, match=next(iter(wrong))):
        RolloutPolicy(**wrong)


# Why


def _sentence(world: World, wave: int) -> tuple[RolloutVerdict, str]:
    found = next(name for name in world.instances if world.wave(name) == wave and name not in world.admitted())
    guid = world.guid(found)
    explained = world.admin.explain_rollout(TENANT, guid)
    assert explained is not None
    sentence = world.admin.explain(TENANT, guid)
    if explained.verdict.holds_back:
        assert sentence == f"not updated: {explained.text}"
    return explained.verdict, sentence


def test_explain_says_which_wave_a_node_waits_for(world: World) -> None:
    world.add(evolve(HALVES, max_in_flight=10))
    world.reconcile()
    first = [name for name in world.instances if world.wave(name) == 0]

    verdict, sentence = _sentence(world, 1)
    assert verdict is RolloutVerdict.WAVE_AHEAD
    assert sentence == (
        "not updated: in wave 2 of 2 of rollout NAME, which opens when wave 1 was well for 24 h "
        "(wave 1 is open since 2026-03-02 12:00 UTC, 10 of "
        f"{len(first)} still in flight, {len(first) - 10} not admitted yet)"
    ).replace("NAME", world.only().name)

    verdict, sentence = _sentence(world, 0)
    assert verdict is RolloutVerdict.NO_ROOM
    assert sentence.endswith("of which 10 may be in flight at once")

    world.finish(*first)
    world.reconcile()
    _, sentence = _sentence(world, 1)
    assert sentence.endswith("(wave 1 is well since 2026-03-02 12:00 UTC)")
    (found,) = {world.admin.explain_rollout(TENANT, world.guid(name)) for name in first[:1]}
    assert found is not None
    assert (found.verdict, found.opens_at) == (RolloutVerdict.DONE, NOW + DAY)


@pytest.mark.parametrize(
    ("policy", "verdict", "end"),
    [
        (RolloutPolicy(waves=(10_000,), jitter=DAY), RolloutVerdict.JITTER, "and takes 24 h to reach all"),
        (
            RolloutPolicy(waves=(10_000,), blackouts=(SingleSchedule(NOW - DAY),)),
            RolloutVerdict.BLACKOUT,
            "nobody is admitted in a blackout",
        ),
    ],
    ids=["jitter", "blackout"],
)
def test_explain_says_what_else_a_node_waits_for(
    world: World, policy: RolloutPolicy, verdict: RolloutVerdict, end: str
) -> None:
    world.add(policy)
    world.reconcile()

    found, sentence = _sentence(world, 0)

    assert found is verdict
    assert sentence.endswith(end)


def test_explain_says_that_site_or_region_are_busy(world: World) -> None:
    region = world.admin.add_region(TENANT, "North")
    site = world.admin.add_site(TENANT, "Gdansk", region_id=region.resource_id)
    with world.inventory.writing() as unit:
        unit.replace_all([(host, evolve(host, site_id=site.resource_id)) for host in list(unit.all(Host, TENANT))])
    for number, (limit, verdict) in enumerate(
        [("max_per_site", RolloutVerdict.SITE_FULL), ("max_per_region", RolloutVerdict.REGION_FULL)], start=1
    ):
        options: dict[str, Any] = {limit: 2 * number}
        rollout = world.add(RolloutPolicy(waves=(10_000,), **options))
        world.reconcile()
        assert len(world.admitted()) == 2 * number
        explained = {
            found.verdict
            for name in set(world.instances) - world.admitted()
            if (found := world.admin.explain_rollout(TENANT, world.guid(name))) is not None
        }
        assert explained == {verdict}
        world.admin.cancel_rollout(TENANT, rollout.resource_id, "next")


def test_explain_says_who_stopped_a_rollout_and_why(world: World) -> None:
    rollout = world.add()
    guid = world.guid(world.instances[0])

    world.admin.pause_rollout(TENANT, rollout.resource_id, "smoke")
    assert world.admin.explain(TENANT, guid).endswith("which an admin paused: smoke")
    world.admin.cancel_rollout(TENANT, rollout.resource_id, "fire")
    assert world.admin.explain(TENANT, guid).endswith("which was cancelled: fire")


def test_without_a_rollout_there_is_nothing_to_explain(world: World) -> None:
    guid = world.guid(world.instances[0])

    assert world.admin.explain_rollout(TENANT, guid) is None
    assert world.admin.explain(TENANT, guid) == "not updated: desired OS equals current OS"


def test_the_answer_to_a_node_that_was_not_admitted_stays_what_it_was(world: World) -> None:
    world.add()
    world.reconcile()
    waiting = next(name for name in world.instances if name not in world.admitted())
    status = UpdateStatus(status_type=UpdateStatusType.UP_TO_DATE)
    request = PlatformUpdateStatusRequest(host_guid=world.guid(waiting), update_status=status)

    answer = MaintenanceManager(world.inventory, clock=world.clock).platform_update_status(request, tenant=TENANT)

    assert answer.os_profile_update_source is not None
    assert answer.os_profile_update_source.os_image_id == OLD_EDGE


# Crashes


class _Failing:
    """An Inventory whose writing transactions fail after so many, before they are committed."""

    def __init__(self, inventory: Inventory, after: int) -> None:
        self._inventory, self._left = inventory, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inventory, name)

    def writing(self) -> AbstractContextManager[UnitOfWork]:
        self._left -= 1
        if self._left < 0:
            raise StorageError("the power is gone")
        return self._inventory.writing()


@pytest.mark.parametrize("after", range(4))
def test_a_crash_between_any_two_transactions_is_made_up_for_by_the_next_run(world: World, after: int) -> None:
    world.add(evolve(HALVES, max_in_flight=11))
    failing: Any = _Failing(world.inventory, after)
    subject = manager(failing, mode=LinkingMode.AUTOMATIC, batch_size=3, clock=world.clock)

    with pytest.raises(StorageError, match="power"):
        subject.reconcile(TENANT)

    assert world.only().admitted == len(world.admitted()) <= 11
    world.reconcile()
    assert world.only().admitted == len(world.admitted()) == 11
