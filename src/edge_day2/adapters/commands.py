"""Runs a program of the system within a time limit, and brings back its words."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Final

from edge_day2.domain.statuses import FailureReason
from edge_day2.ports.failures import NodeFailure

# What a program says last tells why it failed.
_LAST_BYTES: Final = 2_000
_BLOCK: Final = 65_536


def run_command(
    command: Sequence[str], *, timeout_seconds: float, reason: FailureReason, most_bytes: int = _LAST_BYTES
) -> str:
    """Run `command`, an argument list, and return the last `most_bytes` of what it wrote, standard error included.

    It gets no input, speaks English, and has a process group of its own, which is killed when time is up. A process
    that it leaves in the background isn't waited for.

    Raises:
        NodeFailure: it can't be started, ends with another status than 0, or takes longer than `timeout_seconds`;
            with `reason` and the program's own words.
    """
    shown = " ".join(command)
    try:
        process = subprocess.Popen(  # noqa: S603  # an argument list, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
    except OSError as error:
        raise NodeFailure(reason, f"{shown}: can't be started: {error.strerror}") from error
    with process:
        try:
            said, done = _follow(process, time.monotonic() + timeout_seconds, most_bytes)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    text = said[-_LAST_BYTES:].decode(errors="replace").strip() or "no word"
    if not done:
        raise NodeFailure(reason, f"{shown}: killed, not done after {timeout_seconds:g} seconds: {text}")
    if process.returncode != 0:
        raise NodeFailure(reason, f"{shown}: status {process.returncode}: {text}")
    return said.decode(errors="replace").strip()


def _follow(process: subprocess.Popen[bytes], deadline: float, most_bytes: int) -> tuple[bytes, bool]:
    """Return the last of what the program wrote, and whether it ended before the deadline."""
    assert process.stdout is not None
    output, said = process.stdout.fileno(), b""
    # The end of the output isn't the end of the program: it may be open in the background.
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                ready = {key.fd for key, _ in selector.select(left)}
                if output in ready:
                    block = os.read(output, _BLOCK)
                    said = (said + block)[-most_bytes:]
                    if not block:
                        selector.unregister(output)
                elif ended in ready:
                    process.wait()
                    return said, True
    finally:
        os.close(ended)
    return said, False
