"""systemd as the agent's service manager: sd_notify(3) over its datagram socket."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import Final

_log: Final = logging.getLogger(__name__)

_SEND_SECONDS: Final = 5.0


class SystemdServiceManager:
    """A `ServiceManagerPort`. Where no manager asked to be told, nothing is sent.

    The time limit of the watchdog is set anew with each sign of life (WATCHDOG_USEC, systemd 233): short while the
    agent reports, long while apt works. So systemd itself holds the clock, and no thread says "alive" for one that
    hangs. `WatchdogSec=` of the unit switches the watchdog on, and holds until the first sign of life.

    Args:
        environment: holds NOTIFY_SOCKET, and WATCHDOG_USEC where a watchdog is wanted.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # unix(7): an abstract address begins with a NUL.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watched = "WATCHDOG_USEC" in environment

    def ready(self) -> None:
        """See `ServiceManagerPort.ready`."""
        self._tell("READY=1")

    def alive(self, seconds: float) -> None:
        """See `ServiceManagerPort.alive`."""
        if self._watched:
            self._tell(f"WATCHDOG_USEC={round(seconds * 1_000_000)}\nWATCHDOG=1")

    def status(self, text: str) -> None:
        """See `ServiceManagerPort.status`."""
        self._tell(f"STATUS={' '.join(text.split())}")

    def stopping(self) -> None:
        """See `ServiceManagerPort.stopping`."""
        self._tell("STOPPING=1")

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.settimeout(_SEND_SECONDS)
                connection.sendto(message.encode(errors="replace"), self._address)
        except OSError as error:
            _log.warning("the service manager can't be told: %s", error)
