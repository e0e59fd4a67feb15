"""What an agent's reports say of its node besides the status: available updates, the running image."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from attrs import evolve

from edge_day2.application.immutable_node import ImmutableNode
from edge_day2.application.mutable_node import MutableNode
from edge_day2.domain.messages import NodeDescription
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import NodeFailure
from edge_day2.testing.agent_bench import SHUT, AgentBench, edge, image, ubuntu
from edge_day2.testing.faults import Calls, Fault, PlannedFault
from edge_day2.testing.model_apt_node import ModelAptNode
from edge_day2.testing.model_nodes import ModelABNode

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[NodeDescription]:
    """What mutable nodes said of themselves, each time that they were asked."""
    said: list[NodeDescription] = []
    describe = MutableNode.describe

    def noting(node: MutableNode) -> NodeDescription:
        said.append(describe(node))
        return said[-1]

    monkeypatch.setattr(MutableNode, "describe", noting)
    return said


def available(bench: AgentBench) -> list[list[str]]:
    """Return the names of the available updates that were heard with each report."""
    texts = [status.os_update_available for status in bench.link.heard]
    return [[update["name"] for update in json.loads(text)] if text else [] for text in texts]


def test_every_report_of_a_mutable_node_tells_the_available_updates() -> None:
    bench = AgentBench(ubuntu(schedule=SHUT))

    bench.run()
    bench.run()

    assert bench.link.statuses == ["UP_TO_DATE", "UP_TO_DATE"]
    assert available(bench) == [["helper"], ["helper"]]


def test_after_an_update_there_is_nothing_left_to_tell() -> None:
    bench = AgentBench(ubuntu())

    bench.run()
    bench.reported()

    assert bench.link.statuses == ["UP_TO_DATE", "STARTED", "UPDATED", "UP_TO_DATE"]
    assert available(bench) == [["helper"], [], [], []]


def test_the_list_is_not_asked_for_at_every_report(told: list[NodeDescription]) -> None:
    bench = AgentBench(ubuntu(schedule=SHUT))

    for _ in range(180):
        bench.run()
        bench.clock.later(timedelta(seconds=20))

    assert len(bench.link.heard) == 180
    assert len(told) == 1


def test_the_list_is_asked_for_again_after_a_while_and_after_an_update(told: list[NodeDescription]) -> None:
    bench = AgentBench(ubuntu(schedule=SHUT))
    bench.run()

    bench.clock.later(HOUR)
    bench.run()
    assert len(told) == 2

    bench.link.answer = ubuntu()
    bench.run()
    bench.reported()
    bench.reported()

    assert bench.state == "updated"
    assert len(told) == 3


def test_a_clock_that_is_put_back_does_not_keep_an_old_list(told: list[NodeDescription]) -> None:
    bench = AgentBench(ubuntu(schedule=SHUT))
    bench.run()

    bench.clock.later(-24 * HOUR)
    bench.run()

    assert len(told) == 2


def test_a_list_that_cannot_be_told_never_stops_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: ModelAptNode) -> None:
        raise NodeFailure(FailureReason.UPDATE_TOOL, "E: Could not open lock file")

    monkeypatch.setattr(ModelAptNode, "upgradable", fail)
    bench = AgentBench(ubuntu())

    bench.run()

    assert bench.reported() == ["UP_TO_DATE", "STARTED", "UPDATED", "UP_TO_DATE"]
    assert {status.os_update_available for status in bench.link.heard} == {""}


def test_what_a_node_says_of_itself_is_not_stored_with_its_reports() -> None:
    bench = AgentBench(ubuntu())
    bench.link.unreachable = set(range(2, 100))

    bench.run()

    assert bench.journal.record is not None
    assert [status.status_type.name for status in bench.journal.record.outbox] == ["STARTED", "UPDATED", "UP_TO_DATE"]
    assert {status.os_update_available for status in bench.journal.record.outbox} == {""}


def identities(bench: AgentBench) -> list[tuple[str, str]]:
    return [(status.profile_name, status.os_image_id) for status in bench.link.heard]


def test_every_report_of_an_immutable_node_names_the_image_that_runs_also_the_first_one() -> None:
    bench = AgentBench(edge())

    bench.run()
    bench.reported()

    old, new = (image(1).profile_name, image(1).image_id), (image(2).profile_name, image(2).image_id)
    assert bench.link.statuses == ["UP_TO_DATE", "STARTED", "STARTED", "STARTED", "UPDATED", "UP_TO_DATE"]
    assert identities(bench)[0] == old
    assert identities(bench)[-2:] == [new, new]
    assert set(identities(bench)) == {old, new}


def test_a_report_that_names_an_image_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = AgentBench(edge())
    bench.link.unreachable = set(range(2, 30))
    bench.run()
    assert bench.state == "updated"
    third = image(3)
    monkeypatch.setattr(
        ImmutableNode,
        "describe",
        lambda node: NodeDescription(profile_name=third.profile_name, os_image_id=third.image_id),
    )
    bench.link.unreachable = set()

    bench.start()
    bench.reported()

    updated = next(status for status in bench.link.heard if status.status_type.name == "UPDATED")
    assert updated.os_image_id == image(2).image_id


def test_an_image_that_cannot_be_told_never_stops_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: ModelABNode) -> None:
        raise OSError(5, "Input/output error")

    bench = AgentBench(edge(1, schedule=SHUT))
    monkeypatch.setattr(ModelABNode, "running_image", fail)

    assert bench.reported() == ["UP_TO_DATE"]
    assert identities(bench) == [("", "")]


def test_the_distance_of_two_lists_is_a_matter_of_policy(told: list[NodeDescription]) -> None:
    bench = AgentBench(ubuntu(schedule=SHUT))
    bench.policy = evolve(bench.policy, describe_every=MINUTE)
    bench.start()

    for _ in range(3):
        bench.run()
        bench.clock.later(MINUTE)

    assert len(told) == 3


def test_an_update_that_failed_halfway_has_another_list_to_tell() -> None:
    bench = AgentBench(ubuntu())
    bench.agent.tick()
    while bench.state != "downloading_packages":
        bench.agent.run_pending()
    bench.node.calls = Calls(PlannedFault(1, Fault.FAILS))
    bench.agent.run_pending()
    bench.agent.run_pending()

    bench.reported()

    assert bench.link.statuses == ["UP_TO_DATE", "STARTED", "FAILED"]
    assert available(bench) == [["helper"], [], []]
