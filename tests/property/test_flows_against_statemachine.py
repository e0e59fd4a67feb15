"""The compiled tables against the library that runs the same charts, and laws that every step keeps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statemachine.exceptions import TransitionNotAllowed

from edge_day2.domain.flow import Event, Flow, FlowState
from edge_day2.domain.immutable import IMMUTABLE_FLOW
from edge_day2.domain.mutable import MUTABLE_FLOW
from edge_day2.errors import InvalidTransition
from edge_day2.testing import strategies

FLOWS = [IMMUTABLE_FLOW, MUTABLE_FLOW]
each_flow = pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: str(flow.name))


def refused_by_table(flow: Flow[Any], state: FlowState[Any], event: Event) -> bool:
    try:
        flow.step(state, event)
    except InvalidTransition:
        return True
    return False


@each_flow
@given(data=st.data())
def test_table_and_chart_take_the_same_way_and_refuse_the_same_events(flow: Flow[Any], data: st.DataObject) -> None:
    state = data.draw(strategies.flow_states(flow))
    reference = flow.chart(start_value=state.name)

    for _ in range(data.draw(st.integers(1, 12))):
        # A random event is nearly always refused: every other one is drawn from those that are accepted.
        likely = data.draw(st.booleans())
        accepted = flow.accepts(state) if likely else ()
        event = data.draw(strategies.events(flow, data.draw(st.sampled_from(accepted)) if accepted else None))
        refused = refused_by_table(flow, state, event)
        try:
            reference.send(event.name)
        except TransitionNotAllowed:
            assert refused, f"{state.name} accepts {event.name}, the chart doesn't"
        else:
            assert not refused, f"{state.name} refuses {event.name}, the chart doesn't"
            state = flow.step(state, event).state
        assert [state.name] == [found.id for found in reference.configuration]


@each_flow
def test_table_and_chart_agree_on_every_pair_of_state_and_event(flow: Flow[Any]) -> None:
    found = {}
    for state in flow.states:
        for event in flow.events:
            reference = flow.chart(start_value=state)
            try:
                reference.send(event)
            except TransitionNotAllowed:
                continue
            found[state, event] = next(iter(reference.configuration)).id

    assert found == flow.table


@each_flow
@given(data=st.data())
def test_a_step_is_a_function_of_state_and_event(flow: Flow[Any], data: st.DataObject) -> None:
    state = data.draw(strategies.flow_states(flow))
    accepted = flow.accepts(state)
    event = data.draw(strategies.events(flow, data.draw(st.sampled_from(accepted)) if accepted else None))

    if refused_by_table(flow, state, event):
        assert event.name not in accepted
        return
    assert flow.step(state, event) == flow.step(state, event)


@each_flow
@given(data=st.data())
def test_the_command_of_a_step_is_the_command_of_the_state_that_it_leads_to(
    flow: Flow[Any], data: st.DataObject
) -> None:
    state = data.draw(strategies.flow_states(flow).filter(lambda drawn: not flow.is_final(drawn)))
    event = data.draw(strategies.events(flow, data.draw(st.sampled_from(flow.accepts(state)))))

    transition = flow.step(state, event)

    assert transition.command == flow.command(transition.state)
    assert transition.state.flow == flow.name


@each_flow
@settings(max_examples=500)
@given(data=st.data())
def test_resume_is_total_and_seeing_the_same_twice_changes_nothing_more(flow: Flow[Any], data: st.DataObject) -> None:
    state = data.draw(strategies.flow_states(flow))
    seen = data.draw(strategies.observations())

    first = flow.resume(state, seen)
    second = flow.resume(first.state, seen)

    assert first.command == flow.command(first.state)
    assert second.state == first.state
    assert second.reports == ()
