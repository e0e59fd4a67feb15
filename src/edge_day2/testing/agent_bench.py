"""One agent on a model node, with a journal in memory, a scripted orchestrator and a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from attrs import define, evolve, field

from edge_day2.application.immutable_node import ImmutableNode
from edge_day2.application.mutable_node import MutableNode
from edge_day2.application.platform_update_agent import PlatformUpdateAgent, TickResult
from edge_day2.domain.agent import AgentRecord
from edge_day2.domain.agent_policy import AgentPolicy
from edge_day2.domain.immutable_events import Image
from edge_day2.domain.messages import (
    OSProfileUpdateSource,
    PlatformUpdateStatusRequest,
    PlatformUpdateStatusResponse,
    UpdateSchedule,
    UpdateStatus,
)
from edge_day2.domain.resources import OSType
from edge_day2.domain.schedules import SingleSchedule
from edge_day2.domain.statuses import parse_detail
from edge_day2.errors import EdgeDay2Error, Unavailable
from edge_day2.ports.metrics import NO_METRICS, Metrics
from edge_day2.testing.model_apt_node import ModelAptNode
from edge_day2.testing.model_nodes import ModelABNode

NOW: Final = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
OPEN: Final = UpdateSchedule(single_schedule=SingleSchedule(NOW, NOW + timedelta(hours=2)))
SHUT: Final = UpdateSchedule()
_GUID: Final = "12345678-1234-1234-1234-123456789abc"


def image(number: int) -> Image:
    """Return one of the images of the profile "edge"; the node runs number 1."""
    return Image(profile_name="edge", image_id=f"3.0.{number}", sha256=f"{number}" * 64, url=f"files/{number}.raw.gz")


def image_source(number: int, **changes: Any) -> OSProfileUpdateSource:
    """Return the image as an answer names it."""
    wanted = image(number)
    source = OSProfileUpdateSource(
        os_image_url=wanted.url,
        os_image_id=wanted.image_id,
        os_image_sha=wanted.sha256,
        profile_name=wanted.profile_name,
    )
    return evolve(source, **changes)


def edge(number: int | None = 2, schedule: UpdateSchedule = OPEN, **changes: Any) -> PlatformUpdateStatusResponse:
    """Return an answer to an immutable node that should run the image of this number, or none."""
    answer = PlatformUpdateStatusResponse(
        os_type=OSType.IMMUTABLE,
        update_schedule=schedule,
        os_profile_update_source=image_source(number) if number is not None else None,
    )
    return evolve(answer, **changes)


def ubuntu(packages: str = "curl", schedule: UpdateSchedule = OPEN, **changes: Any) -> PlatformUpdateStatusResponse:
    """Return an answer to a mutable node."""
    answer = PlatformUpdateStatusResponse(os_type=OSType.MUTABLE, update_schedule=schedule, installed_packages=packages)
    return evolve(answer, **changes)


@define
class SetClock:
    """A clock that is set by hand."""

    time: datetime = NOW

    def now(self) -> datetime:
        """See `Clock`."""
        return self.time

    def later(self, length: timedelta) -> None:
        """Let time pass."""
        self.time += length


@define
class Notebook:
    """A journal in memory; `torn` is raised instead of what was stored, until something is."""

    record: AgentRecord | None = None
    torn: EdgeDay2Error | None = None
    stored: int = 0

    def load(self) -> AgentRecord | None:
        """See `Journal`."""
        if self.torn is not None:
            raise self.torn
        return self.record

    def store(self, record: AgentRecord) -> None:
        """See `Journal`."""
        self.record, self.torn = record, None
        self.stored += 1


@define
class Orchestrator:
    """A Maintenance Manager that gives `answer`, and is out of reach for the calls numbered in `unreachable`."""

    answer: PlatformUpdateStatusResponse
    heard: list[UpdateStatus] = field(factory=list)
    unreachable: set[int] = field(factory=set)
    calls: int = 0
    answers: Callable[[int], PlatformUpdateStatusResponse] | None = None

    def platform_update_status(self, request: PlatformUpdateStatusRequest) -> PlatformUpdateStatusResponse:
        """See `MaintenanceLink`."""
        assert request.host_guid == _GUID
        self.calls += 1
        if self.calls in self.unreachable:
            raise Unavailable("no route to host")
        self.heard.append(request.update_status)
        return self.answer if self.answers is None else self.answers(self.calls)

    @property
    def statuses(self) -> list[str]:
        """The names of all statuses that were heard, in order."""
        return [status.status_type.name for status in self.heard]


class AgentBench:
    """An agent with a model node, a notebook, an orchestrator and a clock; restarts and reboots like a real one."""

    def __init__(
        self,
        answer: PlatformUpdateStatusResponse,
        policy: AgentPolicy = AgentPolicy(),  # noqa: B008  # frozen
        journal: Notebook | None = None,
        metrics: Metrics = NO_METRICS,
    ) -> None:
        self.metrics = metrics
        self.clock, self.link, self.policy = SetClock(), Orchestrator(answer), policy
        self.journal = journal if journal is not None else Notebook()
        self.node: Any
        if answer.os_type is OSType.IMMUTABLE:
            self.node = ModelABNode.with_image(image(1))
            self.port: Any = ImmutableNode(slots=self.node, bootloader=self.node, health=self.node, system=self.node)
        else:
            self.node = ModelAptNode(
                packages={"agent": "1", "helper": "1"}, available={"agent": "1", "helper": "2", "curl": "7"}
            )
            self.port = MutableNode(
                apt=self.node, apt_sources=self.node, grub=self.node, health=self.node, system=self.node
            )
        self.start()

    def start(self) -> None:
        """Begin the agent's process anew, with what the journal holds."""
        self.agent = PlatformUpdateAgent(
            host_guid=_GUID,
            node=self.port,
            journal=self.journal,
            link=self.link,
            clock=self.clock,
            policy=self.policy,
            metrics=self.metrics,
        )
        self.agent.resume()

    def boot(self) -> None:
        """Let the machine boot, and start the agent."""
        if isinstance(self.node, ModelABNode):
            self.node.boot_into(self.node.next_entry(), self.node.boot + 1)
        else:
            self.node.come_up(self.node.boot + 1)
        self.start()

    def run(self) -> TickResult:
        """Tick once, and carry out what is pending, through reboots."""
        result = self.agent.tick()
        for _ in range(100):
            if not self.node.running:
                self.boot()
            elif not self.agent.run_pending() and self.node.running:
                return result
        raise AssertionError("goes on for ever")

    @property
    def state(self) -> str:
        """The name of the flow's state, "" before the first update."""
        flow = self.agent.record.flow
        return flow.name if flow is not None else ""

    def reported(self) -> list[str]:
        """Report once more, and return the names of all statuses that were heard."""
        self.agent.tick()
        return self.link.statuses

    def failure_logs(self) -> list[str]:
        """Return what was said of failures, oldest first."""
        details = [parse_detail(status.status_detail) for status in self.link.heard]
        return [entry.failure_log for detail in details if detail is not None for entry in detail.update_log]
