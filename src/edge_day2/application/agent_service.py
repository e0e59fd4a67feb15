"""The agent as a service: it finds out where it is, then reports and works until it is told to stop.

Nothing is decided here. Whatever goes wrong with the journal or the machine is said and tried again, at growing
distances; what was carried out but couldn't be journalled is carried out once more, which every command allows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from attrs import asdict, frozen

from edge_day2.application.platform_update_agent import PlatformUpdateAgent
from edge_day2.domain.log_fields import log_fields
from edge_day2.errors import InvalidValue
from edge_day2.ports.failures import NodeFailure
from edge_day2.ports.service_manager import ServiceManagerPort

_log: Final = logging.getLogger(__name__)

_YEAR: Final = 365 * 86_400.0


@frozen(kw_only=True)
class ServiceTimes:
    """How long things take, in seconds.

    Attributes:
        interval: between two reports.
        first_retry: after the first failure of the journal or the machine; doubles up to `longest_retry`.
        restart_grace: how long a reboot, or a restart of the agent, may take to come.
        longest_report: reading or storing the journal and telling everything that waits; what takes longer hangs.
        longest_command: one step of an update. What takes longer hangs.

    Raises:
        InvalidValue: a time is below zero or longer than a year, or `interval` is zero.
    """

    interval: float = 20.0
    first_retry: float = 5.0
    longest_retry: float = 300.0
    restart_grace: float = 300.0
    longest_report: float = 900.0
    longest_command: float = 6 * 3600.0

    def __attrs_post_init__(self) -> None:
        if self.interval == 0:
            raise InvalidValue("ServiceTimes.interval", self.interval, "seconds above zero")
        for name, seconds in asdict(self).items():
            if not 0 <= seconds <= _YEAR:
                raise InvalidValue(f"ServiceTimes.{name}", seconds, f"seconds from 0 to {_YEAR:.0f}")


def run(
    agent: PlatformUpdateAgent,
    *,
    stop: threading.Event,
    service_manager: ServiceManagerPort,
    times: ServiceTimes = ServiceTimes(),  # frozen
) -> None:
    """Run `agent` until `stop` is set. It ends between two commands, and at once where it waits.

    Args:
        agent: the agent; nobody else may use it, nor its journal.
        stop: is set from a signal handler, say.
        service_manager: is told that the agent lives, and what it does.
        times: intervals and limits.
    """
    service_manager.ready()
    _Service(agent, stop, service_manager, times).run()
    service_manager.stopping()


class _Service:
    def __init__(
        self,
        agent: PlatformUpdateAgent,
        stop: threading.Event,
        service_manager: ServiceManagerPort,
        times: ServiceTimes,
    ) -> None:
        self._agent = agent
        self._stop = stop
        self._manager = service_manager
        self._times = times
        self._failures = 0

    def run(self) -> None:
        found_out = False
        while not self._stop.is_set():
            if not found_out:
                found_out = self._succeeds(self._find_out)
                if not found_out:
                    continue
            if not self._succeeds(self._work):
                continue
            if self._agent.waits_for_restart:
                self._rest(self._times.restart_grace)
                # Still here: the reboot or the restart was lost on its way.
                found_out = False
            else:
                self._rest(self._times.interval)

    def _find_out(self) -> None:
        try:
            self._agent.resume()
        except NodeFailure:
            # A node that can't be observed isn't lost: it goes on saying what it said last.
            self._agent.report()
            raise

    def _work(self) -> None:
        self._agent.tick()
        while not self._stop.is_set():
            self._manager.alive(self._times.longest_command)
            if not self._agent.run_pending():
                break
            # What was reached is told before the next step, which may take long.
            self._manager.alive(self._times.longest_report)
            self._agent.tick()

    def _succeeds(self, step: Callable[[], None]) -> bool:
        self._manager.alive(self._times.longest_report)
        try:
            step()
        except (NodeFailure, OSError) as error:
            pause = min(self._times.first_retry * 2**self._failures, self._times.longest_retry)
            self._failures = min(self._failures + 1, 32)
            fields = log_fields(event="service_failed", host_guid=self._agent.host_guid)
            _log.error("tried again in %g seconds: %s", pause, error, extra=fields)
            self._manager.status(f"tried again in {pause:g} seconds: {error}")
            self._rest(pause)
            return False
        self._failures = 0
        self._manager.status(self._agent.explain())
        return True

    def _rest(self, seconds: float) -> None:
        self._manager.alive(seconds + self._times.longest_report)
        self._stop.wait(seconds)
