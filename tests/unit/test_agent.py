"""The Platform Update Agent on model nodes: windows, reports, journals and clocks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve

from edge_day2.application.platform_update_agent import PlatformUpdateAgent, TickResult
from edge_day2.domain.agent import flow_of
from edge_day2.domain.flow import FlowState
from edge_day2.domain.messages import (
    PlatformUpdateStatusRequest,
    PlatformUpdateStatusResponse,
    UpdateSchedule,
)
from edge_day2.domain.observation import BootEntry, Slot
from edge_day2.domain.schedules import RepeatedSchedule, SingleSchedule
from edge_day2.domain.statuses import FailureReason, UpdateStatusType
from edge_day2.errors import InvalidValue, NewerFormat, Unavailable, UnreadableState
from edge_day2.ports.failures import NodeFailure
from edge_day2.testing.agent_bench import NOW, SHUT, AgentBench, Notebook, Orchestrator, edge, image, ubuntu
from edge_day2.testing.model_nodes import ModelABNode

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


def test_an_immutable_node_is_updated_in_its_window_and_says_so() -> None:
    bench = AgentBench(edge())

    bench.run()

    assert bench.state == "updated"
    assert bench.node.active == bench.node.default == BootEntry(Slot.B)
    assert bench.reported() == ["UP_TO_DATE", "STARTED", "STARTED", "STARTED", "UPDATED", "UP_TO_DATE"]


def test_a_mutable_node_is_updated_in_its_window_and_says_so() -> None:
    bench = AgentBench(ubuntu())

    bench.run()

    assert bench.state == "updated"
    assert bench.node.packages == {"agent": "1", "helper": "2", "curl": "7"}
    assert bench.reported() == ["UP_TO_DATE", "STARTED", "UPDATED", "UP_TO_DATE"]


def test_a_schedule_that_ended_while_the_node_was_off_pauses_the_update_and_is_reported() -> None:
    bench = AgentBench(edge())
    bench.agent.tick()
    bench.agent.run_pending()
    assert bench.state == "clearing"
    bench.clock.later(3 * HOUR)

    bench.boot()
    bench.run()

    assert bench.state == "paused"
    assert bench.agent.explain() == "paused: no window is scheduled"
    assert bench.reported()[-1] == "STARTED"
    assert "the maintenance window closed" in json.loads(bench.link.heard[-1].status_detail)["message"]


def test_a_paused_update_goes_on_in_the_next_window() -> None:
    bench = AgentBench(edge())
    bench.agent.tick()
    bench.agent.run_pending()
    bench.clock.later(3 * HOUR)
    bench.run()
    assert bench.state == "paused"

    bench.link.answer = edge(schedule=UpdateSchedule(single_schedule=SingleSchedule(NOW + 3 * HOUR)))
    bench.run()

    assert bench.state == "updated"


def test_the_window_is_looked_at_again_right_before_the_reboot() -> None:
    bench = AgentBench(edge())
    bench.agent.tick()
    while bench.state != "rebooting":
        bench.agent.run_pending()
    bench.clock.later(3 * HOUR)

    bench.run()

    assert bench.state == "paused"
    assert bench.node.active == BootEntry(Slot.A)
    assert bench.node.one_shot is None


def test_reports_that_cannot_be_delivered_wait_in_order_and_are_repeated() -> None:
    bench = AgentBench(edge())
    bench.link.unreachable = {2, 3, 5}
    bench.run()

    results = [bench.run() for _ in range(4)]

    assert bench.link.statuses == ["UP_TO_DATE", "STARTED", "STARTED", "STARTED", "UPDATED", "UP_TO_DATE"]
    assert [result.problem for result in results] == ["UNAVAILABLE: no route to host"] * 2 + [
        "UNAVAILABLE: no route to host",
        "",
    ][:2]


def test_a_report_whose_answer_was_lost_is_sent_again_before_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = AgentBench(edge())
    bench.run()
    deliver = bench.link.platform_update_status
    lost = {"STARTED", "UPDATED"}

    def lose_the_answer(request: PlatformUpdateStatusRequest) -> PlatformUpdateStatusResponse:
        answer = deliver(request)
        if (name := request.update_status.status_type.name) in lost:
            lost.remove(name)
            raise Unavailable("deadline exceeded")
        return answer

    monkeypatch.setattr(Orchestrator, "platform_update_status", lambda link, request: lose_the_answer(request))
    for _ in range(3):
        bench.agent.tick()

    assert bench.link.statuses[1:] == ["STARTED", "STARTED", "STARTED", "STARTED", "UPDATED", "UPDATED", "UP_TO_DATE"]


def test_no_new_update_begins_before_the_end_of_the_last_one_was_heard() -> None:
    bench = AgentBench(edge())
    bench.run()
    bench.link.answer = edge(3)
    bench.link.unreachable = {call for call in range(100) if call > bench.link.calls + 1}

    bench.run()
    assert bench.agent.record.outbox
    assert bench.node.contents[bench.node.active.slot] == image(2)
    bench.link.unreachable = set()
    bench.run()

    assert bench.node.contents[bench.node.active.slot] == image(3)


def test_a_torn_journal_is_reported_and_the_node_goes_on_from_what_it_sees() -> None:
    bench = AgentBench(edge(1), journal=Notebook(torn=UnreadableState("journal.json: checksum")))

    bench.run()

    assert bench.link.statuses[:2] == ["STARTED", "FAILED"]
    assert bench.failure_logs() == ["journal.json: checksum"]
    assert bench.state == "up_to_date"


def test_a_torn_journal_during_a_trial_leads_back_to_the_default() -> None:
    bench = AgentBench(edge())
    bench.agent.tick()
    while bench.node.running:
        bench.agent.run_pending()
    bench.journal.torn = UnreadableState("journal.json: checksum")

    bench.boot()
    assert (bench.node.active, bench.state) == (BootEntry(Slot.B), "restoring_default")
    bench.link.answer = edge(1)
    bench.run()

    assert bench.node.active == bench.node.default == BootEntry(Slot.A)


def test_a_torn_journal_while_armed_is_disarmed() -> None:
    bench = AgentBench(edge())
    bench.agent.tick()
    while bench.state != "rebooting":
        bench.agent.run_pending()
    bench.journal.torn = UnreadableState("journal.json: checksum")
    bench.link.answer = edge(1)

    bench.start()
    bench.run()

    assert bench.node.one_shot is None
    assert bench.node.active == BootEntry(Slot.A)


def test_a_journal_of_another_kind_of_node_is_reported_and_forgotten() -> None:
    immutable = AgentBench(edge())
    immutable.agent.tick()

    bench = AgentBench(ubuntu(), journal=immutable.journal)
    bench.run()

    assert bench.state == "updated"
    assert bench.failure_logs()[0] == "the journal tells of an update of an immutable OS, this one is mutable"


def test_a_journal_of_a_newer_agent_is_reported_and_left_alone() -> None:
    journal = Notebook(torn=NewerFormat("journal.json: format 9"))
    bench = AgentBench(edge(), journal=journal)

    bench.run()
    bench.run()
    bench.agent.forget_failure()

    assert bench.link.statuses == ["STARTED", "FAILED", "FAILED"]
    assert bench.failure_logs()[0] == "journal.json: format 9"
    assert journal.stored == 0
    assert not bench.agent.run_pending()
    assert bench.agent.explain() == "does nothing: journal.json: format 9"
    assert bench.node.contents == {Slot.A: image(1)}


def test_a_clock_that_is_not_set_opens_no_window_until_it_is() -> None:
    bench = AgentBench(edge(schedule=UpdateSchedule(repeated_schedules=(RepeatedSchedule(hours="*", day_week="*"),))))
    bench.clock.time = datetime(1970, 1, 1, 0, 5, tzinfo=UTC)

    bench.run()
    assert bench.state == ""
    assert "not set yet" in bench.agent.explain()
    bench.clock.time = NOW
    bench.run()

    assert bench.state == "updated"


def test_a_clock_behind_the_journal_opens_no_window_until_it_has_run_steadily() -> None:
    forever = UpdateSchedule(single_schedule=SingleSchedule(NOW - timedelta(days=60)))
    bench = AgentBench(edge(1, schedule=forever))
    bench.run()
    bench.link.answer = edge(2, schedule=forever)
    bench.clock.time = NOW - timedelta(days=20)
    bench.start()

    bench.run()
    assert bench.state == "up_to_date"
    assert "behind what was journalled" in bench.agent.explain()
    bench.clock.later(59 * MINUTE)
    bench.run()
    assert bench.state == "up_to_date"
    bench.clock.later(2 * MINUTE)
    bench.run()

    assert bench.state == "updated"


def test_a_node_that_cannot_be_observed_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = AgentBench(edge())
    bench.agent.tick()

    def fail() -> None:
        raise NodeFailure(FailureReason.BOOTLOADER_FAIL, "EFI variables can't be read")

    monkeypatch.setattr(ModelABNode, "state", lambda node: fail())
    stored = bench.journal.stored

    with pytest.raises(NodeFailure):
        bench.start()
    assert bench.journal.stored == stored


def test_a_record_tells_which_flow_it_belongs_to() -> None:
    state: FlowState[Any] = FlowState("mutable", "scheduled", None)

    assert flow_of(state).name == "mutable"
    assert flow_of(evolve(state, flow="immutable")).name == "immutable"


def test_an_idle_agent_repeats_its_last_report_as_a_sign_of_life() -> None:
    bench = AgentBench(edge(1, schedule=SHUT))

    for _ in range(3):
        assert bench.run() == TickResult(delivered=1)

    assert bench.link.statuses == ["UP_TO_DATE"] * 3
    assert bench.journal.stored == 1
    assert UpdateStatusType.UP_TO_DATE in {status.status_type for status in bench.link.heard}


def test_an_agent_without_a_uuid_is_refused_before_it_says_anything() -> None:
    bench = AgentBench(edge())

    with pytest.raises(InvalidValue, match="host_guid: found 'node 1', expected a UUID"):
        PlatformUpdateAgent(
            host_guid="node 1", node=bench.port, journal=bench.journal, link=bench.link, clock=bench.clock
        )
