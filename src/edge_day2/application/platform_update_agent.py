"""The Platform Update Agent: reports to the Maintenance Manager, and takes an update from step to step.

The order is always the same: decide, journal, carry out, feed the event back. The journal holds the flow's state and
the outbox of reports, and is stored as a whole before anything is done, so that a crash at any point is followed by
the same step again, and no report is lost. Only the head of the outbox is sent, again and again until it is answered:
the protocol has no sequence numbers, so doubles are adjacent and harmless.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

from attrs import evolve, frozen

from edge_day2.application.agent_account import AgentAccount
from edge_day2.domain.agent import (
    AgentRecord,
    Situation,
    Update,
    flow_of,
    forgotten,
    held,
    in_progress,
    look,
    next_event,
    next_update,
    recovered_update,
    refusal_reports,
    too_short,
)
from edge_day2.domain.agent_policy import AgentPolicy, WindowClose
from edge_day2.domain.flow import Event, Transition, WindowClosed, WindowOpened, WindowTimedOut
from edge_day2.domain.messages import (
    NodeDescription,
    PlatformUpdateStatusRequest,
    PlatformUpdateStatusResponse,
    UpdateStatus,
)
from edge_day2.domain.node_windows import ClockMemory, ClockState
from edge_day2.domain.resources import UUID
from edge_day2.domain.statuses import StatusDetail, UpdateStatusType
from edge_day2.domain.targets import target_of
from edge_day2.errors import InvalidMessage, InvalidValue, NewerFormat, RequestError, UnreadableState
from edge_day2.ports.clock import Clock
from edge_day2.ports.journal import Journal
from edge_day2.ports.maintenance_link import MaintenanceLink
from edge_day2.ports.metrics import NO_METRICS, Metrics
from edge_day2.ports.node import NodePort

# Reports of a tick beyond those that waited before it.
_MOST_REFUSALS: Final = 4

_IDLE: Final = UpdateStatus(status_type=UpdateStatusType.UP_TO_DATE)


@frozen(kw_only=True)
class TickResult:
    """What one tick did: how many reports the MM answered, and why the next one wasn't ("" where all were)."""

    delivered: int
    problem: str = ""


class _Told(NamedTuple):
    """What the node said of itself, when, and how the last update stood then."""

    at: datetime
    flow: Update | None
    description: NodeDescription


class PlatformUpdateAgent:
    """The agent of one node. Not safe for use from several threads; one node has one agent.

    Call `resume` once after the start, then `tick` periodically, and `run_pending` while it returns True.

    Args:
        host_guid: the node's UUID.
        node: carries out commands (`ImmutableNode` or `MutableNode`).
        journal: the agent's memory.
        link: the way to the Maintenance Manager.
        clock: the time.
        policy: limits and choices.
        metrics: is told of updates and reports.

    Raises:
        InvalidValue: `host_guid` isn't a UUID.
    """

    def __init__(
        self,
        *,
        host_guid: str,
        node: NodePort,
        journal: Journal,
        link: MaintenanceLink,
        clock: Clock,
        policy: AgentPolicy = AgentPolicy(),  # noqa: B008  # frozen
        metrics: Metrics = NO_METRICS,
    ) -> None:
        if UUID.fullmatch(host_guid) is None:
            raise InvalidValue("host_guid", host_guid, "a UUID of 8-4-4-4-12 hex digits")
        self._host_guid = host_guid
        self._node = node
        self._journal = journal
        self._link = link
        self._clock = clock
        self._policy = policy
        self._account = AgentAccount(host_guid, metrics)
        self._record = AgentRecord()
        self._newer_format = ""
        self._journal_read = False
        self._process_ends = False
        self._steady_since: datetime | None = None
        self._read_last: datetime | None = None
        self._told: _Told | None = None

    @property
    def host_guid(self) -> str:
        """The node's UUID."""
        return self._host_guid

    @property
    def record(self) -> AgentRecord:
        """What the journal holds."""
        return self._record

    @property
    def waits_for_restart(self) -> bool:
        """Whether a reboot or a restart of this process is under way: nothing is carried out before `resume`."""
        return self._process_ends

    def resume(self) -> None:
        """Find out where the node is after a start of the agent, and go on from there.

        An unreadable journal is reported, and the node goes on from what can be observed. A newer one is left alone:
        the agent then reports and does nothing else.

        Raises:
            NodeFailure: the node can't be observed; try again later, nothing was done.
            OSError: the journal couldn't be read or stored.
        """
        now = self._clock.now()
        self._process_ends = False
        try:
            self._record = self._usable(self._journal.load() or AgentRecord())
            self._journal_read = True
        except NewerFormat as error:
            self._journal_read = True
            self._newer_format = str(error)
            self._record = AgentRecord(outbox=refusal_reports(AgentRecord(), self._newer_format, now))
            return
        except UnreadableState as error:
            self._account.lost_journal(error)
            flow = recovered_update(self._node.os_type, self._node.observe(now), str(error))
            self._store(AgentRecord(flow=flow, outbox=refusal_reports(AgentRecord(), str(error), now)), now)
            self._journal_read = True
        state = self._record.flow
        if state is None:
            return
        transition = flow_of(state).resume(state, self._node.observe(now))
        if transition.state != state or transition.reports:
            self._enter(transition, now)

    def report(self) -> TickResult:
        """Report to the MM and take its answer as `tick` does; begin nothing, and go on with nothing.

        For an agent whose `resume` raised NodeFailure. Nothing is said as long as the journal couldn't be read.

        Raises:
            OSError: the journal couldn't be stored.
        """
        if not self._journal_read:
            return TickResult(delivered=0, problem="the journal hasn't been read")
        return self._deliver(self._clock.now())

    def tick(self, now: datetime | None = None) -> TickResult:
        """Report to the MM, take its answer, and begin or go on with an update when it is time.

        Without anything new to report the last report is repeated as a sign of life. Reports that can't be delivered
        wait; the node acts on the last answer meanwhile.

        Raises:
            OSError: the journal couldn't be stored.
        """
        now = self._clock.now() if now is None else now
        result = self._deliver(now)
        if not self._newer_format:
            self._begin(now)
            self._interrupt(now)
            self._say_if_too_short(now)
        return result

    def run_pending(self) -> bool:
        """Carry out the one command that is pending; return whether there may be another one.

        Raises:
            OSError: the journal couldn't be stored.
        """
        state = self._record.flow
        if state is None or self._process_ends or self._newer_format:
            return False
        now = self._clock.now()
        if self._interrupt(now):
            return True
        command = flow_of(state).command(state)
        if command is None:
            return False
        event = self._node.carry_out(command, now)
        if event is None:
            self._process_ends = True
            return False
        self._feed(event, self._clock.now())
        # A step that failed and leads to itself is tried again at the next tick, not at once.
        return self._record.flow != state

    def forget_failure(self) -> None:
        """Let a target be tried again that failed or was proven bad.

        Raises:
            OSError: the journal couldn't be stored.
        """
        if not in_progress(self._record):
            self._store(forgotten(self._record), self._clock.now())

    def explain(self) -> str:
        """Return in one sentence what the agent does, or why it does nothing."""
        record, now = self._record, self._clock.now()
        if self._newer_format:
            return f"does nothing: {self._newer_format}"
        if record.refused and not in_progress(record):
            return f"does nothing: the Maintenance Manager's answer was refused: {record.refused}"
        if record.answer is None:
            return "waits for the Maintenance Manager's first answer"
        seen = self._look(now)
        if seen.clock.state is not ClockState.BELIEVED:
            return f"opens no window: the clock says {now:%Y-%m-%d %H:%M}, which is {seen.clock.state.value}"
        if record.flow is not None and in_progress(record):
            doing = record.flow.name.replace("_", " ")
            command = flow_of(record.flow).command(record.flow)
            return f"update in progress: {doing}" if command is not None else f"{doing}: {_explain_window(seen)}"
        if seen.target is None:
            return "not updated: the orchestrator names no desired OS"
        if record.flow is not None and record.flow.data.target == seen.target:
            if reason := held(record, now, self._policy):
                return f"not updated: {reason}"
            if record.flow.name in ("updated", "up_to_date"):
                return f"up to date, {_explain_window(seen)}"
        return too_short(record, seen, self._policy) or _explain_window(seen)

    def _usable(self, record: AgentRecord) -> AgentRecord:
        if record.flow is not None and record.flow.flow != self._node.os_type.name.lower():
            kind = self._node.os_type.name.lower()
            raise UnreadableState(f"the journal tells of an update of an {record.flow.flow} OS, this one is {kind}")
        # What an agent with another policy took may be nothing that this one would take.
        try:
            if record.answer is not None:
                target_of(record.answer, self._node.os_type, self._policy)
        except InvalidMessage:
            return evolve(record, answer=None)
        return record

    def _deliver(self, now: datetime) -> TickResult:
        delivered = 0
        # An answer may add reports of its own once; answers that are refused by turns mustn't keep the agent here.
        most = len(self._record.outbox) + _MOST_REFUSALS
        while True:
            record = self._record
            report = record.outbox[0] if record.outbox else record.last_report or _IDLE
            request = PlatformUpdateStatusRequest(host_guid=self._host_guid, update_status=self._signed(report, now))
            try:
                answer = self._link.platform_update_status(request)
            except RequestError as error:
                self._account.undelivered(error, report.status_type, record)
                return TickResult(delivered=delivered, problem=f"{error.code}: {error}")
            delivered += 1
            taken = evolve(record, outbox=record.outbox[1:], last_report=report)
            self._store(self._take(taken, answer, now), now)
            self._account.delivered(report.status_type, self._record)
            if not self._record.outbox or delivered >= most:
                return TickResult(delivered=delivered)

    def _signed(self, report: UpdateStatus, now: datetime) -> UpdateStatus:
        """Return the report with what the node says of itself; the image that a report names itself counts.

        It is added when a report is sent and never stored: it says what is true now. Where an answer was lost, the
        same report is heard twice, in words that move no update.
        """
        node = self._describe(now)
        image = report if report.os_image_id else node
        return evolve(
            report,
            profile_name=image.profile_name,
            profile_version=image.profile_version,
            os_image_id=image.os_image_id,
            os_update_available=node.os_update_available,
        )

    def _describe(self, now: datetime) -> NodeDescription:
        state, told = self._record.flow, self._told
        # In the middle of an update the node is busy, and what it would say is about to change.
        if told is not None and in_progress(self._record):
            return told.description
        if told is None or told.flow is not state or abs(now - told.at) >= self._policy.describe_every:
            told = self._told = _Told(now, state, self._node.describe())
        return told.description

    def _take(self, record: AgentRecord, answer: PlatformUpdateStatusResponse, now: datetime) -> AgentRecord:
        try:
            target_of(answer, self._node.os_type, self._policy)
        except InvalidMessage as error:
            # Each refusal is said once, and none on top of another that still waits to be said.
            if record.refused == str(error) or (record.refused and record.outbox):
                return record
            self._account.refused(error)
            reports = refusal_reports(record, f"answer refused: {error}", now)
            return evolve(record, refused=str(error), outbox=record.outbox + reports)
        return evolve(record, answer=answer, refused="")

    def _look(self, now: datetime) -> Situation:
        # A jump back may be an error or its correction: from here the clock has to prove itself.
        if self._steady_since is None or self._read_last is None or now < self._read_last:
            self._steady_since = now
        self._read_last = now
        return look(
            self._record,
            now,
            now - self._steady_since,
            host_guid=self._host_guid,
            os_type=self._node.os_type,
            policy=self._policy,
        )

    def _begin(self, now: datetime) -> None:
        seen = self._look(now)
        state = next_update(self._record, seen, self._policy)
        if state is not None:
            before = self._record.flow
            self._store(evolve(self._record, flow=state), now)
            self._account.begun(before, state)

    def _interrupt(self, now: datetime) -> bool:
        state = self._record.flow
        if state is None or not in_progress(self._record):
            return False
        event = next_event(state, self._record, self._look(now), self._policy)
        if event is None:
            return False
        self._feed(event, now)
        return True

    def _say_if_too_short(self, now: datetime) -> None:
        record = self._record
        log = too_short(record, self._look(now), self._policy)
        if not log:
            return
        said = record.outbox[-1] if record.outbox else record.last_report or _IDLE
        told = evolve(said, status_detail=StatusDetail(message=log).to_json())
        if told != said:
            self._store(evolve(record, outbox=(*record.outbox, told)), now)

    def _feed(self, event: Event, now: datetime) -> None:
        state = self._record.flow
        assert state is not None
        if isinstance(event, WindowClosed) and self._policy.window_close is WindowClose.FAIL:
            event = WindowTimedOut(event.at, event.log)
        transition = flow_of(state).step(state, event)
        if isinstance(event, WindowOpened):
            # From here the window counts as begun: an update that ends in it isn't begun once more.
            self._enter(transition, now, self._look(now).clock.memory)
        else:
            self._enter(transition, now)

    def _enter(self, transition: Transition[Any], now: datetime, clock: ClockMemory | None = None) -> None:
        outbox = self._record.outbox + transition.reports
        record = evolve(self._record, flow=transition.state, outbox=outbox)
        self._store(record if clock is None else evolve(record, clock=clock), now)
        self._account.entered(transition.state)

    def _store(self, record: AgentRecord, now: datetime) -> None:
        if record == self._record:
            return
        if not self._newer_format:
            # What the clock was believed at goes into the journal with every change, and makes none by itself.
            latest = self._look(now).clock.memory.latest
            record = evolve(record, clock=evolve(record.clock, latest=latest))
            self._journal.store(record)
        self._record = record


def _explain_window(seen: Situation) -> str:
    if seen.window is not None:
        return "a window is open"
    ahead = seen.schedule.next_window(seen.now)
    return f"waits for the window at {ahead.start:%Y-%m-%d %H:%M} UTC" if ahead else "no window is scheduled"
