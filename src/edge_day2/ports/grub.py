"""Port: the kernel command line of a mutable node."""

from __future__ import annotations

from typing import Protocol


class GrubPort(Protocol):
    """Our drop-in of the boot loader's configuration."""

    def set_kernel_command_line(self, kernel_command_line: str) -> bool:
        """Make this the kernel command line of the next boot; return whether the running kernel has another one.

        The answer stays the same until the node boots, however often it is asked: what was written before a crash
        still needs a reboot after it, also where a parameter was only taken away.

        Raises:
            NodeFailure: the configuration couldn't be made or doesn't boot. The earlier one is back.
        """
        ...

    def running_kernel_command_line(self) -> str:
        """Return what the kernel was started with.

        Raises:
            NodeFailure: it can't be told.
        """
        ...
