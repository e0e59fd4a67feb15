"""The admin's calls about rollouts; a part of `InventoryService`."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve

from edge_day2.application.inventory_questions import InventoryQuestions
from edge_day2.application.rollout_linking import count
from edge_day2.application.rollout_outlook import rollout_outlook
from edge_day2.domain.maintenance import MaintenancePolicy
from edge_day2.domain.resources import OSResource, OSType
from edge_day2.domain.rollout import (
    PausedBy,
    Rollout,
    RolloutCounts,
    RolloutPolicy,
    cancelled,
    paused,
    resumed,
)
from edge_day2.domain.rollout_explanation import RolloutExplanation
from edge_day2.errors import FailedPrecondition
from edge_day2.ports.clock import Clock
from edge_day2.ports.inventory import Inventory, UnitOfWork


class RolloutService(InventoryQuestions):
    """What an administrator does about rollouts. Each call is one transaction; errors are those of `InventoryService`.

    Args:
        inventory: where everything is stored.
        clock: the time.
        policy: which schedules open windows, for `explain`.
        new_id: gives the distinguishing part of a new rollout's id.
    """

    def __init__(
        self, inventory: Inventory, *, clock: Clock, policy: MaintenancePolicy, new_id: Callable[[], str]
    ) -> None:
        super().__init__(inventory, clock=clock, policy=policy)
        self._new_id = new_id

    def add_rollout(
        self, tenant: str, target_os_id: str, policy: RolloutPolicy, *, name: str = "", salt: str | None = None
    ) -> Rollout:
        """Bring an immutable OS Resource to the instances of its profile and architecture by a policy, from now on.

        The policy stays: each later target of that profile and architecture gets a rollout by it, until all of its
        rollouts are deleted. Without a `salt` every rollout reaches the hosts in another order; with one in the same.
        What failed with this target before is forgiven.

        Raises:
            FailedPrecondition: the OS is mutable; its instances are patched in place, all at once.
            AlreadyExists: profile and architecture have an open rollout; cancel it first.
        """
        now = self._clock.now()
        with self._inventory.writing() as unit:
            target = unit.get(OSResource, tenant, target_os_id)
            if target.os_type is not OSType.IMMUTABLE:
                raise FailedPrecondition(f"OS Resource {target_os_id!r} is mutable: it is patched in place, at once")
            resource_id = f"rollout-{self._new_id()}"
            rollout = Rollout(
                resource_id=resource_id,
                tenant_id=tenant,
                name=name or target.name,
                profile_name=target.profile_name,
                architecture=target.architecture,
                target_os_id=target_os_id,
                salt=resource_id if salt is None else salt,
                started_at=now,
                wave_since=now,
                policy=policy,
            )
            rollout = evolve(rollout, forgiven=count(unit, rollout).counts.total.failed)
            unit.add(rollout)
        return rollout

    def pause_rollout(self, tenant: str, rollout_id: str, reason: str) -> Rollout:
        """Admit nobody until the rollout is resumed; updates that were begun go on.

        Raises:
            FailedPrecondition: it isn't RUNNING.
        """
        return self._change_rollout(tenant, rollout_id, lambda _, rollout: paused(rollout, PausedBy.ADMIN, reason))

    def resume_rollout(self, tenant: str, rollout_id: str) -> Rollout:
        """Go on with a paused rollout. What failed so far is forgiven: the error budget counts from here.

        Raises:
            FailedPrecondition: it isn't PAUSED.
        """
        return self._change_rollout(
            tenant, rollout_id, lambda unit, rollout: resumed(rollout, count(unit, rollout).counts, self._clock.now())
        )

    def cancel_rollout(self, tenant: str, rollout_id: str, reason: str) -> Rollout:
        """Link nobody to the target any more. Who was admitted keeps it; link them by hand to bring them back.

        Raises:
            FailedPrecondition: it is over.
        """
        return self._change_rollout(tenant, rollout_id, lambda _, rollout: cancelled(rollout, reason))

    def rollouts(self, tenant: str) -> tuple[Rollout, ...]:
        """Return the tenant's rollouts, the latest first."""
        with self._inventory.reading() as unit:
            found = list(unit.all(Rollout, tenant))
        return tuple(sorted(found, key=lambda rollout: (rollout.started_at, rollout.resource_id), reverse=True))

    def rollout_progress(self, tenant: str, rollout_id: str) -> RolloutCounts:
        """Return for each wave how many instances are not yet admitted, in flight, done and failed."""
        with self._inventory.reading() as unit:
            return count(unit, unit.get(Rollout, tenant, rollout_id)).counts

    def explain_rollout(self, tenant: str, guid: str) -> RolloutExplanation | None:
        """Return what the latest rollout that is about the host's OS means for the host; None where there is none."""
        with self._inventory.reading() as unit:
            return rollout_outlook(unit, unit.report_context(tenant, guid), self._clock.now())

    def _change_rollout(
        self, tenant: str, rollout_id: str, change: Callable[[UnitOfWork, Rollout], Rollout]
    ) -> Rollout:
        with self._inventory.writing() as unit:
            old = unit.get(Rollout, tenant, rollout_id)
            new = change(unit, old)
            unit.replace(old, new)
        return new
