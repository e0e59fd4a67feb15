"""The runtime of a flow: a chart is compiled into a table once and interpreted purely.

Rules of this room:
- order is decided by the chart alone; there are no guards, the event carries the outcome;
- `step` is a function of state and event: no clock, no I/O, no randomness;
- a state is a pending command: the same state always gives the same command, None where the flow waits for the
  outside or has ended;
- `resume` turns what the node sees after a restart into one event of the chart, and steps it.

python-statemachine reads the chart, checks it (one initial state, no unreachable state, no trap) and serves as the
reference that the tests run beside the table.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import ClassVar, Final, Generic, NamedTuple, TypeAlias, TypeVar

from attrs import frozen
from statemachine import State, StateMachine
from statemachine.transition_list import TransitionList

from edge_day2.domain.messages import UpdateStatus
from edge_day2.domain.observation import Observation
from edge_day2.domain.schedules import Window
from edge_day2.domain.statuses import FailureReason, StatusDetail, UpdateStatusType
from edge_day2.errors import InvalidTransition

Reports: TypeAlias = tuple[UpdateStatus, ...]


def paused(log: str) -> Reports:
    """Return the report of an update that waits for the next window, because of `log`."""
    detail = StatusDetail(message=f"paused: {log}, the update goes on in the next one")
    return (UpdateStatus(status_type=UpdateStatusType.STARTED, status_detail=detail.to_json()),)


_WORD_START: Final = re.compile(r"(?<!^)(?=[A-Z])")


@frozen
class Event:
    """Something that happened at the instant `at` (aware). `name` is the event's name in the chart."""

    name: ClassVar[str] = ""
    at: datetime

    def __init_subclass__(cls) -> None:
        cls.name = _WORD_START.sub("_", cls.__name__).lower()


@frozen
class WindowOpened(Event):
    """A maintenance window is open, with time enough for what comes."""

    window: Window


WINDOW_CLOSED: Final = "the maintenance window closed"


@frozen
class WindowClosed(Event):
    """The window closed before the next disruptive command, or too little is left of it; `log` says which.

    The update pauses and goes on in the next one.
    """

    log: str = WINDOW_CLOSED


@frozen
class WindowTimedOut(Event):
    """The window closed, and the policy says that this fails the update (as the original does). `log`: see above."""

    log: str = WINDOW_CLOSED


@frozen
class TargetWithdrawn(Event):
    """The orchestrator names no target any more."""


@frozen(kw_only=True)
class Failure:
    """Why an update failed: the reason, and what a person needs to know.

    `conclusive`: the target itself is proven bad and isn't tried again until it changes.
    """

    at: datetime
    reason: FailureReason
    log: str = ""
    conclusive: bool = False


@frozen
class FailedEvent(Event):
    """A command failed, and why."""

    failure: Failure


@frozen
class Command:
    """The one thing to do next.

    Each may be carried out again after a crash at any point of it, with the same result. A disruptive one must not
    start outside the window.
    """

    disruptive: ClassVar[bool] = False


D = TypeVar("D")


@frozen
class FlowState(Generic[D]):
    """Where an update is: the chart's state `name`, and `data`, everything else needed to go on. Serialisable."""

    flow: str
    name: str
    data: D


class Transition(NamedTuple, Generic[D]):
    """What a step leads to: the new state, the one thing to do next, and the reports owed to the MM, in order."""

    state: FlowState[D]
    command: Command | None
    reports: Reports


_new_state: Final = object.__new__
_set_flow = vars(FlowState)["flow"].__set__
_set_name = vars(FlowState)["name"].__set__
_set_data = vars(FlowState)["data"].__set__
_new_transition: Final = tuple.__new__

# What a transition does to the data, and what it reports. An entry that is a plain tuple reports that and no more.
Effect: TypeAlias = Callable[..., tuple[D, Reports]]
Effects: TypeAlias = Mapping[tuple[str, type[Event]], "Effect[D] | Reports"]

ANY_STATE: Final = "*"

_CommandOf: TypeAlias = Callable[[D], Command | None]
_Row: TypeAlias = tuple[str, "Effect[D] | None", Reports, "_CommandOf[D] | None"]
# By state, then by event: two look-ups by identity are faster than one that has to hash a pair.
_Table: TypeAlias = "Mapping[str, Mapping[type[Event], _Row[D]]]"


class Flow(Generic[D]):
    """A compiled chart. Make one with the chart, its events, and tables of effects and commands.

    Args:
        name: what `FlowState.flow` says.
        chart: the python-statemachine class that declares states and transitions.
        events: the event classes; their names must be the chart's event names, no more and no less.
        effects: by (state, event), or (ANY_STATE, event) for every state that has no entry of its own.
        commands: by state; a state that isn't there has no command.
        observe: turns (state, observation) into the next event that `resume` steps, None where nothing more changes.

    Attributes:
        events: the event classes by their names.
        states: the names of all states.
        final_states: the names of those in which an update has ended.
        initial_state: the name of the one in which it begins.

    Raises:
        ValueError: chart, events, effects and commands don't fit together.
    """

    def __init__(
        self,
        *,
        name: str,
        chart: type[StateMachine],
        events: tuple[type[Event], ...],
        effects: Effects[D],
        commands: Mapping[str, Callable[[D], Command | None]],
        observe: Callable[[FlowState[D], Observation], Event | None],
    ) -> None:
        self.name = name
        self.chart = chart
        self.events: Mapping[str, type[Event]] = MappingProxyType({event.name: event for event in events})
        self.states: tuple[str, ...] = tuple(state.id for state in chart.states)
        self.final_states: frozenset[str] = frozenset(state.id for state in chart.states if state.final)
        self.initial_state: str = next(state.id for state in chart.states if state.initial)
        self._observe = observe
        self._commands = commands
        self._table = self._compile(effects)

    def _compile(self, effects: Effects[D]) -> _Table[D]:
        table: dict[str, dict[type[Event], _Row[D]]] = {}
        used = set()
        for state in self.chart.states:
            rows = table.setdefault(state.id, {})
            for transition in state.transitions:
                for name in transition.event.split():
                    if (event := self.events.get(name)) is None:
                        raise ValueError(f"{self.name}: no class for the event {name!r} of the chart")
                    if event in rows:
                        raise ValueError(f"{self.name}: two transitions for {name!r} in state {state.id!r}")
                    key = (state.id, event) if (state.id, event) in effects else (ANY_STATE, event)
                    used.add(key)
                    effect = effects.get(key, ())
                    target = transition.target.id
                    command = self._commands.get(target)
                    rows[event] = (
                        (target, None, effect, command) if isinstance(effect, tuple) else (target, effect, (), command)
                    )
        reachable = {event for rows in table.values() for event in rows}
        if unused := {event.name for event in self.events.values() if event not in reachable}:
            raise ValueError(f"{self.name}: no transition for the events {sorted(unused)}")
        if useless := {(state, event.name) for state, event in effects if (state, event) not in used}:
            raise ValueError(f"{self.name}: no transition for the effects {sorted(useless)}")
        if unknown := self._commands.keys() - set(self.states):
            raise ValueError(f"{self.name}: no state for the commands of {sorted(unknown)}")
        return table

    @property
    def table(self) -> Mapping[tuple[str, str], str]:
        """The plain table: (state, event name) → state."""
        return {(state, event.name): row[0] for state, rows in self._table.items() for event, row in rows.items()}

    def start(self, data: D) -> FlowState[D]:
        """Return the initial state of an update with this data. It waits for an event."""
        return FlowState(self.name, self.initial_state, data)

    def accepts(self, state: FlowState[D]) -> tuple[str, ...]:
        """Return the names of the events that `state` accepts, sorted."""
        return tuple(sorted(event.name for event in self._table.get(state.name, ())))

    def is_final(self, state: FlowState[D]) -> bool:
        """Return whether the update has ended in `state`."""
        return state.name in self.final_states

    def command(self, state: FlowState[D]) -> Command | None:
        """Return the one thing to do in `state`, None where it waits for the outside or has ended."""
        command = self._commands.get(state.name)
        return command(state.data) if command is not None else None

    def step(self, state: FlowState[D], event: Event) -> Transition[D]:
        """Return where `event` leads from `state`.

        Raises:
            InvalidTransition: the state doesn't accept the event, or isn't one of this flow.
        """
        try:
            name, effect, reports, command = self._table[state.name][type(event)]
        except KeyError:
            raise InvalidTransition(self.name, state.name, event, self.accepts(state)) from None
        if state.flow != self.name:
            raise InvalidTransition(self.name, state.name, event, ())
        data = state.data
        if effect is not None:
            data, reports = effect(data, event)
        # FlowState(self.name, name, data) and Transition(…), which their constructors make for twice the time.
        after = _new_state(FlowState)
        _set_flow(after, self.name)
        _set_name(after, name)
        _set_data(after, data)
        return _new_transition(Transition, (after, command(data) if command is not None else None, reports))

    def resume(self, state: FlowState[D], observation: Observation) -> Transition[D]:
        """Return how `state` goes on after a restart, given what the node sees.

        Total: every state has an answer to every observation.

        Raises:
            InvalidTransition: the state isn't one of this flow.
        """
        if state.flow != self.name or state.name not in self.states:
            raise InvalidTransition(self.name, state.name, observation, ())
        reports: Reports = ()
        # One observation can tell of several things at once (rebooted, and dpkg interrupted); each is an event.
        for _ in range(_MAX_EVENTS_IN_ONE_OBSERVATION):
            event = self._observe(state, observation)
            if event is None:
                break
            transition = self.step(state, event)
            state, reports = transition.state, reports + transition.reports
        return Transition(state, self.command(state), reports)


_MAX_EVENTS_IN_ONE_OBSERVATION: Final = 4


def loops(*states: State) -> TransitionList:
    """Return a transition from each state to itself, for a chart."""
    first, *others = (state.to(state) for state in states)
    joined: TransitionList = functools.reduce(operator.or_, others, first)
    return joined
