"""A real agent on real apt in a process of its own, to be killed: `python apt_agent.py FOLDER`.

FOLDER holds `settings.json` (of the adapter), `answer.json` (of the Maintenance Manager), `boot` (the boot id) and gets
`journal.json`, `pid`, and `heard`: one JSON line for each report that the Maintenance Manager was given. A file
`forget` has the agent forget that an update failed. The process ends at a reboot or restart, and with "done" when the
update has ended and all reports are delivered.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from attrs import define, frozen

from edge_day2.adapters.apt import AptGet
from edge_day2.adapters.apt_settings import AptSettings
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.journal import FileJournal
from edge_day2.application.mutable_node import MutableNode
from edge_day2.application.platform_update_agent import PlatformUpdateAgent
from edge_day2.domain.agent import in_progress
from edge_day2.domain.messages import (
    PlatformUpdateStatusRequest,
    PlatformUpdateStatusResponse,
    UpdateSchedule,
    UpdateSource,
)
from edge_day2.domain.resources import OSType
from edge_day2.domain.schedules import SingleSchedule
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import NodeFailure

HOST = "12345678-1234-1234-1234-123456789abc"


@frozen
class FileLink:
    """A Maintenance Manager that notes what it hears, and answers with the folder's window and one new package."""

    folder: Path

    def platform_update_status(self, request: PlatformUpdateStatusRequest) -> PlatformUpdateStatusResponse:
        """See `MaintenanceLink`."""
        status = request.update_status
        line = json.dumps([status.status_type.name, status.status_detail]) + "\n"
        descriptor = os.open(self.folder / "heard", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
        answer = json.loads((self.folder / "answer.json").read_text())
        window = SingleSchedule(datetime.fromisoformat(answer["start"]), datetime.fromisoformat(answer["end"]))
        return PlatformUpdateStatusResponse(
            os_type=OSType.MUTABLE,
            update_schedule=UpdateSchedule(single_schedule=window),
            update_source=UpdateSource(kernel_command=answer["kernel_command"]),
            installed_packages="new",
        )


@define
class FolderMachine:
    """The rest of the node: package lists, GRUB's files below `root`, a reboot that takes them; services are well.

    `process_ends` where the agent's process has to end, for a reboot or a restart of the agent.
    """

    folder: Path
    settings: AptSettings
    process_ends: bool = False

    def _run(self, *command: str, reason: FailureReason) -> None:
        environment = {**os.environ, **self.settings.environment}
        done = subprocess.run([*self.settings.enter, *command], env=environment, capture_output=True, check=False)
        if done.returncode != 0:
            raise NodeFailure(reason, done.stderr.decode())

    def replace(self, sources: tuple[str, ...], until: datetime | None) -> None:
        """See `AptSourcesPort`."""
        self._run("apt-get", "update", reason=FailureReason.DOWNLOAD_FAIL)

    def set_kernel_command_line(self, kernel_command_line: str) -> bool:
        """See `GrubPort`."""
        drop_in = self.settings.root / "etc/default/grub.d/90-edge_day2.cfg"
        drop_in.write_text(f'GRUB_CMDLINE_LINUX_DEFAULT="{kernel_command_line}"\n')
        self._run("update-grub", reason=FailureReason.UT_BOOT_CONFIGURATION)
        return self.running_kernel_command_line() != kernel_command_line

    def running_kernel_command_line(self) -> str:
        """See `GrubPort`."""
        return self._text("cmdline")

    def check(self) -> None:
        """See `HealthPort`."""

    def boot_id(self) -> str:
        """See `SystemPort`."""
        return self._text("boot")

    def kernel_release(self) -> str:
        """See `SystemPort`."""
        return self._text("kernel")

    def reboot(self) -> None:
        """See `SystemPort`."""
        boot = self.settings.root / "boot"
        configuration = boot / "grub/grub.cfg"
        kernels = sorted(path.name.removeprefix("vmlinuz-") for path in boot.glob("vmlinuz-*"))
        self._note("cmdline", configuration.read_text() if configuration.exists() else "")
        self._note("kernel", kernels[-1] if kernels else "")
        self._note("boot", f"{self.boot_id()}+")
        self.process_ends = True

    def restart_agent(self) -> None:
        """See `SystemPort`."""
        self.process_ends = True

    def _text(self, name: str) -> str:
        file = self.folder / name
        return file.read_text() if file.exists() else ""

    def _note(self, name: str, text: str) -> None:
        beside = self.folder / f"{name}.new"
        beside.write_text(text)
        beside.replace(self.folder / name)


def main(folder: Path) -> None:
    """Run the agent until there is nothing to do."""
    (folder / "pid").write_text(str(os.getpid()))
    given = json.loads((folder / "settings.json").read_text())
    settings = AptSettings(
        agent_package="agent",
        helper_packages=("helper",),
        root=Path(given["root"]),
        enter=tuple(given["enter"]),
        runner=(),
        dpkg_options=tuple(given["dpkg_options"]),
        environment=given["environment"],
    )
    clock = SystemClock()
    machine = FolderMachine(folder, settings)
    node = MutableNode(
        apt=AptGet(clock=clock, settings=settings), apt_sources=machine, grub=machine, health=machine, system=machine
    )
    agent = PlatformUpdateAgent(
        host_guid=HOST,
        node=node,
        journal=FileJournal(folder / "journal.json"),
        link=FileLink(folder),
        clock=clock,
    )
    agent.resume()
    if (folder / "forget").exists():
        agent.forget_failure()
        (folder / "forget").unlink()
    while True:
        agent.tick()
        while agent.run_pending():
            pass
        if machine.process_ends:
            return
        if agent.record.flow is not None and not in_progress(agent.record) and not agent.record.outbox:
            print("done", flush=True)
            return
        # The interval of an agent in a hurry.
        time.sleep(0.02)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
