"""Rollouts over whole lives: a plain model of a fleet that updates, fails, grows and reports, driven by `advance`."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from attrs import define, evolve
from hypothesis import given
from hypothesis import strategies as st

from edge_day2.domain.rollout import (
    BUCKETS,
    PausedBy,
    Rollout,
    RolloutCounts,
    RolloutPolicy,
    RolloutState,
    WaveCounts,
    advance,
    bucket_of,
    frontier,
    over_budget,
    paused,
    resumed,
    superseded,
    wave_of,
)
from edge_day2.domain.rollout_progress import Candidate, PlacesInFlight, choose
from edge_day2.domain.schedules import SingleSchedule
from edge_day2.errors import FailedPrecondition

START = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)


def rollout(policy: RolloutPolicy, salt: str = "salt") -> Rollout:
    return Rollout(
        resource_id="rollout-1",
        tenant_id="tenant",
        name="3.1",
        profile_name="microvisor-nonrt",
        architecture="x86_64",
        target_os_id="os-new",
        salt=salt,
        started_at=START,
        wave_since=START,
        policy=policy,
    )


def guids(count: int, seed: int) -> list[str]:
    source = random.Random(seed)
    return [str(UUID(int=source.getrandbits(128), version=4)) for _ in range(count)]


@define
class Node:
    """A host as the Inventory sees it; `stands` is the name of a field of `WaveCounts`."""

    guid: str
    site: str | None
    region: str | None
    stands: str = "not_yet"


@define
class ModelFleet:
    """Nodes under one rollout. `run` is what a manager does; it checks each admission against the rules itself."""

    rollout: Rollout
    nodes: list[Node]
    now: datetime = START

    def counts(self) -> RolloutCounts:
        found: list[Counter[str]] = [Counter() for _ in self.rollout.policy.waves]
        for node in self.nodes:
            found[wave_of(node.guid, self.rollout)][node.stands] += 1
        return RolloutCounts(waves=tuple(WaveCounts(**counts) for counts in found))

    def in_flight(self) -> PlacesInFlight:
        flying = [node for node in self.nodes if node.stands == "in_flight"]
        return PlacesInFlight(
            sites=Counter(node.site for node in flying if node.site is not None),
            regions=Counter(node.region for node in flying if node.region is not None),
        )

    def run(self, *, crash_after: int | None = None) -> int:
        """Advance once and admit; with `crash_after`, only so many of those who would be."""
        step = advance(self.rollout, self.counts(), self.now)
        self.rollout = step.rollout
        if step.admission is None:
            return 0
        candidates = [
            Candidate(
                instance_id=node.guid,
                place=self.rollout.place_of(bucket_of(node.guid)),
                site_id=node.site,
                region_id=node.region,
            )
            for node in self.nodes
            if node.stands == "not_yet"
        ]
        chosen = choose(candidates, step.admission, self.in_flight(), at_most=crash_after or BUCKETS)
        by_guid = {node.guid: node for node in self.nodes}
        for guid in chosen:
            by_guid[guid].stands = "in_flight"
            assert wave_of(guid, self.rollout) <= self.rollout.wave
            assert self.rollout.place_of(bucket_of(guid)) < frontier(self.rollout, self.now)
        if chosen:
            assert self.rollout.state is RolloutState.RUNNING
            assert not self.rollout.policy.in_blackout(self.now)
            self.check_limits()
        return len(chosen)

    def check_limits(self) -> None:
        policy, places = self.rollout.policy, self.in_flight()
        total = sum(node.stands == "in_flight" for node in self.nodes)
        assert policy.max_in_flight is None or total <= policy.max_in_flight
        assert policy.max_per_site is None or max(places.sites.values(), default=0) <= policy.max_per_site
        assert policy.max_per_region is None or max(places.regions.values(), default=0) <= policy.max_per_region

    def report(self, source: random.Random, failing: float) -> None:
        """Let some of those in flight finish, one way or the other."""
        for node in self.nodes:
            if node.stands == "in_flight" and source.random() < 0.7:
                node.stands = "failed" if source.random() < failing else "done"

    def join(self, source: random.Random) -> None:
        guid = str(UUID(int=source.getrandbits(128), version=4))
        self.nodes.append(Node(guid, *source.choice(PLACES)))


PLACES: list[tuple[str | None, str | None]] = [
    ("site-1", "north"),
    ("site-2", "north"),
    ("site-3", "south"),
    ("site-4", None),
    (None, None),
]
limits = st.none() | st.integers(1, 8)


@st.composite
def policies(draw: st.DrawFn) -> RolloutPolicy:
    shares = draw(st.lists(st.integers(1, BUCKETS - 1), max_size=4, unique=True))
    start = START + HOUR * draw(st.integers(0, 40))
    blackout = SingleSchedule(start, start + HOUR * draw(st.integers(1, 30)))
    return RolloutPolicy(
        waves=(*sorted(shares), BUCKETS),
        soak=HOUR * draw(st.integers(0, 5)),
        settled_share=draw(st.sampled_from([BUCKETS, 9_000, 5_000])),
        jitter=HOUR * draw(st.integers(0, 4)),
        max_in_flight=draw(limits),
        max_per_site=draw(limits),
        max_per_region=draw(limits),
        max_failed=draw(st.none() | st.integers(0, 5)),
        max_failed_share=draw(st.none() | st.integers(0, BUCKETS)),
        blackouts=(blackout,) if draw(st.booleans()) else (),
    )


@st.composite
def fleets(draw: st.DrawFn) -> tuple[ModelFleet, random.Random]:
    source = random.Random(draw(st.integers(0, 2**32)))
    fleet = ModelFleet(rollout(draw(policies()), draw(st.text("ab", max_size=2))), [])
    for _ in range(draw(st.integers(0, 60))):
        fleet.join(source)
    return fleet, source


# Waves


def test_the_wave_of_a_host_is_what_it_was_when_this_test_was_written() -> None:
    subject = rollout(RolloutPolicy(), salt="canaries")

    assert bucket_of("abcdef00-0000-4000-8000-000000000001") == 383
    assert subject.offset == 5_560
    assert [wave_of(guid, subject) for guid in guids(12, seed=1)] == [2, 2, 2, 3, 2, 0, 3, 1, 3, 1, 3, 2]


@given(guid=st.uuids(), salt=st.text(max_size=5), shares=policies())
def test_a_wave_depends_on_guid_and_salt_alone(guid: UUID, salt: str, shares: RolloutPolicy) -> None:
    one, other = rollout(shares, salt), evolve(rollout(shares, salt), resource_id="another", wave=len(shares.waves) - 1)

    assert wave_of(str(guid), one) == wave_of(str(guid).upper(), other)


@pytest.mark.parametrize("seed", range(5))
def test_the_waves_of_a_fleet_have_the_shares_that_the_policy_says(seed: int) -> None:
    subject, count = rollout(RolloutPolicy(), salt=str(seed)), 20_000
    found = Counter(wave_of(guid, subject) for guid in guids(count, seed))

    before = 0
    for wave, end in enumerate(subject.policy.waves):
        share = (end - before) / BUCKETS
        # Six standard deviations of a binomial distribution.
        assert abs(found[wave] - count * share) < 6 * (count * share * (1 - share)) ** 0.5
        before = end


def test_salts_choose_other_canaries() -> None:
    fleet = guids(5_000, seed=3)
    first, second = (
        {guid for guid in fleet if wave_of(guid, rollout(RolloutPolicy(), salt)) == 0} for salt in ("one", "two")
    )

    assert first
    assert second
    assert not first & second


# Whole lives


@given(drawn=fleets(), failing=st.sampled_from([0.0, 0.05, 0.3, 1.0]), crash=st.none() | st.integers(1, 3))
def test_limits_waves_and_budget_hold_whatever_happens(
    drawn: tuple[ModelFleet, random.Random], failing: float, crash: int | None
) -> None:
    fleet, source = drawn
    for _ in range(60):
        overdrawn = over_budget(fleet.rollout, fleet.counts().total)
        running = fleet.rollout.state is RolloutState.RUNNING
        admitted = fleet.run(crash_after=crash if source.random() < 0.5 else None)
        if running and overdrawn:
            assert fleet.rollout.state is RolloutState.PAUSED
            assert fleet.rollout.paused_by is PausedBy.ERROR_BUDGET
            assert not admitted
        if fleet.rollout.state is RolloutState.PAUSED and source.random() < 0.2:
            fleet.rollout = resumed(fleet.rollout, fleet.counts(), fleet.now)
        fleet.report(source, failing)
        if source.random() < 0.3:
            fleet.join(source)
        fleet.now += timedelta(minutes=source.randrange(0, 120))


@given(drawn=fleets())
def test_a_rollout_of_which_nothing_fails_ends_with_everybody_updated(
    drawn: tuple[ModelFleet, random.Random],
) -> None:
    fleet, source = drawn
    for _ in range(400):
        fleet.run()
        fleet.report(source, failing=0.0)
        fleet.now += HOUR

    assert fleet.rollout.state is (RolloutState.DONE if fleet.nodes else RolloutState.RUNNING)
    assert {node.stands for node in fleet.nodes} <= {"done"}


@given(drawn=fleets())
def test_a_wave_opens_only_when_the_one_before_was_well_for_the_soak_time(
    drawn: tuple[ModelFleet, random.Random],
) -> None:
    fleet, source = drawn
    policy, settled_at = fleet.rollout.policy, [START] * len(fleet.rollout.policy.waves)
    for _ in range(120):
        before = fleet.rollout.wave
        fleet.run()
        for wave in range(before, fleet.rollout.wave):
            counts = fleet.counts().waves[wave]
            if counts.due:
                assert (counts.done + counts.failed) * BUCKETS >= policy.settled_share * counts.due
                assert fleet.now - settled_at[wave] >= policy.soak
        for wave, counts in enumerate(fleet.counts().waves):
            if (counts.done + counts.failed) * BUCKETS < policy.settled_share * counts.due:
                settled_at[wave] = fleet.now
        fleet.report(source, failing=0.1)
        fleet.now += timedelta(minutes=20)


@given(drawn=fleets(), steps=st.integers(0, 20))
def test_advancing_twice_is_the_same_as_once(drawn: tuple[ModelFleet, random.Random], steps: int) -> None:
    fleet, source = drawn
    for _ in range(steps):
        fleet.run()
        fleet.report(source, failing=0.1)
        fleet.now += HOUR

    once = advance(fleet.rollout, fleet.counts(), fleet.now)

    assert advance(fleet.rollout, fleet.counts(), fleet.now) == once
    assert advance(once.rollout, fleet.counts(), fleet.now) == once


counts_of_anything = st.builds(
    WaveCounts, not_yet=st.integers(0, 99), in_flight=st.integers(0, 99), done=st.integers(0, 99),
    failed=st.integers(0, 99),
)  # fmt: skip


@given(policy=policies(), data=st.data(), state=st.sampled_from(RolloutState), hours=st.integers(-(10**5), 10**5))
def test_advancing_is_total(policy: RolloutPolicy, data: st.DataObject, state: RolloutState, hours: int) -> None:
    waves = tuple(data.draw(counts_of_anything) for _ in policy.waves)
    subject = evolve(
        rollout(policy),
        wave=data.draw(st.integers(0, len(waves) - 1)),
        state=state,
        paused_by=PausedBy.ADMIN if state is RolloutState.PAUSED else None,
        well_since=data.draw(st.sampled_from([None, START, START + HOUR])),
    )

    step = advance(subject, RolloutCounts(waves=waves), START + hours * HOUR)

    assert step.rollout.wave >= subject.wave
    if state is not RolloutState.RUNNING:
        assert (step.rollout, step.admission) == (subject, None)
    if step.admission is not None:
        assert 0 < step.admission.below <= policy.waves[step.rollout.wave]
        assert 0 < step.admission.at_most <= sum(wave.not_yet for wave in waves)


# Examples


def test_a_failure_beyond_the_budget_pauses_until_somebody_resumes() -> None:
    subject = rollout(RolloutPolicy(waves=(BUCKETS,), max_failed=1, max_failed_share=None))
    counts = RolloutCounts(waves=(WaveCounts(not_yet=5, failed=2),))

    stopped = advance(subject, counts, START)
    again = advance(stopped.rollout, counts, START + 1000 * HOUR)
    resumed_at = resumed(stopped.rollout, counts, START + HOUR)

    assert stopped.rollout.state is again.rollout.state is RolloutState.PAUSED
    assert stopped.rollout.reason == "2 updates failed, 1 may"
    assert again.admission is None
    assert advance(resumed_at, counts, START + HOUR).admission is not None
    worse = RolloutCounts(waves=(WaveCounts(not_yet=3, failed=4),))
    assert advance(resumed_at, worse, START + HOUR).rollout.reason == ("2 updates failed beside 2 from before, 1 may")


def test_jitter_reaches_a_wave_bit_by_bit() -> None:
    subject = evolve(rollout(RolloutPolicy(waves=(1_000, BUCKETS), jitter=10 * HOUR)), wave=1)

    reached = [frontier(subject, START + hours * HOUR) for hours in (-5, 0, 1, 5, 10, 99)]

    assert reached == [1_001, 1_001, 1_901, 5_501, BUCKETS, BUCKETS]


def test_a_fleet_without_anybody_proves_nothing() -> None:
    subject = rollout(RolloutPolicy(soak=timedelta(0)))
    empty = RolloutCounts(waves=(WaveCounts(),) * 4)

    assert advance(subject, empty, START + 1000 * HOUR).rollout == subject


def test_a_wave_that_a_small_fleet_does_not_have_is_passed_without_soaking() -> None:
    subject = rollout(RolloutPolicy())
    small = RolloutCounts(waves=(WaveCounts(), WaveCounts(), WaveCounts(not_yet=1), WaveCounts(not_yet=2)))

    step = advance(subject, small, START)

    assert step.rollout.wave == 2
    assert step.admission is not None
    assert step.admission.at_most == 1


def test_only_what_is_open_can_be_paused_or_superseded() -> None:
    done = evolve(rollout(RolloutPolicy()), state=RolloutState.DONE)

    assert superseded(done, "os-newer") == done
    with pytest.raises(FailedPrecondition, match="DONE"):
        paused(done, PausedBy.ADMIN, "why not")
    with pytest.raises(FailedPrecondition, match="DONE"):
        resumed(done, RolloutCounts(waves=(WaveCounts(),) * 4), START)
