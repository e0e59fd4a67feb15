"""Is the node well? Several checks, asked side by side, and again until they hold or time is up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from edge_day2.adapters.health_checks import HealthCheck
from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import InvalidValue
from edge_day2.ports.failures import NodeFailure

_log: Final = logging.getLogger(__name__)

_YEAR: Final = 365 * 86_400.0


class HealthChecks:
    """A `HealthPort` that wants every check to hold once.

    A service needs time to come up, so a check that fails is asked again until the deadline. Each has a thread of its
    own; one that hangs is left behind there, and the verdict doesn't wait for it.

    Args:
        checks: what must hold. None at all: the node is well as soon as the agent runs.
        deadline_seconds: from the first question to the verdict. Longer than any outage of what is asked (the
            Maintenance Manager, a probe's server) that isn't the new OS's fault, or a good OS is rolled back.
        retry_after_seconds: before a check that failed is asked again.
        monotonic: seconds since any point in the past, which nobody puts back.

    Raises:
        InvalidValue: a time is below zero or longer than a year.
    """

    def __init__(
        self,
        checks: Iterable[HealthCheck],
        *,
        deadline_seconds: float,
        retry_after_seconds: float = 5.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, seconds in (("deadline_seconds", deadline_seconds), ("retry_after_seconds", retry_after_seconds)):
            if not 0 <= seconds <= _YEAR:
                raise InvalidValue(name, seconds, f"seconds from 0 to {_YEAR:.0f}")
        self._checks = tuple(checks)
        self._deadline = deadline_seconds
        self._retry_after = retry_after_seconds
        self._monotonic = monotonic

    def check(self) -> None:
        """See `HealthPort.check`. The reason is CRITICAL_SERVICES; the log names every check that failed."""
        until, over = self._monotonic() + self._deadline, threading.Event()
        questions = [_Question(check, self._retry_after, over) for check in self._checks]
        try:
            for question in questions:
                question.start()
            for question in questions:
                question.join(max(until - self._monotonic(), 0.0))
        finally:
            over.set()
        problems = [f"{question.name}: {problem}" for question in questions if (problem := question.problem)]
        if problems:
            log = f"not well after {self._deadline:g} seconds: {'; '.join(problems)}"
            raise NodeFailure(FailureReason.CRITICAL_SERVICES, log)


class _Question(threading.Thread):
    """Asks one check until it holds; `problem` is empty from then on."""

    def __init__(self, check: HealthCheck, retry_after_seconds: float, over: threading.Event) -> None:
        super().__init__(name=check.name, daemon=True)
        self.problem = "no answer"
        self._check = check
        self._retry_after = retry_after_seconds
        self._over = over

    def run(self) -> None:
        while not self._over.is_set():
            try:
                self._check.check()
            except NodeFailure as error:
                self.problem = error.log
            except Exception as error:  # a check of the integrator's own may raise anything
                self.problem = f"{type(error).__name__}: {error}"
            else:
                self.problem = ""
                return
            _log.info("not well yet: %s: %s", self.name, self.problem)
            self._over.wait(self._retry_after)
