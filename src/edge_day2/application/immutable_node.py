"""Carries out the commands of the A/B flow through the ports. It decides nothing: every outcome is an event."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from attrs import field, frozen

from edge_day2.domain import immutable_events as ev
from edge_day2.domain.flow import WINDOW_CLOSED, Command, Event, FailedEvent, Failure, WindowClosed
from edge_day2.domain.immutable_events import Image
from edge_day2.domain.log_fields import log_fields
from edge_day2.domain.messages import NodeDescription
from edge_day2.domain.observation import BootEntry, Observation
from edge_day2.domain.resources import OSType
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.bootloader import BootloaderPort
from edge_day2.ports.failures import Interrupted, NodeFailure, OutOfTime
from edge_day2.ports.health import HealthPort
from edge_day2.ports.slots import SlotPort
from edge_day2.ports.system import SystemPort

_log: Final = logging.getLogger(__name__)

# What a command's failure is called, and the reason where the port gave none.
_FAILURES: Final[Mapping[type[Command], tuple[type[FailedEvent], FailureReason]]] = {
    ev.PrefetchImage: (ev.FetchFailed, FailureReason.DOWNLOAD_FAIL),
    ev.CompareImages: (ev.ComparisonFailed, FailureReason.UNSPECIFIED),
    ev.ClearTrial: (ev.ClearingFailed, FailureReason.BOOTLOADER_FAIL),
    ev.DownloadImage: (ev.DownloadFailed, FailureReason.DOWNLOAD_FAIL),
    ev.InstallImage: (ev.InstallationFailed, FailureReason.INSTALLATION_FAIL),
    ev.StageKernelCommandLine: (ev.InstallationFailed, FailureReason.UT_BOOT_CONFIGURATION),
    ev.ArmTrial: (ev.ArmingFailed, FailureReason.BOOTLOADER_FAIL),
    ev.RebootIntoTrial: (ev.RebootFailed, FailureReason.BOOTLOADER_FAIL),
    ev.VerifyTrial: (ev.TrialUnhealthy, FailureReason.CRITICAL_SERVICES),
    ev.CommitTrial: (ev.CommitFailed, FailureReason.OS_COMMIT_FAIL),
    ev.RestoreDefault: (ev.RestoreFailed, FailureReason.BOOTLOADER_FAIL),
    ev.RebootIntoOrigin: (ev.RebootFailed, FailureReason.BOOTLOADER_FAIL),
}


@frozen(kw_only=True)
class ImmutableNode:
    """An A/B node, made of its ports."""

    slots: SlotPort
    bootloader: BootloaderPort
    health: HealthPort
    system: SystemPort
    os_type: OSType = field(default=OSType.IMMUTABLE, init=False)

    def observe(self, at: datetime) -> Observation:
        """See `NodePort.observe`."""
        try:
            boot, boot_id = self.bootloader.state(), self.system.boot_id()
        except NodeFailure:
            raise
        except Exception as error:  # whatever an adapter does, the agent goes on reporting
            raise NodeFailure(FailureReason.UNSPECIFIED, f"{type(error).__name__}: {error}") from error
        return Observation(
            at=at,
            boot_id=boot_id,
            active=boot.active,
            default=boot.default,
            one_shot=boot.one_shot,
            trial_evidence=boot.trial_evidence,
        )

    def describe(self) -> NodeDescription:
        """See `NodePort.describe`."""
        try:
            image = self.slots.running_image()
        except Exception:  # whatever an adapter does, the report goes out
            _log.exception("the running image can't be told", extra=log_fields(event="node_unknown"))
            return NodeDescription()
        return NodeDescription(
            profile_name=image.profile_name, profile_version=image.profile_version, os_image_id=image.image_id
        )

    def carry_out(self, command: Command, at: datetime) -> Event | None:
        """See `NodePort.carry_out`."""
        if type(command) not in _FAILURES:
            raise TypeError(f"not a command of the immutable flow: {command!r}")
        try:
            return self._carry_out(command, at)
        except Interrupted:
            # The agent is about to end. The command stays pending, and is carried out again after the next start.
            return None
        except OutOfTime as error:
            if command.disruptive:
                return WindowClosed(at, f"{WINDOW_CLOSED} ({error})" if str(error) else WINDOW_CLOSED)
            # What doesn't depend on the window can't be paused by it.
            event, reason = _FAILURES[type(command)]
            return event(at, Failure(at=at, reason=reason, log=str(error) or "out of time"))
        except NodeFailure as error:
            event, _ = _FAILURES[type(command)]
            conclusive = error.conclusive or event is ev.TrialUnhealthy
            # Whatever keeps the boot loader from it, the description calls it a failed commit.
            reason = FailureReason.OS_COMMIT_FAIL if event is ev.CommitFailed else error.reason
            return event(at, Failure(at=at, reason=reason, log=error.log, conclusive=conclusive))
        except Exception as error:  # whatever an adapter does, the node must find its way back
            _log.exception("%s", command, extra=log_fields(event="command_failed", command=type(command).__name__))
            event, reason = _FAILURES[type(command)]
            return event(at, Failure(at=at, reason=reason, log=f"{type(error).__name__}: {error}"))

    def _carry_out(self, command: Command, at: datetime) -> Event | None:
        match command:
            case ev.PrefetchImage(image):
                if not _same(self.slots.running_image(), image):
                    self.slots.prefetch(image)
                return ev.ImageFetched(at)
            case ev.CompareImages():
                return self._compare(command, at)
            case ev.ClearTrial(origin, trial):
                self.bootloader.disarm()
                self._refuse_running_entry(trial)
                if self.bootloader.state().default != origin:
                    raise NodeFailure(FailureReason.BOOTLOADER_FAIL, f"{origin} isn't the default boot entry")
                self.bootloader.remove_entry(trial)
                return ev.TrialCleared(at)
            case ev.DownloadImage(image, trial, window):
                self._refuse_running_slot(trial)
                self.slots.write(image, trial.slot, window.end)
                return ev.ImageDownloaded(at)
            case ev.InstallImage(image, trial, kernel_command_line):
                self.slots.verify(image, trial.slot)
                self.bootloader.write_entry(trial, kernel_command_line)
                return ev.ImageInstalled(at)
            case ev.StageKernelCommandLine(trial, kernel_command_line):
                self.bootloader.write_entry(trial, kernel_command_line)
                return ev.ImageInstalled(at)
            case ev.ArmTrial(trial):
                self.bootloader.arm(trial)
                return ev.TrialArmed(at, self.system.boot_id())
            case ev.VerifyTrial():
                self._verify(command)
                return ev.TrialHealthy(at)
            case ev.CommitTrial(trial):
                if (active := self.bootloader.state().active) != trial:
                    raise NodeFailure(FailureReason.OS_COMMIT_FAIL, f"{active} runs instead of the trial {trial}")
                self.bootloader.set_default(trial)
                return ev.TrialCommitted(at)
            case ev.RestoreDefault(origin):
                self.bootloader.set_default(origin)
                self.bootloader.disarm()
                return ev.DefaultRestored(at, self.system.boot_id())
            case ev.RebootIntoTrial() | ev.RebootIntoOrigin():
                self.system.reboot()
                return None
            case _:
                raise AssertionError(command)

    def _compare(self, command: ev.CompareImages, at: datetime) -> Event:
        running = self.slots.running_image()
        seen = self.observe(at)
        if seen.active != seen.default:
            return ev.TrialRunning(at, running, seen)
        wanted = command.target.image
        if wanted is not None and not _same(running, wanted):
            if running.profile_name and running.profile_name != wanted.profile_name:
                log = f"profile {wanted.profile_name!r} doesn't fit a node of profile {running.profile_name!r}"
                raise NodeFailure(FailureReason.UNSPECIFIED, log, conclusive=True)
            return ev.ImagesDiffer(at, running, seen)
        kernel_command_line = command.target.kernel_command_line
        if kernel_command_line and kernel_command_line != self.bootloader.kernel_command_line():
            return ev.KernelCommandLineDiffers(at, running, seen)
        return ev.ImagesEqual(at, running)

    def _verify(self, command: ev.VerifyTrial) -> None:
        found: Image | str | BootEntry = self.bootloader.state().active
        if found != command.trial:
            raise NodeFailure(FailureReason.BOOTLOADER_FAIL, f"{found} runs instead of the trial {command.trial}")
        if (wanted := command.target.image) is not None:
            found = self.slots.running_image()
            if not _same(found, wanted):
                log = f"the trial runs image {found.image_id}, {wanted.image_id} was installed"
                raise NodeFailure(FailureReason.OS_COMMIT_FAIL, log)
        found = self.bootloader.kernel_command_line()
        if command.target.kernel_command_line not in ("", found):
            log = f"the trial has kernel command line {found!r}, {command.target.kernel_command_line!r} was installed"
            raise NodeFailure(FailureReason.UT_BOOT_CONFIGURATION, log)
        self.health.check()

    # The flow never asks for either; what runs is worth a second look all the same.
    def _refuse_running_entry(self, trial: BootEntry) -> None:
        if self.bootloader.state().active == trial:
            raise NodeFailure(FailureReason.INSTALLATION_FAIL, f"{trial} is the running boot entry")

    def _refuse_running_slot(self, trial: BootEntry) -> None:
        boot = self.bootloader.state()
        if trial.slot in (boot.active.slot, boot.default.slot):
            log = f"slot {trial.slot.value} is in use: {boot.active} runs, {boot.default} is the default"
            raise NodeFailure(FailureReason.INSTALLATION_FAIL, log)


def _same(running: Image, wanted: Image) -> bool:
    """Return whether what runs is what is wanted: version and digest.

    A running system doesn't know the digest of the file that it came from. Where nobody noted it (a node fresh from
    provisioning) the version alone counts: otherwise each such node would install its own image once more.
    """
    return running.image_id == wanted.image_id and running.sha256 in ("", wanted.sha256)
