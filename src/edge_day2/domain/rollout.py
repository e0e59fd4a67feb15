"""A rollout: in which order, how fast and how long a new image reaches the instances of a profile. Pure.

What lives here: policy, state, waves, and the one decision `advance`. What never will: a clock, a database, random
numbers; who is linked is carried out by application/rollout_linking.py.

- Every host has a bucket, 0 to 9,999, the hash of its GUID. A rollout turns this circle by its salt, so that each
  begins with other hosts, and opens it from its start: the wave of a host depends on GUID, salt and the policy's
  shares alone. How many hosts there are doesn't matter, so a fleet that grows moves nobody.
- A wave that is open admits its instances, spread over the jitter, as many as the limits leave room for. When enough
  of them have the new OS, or failed, it is settled; when it stayed so for the soak time, the next one opens.
- Where more updates failed than the error budget allows, the rollout pauses until somebody resumes it. In a blackout
  nobody is admitted and no wave opens; updates that were begun go on.
- Nothing is ever taken back: who was admitted keeps the desired OS.
"""

from __future__ import annotations

import enum
import functools
import hashlib
from datetime import datetime, timedelta
from typing import Any, Final

from attrs import evolve, field, frozen

from edge_day2.domain.field_rules import aware, not_empty
from edge_day2.domain.schedules import Schedule
from edge_day2.errors import FailedPrecondition, InvalidResource

BUCKETS: Final = 10_000
"""How many parts of equal size a fleet has. Shares are given in hundredths of a percent for the same reason."""

MOST_WAVES: Final = 20
_MOST_BLACKOUTS: Final = 100
_LARGEST: Final = 2**31 - 1
# It is part of a key in the database.
_LONGEST_ARCHITECTURE: Final = 100
_LONGEST: Final = timedelta(days=365)


class RolloutState(enum.Enum):
    """What becomes of instances that weren't admitted yet."""

    RUNNING = "they are admitted, wave by wave"
    PAUSED = "nobody is admitted until it is resumed"
    DONE = "whoever comes later is linked at once"
    CANCELLED = "nobody is linked to its target"
    SUPERSEDED = "nobody is linked to its target, there is a later one"

    @property
    def is_open(self) -> bool:
        """Whether it goes on, or may go on. One profile and architecture has one open rollout at most."""
        return self in (RolloutState.RUNNING, RolloutState.PAUSED)


class PausedBy(enum.Enum):
    """Who paused a rollout. A pause by an admin holds for a later target too, the other one concerns this image."""

    ADMIN = "an admin"
    ERROR_BUDGET = "the error budget"


@functools.lru_cache(maxsize=1024)
def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % BUCKETS


def bucket_of(guid: str) -> int:
    """Return the bucket of a host, 0 to 9,999: the same on every machine, for ever.

    The first eight bytes of the SHA-256 of the GUID in lower case, as a number, modulo 10,000. Databases store it.
    """
    return _hashed(guid.lower())


@frozen(kw_only=True)
class RolloutPolicy:
    """How carefully a rollout goes.

    Attributes:
        waves: how much of the fleet is reached by the end of each wave, cumulative, in hundredths of a percent;
            ascending, the last is 10,000.
        soak: how long a wave stays settled before the next one opens.
        settled_share: how much of a wave must have the new OS or have failed for it to be settled, in hundredths of a
            percent. Below 10,000 a node that is switched off doesn't hold up the rest.
        jitter: over how long the instances of a wave are admitted, by their hash.
        max_in_flight: how many admitted instances may be without the new OS at once; None: any number.
        max_per_site, max_per_region: the same for each site, and for the region that a site lies in directly. They
            don't limit hosts that are at no site.
        max_failed: how many updates may have failed, or been LOST, at once; one more pauses the rollout.
        max_failed_share: the same as a share of those admitted so far, in hundredths of a percent.
        blackouts: schedules in whose windows nobody is admitted.

    Raises:
        InvalidResource: a value is out of range.
    """

    waves: tuple[int, ...] = (100, 1_000, 5_000, BUCKETS)
    soak: timedelta = timedelta(days=1)
    settled_share: int = 9_500
    jitter: timedelta = timedelta(0)
    max_in_flight: int | None = None
    max_per_site: int | None = None
    max_per_region: int | None = None
    max_failed: int | None = None
    max_failed_share: int | None = 200
    blackouts: tuple[Schedule, ...] = ()

    def __attrs_post_init__(self) -> None:
        def check(name: str, value: Any, right: bool, expected: str) -> None:
            if not right:
                raise InvalidResource(f"RolloutPolicy.{name}", value, expected)

        ascending = all(_whole(high, 1, BUCKETS) for high in self.waves) and self.waves == tuple(
            sorted(set(self.waves))
        )
        last = bool(self.waves) and self.waves[-1] == BUCKETS and len(self.waves) <= MOST_WAVES
        check("waves", self.waves, ascending and last, f"at most {MOST_WAVES} ascending shares, the last {BUCKETS}")
        for name in ("soak", "jitter"):
            value = getattr(self, name)
            right = isinstance(value, timedelta) and timedelta(0) <= value <= _LONGEST
            check(name, value, right, "a timedelta from nothing to 365 days")
        share = f"a whole number of hundredths of a percent, up to {BUCKETS}"
        check("settled_share", self.settled_share, _whole(self.settled_share, 1, BUCKETS), share)
        for name in ("max_in_flight", "max_per_site", "max_per_region"):
            value = getattr(self, name)
            check(name, value, value is None or _whole(value, 1, _LARGEST), "a whole number above 0, or None")
        check(
            "max_failed", self.max_failed, self.max_failed is None or _whole(self.max_failed, 0, _LARGEST), "0 or more"
        )
        failed_share = self.max_failed_share
        check("max_failed_share", failed_share, failed_share is None or _whole(failed_share, 0, BUCKETS), share)
        few = f"at most {_MOST_BLACKOUTS} schedules"
        check("blackouts", len(self.blackouts), len(self.blackouts) <= _MOST_BLACKOUTS, few)

    def in_blackout(self, now: datetime) -> bool:
        """Return whether nobody may be admitted at `now`, whatever the rest says."""
        return any(schedule.window_at(now) is not None for schedule in self.blackouts)


def _whole(value: object, lowest: int, highest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


@frozen(kw_only=True)
class Rollout:
    """The way of one target OS to the immutable instances of its profile and architecture.

    Attributes:
        salt: turns the order of the hosts; two rollouts with one salt reach them in the same order.
        started_at: when it was added.
        wave: the wave that is open, counted from 0, since `wave_since`; `well_since`: settled since then.
        admitted: how many instances it has linked so far.
        forgiven: how many failures there were when it was added or resumed; the error budget counts from there.
        paused_by, reason: who paused it, and what they said.

    Raises:
        InvalidResource: a text is empty, an instant naive, there is no such wave, or the pause doesn't fit the state.
    """

    resource_id: str = field(validator=not_empty)
    tenant_id: str = field(validator=not_empty)
    name: str = field(validator=not_empty)
    profile_name: str = field(validator=not_empty)
    architecture: str
    target_os_id: str = field(validator=not_empty)
    salt: str
    started_at: datetime = field(validator=aware)
    wave_since: datetime = field(validator=aware)
    policy: RolloutPolicy = RolloutPolicy()
    state: RolloutState = RolloutState.RUNNING
    wave: int = 0
    well_since: datetime | None = field(default=None, validator=aware)
    admitted: int = 0
    forgiven: int = 0
    paused_by: PausedBy | None = None
    reason: str = ""

    def __attrs_post_init__(self) -> None:
        if len(self.architecture) > _LONGEST_ARCHITECTURE:
            expected = f"at most {_LONGEST_ARCHITECTURE} characters"
            raise InvalidResource("Rollout.architecture", self.architecture, expected)
        if not _whole(self.wave, 0, len(self.policy.waves) - 1):
            raise InvalidResource("Rollout.wave", self.wave, f"one of {len(self.policy.waves)} waves, from 0 on")
        for name in ("admitted", "forgiven"):
            if not _whole(getattr(self, name), 0, 2**62):
                raise InvalidResource(f"Rollout.{name}", getattr(self, name), "a whole number, 0 or more")
        if (self.paused_by is not None) != (self.state is RolloutState.PAUSED):
            raise InvalidResource("Rollout.paused_by", self.paused_by, "who paused it, exactly where it is PAUSED")

    @property
    def offset(self) -> int:
        """By how many buckets the salt turns the circle of hosts."""
        return _hashed(f"salt:{self.salt}")

    def place_of(self, bucket: int) -> int:
        """Return the place of a host's bucket in this rollout's order, 0 to 9,999."""
        return (bucket + self.offset) % BUCKETS

    def wave_at(self, place: int) -> int:
        """Return the wave that a place belongs to, counted from 0."""
        return next(wave for wave, end in enumerate(self.policy.waves) if place < end)


def wave_of(guid: str, rollout: Rollout) -> int:
    """Return the wave of the host with this GUID, counted from 0: the same on every machine, for ever."""
    return rollout.wave_at(rollout.place_of(bucket_of(guid)))


@frozen(kw_only=True)
class WaveCounts:
    """How the instances of one wave, or of several, stand.

    `in_flight`: admitted and without the new OS, also where the node hasn't begun yet; `failed`: the last update FAILED
    or was LOST since it was admitted. A failed one that tries again is in flight.
    """

    not_yet: int = 0
    in_flight: int = 0
    done: int = 0
    failed: int = 0

    @property
    def due(self) -> int:
        """How many there are."""
        return self.not_yet + self.admitted

    @property
    def admitted(self) -> int:
        """How many were admitted, or had the new OS anyway."""
        return self.in_flight + self.done + self.failed

    def __add__(self, other: WaveCounts) -> WaveCounts:
        return WaveCounts(
            not_yet=self.not_yet + other.not_yet,
            in_flight=self.in_flight + other.in_flight,
            done=self.done + other.done,
            failed=self.failed + other.failed,
        )


@frozen(kw_only=True)
class RolloutCounts:
    """How the instances that a rollout covers stand, wave by wave."""

    waves: tuple[WaveCounts, ...]

    @property
    def total(self) -> WaveCounts:
        """All waves together."""
        return sum(self.waves, WaveCounts())


def uncounted(rollout: Rollout) -> RolloutCounts:
    """Return counts that say of no instance how it stands."""
    return RolloutCounts(waves=(WaveCounts(),) * len(rollout.policy.waves))


@frozen(kw_only=True)
class Admission:
    """Whom to admit now: instances whose place in the rollout's order is below `below`.

    `at_most` of them, and only so many that no site has more than `per_site` in flight then, no region more than
    `per_region`.
    """

    below: int
    at_most: int
    per_site: int | None = None
    per_region: int | None = None


@frozen(kw_only=True)
class RolloutStep:
    """A rollout's next state, which is to be stored first, and whom to admit then; None: nobody."""

    rollout: Rollout
    admission: Admission | None = None


def advance(rollout: Rollout, counts: RolloutCounts, now: datetime) -> RolloutStep:
    """Return what a rollout does now. Total: any state, any counts, a clock that went back.

    It keeps nothing to itself: asked again with the same, or after what it said was done in part, it goes on from
    there.
    """
    if rollout.state is not RolloutState.RUNNING:
        return RolloutStep(rollout=rollout)
    total = counts.total
    overdrawn = over_budget(rollout, total)
    if overdrawn:
        return RolloutStep(rollout=paused(rollout, PausedBy.ERROR_BUDGET, overdrawn))
    # As long as there is nobody, nothing is proved: who comes later goes wave by wave.
    if total.due and total.not_yet == total.in_flight == 0:
        return RolloutStep(rollout=evolve(rollout, state=RolloutState.DONE))
    blackout = rollout.policy.in_blackout(now)
    rollout = _opened(rollout, counts, now, may_open=not blackout)
    admission = None if blackout else _admission(rollout, counts, now)
    return RolloutStep(rollout=rollout, admission=admission)


def over_budget(rollout: Rollout, total: WaveCounts) -> str:
    """Return in words how the error budget is overdrawn, "" where it isn't."""
    policy, failed = rollout.policy, total.failed - rollout.forgiven
    beside = f" beside {rollout.forgiven} from before" if rollout.forgiven else ""
    if policy.max_failed is not None and failed > policy.max_failed:
        return f"{failed} updates failed{beside}, {policy.max_failed} may"
    if policy.max_failed_share is not None and failed * BUCKETS > policy.max_failed_share * total.admitted:
        return f"{failed} of {total.admitted} updates failed{beside}, {policy.max_failed_share / 100:g} % may"
    return ""


def is_settled(rollout: Rollout, wave: WaveCounts) -> bool:
    """Return whether enough of a wave have the new OS or failed."""
    return (wave.done + wave.failed) * BUCKETS >= rollout.policy.settled_share * wave.due


def _opened(rollout: Rollout, counts: RolloutCounts, now: datetime, *, may_open: bool) -> Rollout:
    """Return the rollout with every further wave open whose time has come, and with what it is to remember."""
    while rollout.wave < len(rollout.policy.waves) - 1:
        wave = counts.waves[rollout.wave]
        if wave.due:
            since = (rollout.well_since or now) if is_settled(rollout, wave) else None
            rollout = evolve(rollout, well_since=since)
            if since is None or now - since < rollout.policy.soak:
                break
        # In a wave without instances there is nothing to watch.
        if not may_open or not counts.total.due:
            break
        rollout = evolve(rollout, wave=rollout.wave + 1, wave_since=now, well_since=None)
    return rollout


def frontier(rollout: Rollout, now: datetime) -> int:
    """Return the first place that isn't open yet: waves before the present one are, of that one as jitter says."""
    policy = rollout.policy
    first = policy.waves[rollout.wave - 1] if rollout.wave else 0
    size = policy.waves[rollout.wave] - first
    elapsed = max(now - rollout.wave_since, timedelta(0))
    if elapsed >= policy.jitter:
        return first + size
    return first + min(size, size * elapsed // policy.jitter + 1)


def _admission(rollout: Rollout, counts: RolloutCounts, now: datetime) -> Admission | None:
    policy = rollout.policy
    wanted = sum(wave.not_yet for wave in counts.waves[: rollout.wave + 1])
    room = wanted if policy.max_in_flight is None else min(wanted, policy.max_in_flight - counts.total.in_flight)
    if room <= 0:
        return None
    return Admission(
        below=frontier(rollout, now), at_most=room, per_site=policy.max_per_site, per_region=policy.max_per_region
    )


def paused(rollout: Rollout, by: PausedBy, reason: str) -> Rollout:
    """Return the rollout PAUSED.

    Raises:
        FailedPrecondition: it isn't RUNNING.
    """
    if rollout.state is not RolloutState.RUNNING:
        raise FailedPrecondition(f"rollout {rollout.resource_id} is {rollout.state.name}, only a RUNNING one is paused")
    return evolve(rollout, state=RolloutState.PAUSED, paused_by=by, reason=reason, well_since=None)


def resumed(rollout: Rollout, counts: RolloutCounts, now: datetime) -> Rollout:
    """Return the rollout RUNNING again, its wave spread anew, and what failed so far forgiven.

    Raises:
        FailedPrecondition: it isn't PAUSED.
    """
    if rollout.state is not RolloutState.PAUSED:
        raise FailedPrecondition(f"rollout {rollout.resource_id} is {rollout.state.name}, only a PAUSED one is resumed")
    return evolve(
        rollout,
        state=RolloutState.RUNNING,
        paused_by=None,
        reason="",
        wave_since=now,
        forgiven=counts.total.failed,
    )


def cancelled(rollout: Rollout, reason: str) -> Rollout:
    """Return the rollout CANCELLED.

    Raises:
        FailedPrecondition: it is over.
    """
    if not rollout.state.is_open:
        raise FailedPrecondition(f"rollout {rollout.resource_id} is {rollout.state.name} already")
    return evolve(rollout, state=RolloutState.CANCELLED, paused_by=None, reason=reason)


def superseded(rollout: Rollout, target_os_id: str) -> Rollout:
    """Return the rollout as it ends when `target_os_id` is the latest; one that is over stays as it is."""
    if not rollout.state.is_open:
        return rollout
    reason = f"{target_os_id} is later than {rollout.target_os_id}"
    return evolve(rollout, state=RolloutState.SUPERSEDED, paused_by=None, reason=reason)


def successor(rollout: Rollout, target_os_id: str, target_name: str, now: datetime) -> Rollout:
    """Return the rollout that brings a later target to the same instances by the same policy, from its first wave on.

    Its id is derived, so that two managers that find the target at once make the same one. It begins PAUSED where an
    admin has paused its predecessor.
    """
    identity = "\0".join((rollout.tenant_id, rollout.resource_id, target_os_id))
    resource_id = f"rollout-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    held = rollout.paused_by is PausedBy.ADMIN
    return Rollout(
        resource_id=resource_id,
        tenant_id=rollout.tenant_id,
        name=target_name,
        profile_name=rollout.profile_name,
        architecture=rollout.architecture,
        target_os_id=target_os_id,
        salt=resource_id if rollout.salt == rollout.resource_id else rollout.salt,
        started_at=now,
        wave_since=now,
        policy=rollout.policy,
        state=RolloutState.PAUSED if held else RolloutState.RUNNING,
        paused_by=PausedBy.ADMIN if held else None,
        reason=rollout.reason if held else "",
    )
