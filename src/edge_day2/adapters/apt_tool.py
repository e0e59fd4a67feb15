"""apt-get, apt-cache and apt-mark as command lines: with the options that no local configuration may change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from edge_day2.adapters.apt_commands import AptCommands, Finished
from edge_day2.adapters.apt_locks import AptLocks
from edge_day2.adapters.apt_plan import Simulation, parse_simulation
from edge_day2.adapters.apt_settings import AptSettings, Removals
from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import MissingExtra
from edge_day2.ports.failures import NodeFailure

# What the administrator changed stays, also where the agent's own package set force-confnew.
CONFFILES: Final = ("--force-confdef", "--force-confold", "--no-force-confnew")
# Whatever apt.conf says on this node.
_OPTIONS: Final = tuple(
    word
    for option in (
        *(f"Dpkg::Options::={option}" for option in CONFFILES),
        "DPkg::Use-Pty=false",
        "APT::Get::AllowUnauthenticated=false",
        "APT::Get::allow-downgrades=false",
        "APT::Get::allow-remove-essential=false",
        "APT::Get::allow-change-held-packages=false",
        "APT::Get::force-yes=false",
        "APT::Get::AutomaticRemove=false",
        "APT::Get::Purge=false",
        "APT::Get::ReInstall=false",
        "APT::Get::Fix-Missing=false",
        "APT::Ignore-Hold=false",
        "APT::Cmd::Pattern-Only=true",
        "APT::Keep-Downloaded-Packages=true",
        "Acquire::AllowInsecureRepositories=false",
        "Acquire::AllowWeakRepositories=false",
        "Acquire::AllowDowngradeToInsecureRepositories=false",
        "Acquire::Check-Valid-Until=true",
        "Debug::NoLocking=false",
    )
    for word in ("-o", option)
)


class AptTool:
    """Builds and runs commands of apt.

    Raises:
        MissingExtra: python-debian isn't installed.
    """

    def __init__(self, settings: AptSettings, commands: AptCommands, locks: AptLocks) -> None:
        try:
            from debian.deb822 import Deb822
            from debian.debian_support import version_compare
        except ModuleNotFoundError as error:
            raise MissingExtra("python-debian", "apt") from error
        self._deb822 = Deb822
        # Below 0 where the first version is older, 0 where they are the same.
        self.compare: Callable[[str, str], int] = version_compare
        self._settings = settings
        self._commands = commands
        self._locks = locks

    def get(self, *arguments: str, until: datetime | None) -> tuple[str, ...]:
        """Return a command line of apt-get; it waits for locks as long as the window lasts."""
        timeout = f"DPkg::Lock::Timeout={self._locks.seconds_to_wait(until)}"
        return ("apt-get", "-q", "-y", *_OPTIONS, "-o", timeout, *self._settings.apt_options, *arguments)

    def changing(self, *arguments: str, until: datetime | None) -> tuple[str, ...]:
        """Return a command line of apt-get that removes nothing, unless removals are allowed."""
        refused = () if self._settings.removals is Removals.ALLOWED else ("--no-remove",)
        return self.get(*refused, *arguments, until=until)

    def simulated(self, *arguments: str) -> Simulation:
        """Return what apt-get would do.

        Raises:
            NodeFailure: it would fail, or what it said can't be read.
        """
        # Without -y, which would refuse some plans in words alone; `refusal` refuses them by name.
        finished = self.answered("apt-get", "-q", *_OPTIONS, "--simulate", *arguments)
        try:
            return parse_simulation(finished.output)
        except ValueError as error:
            raise NodeFailure(FailureReason.UPDATE_TOOL, f"apt-get --simulate said {error}") from error

    def shown(self, *packages: str) -> Iterator[Mapping[str, str]]:
        """Yield the records that the package lists have of these packages (name or name=version), the newest of each.

        What the lists don't have is left out.
        """
        command = ("apt-cache", *self._settings.apt_options, "show", "--no-all-versions", *packages)
        records: Iterable[Mapping[str, str]] = self._deb822.iter_paragraphs(
            self._commands.ask(*command).output.splitlines(), use_apt_pkg=False
        )
        yield from records

    def answered(self, name: str, *arguments: str) -> Finished:
        """Run a command that changes nothing.

        Raises:
            NodeFailure: it failed.
        """
        finished = self._commands.ask(name, *self._settings.apt_options, *arguments)
        if finished.code != 0:
            raise NodeFailure(FailureReason.UPDATE_TOOL, str(finished))
        return finished

    def changed(
        self, *command: str, keep_marks_of: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
    ) -> Finished:
        """Run a command that runs dpkg.

        To apt a package that it is asked for by its name is one that somebody wants: those in `keep_marks_of` stay
        marked as installed automatically where they are.
        """
        marked = self.answered("apt-mark", "showauto", *keep_marks_of).output.split() if keep_marks_of else []
        finished = self._commands.change(*command, environment=environment)
        if marked:
            self._commands.change("apt-mark", *self._settings.apt_options, "auto", *marked)
        return finished
