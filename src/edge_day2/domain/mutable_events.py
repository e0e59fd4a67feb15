"""What can happen in, and what can be asked for by, an update of a mutable (apt) node.

Events carry outcomes, commands carry everything that their execution needs; neither decides anything. The order is in
`mutable.py`.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from attrs import frozen

from edge_day2.domain.flow import Command, Event, FailedEvent
from edge_day2.domain.statuses import UpdateLogEntry

# Installed packages as (name, version), sorted by name.
Packages: TypeAlias = tuple[tuple[str, str], ...]


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
    """The package database is sound again."""


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
    """The new packages are in apt's archive."""


@frozen
class PackagesInstalled(Event):
    """The new packages are installed."""


@frozen
class UpgradeDownloaded(Event):
    """The upgrades are in apt's archive."""


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
    """What a failed update changed all the same."""

    update_log: tuple[UpdateLogEntry, ...]


@frozen
class RepairPackages(Command):
    """Finish or undo what dpkg was doing when it was interrupted, for the `attempt`-th time in this update."""

    disruptive: ClassVar[bool] = True
    attempt: int


@frozen
class RecordPackages(Command):
    """Say what is installed, or that the database was interrupted."""


@frozen
class UpdateAptSources(Command):
    """Replace our apt sources as a set or not at all, and refresh the package lists. No sources: refresh alone."""

    disruptive: ClassVar[bool] = True
    update_sources: tuple[str, ...]


@frozen
class UpdateAgent(Command):
    """Upgrade the agent's own package, if there is a newer one."""

    disruptive: ClassVar[bool] = True


@frozen
class RestartAgent(Command):
    """Start the agent again, as the newer version."""


@frozen
class UpdateHelper(Command):
    """Upgrade the in-band helper's packages, if there are newer ones."""

    disruptive: ClassVar[bool] = True


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


@frozen
class InstallPackages(Command):
    """Install the packages from apt's archive, without download and without reboot."""

    disruptive: ClassVar[bool] = True
    update_packages: tuple[str, ...]


@frozen
class DownloadUpgrade(Command):
    """Download the upgrades of everything installed, without installing them."""

    disruptive: ClassVar[bool] = True


@frozen
class InstallUpgrade(Command):
    """Install the upgrades from apt's archive, without download and without reboot."""

    disruptive: ClassVar[bool] = True


@frozen
class ComparePackages(Command):
    """Say what changed since `before`.

    A kernel command line that was changed, or that the kernel doesn't run with yet, is a change too.
    """

    before: Packages
    kernel_command_line: str
    kernel_command_line_changed: bool


@frozen
class RebootNode(Command):
    """Reboot. Window and target are checked once more right before."""

    disruptive: ClassVar[bool] = True


@frozen
class VerifyUpdate(Command):
    """Check packages, kernel command line and services after the reboot."""

    target: PackageTarget
    update_log: tuple[UpdateLogEntry, ...]


@frozen
class RecordFailure(Command):
    """Say what a failed update changed since `before`."""

    before: Packages
