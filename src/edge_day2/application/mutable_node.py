"""Carries out the commands of the apt flow through the ports. It decides nothing: every outcome is an event."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from attrs import field, frozen

from edge_day2.domain import mutable_events as ev
from edge_day2.domain.flow import Command, Event, FailedEvent, Failure, WindowClosed
from edge_day2.domain.mutable import changes
from edge_day2.domain.mutable_events import Packages
from edge_day2.domain.observation import Observation, PackageDatabase
from edge_day2.domain.resources import OSType
from edge_day2.domain.statuses import FailureReason, UpdateLogEntry, UpdateType
from edge_day2.ports.apt import AptPort
from edge_day2.ports.apt_sources import AptSourcesPort
from edge_day2.ports.failures import NodeFailure, OutOfTime, PackageDatabaseInterrupted
from edge_day2.ports.grub import GrubPort
from edge_day2.ports.health import HealthPort
from edge_day2.ports.system import SystemPort

_log: Final = logging.getLogger(__name__)

# A database that is interrupted again after this many repairs won't be mended by one more.
MAX_REPAIRS: Final = 10

# Where the port gave no reason.
_REASONS: Final[Mapping[type[Command], FailureReason]] = {
    ev.RepairPackages: FailureReason.UPDATE_TOOL,
    ev.RecordPackages: FailureReason.UPDATE_TOOL,
    ev.UpdateAptSources: FailureReason.DOWNLOAD_FAIL,
    ev.UpdateAgent: FailureReason.UPDATE_TOOL,
    ev.RestartAgent: FailureReason.UPDATE_TOOL,
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
}


@frozen(kw_only=True)
class MutableNode:
    """A node that apt updates, made of its ports."""

    apt: AptPort
    apt_sources: AptSourcesPort
    grub: GrubPort
    health: HealthPort
    system: SystemPort
    os_type: OSType = field(default=OSType.MUTABLE, init=False)

    def observe(self, at: datetime) -> Observation:
        """See `NodePort.observe`."""
        return Observation(at=at, boot_id=self.system.boot_id(), packages=self.apt.state())

    def carry_out(self, command: Command, at: datetime) -> Event | None:
        """See `NodePort.carry_out`."""
        if type(command) not in _REASONS:
            raise TypeError(f"not a command of the mutable flow: {command!r}")
        try:
            return self._carry_out(command, at)
        except OutOfTime as error:
            if command.disruptive and not isinstance(command, ev.RepairPackages):
                return WindowClosed(at)
            # What is needed whatever the window says can't be paused by it.
            return self._failed(command, at, FailureReason.UPDATE_TOOL, str(error) or "out of time")
        except PackageDatabaseInterrupted as error:
            if isinstance(command, ev.RecordFailure):
                return ev.FailureRecorded(at, ())
            if isinstance(command, ev.RepairPackages):
                return ev.StepFailed(at, Failure(at=at, reason=FailureReason.UPDATE_TOOL, log=str(error)))
            return ev.PackagesInterrupted(at)
        except NodeFailure as error:
            return self._failed(command, at, error.reason, error.log)
        except Exception as error:  # whatever an adapter does, the node must say what happened
            _log.exception("%s", command)
            return self._failed(command, at, _REASONS[type(command)], f"{type(error).__name__}: {error}")

    @staticmethod
    def _failed(command: Command, at: datetime, reason: FailureReason, log: str) -> Event:
        if isinstance(command, ev.RecordFailure):
            return ev.FailureRecorded(at, ())
        event: type[FailedEvent] = ev.VerificationFailed if isinstance(command, ev.VerifyUpdate) else ev.StepFailed
        return event(at, Failure(at=at, reason=reason, log=log))

    def _carry_out(self, command: Command, at: datetime) -> Event | None:
        match command:
            case ev.RepairPackages(attempt):
                if attempt > MAX_REPAIRS:
                    log = f"the package database was interrupted {attempt} times in this update"
                    raise NodeFailure(FailureReason.UPDATE_TOOL, log)
                self.apt.repair()
                return ev.PackagesRepaired(at)
            case ev.RecordPackages():
                if self.apt.state() is PackageDatabase.INTERRUPTED:
                    return ev.PackagesInterrupted(at)
                return ev.PackagesRecorded(at, self.apt.installed())
            case ev.UpdateAptSources(sources):
                self.apt_sources.replace(sources)
                return ev.SourcesUpdated(at)
            case ev.UpdateAgent():
                return ev.AgentUpdated(at) if self.apt.upgrade_agent() else ev.AgentCurrent(at)
            case ev.RestartAgent():
                self.system.restart_agent()
                return None
            case ev.UpdateHelper():
                self.apt.upgrade_helper()
                return ev.HelperUpdated(at)
            case ev.SetKernelCommandLine(kernel_command_line):
                if kernel_command_line and self.grub.set_kernel_command_line(kernel_command_line):
                    return ev.KernelCommandLineUpdated(at)
                return ev.KernelCommandLineCurrent(at)
            case ev.DownloadPackages(packages):
                if packages:
                    self.apt.download(packages)
                return ev.PackagesDownloaded(at)
            case ev.InstallPackages(packages):
                if packages:
                    self.apt.install(packages)
                return ev.PackagesInstalled(at)
            case ev.DownloadUpgrade():
                self.apt.download_upgrade()
                return ev.UpgradeDownloaded(at)
            case ev.InstallUpgrade():
                self.apt.install_upgrade()
                return ev.UpgradeInstalled(at)
            case ev.ComparePackages(before, kernel_command_line, changed):
                found = changes(before, self.apt.installed(), at)
                if changed or self._missing_parameters(kernel_command_line):
                    entry = UpdateLogEntry(
                        package_name="kernel command line", update_time=at, update_type=UpdateType.CONFIGURATION
                    )
                    found = (*found, entry)
                return ev.ChangesFound(at, found, self.system.boot_id()) if found else ev.NothingChanged(at)
            case ev.RebootNode():
                self.system.reboot()
                return None
            case ev.VerifyUpdate():
                self._verify(command)
                return ev.UpdateVerified(at)
            case ev.RecordFailure(before):
                return ev.FailureRecorded(at, changes(before, self.apt.installed(), at) if before else ())
            case _:
                raise AssertionError(command)

    def _verify(self, command: ev.VerifyUpdate) -> None:
        if self.apt.state() is PackageDatabase.INTERRUPTED:
            raise PackageDatabaseInterrupted
        _check_versions(command.update_log, self.apt.installed())
        if missing := self._missing_parameters(command.target.kernel_command_line):
            raise NodeFailure(FailureReason.UT_BOOT_CONFIGURATION, f"the kernel runs without {' '.join(missing)}")
        self.health.check()

    def _missing_parameters(self, kernel_command_line: str) -> list[str]:
        running = self.grub.running_kernel_command_line().split() if kernel_command_line else []
        return [parameter for parameter in kernel_command_line.split() if parameter not in running]


def _check_versions(update_log: tuple[UpdateLogEntry, ...], installed: Packages) -> None:
    versions = dict(installed)
    for entry in update_log:
        found = versions.get(entry.package_name, "nothing")
        if entry.update_type is not UpdateType.CONFIGURATION and found != entry.version:
            log = f"{entry.package_name}: found {found} after the reboot, {entry.version} was installed"
            raise NodeFailure(FailureReason.UPDATE_TOOL, log)
