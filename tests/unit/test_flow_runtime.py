"""The runtime of a flow: what it compiles, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import evolve, frozen
from statemachine import State, StateMachine

from edge_day2.domain.flow import ANY_STATE, Command, Event, Flow, FlowState, Transition, loops
from edge_day2.domain.immutable import IMMUTABLE_FLOW
from edge_day2.domain.immutable_effects import ImmutableUpdate
from edge_day2.domain.immutable_events import ImmutableTarget, TrialHealthy
from edge_day2.domain.messages import UpdateStatus
from edge_day2.domain.mutable import MUTABLE_FLOW
from edge_day2.domain.mutable_effects import MutableUpdate
from edge_day2.domain.mutable_events import PackageTarget
from edge_day2.domain.observation import Observation
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.errors import EdgeDay2Error, InvalidTransition

NOW = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
SEEN = Observation(at=NOW, boot_id="one")
DONE = (UpdateStatus(status_type=UpdateStatusType.UP_TO_DATE),)


class KettleChart(StateMachine):
    cold = State(initial=True)
    heating = State()
    hot = State(final=True)

    switched_on = cold.to(heating)
    boiled = heating.to(hot)
    clicked = loops(cold, heating)


@frozen
class SwitchedOn(Event):
    pass


@frozen
class Boiled(Event):
    degrees: int


@frozen
class Clicked(Event):
    pass


@frozen
class Exploded(Event):
    pass


@frozen
class Heat(Command):
    watts: int


def note_degrees(data: int, event: Boiled) -> tuple[int, tuple[UpdateStatus, ...]]:
    return event.degrees, DONE


def kettle(**changes: Any) -> Flow[int]:
    arguments: dict[str, Any] = {
        "name": "kettle",
        "chart": KettleChart,
        "events": (SwitchedOn, Boiled, Clicked),
        "effects": {(ANY_STATE, Boiled): note_degrees, ("heating", Clicked): DONE},
        "commands": {"heating": lambda data: Heat(data)},
        "observe": lambda state, seen: None,
    }
    return Flow[int](**{**arguments, **changes})


def test_an_update_begins_in_the_initial_state_and_waits() -> None:
    flow = kettle()

    begun = flow.start(2000)

    assert begun == FlowState("kettle", "cold", 2000)
    assert flow.command(begun) is None
    assert not flow.is_final(begun)


def test_a_step_gives_the_next_state_its_command_and_the_reports() -> None:
    flow = kettle()

    heating = flow.step(flow.start(2000), SwitchedOn(NOW))
    hot = flow.step(heating.state, Boiled(NOW, 100))

    assert heating == Transition(FlowState("kettle", "heating", 2000), Heat(2000), ())
    assert hot == Transition(FlowState("kettle", "hot", 100), None, DONE)
    assert flow.is_final(hot.state)


def test_an_effect_of_a_state_wins_and_may_be_reports_alone() -> None:
    flow = kettle()
    heating = FlowState("kettle", "heating", 2000)

    assert flow.step(flow.start(1), Clicked(NOW)).reports == ()
    assert flow.step(heating, Clicked(NOW)) == Transition(heating, Heat(2000), DONE)


def test_the_table_can_be_read() -> None:
    flow = kettle()

    assert flow.states == ("cold", "heating", "hot")
    assert flow.final_states == {"hot"}
    assert flow.events == {"switched_on": SwitchedOn, "boiled": Boiled, "clicked": Clicked}
    assert flow.table == {
        ("cold", "switched_on"): "heating",
        ("cold", "clicked"): "cold",
        ("heating", "boiled"): "hot",
        ("heating", "clicked"): "heating",
    }
    assert flow.accepts(flow.start(1)) == ("clicked", "switched_on")


def test_an_event_that_a_state_does_not_accept_is_refused_with_what_it_accepts() -> None:
    flow = kettle()

    with pytest.raises(InvalidTransition) as refused:
        flow.step(flow.start(2000), Boiled(NOW, 100))

    assert isinstance(refused.value, EdgeDay2Error)
    assert refused.value.flow == "kettle"
    assert refused.value.state == "cold"
    assert refused.value.event == Boiled(NOW, 100)
    assert refused.value.accepts == ("clicked", "switched_on")
    assert str(refused.value).startswith("kettle: state 'cold' doesn't accept Boiled(")
    assert str(refused.value).endswith("it accepts: clicked, switched_on")


def test_a_final_state_accepts_nothing() -> None:
    with pytest.raises(InvalidTransition, match="it accepts: nothing, it is final") as refused:
        kettle().step(FlowState("kettle", "hot", 1), SwitchedOn(NOW))

    assert refused.value.accepts == ()


@pytest.mark.parametrize("event", [Exploded(NOW), TrialHealthy(NOW), "switched_on", None])
def test_an_event_of_no_or_of_another_flow_is_refused(event: Any) -> None:
    with pytest.raises(InvalidTransition):
        kettle().step(kettle().start(1), event)


class ClickedTwice(Clicked):
    pass


def test_a_subclass_of_an_event_is_another_event() -> None:
    with pytest.raises(InvalidTransition):
        kettle().step(kettle().start(1), ClickedTwice(NOW))


@pytest.mark.parametrize(
    "state",
    [
        FlowState("immutable", "cold", 1),
        FlowState("kettle", "melted", 1),
        FlowState("", "", 1),
    ],
)
def test_a_foreign_state_is_refused_by_step_and_by_resume(state: FlowState[int]) -> None:
    flow = kettle()

    with pytest.raises(InvalidTransition):
        flow.step(state, SwitchedOn(NOW))
    with pytest.raises(InvalidTransition):
        flow.resume(state, SEEN)


def test_a_state_of_one_flow_is_foreign_to_the_other() -> None:
    immutable: FlowState[Any] = IMMUTABLE_FLOW.start(ImmutableUpdate(target=ImmutableTarget()))
    mutable: FlowState[Any] = MUTABLE_FLOW.start(MutableUpdate(target=PackageTarget()))

    with pytest.raises(InvalidTransition):
        MUTABLE_FLOW.resume(immutable, SEEN)
    with pytest.raises(InvalidTransition):
        IMMUTABLE_FLOW.resume(mutable, SEEN)


def test_resume_with_nothing_to_see_repeats_the_pending_command() -> None:
    heating = FlowState("kettle", "heating", 2000)

    assert kettle().resume(heating, SEEN) == Transition(heating, Heat(2000), ())


def test_resume_takes_all_that_one_observation_tells() -> None:
    events: dict[str, Event] = {"cold": SwitchedOn(NOW), "heating": Boiled(NOW, 90)}
    flow = kettle(observe=lambda state, seen: events.get(state.name))

    resumed = flow.resume(flow.start(2000), SEEN)

    assert resumed == Transition(FlowState("kettle", "hot", 90), None, DONE)


def test_resume_ends_also_where_an_observation_never_stops_telling() -> None:
    flow = kettle(observe=lambda state, seen: Clicked(NOW))

    assert flow.resume(FlowState("kettle", "heating", 1), SEEN).reports == DONE * 4


class SulkingKettleChart(StateMachine):
    cold = State(initial=True)
    heating = State()
    hot = State(final=True)

    switched_on = cold.to(heating) | cold.to(hot)
    boiled = heating.to(hot)
    clicked = loops(cold, heating)


def heat(data: int) -> Command | None:
    return Heat(data)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"events": (SwitchedOn, Boiled)}, "no class for the event 'clicked' of the chart"),
        ({"events": (SwitchedOn, Boiled, Clicked, Exploded)}, r"no transition for the events \['exploded'\]"),
        ({"effects": {("hot", Boiled): ()}}, r"no transition for the effects \[\('hot', 'boiled'\)\]"),
        ({"effects": {(ANY_STATE, Exploded): ()}}, r"no transition for the effects \[\('\*', 'exploded'\)\]"),
        ({"commands": {"melting": heat}}, r"no state for the commands of \['melting'\]"),
        ({"chart": SulkingKettleChart}, "two transitions for 'switched_on' in state 'cold'"),
    ],
)
def test_a_chart_and_tables_that_do_not_fit_are_refused_when_they_are_compiled(
    changes: Mapping[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=f"^kettle: {complaint}$"):
        kettle(**changes)


def test_the_name_of_an_event_is_that_of_its_class_in_the_words_of_the_chart() -> None:
    assert SwitchedOn.name == "switched_on"
    assert TrialHealthy.name == "trial_healthy"


@pytest.mark.parametrize("flow", [IMMUTABLE_FLOW, MUTABLE_FLOW], ids=lambda flow: str(flow.name))
def test_a_final_state_has_no_command_and_no_way_out(flow: Flow[Any]) -> None:
    for state in flow.final_states:
        assert flow.accepts(FlowState(flow.name, state, None)) == ()
        assert flow.command(FlowState(flow.name, state, None)) is None


def change_name(state: FlowState[int]) -> None:
    state.name = "hot"  # type: ignore[misc]  # this is what must fail


def change_state(transition: Transition[int]) -> None:
    transition.state = FlowState("kettle", "hot", 1)  # type: ignore[misc]  # this is what must fail


@pytest.mark.parametrize("change", [change_name, change_state])
def test_states_and_transitions_are_frozen(change: Callable[[Any], None]) -> None:
    transition = kettle().step(kettle().start(1), SwitchedOn(NOW))

    with pytest.raises(AttributeError):
        change(transition.state if change is change_name else transition)

    assert evolve(transition.state, name="hot").name == "hot"
