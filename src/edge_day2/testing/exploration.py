"""Breadth-first exploration of everything that can happen to an agent and its node.

The real agent with its real flows runs against a model of a node. From every reachable world every thing that can
come next is tried: the next step, each of its port calls failing, failing after it took effect, the power cut before,
during and after it, a restart of the agent, a window that opens or closes, a target that changes or vanishes, a trial
that doesn't boot. Faults and outside changes have a budget, everything else is exhaustive. In every world the
invariants are checked, among them that without further faults the update ends within a bounded number of steps.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Generic

from attrs import evolve, frozen

from edge_day2.application.platform_update_agent import PlatformUpdateAgent
from edge_day2.domain.agent import flow_of, in_progress
from edge_day2.ports.failures import NodeFailure
from edge_day2.testing.faults import AgentKilled, Calls, PlannedFault, PowerCut
from edge_day2.testing.model_nodes import Violation
from edge_day2.testing.worlds import ENDS_OF_A_WORD, OPEN, SHUT, M, Scenario, World, WorldClock, WorldJournal, WorldLink

_GUID: Final = "12345678-1234-1234-1234-123456789abc"
# Longer than any update without faults; a flow that needs more goes round in circles.
MAX_STEPS: Final = 80


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
            lost.losses += 1
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
        schedule = OPEN if world.window_open else SHUT
        agent = self._agent(
            host_guid=_GUID,
            node=self._scenario.wrap(world.node),
            journal=WorldJournal(world, calls),
            link=WorldLink(world, calls, self._scenario.answer(world.target, schedule)),
            clock=WorldClock(world),
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
        except AgentKilled:
            calls.planned = None
            agent.resume()
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
        if world.heard not in ENDS_OF_A_WORD:
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
        # With a journal that is lost, what was installed before is lost too.
        if state is not None and not world.losses:
            self._scenario.check_told(world.node, state, world.told)


def _way(seen: dict[object, tuple[object, str]], key: object) -> str:
    names = []
    while key is not None:
        key, name = seen[key]
        names.append(name)
    return " → ".join(reversed(names))
