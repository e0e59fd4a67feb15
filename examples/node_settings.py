"""The settings that every node has, from a TOML file: nothing is coerced, and an unknown key is an error.

Each class is a table of the file; docs/immutable_node.md says what the keys mean.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from datetime import timedelta
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final, TypeVar, get_origin

from attrs import field, fields, frozen, has
from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError, transform_error
from cattrs.cols import homogenous_tuple_structure_factory
from cattrs.gen import make_dict_structure_fn
from cattrs.v import format_exception

from edge_day2.adapters.agent_lock import AgentLock
from edge_day2.adapters.grpc import ClientTls, GrpcLink
from edge_day2.adapters.health import HealthChecks
from edge_day2.adapters.health_checks import (
    CommandSucceeds,
    DefaultRoute,
    HealthCheck,
    HttpProbe,
    MaintenanceManagerAnswers,
    SystemdUnitsActive,
)
from edge_day2.adapters.journal import FileJournal
from edge_day2.adapters.original_metadata import ImportingJournal
from edge_day2.adapters.system import LinuxSystem
from edge_day2.adapters.watched_link import WatchedLink
from edge_day2.application.agent_service import ServiceTimes
from edge_day2.domain.agent_policy import AgentPolicy, WindowClose
from edge_day2.domain.resources import KERNEL_COMMAND_LINE, UUID, OSType
from edge_day2.errors import EdgeDay2Error, shown
from edge_day2.ports.journal import Journal

_T = TypeVar("_T")


class SettingsError(EdgeDay2Error):
    """The file can't be read, or something in it isn't a setting. One line for each thing that is wrong."""


@frozen(kw_only=True)
class ManagerSettings:
    """`[maintenance_manager]`: who tells this node what to run."""

    address: str
    ca: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    server_name: str | None = None
    token_file: Path | None = None
    unencrypted: bool = False

    def link(self) -> GrpcLink:
        """Return the way there."""
        tls = ClientTls(
            ca=self.ca, certificate=self.client_certificate, key=self.client_key, server_name=self.server_name
        )
        return GrpcLink(self.address, tls=None if self.unencrypted else tls, token_file=self.token_file)


@frozen(kw_only=True)
class ProbeSettings:
    """`[[health.probes]]`: an address that must answer."""

    url: str
    status: int = 200
    ca: Path | None = None


@frozen(kw_only=True)
class HealthSettings:
    """`[health]`: what must hold before an update counts as good."""

    deadline_seconds: float = 900.0
    retry_after_seconds: float = 5.0
    maintenance_manager: bool = True
    default_route: bool = False
    units: tuple[str, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    probes: tuple[ProbeSettings, ...] = ()

    def checks(self, link: WatchedLink) -> HealthChecks:
        """Return the checks."""
        checks: list[HealthCheck] = [MaintenanceManagerAnswers(link)] if self.maintenance_manager else []
        if self.default_route:
            checks.append(DefaultRoute())
        if self.units:
            checks.append(SystemdUnitsActive(self.units))
        checks += [CommandSucceeds(command) for command in self.commands]
        checks += [HttpProbe(probe.url, status=probe.status, ca=probe.ca) for probe in self.probes]
        return HealthChecks(
            checks, deadline_seconds=self.deadline_seconds, retry_after_seconds=self.retry_after_seconds
        )


_DEFAULT_POLICY: Final = AgentPolicy()
_DEFAULT_TIMES: Final = ServiceTimes()


@frozen(kw_only=True)
class PolicySettings:
    """`[policy]`: limits and choices of the agent."""

    window_close: WindowClose = _DEFAULT_POLICY.window_close
    kernel_command_line: str = KERNEL_COMMAND_LINE.pattern
    trial_boots: int = _DEFAULT_POLICY.trial_boots
    interruptions: int = _DEFAULT_POLICY.interruptions
    retries: int = _DEFAULT_POLICY.retries
    retry_after_minutes: int = 10
    prefetch_hours: int = 6
    minutes_to_update: int = 0
    minutes_to_reboot: int = 0

    def policy(self) -> AgentPolicy:
        """Return the agent's policy.

        Raises:
            SettingsError: `kernel_command_line` is no regular expression.
        """
        try:
            alphabet = re.compile(self.kernel_command_line)
        except re.error as error:
            raise SettingsError(f"policy.kernel_command_line: {error}") from error
        return AgentPolicy(
            window_close=self.window_close,
            kernel_command_line=alphabet,
            trial_boots=self.trial_boots,
            interruptions=self.interruptions,
            retries=self.retries,
            retry_after=timedelta(minutes=self.retry_after_minutes),
            prefetch=timedelta(hours=self.prefetch_hours),
            time_to_update=timedelta(minutes=self.minutes_to_update),
            time_to_reboot=timedelta(minutes=self.minutes_to_reboot),
        )


class LogLevel(Enum):
    """What is logged."""

    DEBUG = auto()
    INFO = auto()
    WARNING = auto()
    ERROR = auto()


@frozen(kw_only=True)
class AgentSettings:
    """`[agent]`: the agent's own process."""

    journal: Path = Path("/var/lib/edge_day2/journal.json")
    lock: Path = Path("/run/edge_day2/agent.lock")
    original_metadata: Path = Path("/var/edge-node/pua/metadata.json")
    interval_seconds: float = _DEFAULT_TIMES.interval
    first_retry_seconds: float = _DEFAULT_TIMES.first_retry
    longest_retry_seconds: float = _DEFAULT_TIMES.longest_retry
    longest_command_seconds: float = _DEFAULT_TIMES.longest_command
    unit: str = "edge-day2.service"
    log_level: LogLevel = LogLevel.INFO


@frozen(kw_only=True)
class MachineSettings:
    """`[machine]`: what is found in another place on an unusual machine."""

    reboot_command: tuple[str, ...] = ("systemctl", "reboot")
    boot_id: Path = Path("/proc/sys/kernel/random/boot_id")


@frozen(kw_only=True)
class NodeSettings:
    """The tables that every node has. `host_guid` "": what `host_guid_file` holds."""

    maintenance_manager: ManagerSettings
    host_guid: str = ""
    host_guid_file: Path = Path("/sys/class/dmi/id/product_uuid")
    agent: AgentSettings = field(factory=AgentSettings)
    machine: MachineSettings = field(factory=MachineSettings)
    health: HealthSettings = field(factory=HealthSettings)
    policy: PolicySettings = field(factory=PolicySettings)

    def guid(self) -> str:
        """Return the node's UUID.

        Raises:
            SettingsError: it is none, or the file can't be read.
        """
        try:
            found = self.host_guid or self.host_guid_file.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise SettingsError(f"host_guid isn't set, and host_guid_file can't be read: {error}") from error
        if UUID.fullmatch(found) is None:
            raise SettingsError(f"host_guid: found {shown(found)}, expected a UUID of 8-4-4-4-12 hex digits")
        return found.lower()

    def journal(self, os_type: OSType) -> Journal:
        """Return the agent's memory."""
        return ImportingJournal(FileJournal(self.agent.journal), os_type=os_type, metadata=self.agent.original_metadata)

    def lock(self) -> AgentLock:
        """Return what keeps a second agent away."""
        return AgentLock(self.agent.lock)

    def system(self) -> LinuxSystem:
        """Return the machine."""
        return LinuxSystem(
            unit=self.agent.unit, reboot_command=self.machine.reboot_command, boot_id=self.machine.boot_id
        )

    def times(self) -> ServiceTimes:
        """Return how long things take."""
        return ServiceTimes(
            interval=self.agent.interval_seconds,
            first_retry=self.agent.first_retry_seconds,
            longest_retry=self.agent.longest_retry_seconds,
            longest_command=self.agent.longest_command_seconds,
        )


def read_settings(path: Path, kind: type[_T]) -> _T:
    """Return the settings in a TOML file.

    Raises:
        SettingsError: it can't be read; an unknown key, a missing one, or a value of another type.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from error
    try:
        return _CONVERTER.structure(document, kind)
    except ClassValidationError as error:
        found = transform_error(error, path="", format_exception=_explain)
        lines = [line.replace(" @ .", " at ").removesuffix(" @ ") for line in found]
        raise SettingsError("\n".join(f"{path}: {line}" for line in lines)) from error


def _explain(error: BaseException, kind: type | None) -> str:
    if isinstance(error, ForbiddenExtraKeysError):
        unknown, known = sorted(error.extra_fields), [one.name for one in fields(error.cl)]
        return f"unknown {', '.join(unknown)}, expected one of {', '.join(known)}"
    return str(error) if isinstance(error, TypeError | ValueError) else format_exception(error, kind)


def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook(float, _exactly(float, int, make=float))
    converter.register_structure_hook(Path, _exactly(str, make=Path))

    @converter.register_structure_hook_factory(has)
    def tables(kind: type[Any]) -> Callable[[Any, Any], object]:
        structure = make_dict_structure_fn(kind, converter)
        return _exactly(dict, make=lambda value: structure(value, kind), name="a table")

    @converter.register_structure_hook_factory(_is_tuple)
    def lists(kind: Any) -> Callable[[Any, Any], object]:
        structure = homogenous_tuple_structure_factory(kind, converter)
        return _exactly(list, make=lambda value: structure(value, kind))

    @converter.register_structure_hook_factory(_is_enum)
    def words(kind: type[Enum]) -> Callable[[Any, Any], object]:
        choices = {choice.name.lower(): choice for choice in kind}

        def check(value: object, _: object) -> object:
            if not isinstance(value, str) or value not in choices:
                raise ValueError(f"found {value!r}, expected {' or '.join(choices)}")
            return choices[value]

        return check

    return converter


def _exactly(
    *kinds: type, make: Callable[[Any], object] = lambda value: value, name: str = ""
) -> Callable[[Any, Any], object]:
    def check(value: object, _: object) -> object:
        # By default "5" would become 5, 1 true, and a text a list of its letters.
        if type(value) not in kinds:
            raise TypeError(f"found {value!r}, expected {name or kinds[0].__name__}")
        return make(value)

    return check


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


_CONVERTER: Final = _converter()
