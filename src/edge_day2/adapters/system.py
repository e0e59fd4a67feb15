"""The Linux machine: its boot id, its kernel, and how it is started again."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edge_day2.adapters.commands import run_command
from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import InvalidValue
from edge_day2.ports.failures import NodeFailure

# random(4): a UUID that the kernel draws at each boot.
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class LinuxSystem:
    """A `SystemPort` over systemd, or over other commands where there is none.

    Args:
        unit: the agent's service.
        reboot_command: reboots in an orderly way, as an argument list; `("reboot", "-f")` where no service manager
            runs.
        restart_command: restarts the agent, without waiting for its end; None: `systemctl restart --no-block UNIT`.
        boot_id: the file with the boot id.
        timeout_seconds: for each command.
        sync: writes everything in memory to the disks; before a reboot, which may become a hard one.

    Raises:
        InvalidValue: `reboot_command` is empty.
    """

    def __init__(
        self,
        *,
        unit: str,
        reboot_command: Sequence[str] = ("systemctl", "reboot"),
        restart_command: Sequence[str] | None = None,
        boot_id: Path | str = _BOOT_ID,
        timeout_seconds: float = 60.0,
        sync: Callable[[], None] = os.sync,
    ) -> None:
        if not reboot_command:
            raise InvalidValue("reboot_command", reboot_command, "a program and its arguments")
        self._reboot_command = tuple(reboot_command)
        self._restart_command = tuple(restart_command or ("systemctl", "restart", "--no-block", "--", unit))
        self._boot_id = Path(boot_id)
        self._timeout = timeout_seconds
        self._sync = sync

    def boot_id(self) -> str:
        """See `SystemPort.boot_id`.

        Raises:
            NodeFailure: it can't be read.
        """
        try:
            found = self._boot_id.read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise NodeFailure(FailureReason.UNSPECIFIED, f"boot id: {self._boot_id}: {error}") from error
        if not found:
            raise NodeFailure(FailureReason.UNSPECIFIED, f"boot id: {self._boot_id} is empty")
        return found

    def kernel_release(self) -> str:
        """See `SystemPort.kernel_release`."""
        return os.uname().release

    def reboot(self) -> None:
        """See `SystemPort.reboot`. What was written is on the disks before."""
        self._sync()
        run_command(self._reboot_command, timeout_seconds=self._timeout, reason=FailureReason.BOOTLOADER_FAIL)

    def restart_agent(self) -> None:
        """See `SystemPort.restart_agent`."""
        run_command(self._restart_command, timeout_seconds=self._timeout, reason=FailureReason.UPDATE_TOOL)
