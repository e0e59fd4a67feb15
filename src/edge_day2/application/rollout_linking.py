"""Carries rollouts out: counts, asks the domain, stores what it says, and links whom it admits.

What lives here: transactions, batches, repeating after somebody else's change. What never will: deciding who is
admitted when (domain/rollout.py).

Every batch is a transaction that links instances and adds their number to the rollout, which must still be what was
counted with. So of several managers that count at once one alone admits by that count, and the others count again:
together they never admit more than one would. A crash leaves a whole number of batches.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Final

from attrs import evolve, frozen

from edge_day2.domain.linking import LinkingPlan
from edge_day2.domain.resources import Link, OSResource
from edge_day2.domain.rollout import (
    Rollout,
    RolloutCounts,
    RolloutState,
    RolloutStep,
    advance,
    successor,
    superseded,
)
from edge_day2.domain.rollout_progress import count_rollout, decisive_rollout, waiting_links
from edge_day2.errors import AlreadyExists, Conflict, NotFound
from edge_day2.ports.clock import Clock
from edge_day2.ports.inventory import Inventory, UnitOfWork

# Every repetition means that somebody else made progress.
_ATTEMPTS: Final = 5
_BATCH: Final = 5000


class _WallClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


WALL_CLOCK: Final[Clock] = _WallClock()
"""The clock of the machine."""


@frozen(kw_only=True)
class CountedRollout:
    """A rollout and how its instances stand, of one instant; `waiting` are the links of those that may be admitted."""

    rollout: Rollout
    counts: RolloutCounts
    waiting: tuple[Link, ...]


def count(unit: UnitOfWork, rollout: Rollout) -> CountedRollout:
    """Read how a rollout's instances stand."""
    links = unit.wave_links(rollout)
    named = {os_id for alike in links for os_id in (alike.link.current_os_id, alike.link.desired_os_id)}
    resources = {
        os_id: unit.get(OSResource, rollout.tenant_id, os_id) for os_id in sorted({*named, rollout.target_os_id})
    }
    return CountedRollout(
        rollout=rollout,
        counts=count_rollout(rollout, links, resources),
        waiting=waiting_links(rollout, links, resources),
    )


class RolloutManager:
    """Brings rollouts forward. Safe to use from several threads and processes on one Inventory.

    Args:
        inventory: where rollouts and instances are.
        clock: the time that soak, jitter and blackouts go by.
        batch_size: how many instances one transaction links.
    """

    def __init__(self, inventory: Inventory, *, clock: Clock = WALL_CLOCK, batch_size: int = _BATCH) -> None:
        self._inventory = inventory
        self._clock = clock
        self._batch_size = batch_size

    def advance(self, tenant_id: str) -> Counter[str]:
        """Bring the tenant's open rollouts forward; return how many instances were linked to each OS Resource.

        To be called every few minutes; nothing is fetched. What is new in the Release Service, and so supersedes a
        rollout, is found by `OSResourceManager.reconcile` alone.

        Raises:
            StorageError: the Inventory failed. What is done is kept; repeat later.
        """
        linked: Counter[str] = Counter()
        for rollout in self._rollouts(tenant_id):
            if rollout.state is RolloutState.RUNNING:
                self._run(rollout, linked)
        return +linked

    def link(self, tenant_id: str, plan: LinkingPlan) -> tuple[LinkingPlan, Counter[str]]:
        """Link whom rollouts admit to the plan's targets; return the plan without those, and what was linked.

        A target that is later than that of the last rollout of its profile and architecture gets a rollout of its own,
        by the same policy; an open rollout is superseded by it. One that is earlier waits while that is open.

        Raises:
            Conflict: others changed the same rollouts again and again. What is done is kept; repeat later.
            StorageError: the Inventory failed. What is done is kept; repeat later.
        """
        held: set[str] = set()
        linked: Counter[str] = Counter()
        rollouts = self._rollouts(tenant_id)
        for target in plan.targets:
            rollout = decisive_rollout(rollouts, target)
            if rollout is not None and rollout.target_os_id != target.resource_id:
                rollout = self._next(tenant_id, target)
            if rollout is None:
                continue
            mine = rollout.target_os_id == target.resource_id
            if mine and rollout.state is RolloutState.RUNNING:
                self._run(rollout, linked)
            if rollout.state.is_open or (mine and rollout.state is not RolloutState.DONE):
                held.add(target.resource_id)
        return plan.holding(frozenset(held)), +linked

    def _rollouts(self, tenant_id: str) -> list[Rollout]:
        with self._inventory.reading() as unit:
            return list(unit.all(Rollout, tenant_id))

    def _next(self, tenant_id: str, target: OSResource) -> Rollout | None:
        """Begin a rollout of `target` where the last one is of an earlier target; return the one that decides then."""
        for attempt in range(_ATTEMPTS + 1):
            try:
                with self._inventory.writing() as unit:
                    last = decisive_rollout(unit.all(Rollout, tenant_id), target)
                    if last is None or last.target_os_id == target.resource_id:
                        return last
                    former = unit.get(OSResource, tenant_id, last.target_os_id)
                    if former.image_version >= target.image_version:
                        return last
                    ended = superseded(last, target.resource_id)
                    if ended != last:
                        unit.replace(last, ended)
                    begun = successor(last, target.resource_id, target.name, self._clock.now())
                    unit.add(begun)
                return begun
            except (Conflict, AlreadyExists, NotFound):
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError

    def _run(self, rollout: Rollout, linked: Counter[str]) -> None:
        """Advance one rollout until it admits nobody more, or others do so again and again."""
        failures = 0
        while failures < _ATTEMPTS:
            before = linked.total()
            try:
                self._pass(rollout, linked)
                return
            except NotFound:
                # It was deleted.
                return
            except Conflict:
                failures = 0 if linked.total() > before else failures + 1

    def _pass(self, rollout: Rollout, linked: Counter[str]) -> None:
        with self._inventory.reading() as unit:
            counted = count(unit, unit.get(Rollout, rollout.tenant_id, rollout.resource_id))
        step = advance(counted.rollout, counted.counts, self._clock.now())
        if step.rollout != counted.rollout:
            with self._inventory.writing() as unit:
                unit.replace(counted.rollout, step.rollout)
                # A wave that has just opened may let in other links.
                counted = count(unit, step.rollout)
        self._admit(step, counted.waiting, linked)

    def _admit(self, step: RolloutStep, waiting: tuple[Link, ...], linked: Counter[str]) -> None:
        if step.admission is None:
            return
        rollout, room, now = step.rollout, step.admission.at_most, self._clock.now()
        for link in waiting:
            while room > 0:
                with self._inventory.writing() as unit:
                    batch = min(room, self._batch_size)
                    done = unit.admit(rollout, link, step.admission, now, at_most=batch)
                    if done:
                        further = evolve(rollout, admitted=rollout.admitted + done)
                        unit.replace(rollout, further)
                if not done:
                    break
                rollout, room = further, room - done
                linked[rollout.target_os_id] += done
