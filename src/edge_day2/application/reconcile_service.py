"""The OS Resource Manager as a service: it reconciles every tenant at once and periodically, until it is stopped.

Nothing is decided here. What failed for now is tried again soon, and only that: tenants that are done are left alone, a
list that was downloaded isn't downloaded again, nor is one that makes no sense. Everything else waits for the period.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Final

from attrs import frozen

from edge_day2.application.os_resource_manager import OSResourceManager
from edge_day2.application.reconcile_report import Discovery, ReconcileReport
from edge_day2.application.tenant_rounds import TenantRound, is_temporary
from edge_day2.errors import EdgeDay2Error, InvalidValue, MissingExtra

_log: Final = logging.getLogger(__name__)

_LONGEST_PERIOD: Final = timedelta(days=365)

Listener = Callable[[TenantRound[ReconcileReport]], None]
"""Is told what came of a round. What it raises is logged."""


@frozen(kw_only=True)
class RetryTimes:
    """How long to wait after a failure that may pass by itself, in seconds; the defaults are the original's.

    Attributes:
        shortest: at least.
        longest: at most. In between the wait is random, up to `shortest` doubled with each failure in a row.
    """

    shortest: float = 1.0
    longest: float = 60.0


class Bell:
    """Wakes the service, or stops it. Both may be called from any thread, and from a signal handler."""

    def __init__(self) -> None:
        # Unlike an Event's, its lock may be asked for by a signal handler that interrupts its holder.
        self._rings: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def wake(self) -> None:
        """Reconcile now: there is a new tenant, or the revision has changed. A round that goes on is ended first."""
        self._rings.put(None)

    def stop(self) -> None:
        """End the service, between two rounds, and at once where it waits."""
        self._stopped = True
        self._rings.put(None)

    def wait(self, seconds: float) -> bool:
        """Wait for a ring, at most so long; return whether there was one. Several count as one."""
        try:
            self._rings.get(timeout=seconds)
        except queue.Empty:
            return False
        with suppress(queue.Empty):
            while True:
                self._rings.get_nowait()
        return True


def run(
    manager: OSResourceManager,
    *,
    bell: Bell,
    every: timedelta = timedelta(hours=12),
    tenants: Callable[[], Iterable[str]] | None = None,
    retry: RetryTimes = RetryTimes(),  # frozen
    heard: Listener | None = None,
) -> None:
    """Run `manager` until the bell says stop. Any number of processes may do so; a tenant is one's at a time.

    Args:
        manager: reconciles.
        bell: wakes and stops.
        every: between two rounds that look at everything; the default is the original's.
        tenants: is asked before each of these; None: the tenants that the Inventory holds.
        retry: distances after failures.
        heard: is told what came of each round.

    Raises:
        InvalidValue: `every` isn't above zero or is longer than a year, or `retry` isn't 0 < shortest <= longest.
        MissingExtra: tenacity isn't installed (extra `oci` or `grpc`).
    """
    if not timedelta(0) < every <= _LONGEST_PERIOD:
        raise InvalidValue("every", every, f"a time above zero, at most {_LONGEST_PERIOD.days} days")
    _Service(manager, bell, every.total_seconds(), tenants, _distances(retry), heard).run()


class _Service:
    def __init__(
        self,
        manager: OSResourceManager,
        bell: Bell,
        every: float,
        tenants: Callable[[], Iterable[str]] | None,
        distance: Callable[[int], float],
        heard: Listener | None,
    ) -> None:
        self._manager = manager
        self._bell = bell
        self._every = every
        self._tenants = tenants
        self._distance = distance
        self._heard = heard
        self._discovery: Discovery | None = None
        # The tenants to come back to, None for all, and those that wait for what couldn't be fetched.
        self._left: Collection[str] | None = None
        self._waiting: Collection[str] = ()

    def run(self) -> None:
        failures, remaining = 0, 0.0
        while not self._bell.stopped:
            if remaining <= 0:
                self._discovery, self._left, self._waiting = None, None, ()
                failures, remaining = 0, self._every
            if self._succeeds():
                pause = remaining
            else:
                failures += 1
                pause = min(self._distance(failures), remaining)
                _log.warning("tried again in %.1f seconds", pause)
            remaining = 0.0 if self._bell.wait(pause) else remaining - pause

    def _succeeds(self) -> bool:
        """Do what is left; return whether nothing is left that trying again soon may do."""
        try:
            return self._round()
        except EdgeDay2Error as error:
            _log.error("%s: %s", type(error).__name__, error)
            return not is_temporary(error)
        except Exception:
            _log.exception("reconciling failed")
            return False

    def _round(self) -> bool:
        self._discover()
        tenants: Iterable[str] | None = self._left
        if tenants is None and self._tenants is not None:
            tenants = self._tenants()
        outcome = self._manager.reconcile_all(tenants, discovery=self._discovery)
        self._left = tuple(_left(outcome))
        self._waiting = {*self._waiting, *outcome.done} - {*self._left}
        if self._heard is not None:
            try:
                self._heard(outcome)
            except Exception:
                _log.exception("what came of a round couldn't be told")
        return not self._left and self._discovery is not None and self._discovery.is_complete

    def _discover(self) -> None:
        """Fetch what is missing. Where that brings something, those who wait for it are come back to."""
        before = self._discovery
        if before is not None and before.is_complete:
            return
        now = self._discovery = self._manager.discover(after=before)
        if before is not None and self._left is not None and (now.is_complete or now.digest != before.digest):
            self._left = (*self._left, *sorted(self._waiting))


def _left(outcome: TenantRound[ReconcileReport]) -> Iterator[str]:
    """Yield the tenants to come back to soon. One that another process works on is: that may be killed."""
    yield from (tenant_id for tenant_id, report in outcome.done.items() if report.was_disturbed)
    yield from (tenant_id for tenant_id, error in outcome.failed.items() if is_temporary(error))
    yield from outcome.busy


def _distances(times: RetryTimes) -> Callable[[int], float]:
    try:
        from tenacity import RetryCallState, Retrying, wait_random_exponential
    except ModuleNotFoundError as error:
        raise MissingExtra("tenacity", "oci") from error
    if not 0 < times.shortest <= times.longest:
        raise InvalidValue("retry", times, "0 < shortest <= longest")
    wait = wait_random_exponential(multiplier=times.shortest, min=times.shortest, max=times.longest)
    state = RetryCallState(Retrying(), None, (), {})

    def distance(failures: int) -> float:
        state.attempt_number = failures
        return wait(state)

    return distance
