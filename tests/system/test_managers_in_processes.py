"""OS Resource Managers in several processes over one SQLite file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.resources import Host, Instance, OSResource, os_resource_id

EXAMPLES = Path(__file__).parents[2] / "examples" / "profiles"
OLD, NEW = (
    os_resource_id("tenant", "microvisor-rt", version) for version in ("3.0.20251119.0133", "3.0.20251204.0217")
)

RECONCILE = """
import sys
from edge_day2.adapters.release_service import DirectoryReleaseService
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.os_resource_manager import OSResourceManager
from edge_day2.domain.linking import LinkingMode

url, profiles, revision = sys.argv[1:]
with open_inventory(url, lock_timeout_seconds=60) as inventory:
    service = DirectoryReleaseService(profiles)
    manager = OSResourceManager(inventory, service, revision=revision, mode=LinkingMode.AUTOMATIC, batch_size=7)
    sys.stdin.readline()
    report = manager.reconcile("tenant")
    print(len(report.created), report.linked_instances, len(report.rejected))
"""


def run_at_once(url: str, revision: str, count: int) -> list[tuple[int, ...]]:
    """Let several processes reconcile from one starting shot; return what each created, linked and rejected."""
    command = [sys.executable, "-c", RECONCILE, url, str(EXAMPLES), revision]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    return [tuple(map(int, output.split())) for output in outputs]


def test_processes_that_reconcile_at_once_create_and_link_everything_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'inventory.db'}"
    created = run_at_once(url, "0.9.0", 3)
    with open_inventory(url) as inventory, inventory.writing() as write:
        for number in range(60):
            guid = f"00000000-0000-0000-0000-{number:012x}"
            write.add(Host(resource_id=f"host-{number}", tenant_id="tenant", guid=guid, name=f"node {number}"))
            os = write.get(OSResource, "tenant", OLD)
            write.add(
                Instance(
                    resource_id=f"inst-{number}",
                    tenant_id="tenant",
                    host_id=f"host-{number}",
                    os_type=os.os_type,
                    current_os_id=OLD,
                    desired_os_id=OLD,
                )
            )

    linked = run_at_once(url, "0.9.8", 3)

    assert sum(report[0] for report in created) == len(list((EXAMPLES / "0.9.0").iterdir()))
    assert sum(report[1] for report in linked) == 60
    assert sum(report[2] for report in created + linked) == 0
    with open_inventory(url) as inventory, inventory.reading() as read:
        assert {instance.desired_os_id for instance in read.all(Instance, "tenant")} == {NEW}
