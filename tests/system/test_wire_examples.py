"""The examples, as somebody tries them: a server in one process, an agent in another, as the server says."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_day2 import Instance
from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.statuses import InventoryStatus

SERVER = Path(__file__).parents[2] / "examples" / "maintenance_server.py"


def test_an_agent_that_is_pointed_at_the_server_as_it_says_updates_its_node(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    command = [sys.executable, str(SERVER), "--folder", str(tmp_path), "--port", "0", "--nodes", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            said = next(line for line in server.stdout if "agent_against_server.py" in line)
            agent = subprocess.run(shlex.split(said), env=environment, capture_output=True, text=True, check=False)
        finally:
            server.send_signal(signal.SIGTERM)

    assert agent.returncode == 0, agent.stderr
    assert "as it should" in agent.stdout
    assert server.returncode == 0
    with open_inventory(f"sqlite:///{tmp_path / 'inventory.db'}") as inventory, inventory.reading() as unit:
        instances = list(unit.all(Instance, unit.tenants()[0]))
    assert sorted(instance.current_os_id == instance.desired_os_id for instance in instances) == [False, True]
    updated = next(instance for instance in instances if instance.current_os_id == instance.desired_os_id)
    assert updated.update.status is InventoryStatus.UP_TO_DATE


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--nodes", "0"), "found '0', expected a whole number from 1"),
        (("--port", "99999"), "expected host and port, the port from 0 to 65535"),
        (("--database", "bogus://x"), "expected memory://, sqlite:///file.db"),
    ],
)
def test_the_server_tells_bad_input_without_a_traceback(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    command = [sys.executable, str(SERVER), "--folder", str(tmp_path), *options]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
