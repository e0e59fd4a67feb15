"""What an administrator does with the agent of an A/B node: ask, stop, start twice, let it try again."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from edge_day2.adapters.journal import FileJournal
from edge_day2.domain.statuses import UpdateStatusType
from image_server import Handler
from killable_node import EXAMPLES, MISSING_TOOLS, KillableNode, killable_node

pytestmark = pytest.mark.skipif(bool(MISSING_TOOLS), reason=f"not installed: {' '.join(MISSING_TOOLS)}")

NOW = timedelta(0)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[KillableNode]:
    """Yield a node that runs image 1."""
    with killable_node(tmp_path, 8 << 20) as found:
        yield found


def command(node: KillableNode, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the agent's command beside the agent."""
    line = [sys.executable, str(EXAMPLES / "immutable_node.py"), "--config", str(node.config), *options]
    return subprocess.run(line, capture_output=True, text=True)


def state(node: KillableNode) -> str:
    """Return the state of the update, as the journal has it."""
    record = FileJournal(node.journal).load()
    return record.flow.name if record is not None and record.flow is not None else ""


def slowly(handler: Handler) -> None:
    """Serve a file so slowly that it never ends."""
    handler.serve(rate=20_000)


def test_the_status_is_told_while_the_agent_runs_and_changes_nothing(node: KillableNode) -> None:
    with node.start() as agent:
        agent.wait_until(lambda: len(node.manager.told) > 2)
        before = node.journal.read_bytes()
        heard = {status.status_type for status in node.manager.told}

        done = command(node, "--status")

        assert node.journal.read_bytes() == before
    assert (done.returncode, done.stderr) == (0, "")
    assert "runs          A, default A, next boot alone none" in done.stdout
    assert "reports       0 wait to be delivered" in done.stdout
    assert heard == {UpdateStatusType.UP_TO_DATE}


def test_a_second_agent_is_refused(node: KillableNode) -> None:
    with node.start() as agent:
        agent.wait_until(lambda: bool(node.manager.told))

        for options in ([], ["--forget-failure"]):
            done = command(node, *options)

            assert done.returncode == 1
            assert f"process {agent.process} holds {node.folder}/agent.lock" in done.stderr


def test_an_agent_that_is_stopped_in_a_long_step_ends_soon_and_goes_on_after_its_start(node: KillableNode) -> None:
    node.files.always = slowly
    node.want(2, NOW)
    with node.start() as agent:
        agent.wait_until(lambda: bool(node.files.asked))
        agent.signal(signal.SIGTERM)
        assert agent.wait() == 0
    assert state(node) == "downloading"

    node.files.always = None
    with node.start() as agent:
        agent.wait_until(node.reboot_requested)

    assert {status.status_type for status in node.manager.told} == {
        UpdateStatusType.UP_TO_DATE,
        UpdateStatusType.STARTED,
    }


def test_an_image_that_was_proven_bad_is_tried_again_when_the_failure_is_forgotten(tmp_path: Path) -> None:
    with killable_node(tmp_path, 8 << 20, spoiled=2) as node:
        told = node.manager.told
        node.want(2, NOW)
        with node.start() as agent:
            agent.wait_until(lambda: [one.status_type for one in told[-3:]] == [UpdateStatusType.FAILED] * 3)
            status = command(node, "--status").stdout
            agent.signal(signal.SIGTERM)
            assert agent.wait() == 0
        assert "not tried again until the desired OS changes or the failure is forgotten" in status
        heard = len(told)

        done = command(node, "--forget-failure")

        assert (done.returncode, done.stdout, done.stderr) == (0, "a window is open\n", "")
        with node.start() as agent:
            agent.wait_until(lambda: UpdateStatusType.STARTED in [one.status_type for one in told[heard:]])
