"""What an integrator can set for apt and dpkg."""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from attrs import field, fields, frozen

from edge_day2.errors import InvalidValue

_SCOPE: Final = ("systemd-run", "--scope", "--quiet", "--collect", "--description=packages of a Day 2 update", "--")


class Removals(enum.Enum):
    """Whether an update may remove packages. An essential one is never removed."""

    REFUSED = "refused"
    ALLOWED = "allowed"


def systemd_scope(running: Path = Path("/run/systemd/system")) -> tuple[str, ...]:
    """Return what gives a command a scope of its own where systemd runs, () where it doesn't or this isn't root.

    `running` is the folder that is there where systemd runs: sd_booted(3).
    """
    return _SCOPE if running.is_dir() and os.geteuid() == 0 else ()


@frozen(kw_only=True)
class AptSettings:
    """Limits, and where apt and dpkg are.

    Attributes:
        agent_package: the package that holds the agent; nothing happens where it isn't installed.
        helper_packages: those of the in-band helper, likewise.
        removals: whether what apt plans may contain removals.
        free_space_margin: bytes that must stay free after download and unpacking. The original's 100 MB.
        lock_wait: how long another process may hold apt's or dpkg's locks while the window stays open.
        query_limit: how long a command may take that changes nothing.
        change_limit: how long dpkg may work before the node is reported as failed. dpkg isn't stopped then.
        repair_tries: how often one repair goes through its steps.
        root: the folder in which var/lib/dpkg, var/lib/apt and var/cache/apt are.
        enter: prefix of every command, to run it in a chroot or container, such as ("chroot", "/srv/node").
        runner: prefix of the commands that run dpkg, which takes them out of the agent's service, so that stopping the
            agent doesn't kill dpkg; see `systemd_scope`.
        apt_options: more arguments of apt-get and apt-cache.
        dpkg_options: more arguments of dpkg where it is called without apt.
        environment: more environment variables of every command.

    Raises:
        InvalidValue: a number or a time is below zero, or `repair_tries` is zero.
    """

    agent_package: str = "platform-update-agent"
    helper_packages: tuple[str, ...] = ("in-band-manageability",)
    removals: Removals = Removals.REFUSED
    free_space_margin: int = 100_000_000
    lock_wait: timedelta = timedelta(hours=1)
    query_limit: timedelta = timedelta(minutes=10)
    change_limit: timedelta = timedelta(hours=1)
    repair_tries: int = 2
    root: Path = Path("/")
    enter: tuple[str, ...] = ()
    runner: tuple[str, ...] = field(factory=systemd_scope)
    apt_options: tuple[str, ...] = ()
    dpkg_options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if self.repair_tries < 1:
            raise InvalidValue("AptSettings.repair_tries", self.repair_tries, "a number from 1")
        for one in fields(AptSettings):
            value = getattr(self, one.name)
            if (isinstance(value, int) and value < 0) or (isinstance(value, timedelta) and value < timedelta(0)):
                raise InvalidValue(f"AptSettings.{one.name}", value, "nothing below zero")
