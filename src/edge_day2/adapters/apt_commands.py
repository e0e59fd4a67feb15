"""How apt and dpkg are run: by argument list, with a clean environment, in a session of their own, output bounded.

What runs dpkg must outlive the agent: it writes to memory that it shares with the agent, never to a pipe that breaks
when the agent dies, it has a session of its own, and where systemd runs it gets a scope of its own, because stopping
the agent's service would kill it. Nothing here ever ends a process that runs dpkg.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from attrs import frozen

from edge_day2.adapters.apt_settings import AptSettings
from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.clock import Clock
from edge_day2.ports.failures import NodeFailure, OutOfTime

_log: Final = logging.getLogger(__name__)

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# All that a maintainer script gets from the agent's own environment.
_INHERITED: Final = frozenset(
    {"HOME", "TZ", "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
)
# NEEDRESTART_SUSPEND keeps needrestart from restarting services, this agent among them, in the middle of an update.
_ENVIRONMENT: Final = {
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "NEEDRESTART_MODE": "l",
    "NEEDRESTART_SUSPEND": "1",
    "APT_LISTCHANGES_FRONTEND": "none",
    "APT_LISTBUGS_FRONTEND": "none",
    "UCF_FORCE_CONFFOLD": "1",
}
# The original's for the update of the agent itself: services that run old code, the agent too, are restarted.
# "" unsets a variable.
SELF_UPDATE: Final[Mapping[str, str]] = {"NEEDRESTART_MODE": "a", "NEEDRESTART_SUSPEND": ""}

_HEAD_BYTES: Final = 1_000
_TAIL_BYTES: Final = 3_000
# A maintainer script may print without end.
_MOST_OUTPUT_BYTES: Final = 1 << 20
_POLL_SECONDS: Final = 0.2
_GRACE_SECONDS: Final = 10
_CREDENTIALS: Final = re.compile(r"://[^/\s'@]+@")


@frozen
class Finished:
    """A command that ended: its exit code (below 0: the signal that killed it), what it printed, its last words.

    `output` is standard output as a whole, of commands that change nothing. `words` is what a person should read,
    bounded, without credentials.
    """

    command: tuple[str, ...]
    code: int
    output: str
    words: str

    def __str__(self) -> str:
        how = f"killed by signal {-self.code}" if self.code < 0 else f"exit code {self.code}"
        return f"{asked(self.command)}: {how}: {self.words}"


def asked(command: Sequence[str]) -> str:
    """Return a command line for people: without `-o` and what it sets."""
    return " ".join(
        word for before, word in zip(("", *command), command, strict=False) if word != "-o" and before != "-o"
    )


class AptCommands:
    """Runs commands as `settings` say.

    Every method raises NodeFailure where the command can't be started.
    """

    def __init__(self, settings: AptSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        inherited = {name: value for name, value in os.environ.items() if name in _INHERITED}
        self._environment = {"PATH": _PATH, **inherited, **_ENVIRONMENT, **settings.environment}

    def ask(self, *command: str) -> Finished:
        """Run a command that changes nothing, and return all that it printed.

        Raises:
            NodeFailure: it took longer than `query_limit`.
        """
        limit = self._settings.query_limit.total_seconds()
        argv = (*self._settings.enter, *command)
        with self._started(argv, {}, subprocess.PIPE, subprocess.PIPE) as process:
            try:
                output, errors = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                _end(process)
                raise NodeFailure(
                    FailureReason.UPDATE_TOOL, f"{asked(command)}: no answer within {limit:.0f} s"
                ) from None
            except BaseException:
                _end(process)
                raise
        return Finished(command, process.returncode, output.decode(errors="replace"), _words(output + errors))

    def fetch(self, *command: str, until: datetime | None) -> Finished:
        """Run a download. It is cut off when the window ends, which loses nothing.

        Raises:
            OutOfTime: the window closed.
        """
        with _Capture() as capture:
            process = self._started((*self._settings.enter, *command), {}, capture.descriptor, subprocess.STDOUT)
            with process:
                try:
                    while not _ended(process):
                        capture.shorten()
                        if until is not None and self._clock.now() >= until:
                            raise OutOfTime(f"the window closed during {asked(command)}: {capture.words()}")
                except BaseException:
                    _end(process)
                    raise
            return Finished(command, process.returncode, "", capture.words())

    def change(self, *command: str, environment: Mapping[str, str] | None = None) -> Finished:
        """Run what may run dpkg. It isn't ended, whatever happens.

        Raises:
            NodeFailure: it works for longer than `change_limit`, and goes on.
        """
        argv = (*self._settings.runner, *self._settings.enter, *command)
        limit = self._settings.change_limit
        deadline = time.monotonic() + limit.total_seconds()
        with _Capture() as capture:
            process = self._started(argv, environment or {}, capture.descriptor, subprocess.STDOUT)
            try:
                while not _ended(process):
                    capture.shorten()
                    if time.monotonic() > deadline:
                        log = (
                            f"{asked(command)}: not done after {limit}; it goes on and isn't ended, because that "
                            f"would break the package database. Running: {running_below(process.pid)}. "
                            f"{capture.words()}"
                        )
                        raise NodeFailure(FailureReason.UPDATE_TOOL, log)
            finally:
                if process.returncode is None:
                    # Whenever it ends, no zombie is left.
                    threading.Thread(target=process.wait, daemon=True).start()
            finished = Finished(command, process.returncode, "", capture.words())
        _log.info("%s: exit code %d", asked(command), finished.code)
        return finished

    def _started(
        self, argv: Sequence[str], environment: Mapping[str, str], output: int, errors: int
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(  # noqa: S603  # an argument list, no shell
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={name: value for name, value in {**self._environment, **environment}.items() if value},
                cwd="/",
                umask=0o022,
                start_new_session=True,
            )
        except OSError as error:
            raise NodeFailure(FailureReason.UPDATE_TOOL, f"{argv[0]} can't be started: {error}") from error


class _Capture:
    """Output of a command in memory that both sides hold: the first and the last of it, whatever it prints."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("apt output")
        # Appending, so that the file can be emptied while the command writes.
        fcntl.fcntl(self.descriptor, fcntl.F_SETFL, os.O_APPEND)
        self._head = b""
        self._tail = b""
        self._left_out = 0

    def __enter__(self) -> _Capture:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def shorten(self) -> None:
        """Throw away the middle of what is there, where that is much."""
        size = os.fstat(self.descriptor).st_size
        if size > _MOST_OUTPUT_BYTES:
            self._head = self._head or os.pread(self.descriptor, _HEAD_BYTES, 0)
            self._tail = os.pread(self.descriptor, _TAIL_BYTES, size - _TAIL_BYTES)
            self._left_out += size
            os.ftruncate(self.descriptor, 0)

    def words(self) -> str:
        """Return beginning and end of the output as text."""
        size = os.fstat(self.descriptor).st_size
        if not self._left_out:
            return _words(os.pread(self.descriptor, size, 0))
        rest = os.pread(self.descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        return _shortened(self._head, (self._tail + rest)[-_TAIL_BYTES:], self._left_out + size)


def _words(output: bytes) -> str:
    output = output.strip()
    if len(output) <= _HEAD_BYTES + _TAIL_BYTES:
        return _text(output)
    return _shortened(output[:_HEAD_BYTES], output[-_TAIL_BYTES:], len(output))


def _shortened(head: bytes, tail: bytes, size: int) -> str:
    return f"{_text(head)}\n… {size - len(head) - len(tail)} bytes left out …\n{_text(tail)}"


def _text(output: bytes) -> str:
    text = output.decode(errors="replace").replace("\r", "\n").replace("\0", "")
    return _CREDENTIALS.sub("://", text).strip()


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
            return


def process_name(pid: int) -> str:
    """Return "name (pid N)" of a process, as far as it can be seen."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        name = "a process"
    return f"{name} (pid {pid})"


def running_below(pid: int) -> str:
    """Return a process and what it started, newest last: "apt-get (pid 7), dpkg (pid 8), tool.postinst (pid 9)"."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # The name, in parentheses, may hold anything.
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found.extend(child for child, parent in parents.items() if parent == one)
    return ", ".join(process_name(one) for one in found)
