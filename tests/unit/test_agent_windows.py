"""Which windows an agent uses: each once, none for nothing, and none that is too short."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from edge_day2.domain.agent_policy import AgentPolicy
from edge_day2.domain.messages import UpdateSchedule
from edge_day2.domain.schedules import RepeatedSchedule, SingleSchedule
from edge_day2.domain.statuses import parse_detail
from edge_day2.testing.agent_bench import NOW, SHUT, AgentBench, edge, ubuntu

NIGHTLY = UpdateSchedule(repeated_schedules=(RepeatedSchedule(hours="12", day_week="*", duration_seconds=7200),))
SHORT = UpdateSchedule(single_schedule=SingleSchedule(NOW - timedelta(minutes=1), NOW + timedelta(minutes=8)))
SLOW = AgentPolicy(time_to_update=timedelta(minutes=30))


def messages(bench: AgentBench) -> list[str]:
    details = [parse_detail(status.status_detail) for status in bench.link.heard if status.status_detail]
    return [detail.message for detail in details if detail is not None]


def test_a_mutable_node_is_updated_once_in_a_window_and_again_in_the_next() -> None:
    bench = AgentBench(ubuntu(schedule=NIGHTLY))

    bench.run()
    for _ in range(4):
        bench.clock.later(timedelta(minutes=10))
        bench.run()
    first = bench.reported().count("UPDATED")
    bench.node.available["curl"] = "8"
    bench.clock.later(timedelta(days=1))
    for _ in range(2):
        bench.run()

    assert (first, bench.reported().count("UPDATED")) == (1, 2)


def test_reports_that_wait_when_the_window_opens_do_not_cost_the_window() -> None:
    bench = AgentBench(ubuntu(schedule=NIGHTLY))
    bench.clock.later(timedelta(hours=1))
    bench.run()
    bench.reported()
    bench.node.available["curl"] = "8"
    said = bench.agent.record.last_report
    assert said is not None
    bench.journal.record = evolve(bench.agent.record, outbox=(said, said))
    bench.clock.later(timedelta(hours=23))
    bench.start()
    bench.link.unreachable = {bench.link.calls + 2}

    for _ in range(3):
        bench.run()
        bench.clock.later(timedelta(minutes=5))

    assert bench.reported().count("UPDATED") == 2


def test_a_window_that_is_too_short_is_left_alone_and_said_once() -> None:
    bench = AgentBench(edge(schedule=SHORT), SLOW)

    for _ in range(3):
        bench.run()
    bench.reported()

    assert bench.state == ""
    assert messages(bench)[0] == "not started: the update needs 0:30:00, the window closes at 12:08 UTC"
    assert set(bench.link.statuses) == {"UP_TO_DATE"}


def test_a_node_that_wants_nothing_says_nothing_of_a_short_window() -> None:
    bench = AgentBench(evolve(edge(), os_profile_update_source=None, update_schedule=SHORT), SLOW)

    bench.run()
    bench.reported()

    assert messages(bench) == []


def test_a_node_that_is_up_to_date_says_nothing_of_a_short_window() -> None:
    bench = AgentBench(edge())
    bench.run()
    bench.reported()
    bench.agent = type(bench.agent)(
        host_guid="12345678-1234-1234-1234-123456789abc",
        node=bench.port,
        journal=bench.journal,
        link=bench.link,
        clock=bench.clock,
        policy=SLOW,
    )
    bench.agent.resume()
    bench.link.answer = edge(schedule=SHORT)
    heard = len(bench.link.heard)

    for _ in range(3):
        bench.run()

    assert bench.link.statuses[heard:] == ["UP_TO_DATE"] * 3
    assert not any("not started" in message for message in messages(bench))


def test_an_agent_that_starts_inside_a_window_uses_it() -> None:
    bench = AgentBench(edge(schedule=SHUT))
    bench.run()
    bench.clock.later(timedelta(minutes=40))
    bench.link.answer = edge(schedule=NIGHTLY)

    bench.start()
    for _ in range(2):
        bench.run()

    assert bench.state == "updated"
