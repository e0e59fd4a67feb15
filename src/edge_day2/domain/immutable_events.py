"""What can happen in, and what can be asked for by, an update of an immutable (A/B) node.

Events carry outcomes, commands carry everything that their execution needs; neither decides anything. The order is in
`immutable.py`.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from edge_day2.domain.flow import Command, Event, FailedEvent, Failure
from edge_day2.domain.observation import BootEntry, Observation
from edge_day2.domain.schedules import Window


@frozen(kw_only=True)
class Image:
    """An OS image. `url` is empty where only the identity of an installed image is meant."""

    profile_name: str
    image_id: str
    sha256: str
    url: str = ""
    profile_version: str = ""


@frozen(kw_only=True)
class ImmutableTarget:
    """What the node should run. `image` None: keep the image; `kernel_command_line` "": keep the command line."""

    image: Image | None = None
    kernel_command_line: str = ""


@frozen
class TargetChanged(Event):
    """The orchestrator wants something else now."""

    target: ImmutableTarget


@frozen
class PrefetchDue(Event):
    """The time to download ahead of the window has come."""


@frozen
class ImageFetched(Event):
    """The image lies on the node, complete and with the right digest."""


@frozen
class FetchFailed(FailedEvent):
    """The download ahead of the window failed; it may be tried again later."""


@frozen
class ImagesEqual(Event):
    """The node runs what it should: image and kernel command line."""

    running: Image


@frozen
class ImagesDiffer(Event):
    """Another image is to be installed. `observation` says where the node stands before the update."""

    running: Image
    observation: Observation


@frozen
class KernelCommandLineDiffers(Event):
    """The image is the right one, the kernel command line isn't."""

    running: Image
    observation: Observation


@frozen
class TrialRunning(Event):
    """The running entry isn't the default one: a trial of which the agent knows nothing (its journal was lost)."""

    running: Image
    observation: Observation


@frozen
class ComparisonFailed(FailedEvent):
    """The node can't say what it runs."""


@frozen
class TrialCleared(Event):
    """No one-shot is armed and the trial entry is gone."""


@frozen
class ClearingFailed(FailedEvent):
    """The trial entry or the one-shot couldn't be removed. Nothing was written to the slot."""


@frozen
class ImageDownloaded(Event):
    """The image is in the inactive slot, with the right digest."""


@frozen
class DownloadFailed(FailedEvent):
    """The image couldn't be fetched, or its digest is wrong. The inactive slot holds anything."""


@frozen
class ImageInstalled(Event):
    """The trial entry is in place and was read back."""


@frozen
class InstallationFailed(FailedEvent):
    """Writing, reading back or making the boot entry failed."""


@frozen
class TrialArmed(Event):
    """The next boot, and that one alone, takes the trial entry. `boot_id` is the boot that this happened in."""

    boot_id: str


@frozen
class ArmingFailed(FailedEvent):
    """Arming failed, or only seemed to: the one-shot may be armed."""


@frozen
class RebootFailed(FailedEvent):
    """The machine refused to reboot."""


@frozen
class TrialBooted(Event):
    """The node came up in the trial entry."""

    boot_id: str


@frozen
class OriginBooted(Event):
    """The node came up, but not in the trial entry. `failure` says why it is thought to have fallen back."""

    boot_id: str
    failure: Failure


@frozen
class OtherEntryBooted(Event):
    """Before arming, the node came up in an entry that isn't the one where the update began."""


@frozen
class TrialHealthy(Event):
    """The trial runs the wanted image and command line, and passed the health checks."""


@frozen
class TrialUnhealthy(FailedEvent):
    """The trial runs something else, or failed a health check."""


@frozen
class TrialCommitted(Event):
    """The trial entry is the default."""


@frozen
class CommitFailed(FailedEvent):
    """The commit failed, or only seemed to: the trial entry may be the default."""


@frozen
class DefaultRestored(Event):
    """The entry where the update began is the default, and no one-shot is armed. `boot_id`: the present boot."""

    boot_id: str


@frozen
class RestoreFailed(FailedEvent):
    """The default couldn't be restored. It is tried again: a node must not be left between two entries."""


@frozen
class RollbackExhausted(Event):
    """The node came up in the trial entry again, although it was told to go back, once too often."""

    boot_id: str
    failure: Failure


@frozen
class PrefetchImage(Command):
    """Download the image ahead of the window, to a place that isn't a slot."""

    image: Image


@frozen
class CompareImages(Command):
    """Say whether running image and kernel command line are the wanted ones, and where the node stands."""

    target: ImmutableTarget


@frozen
class ClearTrial(Command):
    """Disarm any one-shot, then remove the trial entry. `origin` must be active and default."""

    disruptive: ClassVar[bool] = True
    origin: BootEntry
    trial: BootEntry


@frozen
class DownloadImage(Command):
    """Bring the image into the trial's slot, and check its digest. Gives up when the window closes."""

    disruptive: ClassVar[bool] = True
    image: Image
    trial: BootEntry
    window: Window


@frozen
class InstallImage(Command):
    """Make the slot bootable: read it back, write the trial entry, flush. `kernel_command_line` "": as now."""

    disruptive: ClassVar[bool] = True
    image: Image
    trial: BootEntry
    kernel_command_line: str


@frozen
class StageKernelCommandLine(Command):
    """Write the trial entry: the running image with another kernel command line."""

    disruptive: ClassVar[bool] = True
    trial: BootEntry
    kernel_command_line: str


@frozen
class ArmTrial(Command):
    """Make the next boot, and that one alone, take the trial entry."""

    disruptive: ClassVar[bool] = True
    trial: BootEntry


@frozen
class RebootIntoTrial(Command):
    """Reboot. Window and target are checked once more right before."""

    disruptive: ClassVar[bool] = True


@frozen
class VerifyTrial(Command):
    """Check that the trial runs what was installed, and that the node is healthy."""

    target: ImmutableTarget
    trial: BootEntry


@frozen
class CommitTrial(Command):
    """Make the trial entry, which runs and was verified, the default."""

    trial: BootEntry


@frozen
class RestoreDefault(Command):
    """Make `origin` the default entry and disarm any one-shot."""

    origin: BootEntry


@frozen
class RebootIntoOrigin(Command):
    """Reboot into the default entry: the way back. The window doesn't matter any more."""
