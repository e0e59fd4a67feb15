"""What can happen in, and what can be asked for by, an update of a mutable (apt) node.

Events carry outcomes, commands carry everything that their execution needs; neither decides anything. The order is in
`mutable.py`.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from attrs import frozen

from edge_day2.domain.flow import Command, Event, FailedEvent
from edge_day2.domain.schedules import Window
from edge_day2.domain.statuses import UpdateLogEntry

# (name, version) of packages, sorted by name; those of a foreign architecture are named `name:arch`.
Packages: TypeAlias = tuple[tuple[str, str], ...]


@frozen
class AvailableUpdate:
    """A package that is installed and of which the repositories have a newer version."""

    name: str
    available_version: str
    architecture: str


@frozen(kw_only=True)
class Snapshot:
    """A way back: a snapshot of the OS, and what it holds.

    Attributes:
        identifier: what the node's snapshots call it.
        packages: fingerprint of the packages that were installed when it was taken (see `fingerprint`).
    """

    identifier: str
    packages: str


@frozen(kw_only=True)
class PackageTarget:
    """What an update applies: apt sources, packages to install, kernel command line ("": leave it alone)."""

    update_sources: tuple[str, ...] = ()
    update_packages: tuple[str, ...] = ()
    kernel_command_line: str = ""


@frozen
class TargetChanged(Event):
    """The OS Resource was patched, or the policy changed."""

    target: PackageTarget


@frozen
class AgentRestarted(Event):
    """The agent runs again after it restarted itself."""


@frozen
class PackagesInterrupted(Event):
    """The package database was left in the middle of a change. It is repaired before anything else."""


@frozen
class PackagesRepaired(Event):
    """The package database is sound again; `log` says what was done about it."""

    log: str = ""


@frozen
class PackagesRecorded(Event):
    """What is installed before the update."""

    installed: Packages


@frozen
class SourcesUpdated(Event):
    """The apt sources are in place and the package lists are fresh."""


@frozen
class AgentUpdated(Event):
    """A newer agent was installed; it has to be started."""


@frozen
class AgentCurrent(Event):
    """There is no newer agent."""


@frozen
class SnapshotTaken(Event):
    """There is a way back to what runs now."""

    snapshot: Snapshot


@frozen
class SnapshotSkipped(Event):
    """The node has no snapshots: there is no way back."""


@frozen
class HelperUpdated(Event):
    """The in-band helper is the newest, whether or not it was before."""


@frozen
class KernelCommandLineUpdated(Event):
    """The boot loader has another kernel command line; it counts from the next boot on."""


@frozen
class KernelCommandLineCurrent(Event):
    """The kernel command line is the wanted one already, or none is wanted."""


@frozen
class PackagesDownloaded(Event):
    """The new packages are in apt's archive; `plan` is what their installation will change."""

    plan: Packages


@frozen
class PackagesInstalled(Event):
    """The new packages are installed."""


@frozen
class UpgradeDownloaded(Event):
    """The upgrades are in apt's archive; `plan` is what their installation will change."""

    plan: Packages


@frozen
class UpgradeInstalled(Event):
    """The upgrades are installed."""


@frozen
class StepFailed(FailedEvent):
    """A step failed. What it changed before is found by comparing the package database."""


@frozen
class ChangesFound(Event):
    """Something changed since the update began: `update_log` says which packages. `boot_id`: the present boot."""

    update_log: tuple[UpdateLogEntry, ...]
    boot_id: str


@frozen
class NothingChanged(Event):
    """No package and no kernel parameter changed: there is no reason to reboot."""


@frozen
class NodeRebooted(Event):
    """The node came up in another boot than the one in which the reboot was decided."""


@frozen
class UpdateVerified(Event):
    """Packages, kernel and services are what the update wanted."""


@frozen
class VerificationFailed(FailedEvent):
    """After the reboot something isn't what the update wanted."""


@frozen
class FailureRecorded(Event):
    """What a failed update changed all the same. `boot_id`: the present boot, "" where nothing can have changed.

    `untold`: what it changed can't be told, the package database isn't sound or can't be read.
    """

    update_log: tuple[UpdateLogEntry, ...]
    boot_id: str
    untold: bool = False


@frozen
class RollbackDue(FailedEvent):
    """After the reboot something isn't what the update wanted, and there is a snapshot to go back to."""


@frozen
class RollbackPrepared(Event):
    """The next boot has the state of the snapshot. `boot_id`: the present boot."""

    boot_id: str


@frozen
class RollbackFailed(FailedEvent):
    """Going back didn't work; it is tried again."""


@frozen
class RollbackExhausted(FailedEvent):
    """Going back was tried often enough."""


@frozen
class RollbackRecorded(Event):
    """The node runs the snapshot's state; `update_log` is what changed before it was taken, and stays."""

    update_log: tuple[UpdateLogEntry, ...]


@frozen
class RepairPackages(Command):
    """Finish or undo what dpkg was doing when it was interrupted, for the `attempt`-th time in this update.

    After the reboot there is no `window` to keep to, and there may be a `snapshot` to go back to where it fails.
    """

    disruptive: ClassVar[bool] = True
    attempt: int
    window: Window | None
    snapshot: Snapshot | None = None


@frozen
class RecordPackages(Command):
    """Say what is installed, or that the database was interrupted."""


@frozen
class UpdateAptSources(Command):
    """Replace our apt sources as a set or not at all, and refresh the package lists. No sources: refresh alone."""

    disruptive: ClassVar[bool] = True
    update_sources: tuple[str, ...]
    window: Window


@frozen
class UpdateAgent(Command):
    """Upgrade the agent's own package, if there is a newer one."""

    disruptive: ClassVar[bool] = True
    window: Window


@frozen
class RestartAgent(Command):
    """Start the agent again, as the newer version."""


@frozen
class TakeSnapshot(Command):
    """Take the snapshot of this label, where the node has snapshots, after `stale`, an earlier one, is gone."""

    disruptive: ClassVar[bool] = True
    label: str
    stale: str


@frozen
class UpdateHelper(Command):
    """Upgrade the in-band helper's packages, if there are newer ones."""

    disruptive: ClassVar[bool] = True
    window: Window


@frozen
class SetKernelCommandLine(Command):
    """Make this the kernel command line of the next boot, with a boot loader configuration that was checked."""

    disruptive: ClassVar[bool] = True
    kernel_command_line: str


@frozen
class DownloadPackages(Command):
    """Download the packages to install, without installing them."""

    disruptive: ClassVar[bool] = True
    update_packages: tuple[str, ...]
    window: Window


@frozen
class InstallPackages(Command):
    """Install the packages from apt's archive, without download and without reboot: the plan, or what is left of it."""

    disruptive: ClassVar[bool] = True
    update_packages: tuple[str, ...]
    plan: Packages
    window: Window


@frozen
class DownloadUpgrade(Command):
    """Download the upgrades of everything installed, without installing them."""

    disruptive: ClassVar[bool] = True
    window: Window


@frozen
class InstallUpgrade(Command):
    """Install the upgrades from apt's archive, without download and without reboot: the plan, or what is left of it."""

    disruptive: ClassVar[bool] = True
    plan: Packages
    window: Window


@frozen
class ComparePackages(Command):
    """Say what changed since `before`.

    A kernel command line that was changed, or that the kernel doesn't run with yet, is a change too; and so is a reboot
    that an earlier, failed update still owes: it changed packages in the boot `owed_boot_id` ("": none is owed).
    """

    before: Packages
    kernel_command_line: str
    kernel_command_line_changed: bool
    owed_boot_id: str = ""


@frozen
class RebootNode(Command):
    """Reboot. Window and target are checked once more right before."""

    disruptive: ClassVar[bool] = True


@frozen
class VerifyUpdate(Command):
    """Check packages, kernel, kernel command line and services after the reboot.

    `plan` is what was to be installed, `update_log` what was; `snapshot` is the way back, where there is one.
    """

    target: PackageTarget
    plan: Packages
    update_log: tuple[UpdateLogEntry, ...]
    snapshot: Snapshot | None = None


@frozen
class RecordFailure(Command):
    """Say what a failed update changed since `before`."""

    before: Packages


@frozen
class RollBack(Command):
    """See to it that the next boot has the state of the snapshot, for the `attempt`-th time in this update."""

    snapshot: Snapshot
    attempt: int


@frozen
class RebootIntoSnapshot(Command):
    """Reboot, whatever the window says: the node isn't well."""


@frozen
class RecordRollback(Command):
    """Check that the snapshot's state runs, and say what had changed since `before` when it was taken."""

    before: Packages
    snapshot: Snapshot
