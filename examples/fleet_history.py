"""From a fleet's history to what its picture shows: update runs by phase, how nodes stood, misfortunes, and counts.

What lives here: putting lines of a history together. What never will: how anything looks.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from attrs import define, evolve, field, frozen

from edge_day2 import OSType
from edge_day2.domain.statuses import parse_detail
from edge_day2.testing.simulated_node import HistoryEvent, HistoryKind
from fleet_outcomes import Outcome


class Phase(enum.Enum):
    """What a node is busy with; the value is the legend's word."""

    DOWNLOAD = "downloads"
    INSTALL = "checks, installs"
    STEPS = "other apt steps"
    BOOT = "reboots, trial boot"
    VERIFY = "verifies, commits"
    BACK = "rolls back, records a failure"
    PAUSED = "paused until the next window"
    OFF = "without power"


_STATES: Final[Mapping[Phase, str]] = {
    Phase.DOWNLOAD: "prefetching downloading downloading_packages downloading_upgrade",
    Phase.INSTALL: "checking clearing installing clearing_entry staging_entry arming installing_packages "
    "installing_upgrade",
    Phase.STEPS: "recording updating_sources updating_agent restarting updating_helper updating_kernel_command_line "
    "comparing",
    Phase.BOOT: "rebooting",
    Phase.VERIFY: "verifying committing",
    Phase.BACK: "restoring_default rolling_back settling disarming standing_down recording_failure",
    Phase.PAUSED: "paused",
}
_PHASE_OF: Final = {state: phase for phase, states in _STATES.items() for state in states.split()}
_REBOOTS: Final = frozenset({"rebooting", "rolling_back"})
_OFF: Final = "off"


class Ending(enum.Enum):
    """How a run ended; the value is the flow's state, or a word where it has none."""

    UPDATED = "updated"
    UP_TO_DATE = "up_to_date"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    LOST = "lost"
    FETCHED = "fetched"
    GIVEN_UP = "scheduled"
    OPEN = "open"


_ENDINGS: Final = {ending.value: ending for ending in Ending if ending not in (Ending.LOST, Ending.OPEN)}


class Line(enum.Enum):
    """What the line of a row says between updates; the value is the legend's word."""

    WANTED = "something newer is wanted"
    UPDATED = "updated"
    LOST = "lost"


@frozen(kw_only=True)
class NamedWindow:
    """A maintenance window, and the schedules that it comes from."""

    start: datetime
    end: datetime
    source: str


@frozen(kw_only=True)
class Node:
    """A node as the picture's reader knows it.

    Attributes:
        wanted: when the orchestrator began to want something newer of it.
        windows: when it may be disturbed.
        blackouts: when it may not, whatever is scheduled.
        outcome: how it stands at the end.
    """

    guid: str
    name: str
    tenant: str
    region: str
    site: str
    wanted: tuple[datetime, ...]
    windows: tuple[NamedWindow, ...]
    blackouts: tuple[NamedWindow, ...]
    outcome: Outcome

    @property
    def os_type(self) -> OSType:
        """The kind of its OS."""
        return self.outcome.system.os_type


@frozen(kw_only=True)
class Step:
    """A stretch of time in one phase."""

    start: datetime
    end: datetime
    phase: Phase


@frozen(kw_only=True)
class Run:
    """What a node did from one rest to the next: an update, a try at one, or a download ahead."""

    steps: tuple[Step, ...]
    ending: Ending
    why: str = ""

    @property
    def start(self) -> datetime:
        """When it began."""
        return self.steps[0].start

    @property
    def end(self) -> datetime:
        """When it ended."""
        return self.steps[-1].end


@frozen(kw_only=True)
class Mark:
    """A misfortune: its kind as in `Misfortune`, and what exactly went wrong."""

    at: datetime
    kind: str
    text: str


@frozen(kw_only=True)
class Stretch:
    """A stretch of time in which a node stood in one way."""

    start: datetime
    end: datetime
    line: Line


@frozen(kw_only=True)
class Row:
    """All that happened to one node."""

    node: Node
    runs: tuple[Run, ...]
    marks: tuple[Mark, ...]
    stretches: tuple[Stretch, ...]

    @property
    def updated_at(self) -> datetime | None:
        """When its first update was completed."""
        return next((run.end for run in self.runs if run.ending is Ending.UPDATED), None)


@frozen(kw_only=True)
class Milestone:
    """Something that the orchestrator or an admin did to a tenant."""

    at: datetime
    tenant: str
    text: str


@define
class _Story:
    """Puts the lines of one node together, in their order."""

    end: datetime
    runs: list[Run] = field(factory=list)
    marks: list[Mark] = field(factory=list)
    _steps: list[Step] = field(factory=list)
    _state: str = ""
    _since: datetime | None = None
    _reboots: bool = False
    _why: str = ""

    def take(self, event: HistoryEvent) -> None:
        match event.kind:
            case HistoryKind.STATE:
                self._enter(event.text, event.at)
            case HistoryKind.FAULT:
                self.marks.append(Mark(at=event.at, kind=event.text, text=event.detail))
            case HistoryKind.REPORT if event.text == "FAILED":
                self._explain(event.detail)
            case HistoryKind.LOST:
                self._leave(event.at)
                self._finish(Ending.LOST, "silent since its update began")

    def finish(self) -> None:
        self._leave(self.end)
        self._finish(Ending.OPEN)

    def _enter(self, state: str, at: datetime) -> None:
        before = self._state
        self._leave(at)
        if state == _OFF:
            self._reboots = before in _REBOOTS
        self._state, self._since = state, at
        if (ending := _ENDINGS.get(state)) is not None:
            self._finish(ending)

    def _leave(self, at: datetime) -> None:
        phase = _PHASE_OF.get(self._state)
        if self._state == _OFF:
            phase = Phase.BOOT if self._reboots else Phase.OFF
        start, self._since = self._since, None
        if phase is None or start is None:
            return
        if self._steps and self._steps[-1].phase is phase and self._steps[-1].end == start:
            self._steps[-1] = evolve(self._steps[-1], end=at)
        elif at > start:
            self._steps.append(Step(start=start, end=at, phase=phase))

    def _finish(self, ending: Ending, why: str = "") -> None:
        if self._steps:
            failed = ending in (Ending.FAILED, Ending.ROLLED_BACK)
            self.runs.append(Run(steps=tuple(self._steps), ending=ending, why=self._why if failed else why))
            self._steps.clear()
        self._why = ""

    def _explain(self, detail_text: str) -> None:
        detail = parse_detail(detail_text)
        entry = next(iter(reversed(detail.update_log)), None) if detail is not None else None
        if entry is None:
            return
        why = f"{entry.failure_reason.summary}: {entry.failure_log}"
        # The end of a run is reported by the tick after it.
        if self._steps or not self.runs or self.runs[-1].ending not in (Ending.FAILED, Ending.ROLLED_BACK):
            self._why = why
        else:
            self.runs[-1] = evolve(self.runs[-1], why=why)


def rows_of(nodes: Iterable[Node], history: Iterable[HistoryEvent], end: datetime) -> list[Row]:
    """Return the rows of the picture in the order of `nodes`."""
    stories: dict[str, _Story] = defaultdict(lambda: _Story(end))
    for event in history:
        if event.guid:
            stories[event.guid].take(event)
    found = []
    for node in nodes:
        story = stories[node.guid]
        story.finish()
        row = Row(node=node, runs=tuple(story.runs), marks=tuple(story.marks), stretches=())
        found.append(evolve(row, stretches=tuple(_stretches(row, end))))
    return found


_TURNS: Final[Mapping[Ending, Line | None]] = {
    Ending.UPDATED: Line.UPDATED,
    Ending.LOST: Line.LOST,
    Ending.UP_TO_DATE: None,
}


def _stretches(row: Row, end: datetime) -> Iterable[Stretch]:
    turns: list[tuple[datetime, Line | None]] = [(at, Line.WANTED) for at in row.node.wanted]
    turns += [(run.end, _TURNS[run.ending]) for run in row.runs if run.ending in _TURNS]
    turns.sort(key=lambda turn: turn[0])
    line: Line | None = None
    since, done = end, False
    for at, turn in turns:
        # Nothing to do: an earlier update is still the last one.
        new = turn or (Line.UPDATED if done else None)
        done = done or new is Line.UPDATED
        if new is line:
            continue
        if line is not None and at > since:
            yield Stretch(start=since, end=at, line=line)
        line, since = new, at
    if line is not None and end > since:
        yield Stretch(start=since, end=end, line=line)


def updated_over_time(rows: Sequence[Row], os_type: OSType) -> list[datetime]:
    """Return the instants at which nodes of one kind completed their first update, in order."""
    found = (row.updated_at for row in rows if row.node.os_type is os_type)
    return sorted(at for at in found if at is not None)


def days_of(begin: datetime, end: datetime) -> list[datetime]:
    """Return the midnights between `begin` and `end`."""
    first = begin.replace(hour=0, minute=0, second=0, microsecond=0)
    count = (end - first) // timedelta(days=1) + 1
    return [day for number in range(count + 1) if begin <= (day := first + timedelta(days=number)) < end]
