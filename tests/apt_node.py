"""A node whose agent is a process of its own, and what must be true of it however often it was killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Final

from apt_world import AptWorld
from edge_day2.domain.statuses import parse_detail

_AGENT: Final = Path(__file__).with_name("apt_agent.py")
_LIMIT_SECONDS: Final = 240
_WORDS: Final = re.compile(r"(UP_TO_DATE )?((STARTED )(FAILED |UP_TO_DATE |UPDATED UP_TO_DATE ))*")


class Node:
    """An agent's folder, its process, and what apt does for it.

    Its orchestrator wants the package `new`, and the kernel command line `kernel_command`.
    """

    def __init__(self, folder: Path, world: AptWorld, kernel_command: str = "") -> None:
        self.folder = folder
        self.world = world
        self.process: subprocess.Popen[str] | None = None
        folder.mkdir()
        root = world.root
        self._mark = f"EDGE_DAY2_TESTS={folder}"
        name, value = self._mark.split("=")
        settings = {
            "root": str(root.path),
            "enter": root.enter,
            "dpkg_options": root.dpkg_options,
            "environment": {**root.environment, name: value},
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "boot").write_text("boot")
        start = datetime.now(UTC) - timedelta(seconds=1)
        answer = {"start": start.isoformat(), "end": (start + timedelta(hours=2)).isoformat()}
        (folder / "answer.json").write_text(json.dumps({**answer, "kernel_command": kernel_command}))

    def start(self) -> subprocess.Popen[str]:
        """Have an agent: start one where none runs."""
        if self.process is not None and self.process.poll() is None:
            return self.process
        self.stop()
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(_AGENT), str(self.folder)], stdout=subprocess.PIPE, stderr=log, text=True
            )
        return self.process

    def stop(self, within_seconds: float = _LIMIT_SECONDS) -> str:
        """Wait for the process to end, and return what it said."""
        if self.process is None:
            return ""
        try:
            said, _ = self.process.communicate(timeout=within_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            said, _ = self.process.communicate()
        self.process = None
        return said

    def running(self, *names: str) -> list[int]:
        """Return the processes of these names that apt or dpkg of this node are; of any name where none is given."""
        mark = self._mark.encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        name = (entry / "comm").read_text().strip()
                        if not names or name in names:
                            found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def kill(self, chance: random.Random) -> str:
        """Kill the agent, or an apt-get or dpkg that works for it, at any moment; return which it was."""
        name = chance.choice(("agent", "apt-get", "dpkg", "dpkg"))
        deadline = time.monotonic() + 5
        while name != "agent" and time.monotonic() < deadline:
            agent = self.start()
            if pids := self.running(name):
                # Not a wait for something: the moment of death is what is varied.
                time.sleep(chance.uniform(0, 0.4))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pids[0], signal.SIGKILL)
                    return name
            elif agent.poll() is not None:
                break
            # A look now and then at what can't be waited for; whatever goes wrong ends the loop.
            time.sleep(0.005)
        process = self.start()
        # Not a wait for something: the moment of death is what is varied.
        time.sleep(chance.uniform(0.05, 1.5))
        process.kill()
        return "agent"

    def heard(self) -> list[tuple[str, str]]:
        """Return status and status detail of each report, in order."""
        lines = (self.folder / "heard").read_text().splitlines()
        return [(name, detail) for name, detail in map(json.loads, lines)]

    def finish(self) -> None:
        """Let the update end, and have a failed one tried again, until the packages are there."""
        deadline = time.monotonic() + _LIMIT_SECONDS
        while time.monotonic() < deadline:
            self.start()
            said = self.stop(deadline - time.monotonic())
            if "done" in said:
                if self.heard()[-1][0] != "FAILED":
                    return
                (self.folder / "forget").touch()
        raise AssertionError(f"the update didn't end: {(self.folder / 'log').read_text()[-3000:]}")

    def check(self, wanted: Mapping[str, str]) -> None:
        """Complain where packages or reports aren't what an undisturbed update leaves."""
        deadline = time.monotonic() + _LIMIT_SECONDS
        while self.running():
            assert time.monotonic() < deadline, "apt or dpkg still runs"
            # A look now and then at what can't be waited for; whatever goes wrong ends the loop.
            time.sleep(0.02)
        root = self.world.root
        assert root.dpkg("--audit") == ""
        # dpkg's journal; a scratch file that a kill left there means nothing to it.
        assert not [path for path in (root.path / "var/lib/dpkg/updates").iterdir() if path.name.isdecimal()]
        assert wanted.items() <= root.installed().items()
        heard = self.heard()
        words = "".join(f"{name} " for name, _ in groupby(name for name, _ in heard))
        assert _WORDS.fullmatch(words), words
        assert words.endswith("UPDATED UP_TO_DATE "), words
        untold = wanted.items() - self.told()
        assert not untold, (untold, heard)

    def told(self) -> set[tuple[str, str]]:
        """Return (name, version) of everything that the reports call installed."""
        return {
            (entry.package_name, entry.version)
            for name, text in self.heard()
            if name in ("UPDATED", "FAILED") and (detail := parse_detail(text)) is not None
            for entry in detail.update_log
            if entry.version
        }
