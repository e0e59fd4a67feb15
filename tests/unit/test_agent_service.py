"""The agent as a service: when it works, when it rests, and what it does when something fails."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from edge_day2.application.agent_service import ServiceTimes, run
from edge_day2.application.immutable_node import ImmutableNode
from edge_day2.application.platform_update_agent import PlatformUpdateAgent
from edge_day2.domain.agent import AgentRecord
from edge_day2.domain.observation import Observation
from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import UnreadableState
from edge_day2.ports.failures import NodeFailure
from edge_day2.testing.agent_bench import SHUT, AgentBench, Notebook, edge
from edge_day2.testing.model_nodes import ModelABNode

GUID = "12345678-1234-1234-1234-123456789abc"
TIMES = ServiceTimes(
    interval=20, first_retry=5, longest_retry=30, restart_grace=300, longest_report=100, longest_command=9000
)


class Pauses(threading.Event):
    """The event that stops a service: pauses pass at once, the last one stops it, or the one where `enough` says so."""

    def __init__(self, most: int, enough: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self.rested: list[float] = []
        self._most = most
        self._enough = enough

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.rested.append(timeout)
        if len(self.rested) == self._most or self._enough():
            self.set()
        return self.is_set()


class Manager:
    """A service manager that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def ready(self) -> None:
        self.told.append("ready")

    def alive(self, seconds: float) -> None:
        self.told.append(f"alive {seconds:g}")

    def status(self, text: str) -> None:
        self.told.append(f"status {text}")

    def stopping(self) -> None:
        self.told.append("stopping")


def serve(bench: AgentBench, stop: threading.Event) -> list[str]:
    """Run a new agent of the bench as a service; return what its manager was told."""
    manager = Manager()
    bench.agent = PlatformUpdateAgent(
        host_guid=GUID, node=bench.port, journal=bench.journal, link=bench.link, clock=bench.clock
    )
    run(bench.agent, stop=stop, service_manager=manager, times=TIMES)
    return manager.told


def test_it_reports_at_every_interval() -> None:
    bench, stop = AgentBench(edge(schedule=SHUT)), Pauses(4)

    serve(bench, stop)

    assert bench.link.statuses == ["UP_TO_DATE"] * 4
    assert stop.rested == [20] * 4


def test_it_takes_an_update_to_its_reboot_and_waits_for_its_end() -> None:
    bench, stop = AgentBench(edge()), Pauses(2)

    serve(bench, stop)

    assert not bench.node.running
    assert bench.state == "rebooting"
    # The reports of the update follow the answer that began it.
    assert stop.rested == [300, 300]


def test_what_was_reached_is_told_before_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, heard = AgentBench(edge()), list[str]()
    write = ModelABNode.write

    def write_after_a_look(*arguments: Any) -> None:
        heard.extend(bench.link.statuses)
        write(*arguments)

    monkeypatch.setattr(ModelABNode, "write", write_after_a_look)
    serve(bench, Pauses(1))

    assert heard[-1] == "STARTED"
    assert bench.link.statuses.count("STARTED") >= 3
    assert bench.state == "rebooting"


def test_a_reboot_that_never_comes_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, asked = AgentBench(edge()), itertools.count()
    monkeypatch.setattr(ModelABNode, "reboot", lambda node: next(asked))

    serve(bench, Pauses(4))

    assert next(asked) == 4
    assert bench.state == "rebooting"
    assert set(bench.reported()) == {"UP_TO_DATE", "STARTED"}


def test_a_node_that_cannot_be_observed_is_observed_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = AgentBench(edge())
    bench.agent.tick()
    assert bench.state == "checking"
    observe, failures = ImmutableNode.observe, itertools.count(1)

    def fails_at_first(port: ImmutableNode, at: datetime) -> Observation:
        if next(failures) < 6:
            raise NodeFailure(FailureReason.BOOTLOADER_FAIL, "efivarfs isn't mounted")
        return observe(port, at)

    monkeypatch.setattr(ImmutableNode, "observe", fails_at_first)
    heard, stop = len(bench.link.heard), Pauses(6)
    told = serve(bench, stop)

    assert stop.rested == [5, 10, 20, 30, 30, 300]
    assert "status tried again in 5 seconds: bootloader: efivarfs isn't mounted" in told
    assert bench.link.statuses[:6] == ["UP_TO_DATE"] + ["STARTED"] * 5
    assert len(bench.link.heard) > heard
    assert bench.state == "rebooting"


def test_a_node_of_which_nothing_is_known_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = AgentBench(edge(), journal=Notebook(torn=UnreadableState("torn")))
    heard = len(bench.link.heard)
    bench.journal.torn = UnreadableState("torn once more")

    def fails(node: ImmutableNode, at: datetime) -> Observation:
        raise NodeFailure(FailureReason.BOOTLOADER_FAIL, "efivarfs isn't mounted")

    monkeypatch.setattr(ImmutableNode, "observe", fails)
    serve(bench, Pauses(3))

    assert len(bench.link.heard) == heard


class FullDisk(Notebook):
    """A journal that can't be stored for a while, every now and then."""

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = period
        self.tries = 0

    def store(self, record: AgentRecord) -> None:
        self.tries += 1
        if self.tries % self.period:
            raise OSError(28, "No space left on device")
        super().store(record)


@pytest.mark.parametrize("period", [1, 2, 3, 5])
def test_a_full_disk_loses_no_report_and_doubles_only_neighbours(period: int) -> None:
    bench = AgentBench(edge(), journal=FullDisk(period))

    serve(bench, Pauses(200, lambda: not bench.node.running))
    bench.node.boot_into(bench.node.next_entry(), boot=1)
    serve(bench, Pauses(200))

    assert bench.state == "updated"
    said = [status for status, _ in itertools.groupby(bench.link.statuses)]
    assert said == ["UP_TO_DATE", "STARTED", "UPDATED", "UP_TO_DATE"]


def test_it_ends_between_two_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, stop = AgentBench(edge()), Pauses(99)
    write = ModelABNode.write

    def write_and_be_told_to_stop(*arguments: Any) -> None:
        write(*arguments)
        stop.set()

    monkeypatch.setattr(ModelABNode, "write", write_and_be_told_to_stop)
    told = serve(bench, stop)

    assert bench.state == "installing"
    assert told[-1] == "stopping"


def test_it_ends_at_once_where_it_rests() -> None:
    bench, stop = AgentBench(edge(schedule=SHUT)), threading.Event()
    rests = threading.Event()

    class Resting(Manager):
        def alive(self, seconds: float) -> None:
            if seconds > 3600:
                rests.set()

    day = ServiceTimes(interval=86_400, longest_command=0)
    arguments = {"stop": stop, "service_manager": Resting(), "times": day}
    service = threading.Thread(target=run, args=(bench.agent,), kwargs=arguments)
    service.start()
    rests.wait()
    stop.set()
    service.join(60)

    assert not service.is_alive()


def test_a_defect_of_the_agent_ends_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = AgentBench(edge())
    monkeypatch.setattr(PlatformUpdateAgent, "tick", lambda agent: 1 // 0)

    with pytest.raises(ZeroDivisionError):
        serve(bench, Pauses(1))


def test_its_manager_is_told_how_long_it_may_be_silent() -> None:
    told = serve(AgentBench(edge(schedule=SHUT)), Pauses(1))

    assert told == [
        "ready",
        "alive 100",
        "status waits for the Maintenance Manager's first answer",
        "alive 100",
        "alive 9000",
        "status no window is scheduled",
        "alive 120",
        "stopping",
    ]
