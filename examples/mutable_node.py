"""The agent of a node that apt updates in place: packages, apt sources, and the kernel command line through GRUB.

    python examples/mutable_node.py --config FILE [--check-config | --status | --forget-failure]

examples/mutable_node.toml shows the settings, examples/systemd/edge-day2-mutable.service runs it as a service.
"""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

from attrs import Factory, frozen

from edge_day2.adapters.apt import AptGet
from edge_day2.adapters.apt_settings import AptSettings, Removals
from edge_day2.adapters.apt_sources import AptSources
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.deb822_sources import SourceRules
from edge_day2.adapters.grub_configuration import RESERVED_PARAMETERS
from edge_day2.adapters.grub_drop_in import GrubDropIn
from edge_day2.adapters.snapper import Snapper
from edge_day2.application.mutable_node import MutableNode
from edge_day2.domain.resources import OSType
from node_command import Surroundings, main
from node_settings import NodeSettings

_APT: Final = AptSettings()
_RULES: Final = SourceRules()
_DROP_INS: Final = Path("/etc/default/grub.d")


@frozen(kw_only=True)
class AptTable:
    """`[apt]`: packages and limits."""

    agent_package: str = _APT.agent_package
    helper_packages: tuple[str, ...] = _APT.helper_packages
    removals: Removals = _APT.removals
    free_space_margin_mb: int = _APT.free_space_margin // 1_000_000
    lock_wait_minutes: int = _APT.lock_wait // timedelta(minutes=1)
    change_limit_minutes: int = _APT.change_limit // timedelta(minutes=1)
    root: Path = _APT.root
    apt_options: tuple[str, ...] = ()
    dpkg_options: tuple[str, ...] = ()

    def settings(self) -> AptSettings:
        """Return limits, and where apt and dpkg are."""
        return AptSettings(
            agent_package=self.agent_package,
            helper_packages=self.helper_packages,
            removals=self.removals,
            free_space_margin=self.free_space_margin_mb * 1_000_000,
            lock_wait=timedelta(minutes=self.lock_wait_minutes),
            change_limit=timedelta(minutes=self.change_limit_minutes),
            root=self.root,
            apt_options=self.apt_options,
            dpkg_options=self.dpkg_options,
        )


@frozen(kw_only=True)
class SourcesTable:
    """`[sources]`: which apt sources are accepted. `hosts` left out: any."""

    schemes: tuple[str, ...] = ("https",)
    hosts: tuple[str, ...] | None = None
    key_folders: tuple[str, ...] = _RULES.key_folders
    release_service: str = ""
    memory: Path = Path("/var/lib/edge_day2/apt-sources.json")
    staging: Path = Path("/var/cache/edge_day2/apt-sources")

    def rules(self) -> SourceRules:
        """Return what is accepted."""
        return SourceRules(
            schemes=frozenset(self.schemes),
            hosts=self.hosts,
            key_folders=self.key_folders,
            release_service=self.release_service,
        )


@frozen(kw_only=True)
class GrubTable:
    """`[grub]`: where GRUB's files are."""

    drop_in: Path = _DROP_INS / "90-edge-day2.cfg"
    superseded: tuple[Path, ...] = (_DROP_INS / "90-platform-update-agent.cfg",)
    configuration: Path = Path("/boot/grub/grub.cfg")
    boot: Path = Path("/boot")
    memory: Path = Path("/var/lib/edge_day2/grub.json")
    proc: Path = Path("/proc")
    make_configuration: tuple[str, ...] = ("grub-mkconfig", "-o")
    reserved: tuple[str, ...] = tuple(sorted(RESERVED_PARAMETERS))
    timeout_seconds: float = 300.0


@frozen(kw_only=True)
class SnapperTable:
    """`[snapper]`: where it is there, the node has a way back after the reboot."""

    config: str = "root"
    apart: tuple[Path, ...] = (Path("/var/lib/edge_day2"),)
    command: tuple[str, ...] = ("snapper",)

    def snapshots(self) -> Snapper:
        """Return the way back."""
        return Snapper(config=self.config, apart=self.apart, command=self.command)


@frozen(kw_only=True)
class MutableNodeSettings(NodeSettings):
    """The whole file."""

    apt: AptTable = Factory(AptTable)
    sources: SourcesTable = Factory(SourcesTable)
    grub: GrubTable = Factory(GrubTable)
    snapper: SnapperTable | None = None


def make_node(settings: MutableNodeSettings, surroundings: Surroundings) -> MutableNode:
    """Return the node that these settings describe."""
    clock, apt, sources, grub = SystemClock(), settings.apt.settings(), settings.sources, settings.grub
    return MutableNode(
        apt=AptGet(clock=clock, settings=apt),
        apt_sources=AptSources(
            clock=clock, settings=apt, rules=sources.rules(), memory=sources.memory, staging=sources.staging
        ),
        grub=GrubDropIn(
            drop_in=grub.drop_in,
            superseded=grub.superseded,
            configuration=grub.configuration,
            boot=grub.boot,
            memory=grub.memory,
            proc=grub.proc,
            make_configuration=grub.make_configuration,
            timeout_seconds=grub.timeout_seconds,
            alphabet=re.compile(settings.policy.kernel_command_line),
            reserved=frozenset(grub.reserved),
        ),
        health=surroundings.health,
        system=settings.system(),
        snapshots=settings.snapper.snapshots() if settings.snapper is not None else None,
    )


if __name__ == "__main__":
    sys.exit(main(MutableNodeSettings, OSType.MUTABLE, make_node, "The agent of a node that apt updates."))
