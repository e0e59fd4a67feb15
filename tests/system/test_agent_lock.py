"""One agent on a node, with real processes and a real kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_day2.adapters.agent_lock import AgentLock
from edge_day2.errors import AgentRunning

# Holds the lock, starts a program that outlives it, and prints that program's id.
HOLDER = """
import subprocess, sys
from edge_day2.adapters.agent_lock import AgentLock

with AgentLock(sys.argv[1]):
    print(subprocess.Popen(["sleep", "999"], stdout=subprocess.DEVNULL, close_fds=False).pid, flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Yield a process that holds the lock, and the id of a program that it started."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        program = int(process.stdout.readline())
        try:
            yield process, program
        finally:
            process.kill()
            os.kill(program, signal.SIGKILL)


def test_a_second_agent_is_told_who_runs(tmp_path: Path) -> None:
    path = tmp_path / "run" / "agent.lock"

    with (
        held(path) as (process, _),
        pytest.raises(AgentRunning, match=rf"process {process.pid} holds .*agent\.lock; stop it first") as caught,
        AgentLock(path),
    ):
        raise AssertionError

    assert caught.value.process == str(process.pid)


def test_death_releases_the_lock_whatever_the_agent_started(tmp_path: Path) -> None:
    path = tmp_path / "agent.lock"

    with held(path) as (process, program):
        process.kill()
        process.wait()
        os.kill(program, 0)
        with AgentLock(path):
            assert path.read_text() == f"{os.getpid()}\n"


def test_a_lock_that_was_released_can_be_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "agent.lock"
    path.write_text("4194304 is longer than the next one\n")

    for _ in range(2):
        with AgentLock(path), pytest.raises(AgentRunning), AgentLock(path):
            raise AssertionError

    assert path.read_text() == f"{os.getpid()}\n"


def test_a_file_that_was_replaced_excludes_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = tmp_path / "agent.lock", list[int]()
    open_file = os.open

    def replace_once(name: Path, flags: int, mode: int) -> int:
        descriptor = open_file(name, flags, mode)
        if not opened:
            path.unlink()
        opened.append(descriptor)
        return descriptor

    monkeypatch.setattr(os, "open", replace_once)
    with AgentLock(path):
        monkeypatch.undo()
        with pytest.raises(AgentRunning), AgentLock(path):
            raise AssertionError

    assert len(opened) == 2


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "agent.lock").symlink_to(victim)

    with pytest.raises(OSError, match=r"agent\.lock"), AgentLock(tmp_path / "agent.lock"):
        raise AssertionError

    assert victim.read_text() == "precious"
