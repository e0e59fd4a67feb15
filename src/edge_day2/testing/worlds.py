"""The worlds of an exploration: a node, its journal, what the MM heard, what the outside wants; and scenarios of them.

A world is plain data that can be copied and compared. How one leads to the next is in `exploration.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, Generic, TypeVar

from attrs import define

from edge_day2.domain.agent import AgentRecord, Update
from edge_day2.domain.agent_policy import AgentPolicy
from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse, UpdateSchedule
from edge_day2.domain.schedules import SingleSchedule
from edge_day2.domain.statuses import EntryStatus, UpdateStatusType, parse_detail
from edge_day2.errors import Unavailable, UnreadableState
from edge_day2.ports.node import NodePort
from edge_day2.testing.faults import CHANGE, STORE, Calls
from edge_day2.testing.model_nodes import ModelNode, Violation

NOW: Final = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

M = TypeVar("M", bound=ModelNode)

# What the MM has heard of one update: the grammar of DESIGN is a walk through these.
_WORDS: Final[dict[tuple[str, UpdateStatusType], str]] = {
    ("", UpdateStatusType.DOWNLOADING): "downloading",
    ("", UpdateStatusType.STARTED): "started",
    ("", UpdateStatusType.UP_TO_DATE): "up to date",
    ("downloading", UpdateStatusType.DOWNLOADING): "downloading",
    ("downloading", UpdateStatusType.DOWNLOADED): "downloading",
    ("downloading", UpdateStatusType.STARTED): "started",
    ("downloading", UpdateStatusType.UP_TO_DATE): "up to date",
    ("started", UpdateStatusType.STARTED): "started",
    ("started", UpdateStatusType.UP_TO_DATE): "up to date",
    ("started", UpdateStatusType.FAILED): "failed",
    ("started", UpdateStatusType.UPDATED): "updated",
    ("updated", UpdateStatusType.UPDATED): "updated",
    ("updated", UpdateStatusType.UP_TO_DATE): "up to date",
    ("failed", UpdateStatusType.FAILED): "failed",
    ("up to date", UpdateStatusType.UP_TO_DATE): "up to date",
}
ENDS_OF_A_WORD: Final = frozenset({"", "failed", "up to date"})


@define(kw_only=True)
class World(Generic[M]):
    """An agent's journal, its node, what the MM heard, and what the outside wants."""

    node: M
    record: AgentRecord = AgentRecord()
    up: bool = True
    window_open: bool = True
    target: int | None = 0
    heard: str = ""
    heard_rolled_back: bool = False
    heard_updated: bool = False
    told: frozenset[tuple[str, str]] = frozenset()
    begun: bool = False
    journal_lost: bool = False
    losses: int = 0
    faults: int = 0
    changes: int = 0

    def key(self) -> tuple[object, ...]:
        """Return everything that distinguishes this world from another."""
        return (
            self.node.key(), self.record, self.up, self.window_open, self.target, self.heard, self.heard_rolled_back,
            self.heard_updated, self.told, self.begun, self.journal_lost, self.losses, self.faults, self.changes,
        )  # fmt: skip


class Scenario(ABC, Generic[M]):
    """A kind of node, where it begins, what the orchestrator may want of it, and how it boots."""

    name: str
    policy: AgentPolicy

    @abstractmethod
    def begin(self) -> M:
        """Return the node before the update."""

    @abstractmethod
    def wrap(self, node: M) -> NodePort:
        """Return the node as the agent drives it."""

    @abstractmethod
    def answer(self, target: int | None, schedule: UpdateSchedule) -> PlatformUpdateStatusResponse:
        """Return the MM's answer when the orchestrator wants its target number `target`."""

    @abstractmethod
    def boot(self, node: M, boot: int) -> Iterator[tuple[M, int, str]]:
        """Yield the node after each way in which the next boot may go, the faults it costs, and its name."""

    def disturbances(self, node: M) -> Iterator[tuple[M, str]]:
        """Yield the node after something that somebody else may do to it while it runs, and its name."""
        yield from ()

    @abstractmethod
    def check(self, node: M, record: AgentRecord) -> None:
        """Complain about what must never be true of node and journal together."""

    @abstractmethod
    def check_end(self, node: M, record: AgentRecord) -> None:
        """Complain about what must not be true where the update has ended."""

    def check_told(self, node: M, ended: Update, told: frozenset[tuple[str, str]]) -> None:
        """Complain where the MM wasn't told of something that is installed now; `told` are (package, version)."""


class WorldJournal:
    """The world's journal: it holds the old record or the new one, or was lost."""

    def __init__(self, world: World[M], calls: Calls) -> None:
        self._world, self._calls = world, calls

    def load(self) -> AgentRecord | None:
        if self._world.journal_lost:
            raise UnreadableState("journal: simulated damage")
        return self._world.record

    def store(self, record: AgentRecord) -> None:
        self._calls.go("store journal", STORE, OSError, lambda: self._replace(record))

    def _replace(self, record: AgentRecord) -> None:
        old = self._world.record.flow
        if record.flow is not None and record.flow.name == "scheduled" and (old is None or not _going(old.name)):
            self._world.begun = True
        self._world.record = record
        self._world.journal_lost = False


def _going(name: str) -> bool:
    return name not in ("updated", "up_to_date", "failed", "rolled_back")


class WorldLink:
    """The way to an MM that listens to the grammar of the reports."""

    def __init__(self, world: World[M], calls: Calls, answer: PlatformUpdateStatusResponse) -> None:
        self._world, self._calls, self._answer = world, calls, answer

    def platform_update_status(self, request: PlatformUpdateStatusRequest) -> PlatformUpdateStatusResponse:
        self._calls.go("report", CHANGE, Unavailable, lambda: self._hear(request))
        return self._answer

    def _hear(self, request: PlatformUpdateStatusRequest) -> None:
        world, status = self._world, request.update_status
        heard = _WORDS.get((world.heard, status.status_type))
        if heard is None and world.begun and world.heard in ENDS_OF_A_WORD:
            world.heard_rolled_back = world.heard_updated = False
            heard = _WORDS.get(("", status.status_type))
        if heard is None:
            raise Violation(f"{status.status_type.name} reported after {world.heard or 'nothing'}")
        world.begun = world.begun and heard in ENDS_OF_A_WORD
        world.heard = heard
        detail = parse_detail(status.status_detail)
        log = detail.update_log if detail is not None else ()
        if any(entry.status is EntryStatus.ROLLED_BACK for entry in log):
            world.heard_rolled_back = True
        world.told |= {(entry.package_name, entry.version) for entry in log if entry.version}
        if status.status_type is UpdateStatusType.UPDATED:
            world.heard_updated = True


class WorldClock:
    """A clock that stands still, since only the window opens and closes; it moves on where a journal is lost.

    What knows nothing of an earlier update happens later than that.
    """

    def __init__(self, world: World[M]) -> None:
        self._world = world

    def now(self) -> datetime:
        return NOW + timedelta(minutes=self._world.losses)


OPEN: Final = UpdateSchedule(
    single_schedule=SingleSchedule(NOW - timedelta(hours=1), NOW + timedelta(hours=1)),
)
SHUT: Final = UpdateSchedule(
    single_schedule=SingleSchedule(NOW + timedelta(hours=1), NOW + timedelta(hours=2)),
)
