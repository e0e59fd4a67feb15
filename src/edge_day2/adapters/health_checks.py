"""What can be asked of a node that has just been updated. Each check asks once and says what it found."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Iterable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from edge_day2.adapters.commands import run_command
from edge_day2.adapters.watched_link import WatchedLink
from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import InvalidValue, RequestError
from edge_day2.ports.failures import NodeFailure

_ROUTES: Final = Path("/proc/net/route")
_IPV6_ROUTES: Final = Path("/proc/net/ipv6_route")
# linux/route.h
_RTF_UP: Final = 0x0001
_RTF_REJECT: Final = 0x0200


class HealthCheck(Protocol):
    """One thing that must be so on a node that is well."""

    @property
    def name(self) -> str:
        """What is checked, for people."""
        ...

    def check(self) -> None:
        """Return where it is so now.

        Raises:
            NodeFailure: it isn't; the log says what was expected and what was found.
        """
        ...


def _not_well(log: str) -> NodeFailure:
    return NodeFailure(FailureReason.CRITICAL_SERVICES, log)


class CommandSucceeds:
    """A program of the integrator's own ends with status 0.

    Args:
        command: its argument list.
        timeout_seconds: after which it is killed with everything that it started.

    Raises:
        InvalidValue: the list is empty.
    """

    def __init__(self, command: Sequence[str], *, timeout_seconds: float = 30.0) -> None:
        if not command:
            raise InvalidValue("command", command, "a program and its arguments")
        self._command = tuple(command)
        self._timeout = timeout_seconds

    @property
    def name(self) -> str:
        """See `HealthCheck.name`."""
        return f"command {self._command[0]}"

    def check(self) -> None:
        """See `HealthCheck.check`."""
        run_command(self._command, timeout_seconds=self._timeout, reason=FailureReason.CRITICAL_SERVICES)


class SystemdUnitsActive:
    """Units of systemd are active.

    Args:
        units: their names.
        systemctl: the program.
        timeout_seconds: for each unit.
    """

    def __init__(
        self, units: Iterable[str], *, systemctl: Path | str = "systemctl", timeout_seconds: float = 10.0
    ) -> None:
        self._units = tuple(units)
        self._systemctl = str(systemctl)
        self._timeout = timeout_seconds

    @property
    def name(self) -> str:
        """See `HealthCheck.name`."""
        return f"units {' '.join(self._units)}"

    def check(self) -> None:
        """See `HealthCheck.check`."""
        found = []
        for unit in self._units:
            # One by one: asked for several, systemctl is content with one that is active.
            command = (self._systemctl, "is-active", "--", unit)
            try:
                run_command(command, timeout_seconds=self._timeout, reason=FailureReason.CRITICAL_SERVICES)
            except NodeFailure as error:
                found.append(error.log)
        if found:
            raise _not_well(f"expected every unit to be active, found {'; '.join(found)}")


class HttpProbe:
    """An address answers with the expected status. No proxy is asked, and no redirection is followed.

    Args:
        url: http or https.
        status: the expected status.
        timeout_seconds: for each step of the exchange.
        ca: the authorities to believe for https, a PEM file; None: the system's.

    Raises:
        InvalidValue: `url` isn't an address of http or https.
    """

    def __init__(
        self, url: str, *, status: int = 200, timeout_seconds: float = 10.0, ca: Path | str | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidValue("url", url, "an address of http or https")
        self._url = url
        self._status = status
        self._timeout = timeout_seconds
        self._ca = ca

    @property
    def name(self) -> str:
        """See `HealthCheck.name`."""
        return f"probe {self._url}"

    def check(self) -> None:
        """See `HealthCheck.check`."""
        # With these two alone there is nobody who would ask a proxy or follow a redirection.
        opener = urllib.request.OpenerDirector()
        try:
            opener.add_handler(urllib.request.HTTPHandler())
            opener.add_handler(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=self._ca)))
            with opener.open(self._url, timeout=self._timeout) as answer:
                found = answer.status
        except (OSError, HTTPException) as error:
            raise _not_well(f"expected status {self._status}, found {type(error).__name__}: {error}") from error
        finally:
            opener.close()
        if found != self._status:
            raise _not_well(f"expected status {self._status}, found {found}")


class DefaultRoute:
    """The kernel has a default route, of IPv4 or IPv6.

    Args:
        routes: the kernel's table for IPv4; `ipv6_routes` that for IPv6.
    """

    name = "default route"

    def __init__(self, *, routes: Path | str = _ROUTES, ipv6_routes: Path | str = _IPV6_ROUTES) -> None:
        self._routes = Path(routes)
        self._ipv6_routes = Path(ipv6_routes)

    def check(self) -> None:
        """See `HealthCheck.check`."""
        if any(_is_default(row) for row in _rows(self._routes)):
            return
        if any(_is_ipv6_default(row) for row in _rows(self._ipv6_routes)):
            return
        raise _not_well(f"expected a default route, found none in {self._routes} and {self._ipv6_routes}")


def _rows(table: Path) -> list[list[str]]:
    try:
        return [line.split() for line in table.read_text(encoding="ascii").splitlines()]
    except FileNotFoundError:
        # A kernel without this protocol.
        return []


def _is_default(row: list[str]) -> bool:
    # Iface Destination Gateway Flags RefCnt Use Metric Mask …
    return len(row) > 7 and row[1] == row[7] == "00000000" and _leads_on(row[3])


def _is_ipv6_default(row: list[str]) -> bool:
    # Destination, length, source, length, next hop, metric, references, use, flags, interface
    return len(row) > 9 and row[0] == "0" * 32 and row[1] == "00" and _leads_on(row[8])


def _leads_on(flags: str) -> bool:
    return int(flags, 16) & (_RTF_UP | _RTF_REJECT) == _RTF_UP


class MaintenanceManagerAnswers:
    """The Maintenance Manager has answered a report since this process started, or does so now.

    A node that can't reach it could never be told to install something better.

    Args:
        link: the agent's own.
    """

    name = "answer of the Maintenance Manager"

    def __init__(self, link: WatchedLink) -> None:
        self._link = link

    def check(self) -> None:
        """See `HealthCheck.check`."""
        if self._link.answered:
            return
        try:
            self._link.ask_again()
        except RequestError as error:
            raise _not_well(f"expected an answer, found {error.code}: {error}") from error
