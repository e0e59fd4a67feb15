"""A node of a simulated fleet: the real agent on a model of a machine, with luck, and with time that passes."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from attrs import define, frozen

from edge_day2.application.immutable_node import ImmutableNode
from edge_day2.application.mutable_node import MutableNode
from edge_day2.application.platform_update_agent import PlatformUpdateAgent
from edge_day2.domain.agent import AgentRecord, flow_of, joint_schedule
from edge_day2.domain.agent_policy import AgentPolicy
from edge_day2.domain.flow import Command
from edge_day2.domain.immutable_events import DownloadImage, Image, InstallImage, PrefetchImage, VerifyTrial
from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse, UpdateStatus
from edge_day2.domain.mutable_events import (
    DownloadPackages,
    DownloadUpgrade,
    InstallPackages,
    InstallUpgrade,
    RestartAgent,
    UpdateAptSources,
    VerifyUpdate,
)
from edge_day2.domain.resources import OSType
from edge_day2.errors import Unavailable
from edge_day2.ports.maintenance_link import MaintenanceLink
from edge_day2.testing.fault_plan import COMMIT, FaultPlan, Luck, LuckyCalls, Misfortune, TrialBoot
from edge_day2.testing.faults import Fault, PowerCut
from edge_day2.testing.model_apt_node import ModelAptNode
from edge_day2.testing.model_nodes import ModelABNode

# How long commands take, so that a day in the life of a fleet looks like one. Others take seconds.
_MINUTES: Final[Mapping[type[Command], float]] = {
    PrefetchImage: 12,
    DownloadImage: 9,
    InstallImage: 4,
    VerifyTrial: 2,
    UpdateAptSources: 1,
    DownloadPackages: 3,
    InstallPackages: 4,
    DownloadUpgrade: 6,
    InstallUpgrade: 9,
    VerifyUpdate: 2,
    RestartAgent: 0.2,
}
_OTHER_COMMANDS: Final = timedelta(seconds=10)
_BOOT: Final = timedelta(minutes=3)
_AFTER_POWER_CUT: Final = timedelta(minutes=7)
_MISFORTUNES_IN_TRIAL: Final[Mapping[TrialBoot, Misfortune]] = {
    TrialBoot.FALLS_BACK: Misfortune.BAD_IMAGE,
    TrialBoot.POWER_CUT: Misfortune.POWER_CUT_IN_TRIAL,
    TrialBoot.LOST: Misfortune.LOST_NODE,
}
# Of the packages of a mutable node.
_AGENT_PACKAGE: Final = "platform-update-agent"
_HELPER_PACKAGE: Final = "in-band-manageability"


@define
class VirtualClock:
    """A clock that stands until it is set."""

    instant: datetime

    def now(self) -> datetime:
        """See `Clock.now`."""
        return self.instant


class HistoryKind(enum.Enum):
    """What a line of a fleet's history is about, and what its `text` and `detail` are."""

    REPORT = "report"
    """A status type that the Maintenance Manager heard, and the status detail."""
    FAULT = "fault"
    """The value of a `Misfortune`, and what exactly went wrong."""
    BOOT = "boot"
    """How a trial boot went."""
    STATE = "state"
    """The name of the flow's state that the node is in, or "off"."""
    LOST = "lost"
    """The Maintenance Manager recorded the node as lost."""
    ORCHESTRATOR = "orchestrator"
    """What the orchestrator or its admin did."""


@frozen(kw_only=True)
class HistoryEvent:
    """One line of a fleet's history. `guid` is empty where the orchestrator itself did something."""

    at: datetime
    guid: str
    kind: HistoryKind
    text: str
    detail: str = ""


@define
class MemoryJournal:
    """A journal that survives simulated power cuts, being a variable of the test's process."""

    record: AgentRecord | None = None

    def load(self) -> AgentRecord | None:
        """See `Journal.load`."""
        return self.record

    def store(self, record: AgentRecord) -> None:
        """See `Journal.store`."""
        self.record = record


@define
class _UnsteadyLink:
    """Loses reports and answers as luck has it, and notes those that say something new."""

    link: MaintenanceLink
    luck: Luck
    note: Callable[[HistoryKind, str, str], None]
    said: UpdateStatus | None = None

    def platform_update_status(self, request: PlatformUpdateStatusRequest) -> PlatformUpdateStatusResponse:
        fault = self.luck.at_report()
        if fault is not None:
            lost = "the report" if fault is Fault.FAILS else "the answer"
            self.note(
                HistoryKind.FAULT, Misfortune.LOST_REPORT.value, f"{request.update_status.status_type.name}: {lost}"
            )
        if fault is Fault.FAILS:
            raise Unavailable("simulated: the report was lost")
        answer = self.link.platform_update_status(request)
        status = request.update_status
        if status != self.said:
            self.note(HistoryKind.REPORT, status.status_type.name, status.status_detail)
            self.said = status
        if fault is not None:
            raise Unavailable("simulated: the answer was lost")
        return answer


class SimulatedNode:
    """A node with an agent. It lives from one `advance` to the next, which says when the one after it should be.

    Args:
        guid: the node's UUID.
        link: the way to its Maintenance Manager.
        clock: the fleet's clock.
        image: what an immutable node runs at the beginning; None makes the node a mutable one.
        packages: what is installed on a mutable node at the beginning.
        repository: what a mutable node's repositories hold; may be changed while the simulation runs.
        faults: what goes wrong.
        policy: the agent's.
        report_every: the distance of two signs of life.
        on_event: is told of every line of the node's history.
    """

    def __init__(
        self,
        guid: str,
        *,
        link: MaintenanceLink,
        clock: VirtualClock,
        image: Image | None = None,
        packages: Mapping[str, str] | None = None,
        repository: dict[str, str] | None = None,
        faults: FaultPlan = FaultPlan(),  # noqa: B008  # frozen
        policy: AgentPolicy = AgentPolicy(),  # noqa: B008  # frozen
        report_every: timedelta = timedelta(minutes=30),
        on_event: Callable[[HistoryEvent], None] = lambda event: None,
    ) -> None:
        self.guid = guid
        self.lost = False
        self._clock = clock
        self._on_event = on_event
        self._luck = faults.luck_of(guid)
        self._policy = policy
        self._report_every = report_every
        self._boots = 0
        self._noted_state = ""
        self._journal = MemoryJournal()
        self._link = _UnsteadyLink(link, self._luck, self._note)
        # Not every node calls at the window's first second.
        self._spread = timedelta(seconds=int(guid.replace("-", ""), 16) % 600)
        self.machine: ModelABNode | ModelAptNode
        self._node: ImmutableNode | MutableNode
        calls = LuckyCalls(
            luck=self._luck, on_misfortune=self._note_misfortune, special={COMMIT: self._fault_at_commit}
        )
        if image is not None:
            ab = ModelABNode.with_image(image)
            ab.is_well = self._is_well
            self.machine, self._node = ab, ImmutableNode(slots=ab, bootloader=ab, health=ab, system=ab)
        else:
            apt = ModelAptNode(
                packages=dict(packages or {}),
                available=repository if repository is not None else {},
                agent_package=_AGENT_PACKAGE,
                helper_package=_HELPER_PACKAGE,
            )
            self.machine = apt
            self._node = MutableNode(apt=apt, apt_sources=apt, grub=apt, health=apt, system=apt)
        self.machine.calls = calls
        self.agent = self._start_agent()

    @property
    def os_type(self) -> OSType:
        """The kind of OS that the node runs."""
        return self._node.os_type

    @property
    def version(self) -> str:
        """The image id that runs; of a mutable node the number of packages that are the newest there are."""
        if isinstance(self.machine, ModelABNode):
            return self.machine.contents[self.machine.active.slot].image_id
        current = sum(self.machine.available.get(name) == found for name, found in self.machine.packages.items())
        return f"{current} of {len(self.machine.packages)} packages current"

    def advance(self) -> datetime | None:
        """Do what is due now; return when there will be something to do, None where the node is lost for good."""
        now = self._clock.now()
        # What the last command led to: it has taken until now.
        self._note_state()
        try:
            if not self.machine.running and not self._boot():
                return None
            return now + self._work(now)
        except PowerCut:
            self.machine.power_off()
            return now + _AFTER_POWER_CUT
        finally:
            if not self.machine.running:
                self._note_state()

    def _work(self, now: datetime) -> timedelta:
        self.machine.disturbance_allowed = self._window_is_open(now)
        self.agent.tick(now)
        self._note_state()
        self.machine.disturbance_allowed = self._window_is_open(now)
        state = self.agent.record.flow
        command = flow_of(state).command(state) if state is not None else None
        if command is None:
            return self._until_next_visit(now)
        self.agent.run_pending()
        if not self.machine.running:
            return _BOOT
        if isinstance(command, RestartAgent):
            self.agent = self._start_agent()
        return timedelta(minutes=_MINUTES[type(command)]) if type(command) in _MINUTES else _OTHER_COMMANDS

    def _start_agent(self) -> PlatformUpdateAgent:
        agent = PlatformUpdateAgent(
            host_guid=self.guid,
            node=self._node,
            journal=self._journal,
            link=self._link,
            clock=self._clock,
            policy=self._policy,
        )
        agent.resume()
        return agent

    def _window_is_open(self, now: datetime) -> bool:
        answer = self.agent.record.answer
        return answer is not None and joint_schedule(answer.update_schedule).is_open(now)

    def _until_next_visit(self, now: datetime) -> timedelta:
        answer = self.agent.record.answer
        ahead = (
            joint_schedule(answer.update_schedule).next_window(now + timedelta(seconds=1))
            if answer is not None
            else None
        )
        if ahead is None:
            return self._report_every
        return min(self._report_every, ahead.start - now + self._spread)

    def _boot(self) -> bool:
        self._boots += 1
        if isinstance(self.machine, ModelAptNode):
            self.machine.come_up(self._boots)
        elif not self._boot_entry(self.machine):
            return False
        self.agent = self._start_agent()
        return True

    def _boot_entry(self, machine: ModelABNode) -> bool:
        entry = machine.next_entry()
        if entry not in machine.proven:
            image = machine.contents[entry.slot].image_id
            outcome = self._luck.at_trial_boot(image) if machine.bootable(entry) else TrialBoot.FALLS_BACK
            text = f"trial boot of {image} in slot {entry.slot.value}: {outcome.value}"
            self._note(HistoryKind.BOOT, text)
            if outcome in _MISFORTUNES_IN_TRIAL:
                self._note_misfortune(_MISFORTUNES_IN_TRIAL[outcome], text)
            if outcome is TrialBoot.LOST:
                self.lost = True
                return False
            entry = entry if outcome is TrialBoot.COMES_UP else machine.default
        machine.boot_into(entry, self._boots)
        return True

    def _fault_at_commit(self) -> Fault | None:
        state = self.agent.record.flow
        return self._luck.at_commit() if state is not None and state.name == "committing" else None

    def _note(self, kind: HistoryKind, text: str, detail: str = "") -> None:
        self._on_event(HistoryEvent(at=self._clock.now(), guid=self.guid, kind=kind, text=text, detail=detail))

    def _note_misfortune(self, misfortune: Misfortune, detail: str) -> None:
        self._note(HistoryKind.FAULT, misfortune.value, detail)

    def _is_well(self, image: Image) -> bool:
        healthy = self._luck.is_healthy(image.image_id)
        if not healthy:
            self._note_misfortune(Misfortune.UNHEALTHY_IMAGE, f"{image.image_id}: a critical service doesn't start")
        return healthy

    def _note_state(self) -> None:
        state = self.agent.record.flow
        name = "off" if not self.machine.running else state.name if state is not None else ""
        if name != self._noted_state:
            self._noted_state = name
            self._note(HistoryKind.STATE, name)
