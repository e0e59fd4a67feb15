"""How many steps a flow makes in a second, against python-statemachine and transitions in the same run.

Run: python benchmarks/bench_flow.py [rounds]

All three take the same way through the same chart. python-statemachine runs the chart itself (`send`), transitions a
machine with the chart's states and transitions; both only move from state to state, while `Flow.step` also makes the
next command, the reports and the new data. "data-free" are those events of the way that change nothing but the state;
the whole way has the status details of the reports in it, which are most of its time and which the peers don't write.
All take turns; the best of seven counts.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from transitions import Machine

from edge_day2.domain import immutable_events as ab
from edge_day2.domain import mutable_events as apt
from edge_day2.domain.flow import Event, Flow, FlowState, WindowOpened
from edge_day2.domain.immutable import IMMUTABLE_FLOW
from edge_day2.domain.immutable_effects import ImmutableUpdate
from edge_day2.domain.mutable import MUTABLE_FLOW
from edge_day2.domain.mutable_effects import MutableUpdate, changes
from edge_day2.domain.observation import Observation
from edge_day2.domain.schedules import Window

NOW = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
WINDOW = Window(NOW, NOW + timedelta(hours=2))
OLD = ab.Image(profile_name="edge", image_id="3.0.20251118", sha256="1" * 64)
NEW = ab.Image(profile_name="edge", image_id="3.0.20251204", sha256="2" * 64, url="files/edge.raw.gz")
PACKAGES = tuple((f"package-{number:04}", "1") for number in range(20))
UPGRADED = tuple((name, "2") for name, _ in PACKAGES[:5]) + PACKAGES[5:]

AB_WAY: tuple[Event, ...] = (
    WindowOpened(NOW, WINDOW),
    ab.ImagesDiffer(NOW, OLD, Observation(at=NOW, boot_id="one")),
    ab.TrialCleared(NOW),
    ab.ImageDownloaded(NOW),
    ab.ImageInstalled(NOW),
    ab.TrialArmed(NOW, "one"),
    ab.TrialBooted(NOW, "two"),
    ab.TrialHealthy(NOW),
    ab.TrialCommitted(NOW),
)
APT_WAY: tuple[Event, ...] = (
    WindowOpened(NOW, WINDOW),
    apt.PackagesRecorded(NOW, PACKAGES),
    apt.SourcesUpdated(NOW),
    apt.AgentUpdated(NOW),
    apt.AgentRestarted(NOW),
    apt.SnapshotSkipped(NOW),
    apt.HelperUpdated(NOW),
    apt.KernelCommandLineCurrent(NOW),
    apt.PackagesDownloaded(NOW, UPGRADED),
    apt.PackagesInstalled(NOW),
    apt.UpgradeDownloaded(NOW, UPGRADED),
    apt.UpgradeInstalled(NOW),
    apt.ChangesFound(NOW, changes(PACKAGES, UPGRADED, NOW), "one"),
    apt.NodeRebooted(NOW),
    apt.UpdateVerified(NOW),
)


class Driver:
    """One implementation: sets itself to a state, then takes an event."""

    def __init__(self, name: str, steps: Sequence[Callable[[], object]]) -> None:
        self.name = name
        self.steps = steps
        self.best = float("inf")

    def measure(self, chosen: Sequence[int], rounds: int) -> None:
        """Note the seconds that one step takes, on average over the `chosen` ones, where that is the best so far."""
        steps = [self.steps[place] for place in chosen]
        gc.collect()
        begun = time.perf_counter()
        for _ in range(rounds):
            for step in steps:
                step()
        self.best = min(self.best, (time.perf_counter() - begun) / rounds / len(steps))


def way_of(flow: Flow[Any], data: object, events: Sequence[Event]) -> list[FlowState[Any]]:
    """Return the states before each event, and the last one."""
    states = [flow.start(data)]
    for event in events:
        states.append(flow.step(states[-1], event).state)
    return states


def our_driver(flow: Flow[Any], states: Sequence[FlowState[Any]], events: Sequence[Event]) -> Driver:
    """Return the compiled table."""

    def step(state: FlowState[Any], event: Event) -> Callable[[], object]:
        return lambda: flow.step(state, event)

    return Driver("Flow.step", [step(state, event) for state, event in zip(states, events, strict=False)])


def statemachine_driver(flow: Flow[Any], states: Sequence[FlowState[Any]], events: Sequence[Event]) -> Driver:
    """Return python-statemachine on the chart: one machine per place of the way, put back before each `send`."""

    def step(state: FlowState[Any], event: Event) -> Callable[[], object]:
        machine = flow.chart(start_value=state.name)

        def send() -> None:
            machine.current_state_value = state.name
            machine.send(event.name)

        return send

    return Driver("python-statemachine send", [step(*pair) for pair in zip(states, events, strict=False)])


def transitions_driver(flow: Flow[Any], states: Sequence[FlowState[Any]], events: Sequence[Event]) -> Driver:
    """Return transitions with the same table: one model per place of the way, put back before each trigger."""
    table = [[event, state, target] for (state, event), target in flow.table.items()]

    def step(state: FlowState[Any], event: Event) -> Callable[[], object]:
        model = type("Model", (), {})()
        Machine(model, states=list(flow.states), transitions=table, initial=state.name, auto_transitions=False)
        trigger = getattr(model, event.name)

        def fire() -> None:
            model.state = state.name
            trigger()

        return fire

    return Driver("transitions", [step(*pair) for pair in zip(states, events, strict=False)])


def main(rounds: int) -> None:
    """Print a table of microseconds, steps per second and ratios."""
    ways: tuple[tuple[Flow[Any], object, Sequence[Event]], ...] = (
        (IMMUTABLE_FLOW, ImmutableUpdate(target=ab.ImmutableTarget(image=NEW)), AB_WAY),
        (MUTABLE_FLOW, MutableUpdate(target=apt.PackageTarget(update_packages=("curl",))), APT_WAY),
    )
    print(f"{'':48}{'steps/s':>12}{'us/step':>10}{'ratio':>9}")
    for flow, data, events in ways:
        states = way_of(flow, data, events)
        assert states[-1].name == "updated"
        every = range(len(events))
        free = [place for place in every if states[place].data is states[place + 1].data and place + 1 < len(events)]
        for name, chosen in ((f"{flow.name}, whole way", every), (f"{flow.name}, data-free", free)):
            ours = our_driver(flow, states, events)
            peers = statemachine_driver(flow, states, events), transitions_driver(flow, states, events)
            # python-statemachine's engine stops in a final state, so the last step is left out for the peers.
            open_ended = [place for place in chosen if place < len(events) - 1]
            for _ in range(7):
                ours.measure(chosen, rounds // 7 + 1)
                for peer in peers:
                    peer.measure(open_ended, rounds // 70 + 1)
            print(f"{name:22}{ours.name:26}{1 / ours.best:12,.0f}{ours.best * 1e6:10.2f}")
            for peer in peers:
                ratio = peer.best / ours.best
                print(f"{'':22}{peer.name:26}{1 / peer.best:12,.0f}{peer.best * 1e6:10.2f}{ratio:8.1f}x")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
