"""The machine: its boot id, and a service manager that may refuse."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from edge_day2.adapters.commands import run_command
from edge_day2.adapters.system import LinuxSystem
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import NodeFailure
from edge_day2.ports.system import SystemPort

# Far more than a program needs that doesn't hang.
AMPLE = 60.0


def python(program: str, *arguments: object) -> list[str]:
    """Return the command that runs `program`."""
    return [sys.executable, "-c", program, *map(str, arguments)]


def run(command: list[str], timeout_seconds: float = AMPLE) -> str:
    """Run `command` as the adapters do."""
    return run_command(command, timeout_seconds=timeout_seconds, reason=FailureReason.UPDATE_TOOL)


def test_a_command_brings_back_its_words() -> None:
    assert run(python("import sys; print('well'); print('indeed', file=sys.stderr)")) == "well\nindeed"


def test_a_command_gets_no_input_and_speaks_english() -> None:
    assert run(python("import os; print(repr(input.__class__), os.environ['LC_ALL']); os.read(0, 1)")).endswith("UTF-8")


def test_no_argument_meets_a_shell() -> None:
    assert run(python("import sys; print(sys.argv[1:])", "$(reboot)", "a; b")) == "['$(reboot)', 'a; b']"


def test_a_failed_command_says_its_status_and_its_last_words() -> None:
    with pytest.raises(NodeFailure, match=r"(?s)status 3: .*the reason$") as caught:
        run(python("print('x' * 10_000); print('the reason'); raise SystemExit(3)"))

    assert caught.value.reason is FailureReason.UPDATE_TOOL
    assert len(caught.value.log) < 3000


def test_a_silent_failure_is_told_as_one() -> None:
    with pytest.raises(NodeFailure, match="status 1: no word"):
        run(["false"])


def test_a_missing_program_is_named() -> None:
    with pytest.raises(NodeFailure, match=r"/no/such/program --now: can't be started: No such file"):
        run(["/no/such/program", "--now"])


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    child = "import pathlib, os, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(999)"
    parent = "import subprocess, sys; print('on it', flush=True); subprocess.run([sys.executable, '-c', *sys.argv[1:]])"

    with pytest.raises(NodeFailure, match=r"not done after 3 seconds: on it"):
        run(python(parent, child, started), timeout_seconds=3)

    assert wait_for_death(int(started.read_text()))


def test_a_command_that_never_stops_talking_is_killed() -> None:
    with pytest.raises(NodeFailure, match="not done after"):
        run(["yes"], timeout_seconds=0.2)


def test_a_child_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    program = "import subprocess; print(subprocess.Popen(['sleep', '999']).pid)"

    child = int(run(python(program)))

    os.kill(child, 9)


def wait_for_death(process: int) -> bool:
    """Wait until a process is gone, or a zombie that nobody has waited for yet."""
    for _ in range(6000):
        try:
            if ") Z " in Path(f"/proc/{process}/stat").read_text():
                return True
        except FileNotFoundError:
            return True
        # A look now and then at what can't be waited for; whatever goes wrong ends the loop.
        time.sleep(0.01)
    return False


def test_the_running_machine_says_its_boot_id_and_its_kernel() -> None:
    system: SystemPort = LinuxSystem(unit="edge-day2.service")

    assert system.boot_id() == system.boot_id() != ""
    assert system.kernel_release() == os.uname().release


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_boot_id_that_cannot_be_told_is_a_failure(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "boot_id"
    if content is not None:
        path.write_text(content)

    with pytest.raises(NodeFailure, match=f"boot id: .*{path}"):
        LinuxSystem(unit="edge-day2.service", boot_id=path).boot_id()


def test_everything_is_on_the_disks_before_the_reboot(tmp_path: Path) -> None:
    order = tmp_path / "order"

    def sync() -> None:
        order.write_text("sync ")

    reboot = python("import sys; open(sys.argv[1], 'a').write('reboot')", order)
    LinuxSystem(unit="edge-day2.service", reboot_command=reboot, sync=sync).reboot()

    assert order.read_text() == "sync reboot"


def test_a_machine_that_refuses_to_reboot_says_why() -> None:
    refuses = python("print('Operation inhibited'); raise SystemExit(1)")

    with pytest.raises(NodeFailure, match="Operation inhibited") as caught:
        LinuxSystem(unit="edge-day2.service", reboot_command=refuses, sync=lambda: None).reboot()

    assert caught.value.reason is FailureReason.BOOTLOADER_FAIL


def test_the_agent_is_restarted_without_waiting_for_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$@" > {told}\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    LinuxSystem(unit="edge-day2.service").restart_agent()

    assert told.read_text() == "restart --no-block -- edge-day2.service\n"
