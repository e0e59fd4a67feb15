"""What can go wrong at one call of a port: before it, in the middle of it, after it.

`Calls` is what simulated ports go through. It counts the calls of one action, and lets one of them go wrong.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from attrs import define, field, frozen


class PowerCut(BaseException):
    """The power is cut: nothing after this line of the agent happens. Not an Exception, so that nobody handles it."""


class AgentKilled(BaseException):
    """The agent's process is killed, and the machine goes on: as by a maintainer script that restarts its service."""


class Fault(enum.Enum):
    """How a call goes wrong."""

    FAILS = "fails and changes nothing"
    FAILS_AFTER = "takes effect, and fails all the same"
    CUT_BEFORE = "power cut before it"
    CUT_DURING = "power cut in the middle of it"
    CUT_AFTER = "power cut after it"
    KILLED_DURING = "the agent is killed in the middle of it"
    KILLED_AFTER = "the agent is killed after it"


READ = (Fault.FAILS,)
CHANGE = (Fault.FAILS, Fault.FAILS_AFTER, Fault.CUT_BEFORE, Fault.CUT_AFTER)
LONG_CHANGE = (*CHANGE, Fault.CUT_DURING)
AGENT_CHANGE = (*LONG_CHANGE, Fault.KILLED_DURING, Fault.KILLED_AFTER)
STORE = (Fault.FAILS, Fault.CUT_BEFORE, Fault.CUT_AFTER)


@frozen
class PlannedFault:
    """The `call`-th call of an action (from 1) goes wrong as `fault` says."""

    call: int
    fault: Fault


@define
class Calls:
    """Counts calls, remembers how each could go wrong, and lets the planned one do so."""

    planned: PlannedFault | None = None
    possible: list[tuple[str, Sequence[Fault]]] = field(factory=list)

    def choose(self, name: str, kinds: Sequence[Fault]) -> Fault | None:
        """Return how this call, the next one, goes wrong; None where it goes well."""
        self.possible.append((name, kinds))
        planned = self.planned
        return planned.fault if planned is not None and planned.call == len(self.possible) else None

    def go(
        self,
        name: str,
        kinds: Sequence[Fault],
        failure: Callable[[str], Exception],
        effect: Callable[[], None] | None = None,
        partial: Callable[[], None] | None = None,
    ) -> None:
        """Make the call `name`: run `effect`, or go wrong. `partial` is what a cut in the middle leaves."""
        fault = self.choose(name, kinds)
        if fault is Fault.CUT_BEFORE:
            raise PowerCut(name)
        if fault is Fault.FAILS:
            raise failure(name)
        if fault in (Fault.CUT_DURING, Fault.KILLED_DURING):
            if partial is not None:
                partial()
            raise PowerCut(name) if fault is Fault.CUT_DURING else AgentKilled(name)
        if effect is not None:
            effect()
        if fault is Fault.FAILS_AFTER:
            raise failure(name)
        if fault is Fault.CUT_AFTER:
            raise PowerCut(name)
        if fault is Fault.KILLED_AFTER:
            raise AgentKilled(name)

    def variants(self) -> list[PlannedFault]:
        """Return every way in which one of the calls made so far could have gone wrong."""
        return [
            PlannedFault(number, fault) for number, (_, kinds) in enumerate(self.possible, start=1) for fault in kinds
        ]
