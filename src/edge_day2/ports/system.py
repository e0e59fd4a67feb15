"""Port: the machine that the agent runs on."""

from __future__ import annotations

from typing import Protocol


class SystemPort(Protocol):
    """What the agent asks of the operating system."""

    def boot_id(self) -> str:
        """Return a text that changes with every boot and with nothing else.

        Raises:
            NodeFailure: it can't be told.
        """
        ...

    def kernel_release(self) -> str:
        """Return the release of the running kernel, as `uname -r` says it."""
        ...

    def reboot(self) -> None:
        """Begin an orderly reboot. May return before the machine goes down, or never.

        Raises:
            NodeFailure: the machine refuses.
        """
        ...

    def restart_agent(self) -> None:
        """Start the agent's process again. May return before it ends, or never.

        Raises:
            NodeFailure: the service manager refuses.
        """
        ...
