"""Everything that can happen to the agent and its flows, explored to the end; and faults that the exploration finds.

EDGE_DAY2_EXPLORE_FAULTS=3 lets more go wrong on one path than the default does, and takes much longer than a minute.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from types import ModuleType
from typing import Any, Final

import pytest
from attrs import evolve, frozen

from edge_day2.application.immutable_node import ImmutableNode
from edge_day2.application.mutable_node import MutableNode
from edge_day2.application.platform_update_agent import PlatformUpdateAgent
from edge_day2.domain import immutable_events as ab
from edge_day2.domain import mutable_events as apt
from edge_day2.domain.agent_policy import AgentPolicy, WindowClose
from edge_day2.domain.flow import Command, Event, Flow, FlowState, Transition, WindowClosed, WindowOpened
from edge_day2.domain.immutable import IMMUTABLE_FLOW
from edge_day2.domain.messages import NodeDescription
from edge_day2.domain.mutable import MUTABLE_FLOW
from edge_day2.domain.node_windows import ClockMemory
from edge_day2.domain.observation import Observation
from edge_day2.domain.resources import OSType
from edge_day2.ports.node import NodePort
from edge_day2.testing.exploration import Budget, Coverage, Exploration, InvariantBroken
from edge_day2.testing.model_apt_node import ModelAptNode
from edge_day2.testing.model_nodes import ModelABNode, ModelNode
from edge_day2.testing.scenarios import IMPATIENT, ABScenario, AptScenario, Firmware, Snapshots
from edge_day2.testing.worlds import Scenario

FAILING: Final = evolve(IMPATIENT, window_close=WindowClose.FAIL)

# The targets that the orchestrator goes to and fro between: (image, kernel command line), (packages, command line).
NEW_IMAGES: Final = ((2, ""), (3, ""))
IMAGE_AND_COMMAND_LINE: Final = ((1, "quiet"), (2, "debug"))
COMMAND_LINE_ALONE: Final = ((1, "quiet"), (1, "debug"))
PACKAGES: Final = ((("curl",), "console=tty0 debug"), (("vim",), "console=tty0"))

WITHOUT_ROLLBACK: Final = frozenset({"updated", "up_to_date", "failed"})


@frozen
class Explored:
    """One exploration: a scenario, how much may go wrong in it, and what it must lead to."""

    scenario: Callable[[], Scenario[Any]]
    faults: int
    changes: int
    endings: frozenset[str] = WITHOUT_ROLLBACK


def ab_node(
    targets: tuple[tuple[int, str], ...], policy: AgentPolicy = IMPATIENT, firmware: Firmware = Firmware.OBEYS
) -> Callable[[], Scenario[Any]]:
    return lambda: ABScenario(*targets, policy=policy, firmware=firmware)


def apt_node(policy: AgentPolicy = IMPATIENT, snapshots: Snapshots = Snapshots.NONE) -> Callable[[], Scenario[Any]]:
    return lambda: AptScenario(*PACKAGES, policy=policy, snapshots=snapshots)


AB_ENDINGS: Final = frozenset(IMMUTABLE_FLOW.final_states)
WITH_SNAPSHOTS: Final = frozenset(MUTABLE_FLOW.final_states)
EXPLORATIONS: Final = {
    "images": Explored(ab_node(NEW_IMAGES), 2, 1, AB_ENDINGS),
    "images, outside changes": Explored(ab_node(NEW_IMAGES), 1, 2, AB_ENDINGS),
    "images, window fails": Explored(ab_node(NEW_IMAGES, FAILING), 1, 2, AB_ENDINGS),
    "images, stubborn firmware": Explored(ab_node(NEW_IMAGES, firmware=Firmware.STUBBORN), 2, 1, AB_ENDINGS),
    "images, three outside changes": Explored(ab_node(NEW_IMAGES), 0, 3),
    "image or command line": Explored(ab_node(IMAGE_AND_COMMAND_LINE), 2, 1, AB_ENDINGS),
    "image or command line, outside changes": Explored(ab_node(IMAGE_AND_COMMAND_LINE), 1, 2, AB_ENDINGS),
    "image or command line, window fails": Explored(ab_node(IMAGE_AND_COMMAND_LINE, FAILING), 1, 2, AB_ENDINGS),
    "image or command line, stubborn firmware": Explored(
        ab_node(IMAGE_AND_COMMAND_LINE, firmware=Firmware.STUBBORN), 2, 1, AB_ENDINGS
    ),
    "command line alone": Explored(ab_node(COMMAND_LINE_ALONE), 2, 1, AB_ENDINGS),
    "packages": Explored(apt_node(), 2, 1),
    "packages, outside changes": Explored(apt_node(), 2, 2),
    "packages, window fails": Explored(apt_node(FAILING), 1, 2),
    "packages, three outside changes": Explored(apt_node(), 1, 3),
    "packages, snapshots": Explored(apt_node(snapshots=Snapshots.TAKEN), 2, 1, WITH_SNAPSHOTS),
    "packages, snapshots, outside changes": Explored(apt_node(snapshots=Snapshots.TAKEN), 1, 2, WITH_SNAPSHOTS),
    "packages, snapshots that are ignored": Explored(apt_node(snapshots=Snapshots.IGNORED), 1, 1, WITHOUT_ROLLBACK),
    "packages, snapshots, window fails": Explored(apt_node(FAILING, Snapshots.TAKEN), 1, 2, WITH_SNAPSHOTS),
}
FAULTS: Final = int(os.environ.get("EDGE_DAY2_EXPLORE_FAULTS", "0"))

# While the inactive slot is being written there is nothing else that could boot, whatever the firmware does: the row is
# for a node that somebody tampers with.
NEEDS_TAMPERING: Final = {("immutable", "downloading", "other_entry_booted")}

Row = tuple[str, str, str]


@functools.cache
def explore(name: str) -> tuple[Coverage, frozenset[Row]]:
    """Return what the exploration covered, and the rows of the flows' tables that it took."""
    explored = EXPLORATIONS[name]
    rows: set[Row] = set()
    step = Flow.step

    def noting(flow: Flow[Any], state: FlowState[Any], event: Event) -> Transition[Any]:
        transition = step(flow, state, event)
        rows.add((flow.name, state.name, event.name))
        return transition

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flow, "step", noting)
        budget = Budget(faults=max(explored.faults, FAULTS), changes=explored.changes)
        return Exploration(explored.scenario(), budget).run(), frozenset(rows)


@pytest.mark.parametrize("name", EXPLORATIONS)
def test_no_invariant_breaks_and_every_ending_is_reached(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    coverage, rows = explore(name)

    record_property("measured", f"{name}: {coverage} ({len(rows)} rows of the table)")
    expected = EXPLORATIONS[name].endings
    assert coverage.endings >= expected
    # More faults than the exploration was made for may lead elsewhere as well.
    assert coverage.endings == expected or EXPLORATIONS[name].faults < FAULTS


@pytest.mark.parametrize("flow", [IMMUTABLE_FLOW, MUTABLE_FLOW], ids=lambda flow: str(flow.name))
def test_the_explorations_together_take_every_row_of_the_table(
    flow: Flow[Any], record_property: Callable[[str, object], None]
) -> None:
    taken = frozenset[Row]().union(*(explore(name)[1] for name in EXPLORATIONS))

    declared = {(flow.name, state, event) for state, event in flow.table}

    record_property("measured", f"{flow.name}: {len(declared & taken)} of {len(declared)} rows taken")
    assert declared - taken == {row for row in NEEDS_TAMPERING if row[0] == flow.name}


class Planted:
    """Plants a fault into a compiled flow, until the test ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def row(self, flow: Flow[Any], state: str, event: type[Event], target: str) -> None:
        """Let `event` lead to `target`."""
        rows: dict[Any, Any] = dict(flow._table[state])
        _, effect, reports, _ = rows[event]
        rows[event] = (target, effect, reports, flow._commands.get(target))
        self._monkeypatch.setitem(flow._table, state, rows)

    def command(self, flow: Flow[Any], state: str, command: Callable[[Any], Command]) -> None:
        """Let `state` ask for something else."""
        self._monkeypatch.setitem(flow._commands, state, command)
        for source, rows in dict(flow._table).items():
            changed = {
                event: (target, effect, reports, command if target == state else other)
                for event, (target, effect, reports, other) in rows.items()
            }
            self._monkeypatch.setitem(flow._table, source, changed)

    def silence(self, flow: Flow[Any], event: type[Event]) -> None:
        """Take the reports from every transition by `event`."""
        for source, rows in dict(flow._table).items():
            if event in rows:
                target, effect, _, command = rows[event]

                def mute(data: Any, event: Event, effect: Any = effect) -> tuple[Any, tuple[()]]:
                    return (effect(data, event)[0] if effect is not None else data), ()

                changed = {**rows, event: (target, mute, (), command)}
                self._monkeypatch.setitem(flow._table, source, changed)


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Planted:
    return Planted(monkeypatch)


AgentFactory = Callable[..., PlatformUpdateAgent]


def explore_images(agent: AgentFactory = PlatformUpdateAgent, faults: int = 1, changes: int = 1) -> None:
    Exploration(ABScenario(*NEW_IMAGES), Budget(faults=faults, changes=changes), agent).run()


def explore_packages(agent: AgentFactory = PlatformUpdateAgent, faults: int = 1, changes: int = 1) -> None:
    Exploration(AptScenario(*PACKAGES), Budget(faults=faults, changes=changes), agent).run()


def test_a_commit_before_the_verification_is_found(plant: Planted) -> None:
    plant.row(IMMUTABLE_FLOW, "rebooting", ab.TrialBooted, "committing")

    with pytest.raises(InvariantBroken, match="became the default before it was verified"):
        explore_images()


class ForgetsOutbox(PlatformUpdateAgent):
    def resume(self) -> None:
        super().resume()
        self._store(evolve(self._record, outbox=()), self._clock.now())


@pytest.mark.parametrize("explore_node", [explore_images, explore_packages])
def test_an_outbox_forgotten_on_resume_is_found(explore_node: Callable[[AgentFactory], None]) -> None:
    with pytest.raises(InvariantBroken, match=r"reported after|the MM heard"):
        explore_node(ForgetsOutbox)


def test_a_write_to_the_running_slot_is_found(plant: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.command(
        IMMUTABLE_FLOW,
        "downloading",
        lambda data: ab.DownloadImage(data.target.image, data.origin, data.window),
    )
    monkeypatch.setattr(ImmutableNode, "_refuse_running_slot", lambda node, trial: None)

    with pytest.raises(InvariantBroken, match="slot A was written while it was running"):
        explore_images()


def test_a_default_entry_written_in_place_is_found(plant: Planted) -> None:
    plant.command(IMMUTABLE_FLOW, "staging_entry", lambda data: ab.StageKernelCommandLine(data.origin, "quiet"))

    with pytest.raises(InvariantBroken, match="was written while it was running or default"):
        Exploration(ABScenario(*COMMAND_LINE_ALONE), Budget(faults=0, changes=1)).run()


def test_a_failed_arming_that_is_not_disarmed_is_found(plant: Planted) -> None:
    plant.row(IMMUTABLE_FLOW, "arming", ab.ArmingFailed, "failed")

    with pytest.raises(InvariantBroken, match="B is armed while the update is failed"):
        explore_images()


def test_a_pause_before_the_reboot_that_is_not_disarmed_is_found(plant: Planted) -> None:
    plant.row(IMMUTABLE_FLOW, "rebooting", WindowClosed, "paused")

    with pytest.raises(InvariantBroken, match="B is armed while the update is paused"):
        explore_images(faults=0, changes=2)


def test_a_slot_that_is_armed_before_it_was_written_is_found(plant: Planted) -> None:
    plant.row(IMMUTABLE_FLOW, "clearing", ab.TrialCleared, "arming")

    with pytest.raises(InvariantBroken, match="was armed although it can't boot"):
        explore_images()


def test_a_rollback_that_does_not_restore_the_default_is_found(plant: Planted) -> None:
    plant.row(IMMUTABLE_FLOW, "committing", ab.CommitFailed, "rolling_back")
    plant.row(IMMUTABLE_FLOW, "rolling_back", ab.TrialBooted, "rolling_back")

    with pytest.raises(InvariantBroken, match="but B runs"):
        explore_images()


def test_a_failed_commit_that_is_not_rolled_back_is_found(plant: Planted) -> None:
    plant.row(IMMUTABLE_FLOW, "committing", ab.CommitFailed, "failed")

    with pytest.raises(InvariantBroken):
        explore_images()


class RebootsBeforeJournal(PlatformUpdateAgent):
    def _enter(self, transition: Transition[Any], now: datetime, clock: ClockMemory | None = None) -> None:
        if isinstance(transition.command, apt.RebootNode):
            self._process_ends = self._node.carry_out(transition.command, now) is None
            return
        super()._enter(transition, now, clock)


def test_a_reboot_before_its_step_is_in_the_journal_is_found() -> None:
    with pytest.raises(InvariantBroken, match="goes on for ever"):
        explore_packages(RebootsBeforeJournal)


class JournalsReportsLater(PlatformUpdateAgent):
    def _enter(self, transition: Transition[Any], now: datetime, clock: ClockMemory | None = None) -> None:
        super()._enter(transition._replace(reports=()), now, clock)
        super()._enter(transition, now, clock)


@pytest.mark.parametrize("explore_node", [explore_images, explore_packages])
def test_reports_that_are_journalled_after_their_step_are_found(explore_node: Callable[[AgentFactory], None]) -> None:
    with pytest.raises(InvariantBroken, match=r"reported after|the MM heard"):
        explore_node(JournalsReportsLater)


@pytest.mark.parametrize(
    ("flow", "explore_node"), [(IMMUTABLE_FLOW, explore_images), (MUTABLE_FLOW, explore_packages)], ids=["A/B", "apt"]
)
def test_a_start_that_is_not_reported_is_found(
    plant: Planted, flow: Flow[Any], explore_node: Callable[[], None]
) -> None:
    plant.silence(flow, WindowOpened)

    with pytest.raises(InvariantBroken, match="reported after"):
        explore_node()


def test_a_rollback_that_is_not_reported_is_found(plant: Planted) -> None:
    plant.silence(IMMUTABLE_FLOW, ab.OriginBooted)

    with pytest.raises(InvariantBroken):
        explore_images()


class IgnoresWindowBeforeReboot(PlatformUpdateAgent):
    def _interrupt(self, now: datetime) -> bool:
        state = self._record.flow
        return False if state is not None and state.name == "rebooting" else super()._interrupt(now)


@pytest.mark.parametrize("explore_node", [explore_images, explore_packages])
def test_a_reboot_outside_the_window_is_found(explore_node: Callable[..., None]) -> None:
    with pytest.raises(InvariantBroken, match="outside the maintenance window"):
        explore_node(IgnoresWindowBeforeReboot, faults=0, changes=2)


def test_a_restart_that_leads_back_to_itself_is_found(plant: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.row(MUTABLE_FLOW, "restarting", apt.AgentRestarted, "updating_agent")
    monkeypatch.setattr(ModelAptNode, "upgrade_agent", lambda node, until: True)

    with pytest.raises(InvariantBroken, match="goes on for ever"):
        explore_packages()


def explore_snapshots(agent: AgentFactory = PlatformUpdateAgent, faults: int = 1, changes: int = 1) -> None:
    scenario = AptScenario(*PACKAGES, snapshots=Snapshots.TAKEN)
    Exploration(scenario, Budget(faults=faults, changes=changes), agent).run()


def test_a_rollback_that_does_not_happen_is_found(plant: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelAptNode, "roll_back", lambda node, snapshot: None)
    monkeypatch.setattr(MutableNode, "_roll_back", claim_rollback)

    with pytest.raises(InvariantBroken, match="other packages are installed than before"):
        explore_snapshots()


def claim_rollback(node: MutableNode, command: apt.RollBack | apt.RecordRollback, at: datetime) -> Event:
    if isinstance(command, apt.RollBack):
        return apt.RollbackPrepared(at, node.system.boot_id())
    return apt.RollbackRecorded(at, ())


def test_a_rollback_of_packages_that_is_not_reported_is_found(plant: Planted) -> None:
    plant.silence(MUTABLE_FLOW, apt.RollbackRecorded)

    with pytest.raises(InvariantBroken, match="a rollback wasn't said"):
        explore_snapshots()


def test_a_kernel_that_was_never_looked_at_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelAptNode, "kernel_release", lambda node: node.newest_kernel())

    with pytest.raises(InvariantBroken, match="kernel 1 runs"):
        explore_packages()


def test_an_interrupted_package_database_that_is_not_repaired_is_found(plant: Planted) -> None:
    plant.command(MUTABLE_FLOW, "installing_upgrade", lambda data: apt.InstallUpgrade(data.upgrade_plan, data.window))

    with pytest.raises(InvariantBroken, match="goes on for ever"):
        explore_packages()


class CarriesOutTwice(NodePort):
    """Carries out every command on a copy of the node, twice, before it does so on the node itself."""

    def __init__(self, node: ModelNode, wrap: Callable[[Any], NodePort], tried: set[type[Command]]) -> None:
        self._node, self._wrap, self._port, self._tried = node, wrap, wrap(node), tried

    @property
    def os_type(self) -> OSType:
        return self._port.os_type

    def observe(self, at: datetime) -> Observation:
        return self._port.observe(at)

    def describe(self) -> NodeDescription:
        return self._port.describe()

    def carry_out(self, command: Command, at: datetime) -> Event | None:
        if self._node.calls.planned is None:
            copy = self._node.copy()
            port = self._wrap(copy)
            first, node_after_first = port.carry_out(command, at), copy.key()
            second, node_after_second = port.carry_out(command, at), copy.key()
            assert node_after_first == node_after_second, command
            # A crash after the agent was upgraded restarts it, which is all that is left to do; and of a repair that
            # is done there is nothing left to tell.
            assert first == second or isinstance(command, apt.UpdateAgent | apt.RepairPackages), command
            self._tried.add(type(command))
        return self._port.carry_out(command, at)


class ABTwice(ABScenario):
    def __init__(self, *targets: tuple[int, str]) -> None:
        super().__init__(*targets)
        self.tried: set[type[Command]] = set()

    def wrap(self, node: ModelABNode) -> NodePort:
        return CarriesOutTwice(node, super().wrap, self.tried)


class AptTwice(AptScenario):
    def __init__(self, *targets: tuple[tuple[str, ...], str]) -> None:
        super().__init__(*targets, snapshots=Snapshots.TAKEN)
        self.tried: set[type[Command]] = set()

    def wrap(self, node: ModelAptNode) -> NodePort:
        return CarriesOutTwice(node, super().wrap, self.tried)

    def disturbances(self, node: ModelAptNode) -> Iterator[tuple[ModelAptNode, str]]:
        # The second of two tries finds the lock free: that is another outcome, and meant to be one.
        return (disturbed for disturbed in super().disturbances(node) if not disturbed[0].locked)


@pytest.mark.parametrize("targets", [NEW_IMAGES, COMMAND_LINE_ALONE], ids=["images", "command line alone"])
def test_a_command_carried_out_twice_has_the_same_outcome_on_every_reachable_ab_node(
    targets: tuple[tuple[int, str], ...],
) -> None:
    scenario = ABTwice(*targets)

    Exploration(scenario, Budget(faults=1, changes=1)).run()

    image_commands = {ab.DownloadImage, ab.InstallImage, ab.PrefetchImage}
    unused = {ab.StageKernelCommandLine} if targets == NEW_IMAGES else image_commands
    assert scenario.tried >= commands_of(ab) - unused


def test_a_command_carried_out_twice_has_the_same_outcome_on_every_reachable_apt_node() -> None:
    scenario = AptTwice(*PACKAGES)

    Exploration(scenario, Budget(faults=1, changes=1)).run()

    assert scenario.tried == commands_of(apt)


def commands_of(module: ModuleType) -> set[type[Command]]:
    found = [item for item in vars(module).values() if isinstance(item, type) and issubclass(item, Command)]
    return {item for item in found if item is not Command}
