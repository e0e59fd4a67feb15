"""Carries out the commands of the apt flow through the ports. It decides nothing: every outcome is an event."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from attrs import asdict, field, frozen

from edge_day2.domain import mutable_events as ev
from edge_day2.domain.flow import WINDOW_CLOSED, Command, Event, Failure, WindowClosed
from edge_day2.domain.log_fields import log_fields
from edge_day2.domain.messages import NodeDescription
from edge_day2.domain.mutable_effects import changes, fingerprint
from edge_day2.domain.mutable_events import Packages, Snapshot
from edge_day2.domain.observation import Observation, PackageDatabase
from edge_day2.domain.resources import OSType
from edge_day2.domain.statuses import FailureReason, UpdateLogEntry, UpdateType
from edge_day2.ports.apt import AptPort
from edge_day2.ports.apt_sources import AptSourcesPort
from edge_day2.ports.failures import Interrupted, NodeFailure, OutOfTime, PackageDatabaseInterrupted
from edge_day2.ports.grub import GrubPort
from edge_day2.ports.health import HealthPort
from edge_day2.ports.snapshots import SnapshotPort
from edge_day2.ports.system import SystemPort

_log: Final = logging.getLogger(__name__)

# A database that is interrupted again after this many repairs won't be mended by one more.
MAX_REPAIRS: Final = 10
# Nor do more reboots lead back to a snapshot that this many didn't lead back to.
MAX_ROLLBACKS: Final = 3
# What the Maintenance Manager is told of available updates, in characters: a report has to fit into one message.
MAX_AVAILABLE: Final = 100_000
# What goes into a failure's log, in characters; the end of it, where tools say what went wrong.
MAX_LOG: Final = 8_000

# Where the port gave no reason.
_REASONS: Final[Mapping[type[Command], FailureReason]] = {
    ev.RepairPackages: FailureReason.UPDATE_TOOL,
    ev.RecordPackages: FailureReason.UPDATE_TOOL,
    ev.UpdateAptSources: FailureReason.DOWNLOAD_FAIL,
    ev.UpdateAgent: FailureReason.UPDATE_TOOL,
    ev.RestartAgent: FailureReason.UPDATE_TOOL,
    ev.TakeSnapshot: FailureReason.UPDATE_TOOL,
    ev.UpdateHelper: FailureReason.INBM,
    ev.SetKernelCommandLine: FailureReason.UT_BOOT_CONFIGURATION,
    ev.DownloadPackages: FailureReason.DOWNLOAD_FAIL,
    ev.InstallPackages: FailureReason.UPDATE_TOOL,
    ev.DownloadUpgrade: FailureReason.DOWNLOAD_FAIL,
    ev.InstallUpgrade: FailureReason.UPDATE_TOOL,
    ev.ComparePackages: FailureReason.UPDATE_TOOL,
    ev.RebootNode: FailureReason.UPDATE_TOOL,
    ev.VerifyUpdate: FailureReason.CRITICAL_SERVICES,
    ev.RecordFailure: FailureReason.UPDATE_TOOL,
    ev.RollBack: FailureReason.UPDATE_TOOL,
    ev.RebootIntoSnapshot: FailureReason.UPDATE_TOOL,
    ev.RecordRollback: FailureReason.UPDATE_TOOL,
}


@frozen(kw_only=True)
class MutableNode:
    """A node that apt updates, made of its ports. Without `snapshots` there is no way back after the reboot."""

    apt: AptPort
    apt_sources: AptSourcesPort
    grub: GrubPort
    health: HealthPort
    system: SystemPort
    snapshots: SnapshotPort | None = None
    os_type: OSType = field(default=OSType.MUTABLE, init=False)

    def observe(self, at: datetime) -> Observation:
        """See `NodePort.observe`."""
        try:
            return Observation(at=at, boot_id=self.system.boot_id(), packages=self.apt.state())
        except NodeFailure:
            raise
        except Exception as error:  # whatever an adapter does, the agent goes on reporting
            raise NodeFailure(FailureReason.UNSPECIFIED, f"{type(error).__name__}: {error}") from error

    def describe(self) -> NodeDescription:
        """See `NodePort.describe`. What is upgradable is said as the original says it; the list may be cut short."""
        try:
            upgradable = self.apt.upgradable()
        except Exception:  # whatever an adapter does, the report goes out
            _log.exception("the available updates can't be told", extra=log_fields(event="node_unknown"))
            return NodeDescription()
        entries, length = [], 2
        for update in upgradable:
            entries.append(entry := json.dumps(asdict(update)))
            length += len(entry) + 2
            if length > MAX_AVAILABLE:
                entries.pop()
                break
        return NodeDescription(os_update_available=f"[{', '.join(entries)}]" if entries else "")

    def carry_out(self, command: Command, at: datetime) -> Event | None:
        """See `NodePort.carry_out`."""
        if type(command) not in _REASONS:
            raise TypeError(f"not a command of the mutable flow: {command!r}")
        try:
            return self._carry_out(command, at)
        except Interrupted:
            # The agent is about to end. The command stays pending, and is carried out again after the next start.
            return None
        except OutOfTime as error:
            if _pausable(command):
                return WindowClosed(at, f"{WINDOW_CLOSED} ({error})" if str(error) else WINDOW_CLOSED)
            # What is needed whatever the window says can't be paused by it.
            return _failed(command, at, FailureReason.UPDATE_TOOL, str(error) or "out of time")
        except PackageDatabaseInterrupted as error:
            if type(command) in _NOT_REPAIRED:
                return _failed(command, at, FailureReason.UPDATE_TOOL, str(error) or "dpkg was interrupted")
            return ev.PackagesInterrupted(at)
        except NodeFailure as error:
            return _failed(command, at, error.reason, error.log)
        except Exception as error:  # whatever an adapter does, the node must say what happened
            _log.exception("%s", command, extra=log_fields(event="command_failed", command=type(command).__name__))
            return _failed(command, at, _REASONS[type(command)], f"{type(error).__name__}: {error}")

    def _carry_out(self, command: Command, at: datetime) -> Event | None:
        match command:
            case ev.RepairPackages(attempt, window):
                if attempt > MAX_REPAIRS:
                    log = f"the package database was interrupted {attempt} times in this update"
                    raise NodeFailure(FailureReason.UPDATE_TOOL, log)
                return ev.PackagesRepaired(at, self.apt.repair(window.end if window is not None else None))
            case ev.RecordPackages():
                if self.apt.state() is PackageDatabase.INTERRUPTED:
                    return ev.PackagesInterrupted(at)
                return ev.PackagesRecorded(at, self.apt.installed())
            case ev.UpdateAptSources(sources, window):
                self.apt_sources.replace(sources, window.end)
                return ev.SourcesUpdated(at)
            case ev.UpdateAgent(window):
                return ev.AgentUpdated(at) if self.apt.upgrade_agent(window.end) else ev.AgentCurrent(at)
            case ev.RestartAgent():
                self.system.restart_agent()
                return None
            case ev.TakeSnapshot():
                return self._take_snapshot(command, at)
            case ev.UpdateHelper(window):
                self.apt.upgrade_helper(window.end)
                return ev.HelperUpdated(at)
            case ev.SetKernelCommandLine(kernel_command_line):
                if kernel_command_line and self.grub.set_kernel_command_line(kernel_command_line):
                    return ev.KernelCommandLineUpdated(at)
                return ev.KernelCommandLineCurrent(at)
            case ev.DownloadPackages(packages, window):
                return ev.PackagesDownloaded(at, self.apt.download(packages, window.end) if packages else ())
            case ev.InstallPackages(packages, plan, window):
                if packages:
                    self.apt.install(packages, plan, window.end)
                return ev.PackagesInstalled(at)
            case ev.DownloadUpgrade(window):
                return ev.UpgradeDownloaded(at, self.apt.download_upgrade(window.end))
            case ev.InstallUpgrade(plan, window):
                self.apt.install_upgrade(plan, window.end)
                return ev.UpgradeInstalled(at)
            case ev.ComparePackages():
                return self._compare(command, at)
            case ev.RebootNode() | ev.RebootIntoSnapshot():
                self.system.reboot()
                return None
            case ev.VerifyUpdate():
                self._verify(command)
                return ev.UpdateVerified(at)
            case ev.RecordFailure(before):
                return self._record_failure(before, at) if before else ev.FailureRecorded(at, (), "")
            case ev.RollBack() | ev.RecordRollback():
                return self._roll_back(command, at)
            case _:
                raise AssertionError(command)

    def _take_snapshot(self, command: ev.TakeSnapshot, at: datetime) -> Event:
        if self.snapshots is None:
            return ev.SnapshotSkipped(at)
        installed = self.apt.installed()
        if command.stale:
            self.snapshots.discard(command.stale)
        identifier = self.snapshots.take(command.label)
        return ev.SnapshotTaken(at, Snapshot(identifier=identifier, packages=fingerprint(installed)))

    def _record_failure(self, before: Packages, at: datetime) -> Event:
        boot_id = self.system.boot_id()
        try:
            log = changes(before, self.apt.installed(), at)
        except (NodeFailure, PackageDatabaseInterrupted):
            return ev.FailureRecorded(at, (), boot_id, untold=True)
        return ev.FailureRecorded(at, log, boot_id if log else "")

    def _roll_back(self, command: ev.RollBack | ev.RecordRollback, at: datetime) -> Event:
        if isinstance(command, ev.RecordRollback):
            installed = self.apt.installed()
            if fingerprint(installed) != command.snapshot.packages:
                log = f"the node came up with other packages than snapshot {command.snapshot.identifier} has"
                raise NodeFailure(FailureReason.UPDATE_TOOL, log)
            return ev.RollbackRecorded(at, changes(command.before, installed, at))
        if self.snapshots is None or command.attempt > MAX_ROLLBACKS:
            log = f"snapshot {command.snapshot.identifier} wasn't reached in {command.attempt - 1} tries"
            return ev.RollbackExhausted(at, Failure(at=at, reason=FailureReason.UPDATE_TOOL, log=log))
        self.snapshots.roll_back(command.snapshot.identifier)
        return ev.RollbackPrepared(at, self.system.boot_id())

    def _compare(self, command: ev.ComparePackages, at: datetime) -> Event:
        found = changes(command.before, self.apt.installed(), at)
        boot_id = self.system.boot_id()
        reasons = []
        if command.kernel_command_line_changed or self._missing_parameters(command.kernel_command_line):
            reasons.append("kernel command line")
        if not found and command.owed_boot_id == boot_id:
            reasons.append("reboot after packages that an earlier update changed")
        found += tuple(
            UpdateLogEntry(package_name=reason, update_time=at, update_type=UpdateType.CONFIGURATION)
            for reason in reasons
        )
        return ev.ChangesFound(at, found, boot_id) if found else ev.NothingChanged(at)

    def _verify(self, command: ev.VerifyUpdate) -> None:
        if self.apt.state() is PackageDatabase.INTERRUPTED:
            raise PackageDatabaseInterrupted
        self._check_versions(command)
        running, newest = self.system.kernel_release(), self.apt.newest_kernel()
        if newest and running != newest:
            log = f"kernel {running} runs after the reboot, {newest} is the newest that is installed"
            raise NodeFailure(FailureReason.BOOTLOADER_FAIL, log)
        if missing := self._missing_parameters(command.target.kernel_command_line):
            raise NodeFailure(
                FailureReason.UT_BOOT_CONFIGURATION,
                f"the kernel runs without {' '.join(missing)}, its command line is "
                f"{self.grub.running_kernel_command_line()!r}",
            )
        self.health.check()

    def _check_versions(self, command: ev.VerifyUpdate) -> None:
        versions = dict(self.apt.installed())
        for name, version in command.plan:
            if (found := versions.get(name, "nothing")) != version:
                log = f"{name}: found {found} after the reboot, {version} was planned"
                raise NodeFailure(FailureReason.UPDATE_TOOL, log)
        for entry in command.update_log:
            found = versions.get(entry.package_name, "nothing")
            if entry.update_type is not UpdateType.CONFIGURATION and found != entry.version:
                log = f"{entry.package_name}: found {found} after the reboot, {entry.version} was installed"
                raise NodeFailure(FailureReason.UPDATE_TOOL, log)

    def _missing_parameters(self, kernel_command_line: str) -> list[str]:
        running = self.grub.running_kernel_command_line().split() if kernel_command_line else []
        return [parameter for parameter in kernel_command_line.split() if parameter not in running]


# Where an interrupted package database is part of the failure, not a reason to repair it.
_NOT_REPAIRED: Final = frozenset({ev.RepairPackages, ev.RecordFailure, ev.RollBack, ev.RecordRollback})


def _pausable(command: Command) -> bool:
    return command.disruptive and not (isinstance(command, ev.RepairPackages) and command.window is None)


def _failed(command: Command, at: datetime, reason: FailureReason, log: str) -> Event:
    failure = Failure(at=at, reason=reason, log=log[-MAX_LOG:])
    match command:
        case ev.RecordFailure(before):
            return ev.FailureRecorded(at, (), "", untold=bool(before))
        case ev.RollBack(_, attempt) if attempt >= MAX_ROLLBACKS:
            return ev.RollbackExhausted(at, failure)
        case ev.RollBack() | ev.RebootIntoSnapshot() | ev.RecordRollback():
            return ev.RollbackFailed(at, failure)
        case ev.VerifyUpdate() | ev.RepairPackages() if command.snapshot is not None:
            return ev.RollbackDue(at, failure)
        case ev.VerifyUpdate():
            return ev.VerificationFailed(at, failure)
        case _:
            return ev.StepFailed(at, failure)
