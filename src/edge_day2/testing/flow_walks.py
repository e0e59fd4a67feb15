"""Walks through a flow, as the tests of the flows write them down, and the events of the usual ways."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from attrs import define, field

from edge_day2.domain import immutable_events as ab
from edge_day2.domain import mutable_events as apt
from edge_day2.domain.flow import Event, Failure, Flow, FlowState, Transition, WindowOpened
from edge_day2.domain.immutable import IMMUTABLE_FLOW
from edge_day2.domain.immutable_effects import ImmutableUpdate
from edge_day2.domain.messages import UpdateStatus
from edge_day2.domain.mutable import MUTABLE_FLOW
from edge_day2.domain.mutable_effects import MutableUpdate, changes
from edge_day2.domain.observation import BootEntry, Observation, Slot
from edge_day2.domain.schedules import Window
from edge_day2.domain.statuses import FailureReason, StatusDetail, UpdateStatusType, parse_detail


@define
class Walk:
    """Where an update is, what it asks for (a `Command` or None), and all that it reported on the way."""

    flow: Flow[Any]
    state: FlowState[Any]
    command: Any = None
    reports: list[UpdateStatus] = field(factory=list)

    def on(self, *events: Event) -> Self:
        """Take these events."""
        for event in events:
            self._enter(self.flow.step(self.state, event))
        return self

    def restarted(self, seen: Observation) -> Self:
        """Begin the agent again on a node that looks like this."""
        self._enter(self.flow.resume(self.state, seen))
        return self

    def _enter(self, transition: Transition[Any]) -> None:
        self.state, self.command = transition.state, transition.command
        self.reports.extend(transition.reports)

    @property
    def said(self) -> list[str]:
        """The names of the reported statuses, in order."""
        return [report.status_type.name for report in self.reports]

    def detail(self, kind: UpdateStatusType) -> StatusDetail:
        """Return the detail of the last report of this kind."""
        text = next(report.status_detail for report in reversed(self.reports) if report.status_type is kind)
        found = parse_detail(text)
        assert found is not None
        return found


NOW: Final = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
WINDOW: Final = Window(NOW, NOW + timedelta(hours=2))
SLOT_A, SLOT_B = BootEntry(Slot.A), BootEntry(Slot.B)
OLD: Final = ab.Image(profile_name="edge", image_id="3.0.1", sha256="1" * 64, profile_version="3.0.1")
NEW: Final = ab.Image(
    profile_name="edge", image_id="3.0.2", sha256="2" * 64, url="files/edge-3.0.2.raw.gz", profile_version="3.0.2"
)


def failure(reason: FailureReason, log: str = "it broke") -> Failure:
    """Return why a command failed."""
    return Failure(at=NOW, reason=reason, log=log)


def ab_walk(target: ab.ImmutableTarget = ab.ImmutableTarget(image=NEW)) -> Walk:  # noqa: B008  # frozen
    """Return an A/B update that has just begun, of a node that runs `OLD` from slot A."""
    return Walk(IMMUTABLE_FLOW, IMMUTABLE_FLOW.start(ImmutableUpdate(target=target)))


# The way of an A/B update to the state of the name. The first boot is "first", the trial's "second".
AB_CHECKING: Final[tuple[Event, ...]] = (WindowOpened(NOW, WINDOW),)
AB_CLEARING: Final = (*AB_CHECKING, ab.ImagesDiffer(NOW, OLD, Observation(at=NOW, boot_id="first")))
AB_DOWNLOADING: Final = (*AB_CLEARING, ab.TrialCleared(NOW))
AB_INSTALLING: Final = (*AB_DOWNLOADING, ab.ImageDownloaded(NOW))
AB_ARMING: Final = (*AB_INSTALLING, ab.ImageInstalled(NOW))
AB_REBOOTING: Final = (*AB_ARMING, ab.TrialArmed(NOW, "first"))
AB_VERIFYING: Final = (*AB_REBOOTING, ab.TrialBooted(NOW, "second"))
AB_COMMITTING: Final = (*AB_VERIFYING, ab.TrialHealthy(NOW))
AB_UPDATED: Final = (*AB_COMMITTING, ab.TrialCommitted(NOW))
AB_RESTORING_DEFAULT: Final = (*AB_COMMITTING, ab.CommitFailed(NOW, failure(FailureReason.OS_COMMIT_FAIL)))
AB_ROLLING_BACK: Final = (*AB_RESTORING_DEFAULT, ab.DefaultRestored(NOW, "second"))
AB_SETTLING: Final = (*AB_REBOOTING, ab.OriginBooted(NOW, "second", failure(FailureReason.BOOTLOADER_FAIL)))

BEFORE: Final[apt.Packages] = (("agent", "1"), ("libc6", "2.35"))
AFTER: Final[apt.Packages] = (("agent", "2"), ("curl", "7.81"), ("libc6", "2.35"))
PLAN: Final[apt.Packages] = (("curl", "7.81"),)
UPGRADE: Final[apt.Packages] = ()
SNAPSHOT: Final = apt.Snapshot(identifier="7", packages="fingerprint")


def apt_walk(target: apt.PackageTarget = apt.PackageTarget(update_packages=("curl",))) -> Walk:  # noqa: B008  # frozen
    """Return an apt update that has just begun, of a node on which `BEFORE` is installed."""
    return Walk(MUTABLE_FLOW, MUTABLE_FLOW.start(MutableUpdate(target=target)))


# The way of an apt update to the state of the name, in the boot "first".
APT_RECORDING: Final[tuple[Event, ...]] = (WindowOpened(NOW, WINDOW),)
APT_UPDATING_SOURCES: Final = (*APT_RECORDING, apt.PackagesRecorded(NOW, BEFORE))
APT_UPDATING_AGENT: Final = (*APT_UPDATING_SOURCES, apt.SourcesUpdated(NOW))
APT_RESTARTING: Final = (*APT_UPDATING_AGENT, apt.AgentUpdated(NOW))
APT_TAKING_SNAPSHOT: Final = (*APT_RESTARTING, apt.AgentRestarted(NOW))
APT_UPDATING_HELPER: Final = (*APT_TAKING_SNAPSHOT, apt.SnapshotSkipped(NOW))
APT_UPDATING_COMMAND_LINE: Final = (*APT_UPDATING_HELPER, apt.HelperUpdated(NOW))
APT_DOWNLOADING_PACKAGES: Final = (*APT_UPDATING_COMMAND_LINE, apt.KernelCommandLineCurrent(NOW))
APT_INSTALLING_PACKAGES: Final = (*APT_DOWNLOADING_PACKAGES, apt.PackagesDownloaded(NOW, PLAN))
APT_DOWNLOADING_UPGRADE: Final = (*APT_INSTALLING_PACKAGES, apt.PackagesInstalled(NOW))
APT_INSTALLING_UPGRADE: Final = (*APT_DOWNLOADING_UPGRADE, apt.UpgradeDownloaded(NOW, UPGRADE))
APT_COMPARING: Final = (*APT_INSTALLING_UPGRADE, apt.UpgradeInstalled(NOW))
APT_REBOOTING: Final = (*APT_COMPARING, apt.ChangesFound(NOW, changes(BEFORE, AFTER, NOW), "first"))
APT_VERIFYING: Final = (*APT_REBOOTING, apt.NodeRebooted(NOW))
APT_UPDATED: Final = (*APT_VERIFYING, apt.UpdateVerified(NOW))
