"""Breadth-first exploration of everything that can happen to an agent and its node.

The real agent with its real flows runs against a model of a node. From every reachable world every thing that can
come next is tried: the next step, each of its port calls failing, failing after it took effect, the power cut before,
during and after it, a restart of the agent, a window that opens or closes, a target that changes or vanishes, a trial
that doesn't boot. Faults and outside changes have a budget, everything else is exhaustive. In every world the
invariants are checked, among them that without further faults the update ends within a bounded number of steps.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, Generic, TypeVar

from attrs import define, evolve, frozen

from edge_day2.application.platform_update_agent import PlatformUpdateAgent
from edge_day2.domain.agent import AgentPolicy, AgentRecord, flow_of, in_progress
from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse, UpdateSchedule
from edge_day2.domain.schedules import SingleSchedule
from edge_day2.domain.statuses import EntryStatus, UpdateStatusType, parse_detail
from edge_day2.errors import Unavailable, UnreadableState
from edge_day2.ports.failures import NodeFailure
from edge_day2.ports.node import NodePort
from edge_day2.testing.faults import CHANGE, STORE, Calls, PlannedFault, PowerCut
from edge_day2.testing.model_nodes import ModelNode, Violation

NOW: Final = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
_GUID: Final = "12345678-1234-1234-1234-123456789abc"
# Longer than any update without faults; a flow that needs more goes round in circles.
MAX_STEPS: Final = 80

M = TypeVar("M", bound=ModelNode)


class InvariantBroken(AssertionError):
    """An exploration found a way to something that must never be."""


@frozen(kw_only=True)
class Budget:
    """How much may go wrong on one path."""

    faults: int = 2
    changes: int = 2


@frozen(kw_only=True)
class Coverage:
    """What an exploration saw."""

    worlds: int
    transitions: int
    flow_states: frozenset[str]
    flow_transitions: frozenset[tuple[str, str]]
    endings: frozenset[str]
    longest_way_to_the_end: int

    def __str__(self) -> str:
        return (
            f"{self.worlds:,} worlds, {self.transitions:,} transitions, {len(self.flow_states)} flow states, "
            f"{len(self.flow_transitions)} flow transitions, endings: {', '.join(sorted(self.endings))}; "
            f"at most {self.longest_way_to_the_end} steps to the end without further faults"
        )


# What the MM has heard of one update: the grammar of DESIGN is a walk through these.
_WORDS: Final[dict[tuple[str, UpdateStatusType], str]] = {
    ("", UpdateStatusType.DOWNLOADING): "downloading",
    ("", UpdateStatusType.STARTED): "started",
    ("", UpdateStatusType.UP_TO_DATE): "up to date",
    ("downloading", UpdateStatusType.DOWNLOADING): "downloading",
    ("downloading", UpdateStatusType.DOWNLOADED): "downloading",
    ("downloading", UpdateStatusType.STARTED): "started",
    ("downloading", UpdateStatusType.UP_TO_DATE): "up to date",
    ("started", UpdateStatusType.STARTED): "started",
    ("started", UpdateStatusType.UP_TO_DATE): "up to date",
    ("started", UpdateStatusType.FAILED): "failed",
    ("started", UpdateStatusType.UPDATED): "updated",
    ("updated", UpdateStatusType.UPDATED): "updated",
    ("updated", UpdateStatusType.UP_TO_DATE): "up to date",
    ("failed", UpdateStatusType.FAILED): "failed",
    ("up to date", UpdateStatusType.UP_TO_DATE): "up to date",
}
_ENDS_OF_A_WORD: Final = frozenset({"", "failed", "up to date"})


@define(kw_only=True)
class World(Generic[M]):
    """An agent's journal, its node, what the MM heard, and what the outside wants."""

    node: M
    record: AgentRecord = AgentRecord()
    up: bool = True
    window_open: bool = True
    target: int | None = 0
    heard: str = ""
    heard_rolled_back: bool = False
    heard_updated: bool = False
    begun: bool = False
    journal_lost: bool = False
    faults: int = 0
    changes: int = 0

    def key(self) -> tuple[object, ...]:
        """Return everything that distinguishes this world from another."""
        return (
            self.node.key(), self.record, self.up, self.window_open, self.target, self.heard, self.heard_rolled_back,
            self.heard_updated, self.begun, self.journal_lost, self.faults, self.changes,
        )  # fmt: skip


class Scenario(ABC, Generic[M]):
    """A kind of node, where it begins, what the orchestrator may want of it, and how it boots."""

    name: str
    policy: AgentPolicy

    @abstractmethod
    def begin(self) -> M:
        """Return the node before the update."""

    @abstractmethod
    def wrap(self, node: M) -> NodePort:
        """Return the node as the agent drives it."""

    @abstractmethod
    def answer(self, target: int | None, schedule: UpdateSchedule) -> PlatformUpdateStatusResponse:
        """Return the MM's answer when the orchestrator wants its target number `target`."""

    @abstractmethod
    def boot(self, node: M, boot: int) -> Iterator[tuple[M, int, str]]:
        """Yield the node after each way in which the next boot may go, the faults it costs, and its name."""

    def disturbances(self, node: M) -> Iterator[tuple[M, str]]:
        """Yield the node after something that somebody else may do to it while it runs, and its name."""
        yield from ()

    @abstractmethod
    def check(self, node: M, record: AgentRecord) -> None:
        """Complain about what must never be true of node and journal together."""

    @abstractmethod
    def check_end(self, node: M, record: AgentRecord) -> None:
        """Complain about what must not be true where the update has ended."""


class _Journal:
    def __init__(self, world: World[M], calls: Calls) -> None:
        self._world, self._calls = world, calls

    def load(self) -> AgentRecord | None:
        if self._world.journal_lost:
            raise UnreadableState("journal: simulated damage")
        return self._world.record

    def store(self, record: AgentRecord) -> None:
        self._calls.go("store journal", STORE, OSError, lambda: self._replace(record))

    def _replace(self, record: AgentRecord) -> None:
        old = self._world.record.flow
        if record.flow is not None and record.flow.name == "scheduled" and (old is None or not _going(old.name)):
            self._world.begun = True
        self._world.record = record
        self._world.journal_lost = False


def _going(name: str) -> bool:
    return name not in ("updated", "up_to_date", "failed", "rolled_back")


class _Link:
    def __init__(self, world: World[M], calls: Calls, answer: PlatformUpdateStatusResponse) -> None:
        self._world, self._calls, self._answer = world, calls, answer

    def platform_update_status(self, request: PlatformUpdateStatusRequest) -> PlatformUpdateStatusResponse:
        self._calls.go("report", CHANGE, Unavailable, lambda: self._hear(request))
        return self._answer

    def _hear(self, request: PlatformUpdateStatusRequest) -> None:
        world, status = self._world, request.update_status
        heard = _WORDS.get((world.heard, status.status_type))
        if heard is None and world.begun and world.heard in _ENDS_OF_A_WORD:
            world.heard_rolled_back = world.heard_updated = False
            heard = _WORDS.get(("", status.status_type))
        if heard is None:
            raise Violation(f"{status.status_type.name} reported after {world.heard or 'nothing'}")
        world.begun = world.begun and heard in _ENDS_OF_A_WORD
        world.heard = heard
        detail = parse_detail(status.status_detail)
        if detail is not None and any(entry.status is EntryStatus.ROLLED_BACK for entry in detail.update_log):
            world.heard_rolled_back = True
        if status.status_type is UpdateStatusType.UPDATED:
            world.heard_updated = True


class _Clock:
    def now(self) -> datetime:
        return NOW


_OPEN: Final = UpdateSchedule(
    single_schedule=SingleSchedule(NOW - timedelta(hours=1), NOW + timedelta(hours=1)),
)
_SHUT: Final = UpdateSchedule(
    single_schedule=SingleSchedule(NOW + timedelta(hours=1), NOW + timedelta(hours=2)),
)


class Exploration(Generic[M]):
    """Explores one scenario."""

    def __init__(
        self,
        scenario: Scenario[M],
        budget: Budget,
        agent: Callable[..., PlatformUpdateAgent] = PlatformUpdateAgent,
    ) -> None:
        self._scenario = scenario
        self._budget = budget
        self._agent = agent
        self._steps_to_end: dict[object, int] = {}
        self._states: set[str] = set()
        self._flow_transitions: set[tuple[str, str]] = set()

    def run(self) -> Coverage:
        """Explore everything.

        Raises:
            InvariantBroken: an invariant is broken; the message tells the way there.
        """
        logger = logging.getLogger("edge_day2")
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        try:
            return self._explore()
        finally:
            logger.setLevel(level)

    def _explore(self) -> Coverage:
        start = World(
            node=self._scenario.begin(), faults=self._budget.faults, changes=self._budget.changes, window_open=False
        )
        seen: dict[object, tuple[object, str]] = {start.key(): (None, "start")}
        queue = deque([start])
        transitions, endings, longest = 0, set(), 0
        while queue:
            world = queue.popleft()
            key = world.key()
            try:
                longest = max(longest, self._end_without_faults(world))
                for name, following in self._successors(world):
                    transitions += 1
                    self._note(world, following)
                    self._check(following)
                    after = following.key()
                    if after not in seen:
                        seen[after] = (key, name)
                        queue.append(following)
            except Violation as violation:
                raise InvariantBroken(f"{violation}\n  after: {_way(seen, key)}") from violation
            if world.record.flow is not None and not in_progress(world.record):
                endings.add(world.record.flow.name)
        return Coverage(
            worlds=len(seen),
            transitions=transitions,
            flow_states=frozenset(self._states),
            flow_transitions=frozenset(self._flow_transitions),
            endings=frozenset(endings),
            longest_way_to_the_end=longest,
        )

    def _check(self, world: World[M]) -> None:
        self._scenario.check(world.node, world.record)
        # Also where the agent is about to try again: until then the node stays as it was left.
        if world.record.flow is not None and not in_progress(world.record):
            self._scenario.check_end(world.node, world.record)

    def _note(self, world: World[M], following: World[M]) -> None:
        old, new = world.record.flow, following.record.flow
        if new is not None:
            self._states.add(new.name)
            if old is not None and old is not new:
                self._flow_transitions.add((old.name, new.name))

    def _successors(self, world: World[M]) -> Iterator[tuple[str, World[M]]]:
        if not world.up:
            yield from self._boots(world)
            return
        name, action = self._next_action(world)
        tried = self._copy(world)
        calls, outcome = self._perform(tried, action, None)
        yield name, outcome
        if world.faults:
            for planned in calls.variants():
                tried = self._copy(world)
                tried.faults -= 1
                _, outcome = self._perform(tried, action, planned)
                yield f"{name} ({calls.possible[planned.call - 1][0]} {planned.fault.value})", outcome
            crashed = self._copy(world)
            crashed.faults -= 1
            _, outcome = self._perform(crashed, PlatformUpdateAgent.resume, None)
            yield "agent restarted", outcome
            cut = self._copy(world)
            cut.faults -= 1
            self._cut(cut)
            yield "power cut", cut
            lost = self._copy(world)
            lost.faults -= 1
            lost.journal_lost = lost.begun = True
            # What was to be said is lost with the journal: the MM hears of a failure instead, as an update of its own.
            lost.heard = ""
            _, outcome = self._perform(lost, PlatformUpdateAgent.resume, None)
            yield "journal lost", outcome
            for node, name in self._scenario.disturbances(world.node.copy()):
                disturbed = evolve(world, node=node, faults=world.faults - 1)
                _, outcome = self._perform(disturbed, PlatformUpdateAgent.resume, None)
                yield f"{name}, agent restarted", outcome
            if world.record.outbox:
                silent = self._copy(world)
                silent.faults -= 1
                _, outcome = self._perform(silent, PlatformUpdateAgent.run_pending, None)
                yield "MM out of reach", outcome
        if world.changes:
            for change, apply in self._outside_changes(world):
                changed = self._copy(world)
                changed.changes -= 1
                apply(changed)
                _, outcome = self._perform(changed, PlatformUpdateAgent.tick, None)
                yield change, outcome

    def _outside_changes(self, world: World[M]) -> Iterator[tuple[str, Callable[[World[M]], None]]]:
        def toggle(changed: World[M]) -> None:
            changed.window_open = not changed.window_open

        def want(target: int | None) -> Callable[[World[M]], None]:
            def apply(changed: World[M]) -> None:
                changed.target = target

            return apply

        yield "window closes" if world.window_open else "window opens", toggle
        for target in (0, 1, None):
            if target != world.target:
                yield f"target {target}", want(target)

    def _next_action(self, world: World[M]) -> tuple[str, Callable[[PlatformUpdateAgent], object]]:
        state = world.record.flow
        command = flow_of(state).command(state) if state is not None else None
        if world.record.outbox or command is None:
            return "tick", PlatformUpdateAgent.tick
        return type(command).__name__, PlatformUpdateAgent.run_pending

    def _copy(self, world: World[M]) -> World[M]:
        return evolve(world, node=world.node.copy())

    def _perform(
        self, world: World[M], action: Callable[[PlatformUpdateAgent], object], planned: PlannedFault | None
    ) -> tuple[Calls, World[M]]:
        calls = Calls(planned)
        world.node.calls = calls
        world.node.disturbance_allowed = world.window_open
        schedule = _OPEN if world.window_open else _SHUT
        agent = self._agent(
            host_guid=_GUID,
            node=self._scenario.wrap(world.node),
            journal=_Journal(world, calls),
            link=_Link(world, calls, self._scenario.answer(world.target, schedule)),
            clock=_Clock(),
            policy=self._scenario.policy,
        )
        agent._record = world.record
        before = world.record.flow
        try:
            action(agent)
            # The command to restart the agent was carried out: the process ends and begins again.
            if (
                before is not None
                and before.name == "restarting"
                and world.record.flow == before
                and world.node.running
            ):
                agent.resume()
        except PowerCut:
            self._cut(world)
        except (OSError, NodeFailure):
            # The journal couldn't be stored, or the node not observed: the service manager starts the agent again.
            calls.planned = None
            agent.resume()
        if not world.node.running:
            self._cut(world)
        return calls, world

    @staticmethod
    def _cut(world: World[M]) -> None:
        world.node.power_off()
        world.up = False

    def _boots(self, world: World[M]) -> Iterator[tuple[str, World[M]]]:
        known = {world.node.boot}
        data = world.record.flow.data if world.record.flow is not None else None
        known |= {int(data.boot_id.removeprefix("boot-"))} if data is not None and data.boot_id else set()
        boot = next(number for number in range(3) if number not in known)
        for node, cost, name in self._scenario.boot(world.node.copy(), boot):
            if cost > world.faults:
                continue
            booted = evolve(world, node=node, faults=world.faults - cost)
            if not node.running:
                yield name, booted
                continue
            booted.up = True
            tried = self._copy(booted)
            calls, outcome = self._perform(tried, PlatformUpdateAgent.resume, None)
            yield name, outcome
            if booted.faults:
                for planned in calls.variants():
                    tried = self._copy(booted)
                    tried.faults -= 1
                    _, outcome = self._perform(tried, PlatformUpdateAgent.resume, planned)
                    yield f"{name} ({calls.possible[planned.call - 1][0]} {planned.fault.value})", outcome

    def _end_without_faults(self, world: World[M]) -> int:
        """Return in how many steps `world` comes to an end where nothing more goes wrong and a window opens."""
        way: dict[object, None] = {}
        current = world
        while True:
            key = current.key()
            if key in self._steps_to_end:
                steps = self._steps_to_end[key]
                break
            if key in way or len(way) > MAX_STEPS:
                raise Violation(f"goes on for ever from {current.record.flow}")
            if self._at_rest(current):
                self._check_end(current)
                self._steps_to_end[key] = steps = 0
                break
            way[key] = None
            current = self._calm_step(current)
        for earlier in reversed(way):
            steps += 1
            self._steps_to_end[earlier] = steps
        return steps

    def _calm_step(self, world: World[M]) -> World[M]:
        following = self._copy(world)
        if not following.up:
            return next(iter(self._boots(evolve(following, faults=0))))[1]
        following.window_open = True
        following.faults = following.changes = 0
        _, action = self._next_action(following)
        return self._perform(following, action, None)[1]

    def _at_rest(self, world: World[M]) -> bool:
        if not world.up or world.record.outbox or in_progress(world.record):
            return False
        # One more tick: does the agent see a reason to begin (again)?
        following = self._copy(world)
        following.window_open = True
        self._perform(following, PlatformUpdateAgent.tick, None)
        return following.record.flow == world.record.flow and not following.record.outbox

    def _check_end(self, world: World[M]) -> None:
        state = world.record.flow
        if world.heard not in _ENDS_OF_A_WORD:
            raise Violation(f"the MM heard only {world.heard!r} of an update that ended as {state and state.name}")
        if state is not None:
            expected = {"updated": "up to date", "up_to_date": "up to date", "failed": "failed"}
            if world.heard != expected.get(state.name, "failed"):
                raise Violation(f"the MM heard {world.heard!r} of an update that ended as {state.name}")
            if (state.name == "updated") != world.heard_updated:
                raise Violation(f"UPDATED was {'' if world.heard_updated else 'not '}said of an update: {state.name}")
            if state.name == "rolled_back" and not world.heard_rolled_back:
                raise Violation("a rollback wasn't said")
        self._scenario.check_end(world.node, world.record)


def _way(seen: dict[object, tuple[object, str]], key: object) -> str:
    names = []
    while key is not None:
        key, name = seen[key]
        names.append(name)
    return " → ".join(reversed(names))
