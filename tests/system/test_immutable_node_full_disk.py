"""The whole agent of an A/B node on a state partition that is too small, full, or read-only."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from edge_day2.domain.observation import Slot
from edge_day2.domain.statuses import UpdateStatusType, parse_detail
from killable_node import MISSING_TOOLS, Agent, KillableNode, killable_node
from small_disks import fill, make_read_only, make_writable, small_disk

pytestmark = pytest.mark.skipif(bool(MISSING_TOOLS), reason=f"not installed: {' '.join(MISSING_TOOLS)}")

SIZE = 8 << 20
NOW, LATER = timedelta(0), timedelta(minutes=10)


@contextmanager
def node_on_small_disk(folder: Path, size: int) -> Iterator[tuple[KillableNode, Path]]:
    """Yield a node whose journal, records and images ahead of the window lie on a disk of this size."""
    with small_disk(folder / "state", size) as disk, killable_node(folder, SIZE) as node:
        yield node, disk


def reports(node: KillableNode) -> list[UpdateStatusType]:
    """Return what the node said so far."""
    return [status.status_type for status in node.manager.told]


def finish(node: KillableNode, agent: Agent, number: int) -> None:
    """Wait for the reboot, boot, and wait until the node says that it runs this image."""
    agent.wait_until(node.reboot_requested)
    agent.kill()
    node.boot()
    with node.start() as trial:
        trial.wait_until(lambda: reports(node)[-2:] == [UpdateStatusType.UPDATED, UpdateStatusType.UP_TO_DATE])
    assert filecmp.cmp(node.slot(node.active), node.images[number].raw, shallow=False)


def test_an_image_that_has_no_room_ahead_of_the_window_is_installed_in_it(tmp_path: Path) -> None:
    def says_that_there_is_no_room() -> bool:
        said = (parse_detail(status.status_detail) for status in node.manager.told)
        return any(detail is not None and "has no room in" in detail.message for detail in said)

    with node_on_small_disk(tmp_path, SIZE // 4) as (node, _):
        node.want(2, LATER)
        with node.start() as agent:
            agent.wait_until(says_that_there_is_no_room)
            assert UpdateStatusType.STARTED not in reports(node)
            node.want(2, NOW)
            finish(node, agent, 2)


def test_a_full_disk_holds_an_update_up_and_loses_nothing(tmp_path: Path) -> None:
    with node_on_small_disk(tmp_path, 2 * SIZE) as (node, disk), node.start() as agent:
        agent.wait_until(lambda: node.journal.exists())
        ballast = fill(disk)
        node.want(2, NOW)
        agent.wait_until(lambda: "No space left on device" in node.said)
        heard = len(node.manager.told)
        agent.wait_until(lambda: len(node.manager.told) > heard + 5)
        assert set(reports(node)) == {UpdateStatusType.UP_TO_DATE}
        ballast.unlink()
        finish(node, agent, 2)


def test_a_read_only_disk_lets_the_agent_report_and_nothing_else(tmp_path: Path) -> None:
    with node_on_small_disk(tmp_path, 2 * SIZE) as (node, disk):
        with node.start() as agent:
            agent.wait_until(lambda: node.journal.exists())
            make_read_only(disk)
            node.want(2, NOW)
            agent.wait_until(lambda: "Read-only file system" in node.said)
        with node.start() as agent:
            heard = len(node.manager.told)
            agent.wait_until(lambda: len(node.manager.told) > heard + 5)
            assert set(reports(node)) == {UpdateStatusType.UP_TO_DATE}
            assert not any(node.slot(Slot.B).read_bytes())
            make_writable(disk)
            finish(node, agent, 2)
