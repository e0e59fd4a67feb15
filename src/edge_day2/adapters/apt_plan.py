"""What apt says that it would do, what of it is refused, and how much space it takes: all about texts, no commands.

apt's simulation prints one line for each step, made for programs to read (apt-get(8), --simulate): `Inst name
[installed version] (new version origin [architecture])`, `Conf …`, `Remv name [installed version]`, `Purg …`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from attrs import frozen

from edge_day2.adapters.apt_settings import Removals
from edge_day2.adapters.dpkg import DatabaseContent
from edge_day2.domain.mutable_events import Packages

_INST: Final = re.compile(r"Inst (\S+)(?: \[(\S+)\])? \((\S+) .*\[(\S+)\]\).*")
_REMV: Final = re.compile(r"(?:Remv|Purg) (\S+)(?: .*)?")
_URI: Final = re.compile(r"'[^']+' (\S+) (\d+)(?: .*)?")
_STEP: Final = re.compile(r"(?:Inst|Remv|Purg) ")
_SHOWN: Final = 10


@frozen(kw_only=True)
class PlannedChange:
    """A package to be installed, or upgraded where `installed` isn't ""."""

    name: str
    installed: str
    version: str
    architecture: str


@frozen(kw_only=True)
class Simulation:
    """What apt would do: changes in apt's order, and the names that would be removed."""

    changes: tuple[PlannedChange, ...]
    removals: tuple[str, ...]

    @property
    def packages(self) -> Packages:
        """(name, version) of everything that would be installed, sorted."""
        return tuple(sorted((change.name, change.version) for change in self.changes))


def parse_simulation(output: str) -> Simulation:
    """Return what `apt-get --simulate` printed.

    Raises:
        ValueError: a line that names a step can't be read.
    """
    changes: list[PlannedChange] = []
    removals: list[str] = []
    for line in output.splitlines():
        if not _STEP.match(line):
            continue
        if found := _INST.fullmatch(line):
            name, installed, version, architecture = found.groups()
            changes.append(
                PlannedChange(name=name, installed=installed or "", version=version, architecture=architecture)
            )
        elif found := _REMV.fullmatch(line):
            removals.append(found[1])
        else:
            raise ValueError(line)
    return Simulation(changes=tuple(changes), removals=tuple(removals))


def parse_download(output: str) -> int:
    """Return how many bytes `apt-get --print-uris` says are still to be downloaded."""
    return sum(int(found[2]) for line in output.splitlines() if (found := _URI.fullmatch(line)))


def refusal(
    simulation: Simulation,
    content: DatabaseContent,
    removals: Removals,
    is_older: Callable[[str, str], bool],
) -> str:
    """Return why these changes may not be made, "" where they may.

    `is_older(a, b)` says whether version a comes before version b.
    """
    known = {package.name: package for package in content.packages}
    held = [change.name for change in simulation.changes if change.name in known and known[change.name].held]
    if held:
        return f"would change packages on hold: {_listed(held)}"
    older = [
        f"{change.name} {change.installed} → {change.version}"
        for change in simulation.changes
        if change.installed and is_older(change.version, change.installed)
    ]
    if older:
        return f"would downgrade {_listed(older)}"
    indispensable = [name for name in simulation.removals if name in known and known[name].indispensable]
    if indispensable:
        return f"would remove essential packages: {_listed(indispensable)}"
    if simulation.removals and removals is Removals.REFUSED:
        return f"would remove {_listed(simulation.removals)}"
    return ""


def beyond(simulation: Simulation, plan: Packages) -> str:
    """Return what would be done that isn't part of `plan`, "" where nothing is."""
    extra = sorted(set(simulation.packages) - set(plan))
    return _listed(f"{name} {version}" for name, version in extra)


def unpacking_bytes(
    changes: Iterable[PlannedChange], sizes: Mapping[tuple[str, str], int], content: DatabaseContent
) -> int:
    """Return how many bytes unpacking takes at most, at any moment of it.

    dpkg unpacks a package beside its old files and removes those afterwards, one package after the other: so there is
    the growth of all, and once the old size of one. `sizes` are bytes by name and new version.
    """
    old = {package.name: package.size for package in content.packages}
    pairs = [(old.get(change.name, 0), sizes.get((change.name, change.version), 0)) for change in changes]
    return sum(max(0, new - before) for before, new in pairs) + max((min(pair) for pair in pairs), default=0)


def missing(plan: Packages, installed: Packages) -> str:
    """Return which packages of `plan` aren't installed in their planned version, "" where all are."""
    versions = dict(installed)
    return _listed(
        f"{name}: found {versions.get(name, 'nothing')}, expected {version}"
        for name, version in plan
        if versions.get(name) != version
    )


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
