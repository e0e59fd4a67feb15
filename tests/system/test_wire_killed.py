"""kill -9 under load, of the server and of an agent: nothing is lost and nothing is doubled in the Inventory."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_day2 import Instance, PlatformUpdateAgent
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.grpc import GrpcLink
from edge_day2.adapters.journal import FileJournal
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.immutable_node import ImmutableNode
from edge_day2.domain.agent import AgentRecord
from edge_day2.domain.immutable_events import Image
from edge_day2.domain.messages import UpdateStatus
from edge_day2.domain.resources import OSUpdateRun
from edge_day2.domain.statuses import InventoryStatus
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.local_authority import LocalAuthority
from edge_day2.testing.model_nodes import ModelABNode
from edge_day2.testing.simulated_node import MemoryJournal
from wire_server import ONCE, TENANT, Recorder, guid, running, settle, updates

IMAGE = Image(profile_name="microvisor-nonrt", image_id="3.1", sha256="1" * 64, url="files/edge.raw.gz")
NODES = 6

SERVER = """
import asyncio, sys
from edge_day2 import MaintenanceManager
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.grpc import SingleTenant, serve
from edge_day2.adapters.storage import open_inventory

url, tenant, port = sys.argv[1:]
with open_inventory(url) as inventory:
    asyncio.run(serve(
        MaintenanceManager(inventory, clock=SystemClock()), address=f"127.0.0.1:{port}", tls=None,
        authenticator=SingleTenant(tenant=tenant), on_ready=lambda server: print(server.port, flush=True),
    ))
"""

AGENT = """
import sys
from edge_day2 import PlatformUpdateAgent
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.grpc import ClientTls, GrpcLink
from edge_day2.adapters.journal import FileJournal
from edge_day2.application.immutable_node import ImmutableNode
from edge_day2.domain.immutable_events import Image
from edge_day2.testing.model_nodes import ModelABNode

target, ca, token, journal, guid = sys.argv[1:]
image = Image(profile_name="microvisor-nonrt", image_id="3.1", sha256="1" * 64, url="files/edge.raw.gz")
machine = ModelABNode.with_image(image)
node = ImmutableNode(slots=machine, bootloader=machine, health=machine, system=machine)
link = GrpcLink(target, tls=ClientTls(ca=ca), token_file=token)
agent = PlatformUpdateAgent(host_guid=guid, node=node, journal=FileJournal(journal), link=link, clock=SystemClock())
agent.resume()
while agent.record.outbox:
    agent.tick()
link.close()
"""


def agent_of(number: int, link: GrpcLink, said: list[UpdateStatus]) -> PlatformUpdateAgent:
    """Return an agent of a node that has all of this to tell, and nothing else to do."""
    machine = ModelABNode.with_image(IMAGE)
    agent = PlatformUpdateAgent(
        host_guid=guid(number),
        node=ImmutableNode(slots=machine, bootloader=machine, health=machine, system=machine),
        journal=MemoryJournal(AgentRecord(outbox=tuple(said))),
        link=link,
        clock=SystemClock(),
    )
    agent.resume()
    return agent


def check_history(inventory: Inventory, nodes: int, count: int) -> None:
    """Check that every node has one run for each of its updates, in order, each with its own end."""
    with inventory.reading() as unit:
        instances = list(unit.all(Instance, TENANT))
        histories = [unit.runs_of_instance(TENANT, instance.resource_id)[::-1] for instance in instances]
        assert len(list(unit.all(OSUpdateRun, TENANT))) == nodes * count
    assert len(instances) == nodes
    for runs in histories:
        assert [json.loads(run.update.detail)["message"] for run in runs] == [f"update {n}" for n in range(count)]
        ends = [InventoryStatus.FAILED if number % 2 else InventoryStatus.DONE for number in range(count)]
        assert [run.update.status for run in runs] == ends
        assert all(run.end_time is not None for run in runs)


@contextmanager
def server_process(url: str, port: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a server in a process of its own; kill it at the end."""
    command = [sys.executable, "-c", SERVER, url, TENANT, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def test_a_killed_server_loses_and_doubles_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'inventory.db'}"
    chance, count, port = random.Random(1), 40, 0
    everything = NODES * 2 * count
    deaths = sorted(chance.sample(range(1, everything * 9 // 10), 6))
    with open_inventory(url) as inventory:
        settle(inventory, NODES, scheduled=False)
    progress = [0] * NODES

    def live(number: int, port: int) -> None:
        with GrpcLink(f"127.0.0.1:{port}", tls=None, retry=ONCE) as link:
            agent = agent_of(number, link, updates(count))
            while agent.record.outbox:
                if agent.tick().problem:
                    # An agent in a hurry, which isn't heard.
                    time.sleep(0.02)
                progress[number] = 2 * count - len(agent.record.outbox)

    threads: list[threading.Thread] = []
    for death in deaths:
        with server_process(url, port) as (_, port):
            if not threads:
                threads = [threading.Thread(target=live, args=(number, port)) for number in range(NODES)]
                for thread in threads:
                    thread.start()
            while sum(progress) < death:
                time.sleep(0.001)
            # Not a wait for something: the moment of death is what is varied.
            time.sleep(chance.uniform(0.0, 0.01))
    with server_process(url, port):
        for thread in threads:
            thread.join(120)
    assert progress == [2 * count] * NODES
    with open_inventory(url) as inventory:
        check_history(inventory, NODES, count)


def test_a_killed_agent_tells_everything_in_order_and_only_the_last_word_twice(tmp_path: Path) -> None:
    chance, count = random.Random(3), 100
    said = updates(count)
    journal = tmp_path / "journal.json"
    FileJournal(journal).store(AgentRecord(outbox=tuple(said)))
    url, authority = f"sqlite:///{tmp_path / 'inventory.db'}", LocalAuthority(tmp_path / "authority")
    with open_inventory(url) as inventory:
        settle(inventory, 1, scheduled=False)
        manager = Recorder(inventory)
        with running(manager, authority) as server:
            token = authority.token_file(authority.token(TENANT))
            target = f"localhost:{server.port}"
            command = [sys.executable, "-c", AGENT, target, str(authority.ca), str(token), str(journal), guid(0)]
            kills = 0
            while (code := kill_under_way(command, manager, chance)) is None:
                kills += 1
            assert code == 0
        check_history(inventory, 1, count)

    assert kills > 0
    # The agent's process ends once nothing waits; what it repeats is the head of its outbox alone.
    told = [(status.status_type, status.status_detail) for status in manager.told]
    assert [status for status, _ in itertools.groupby(told)] == [
        (status.status_type, status.status_detail) for status in said
    ]
    assert len(manager.told) <= len(said) + kills


def kill_under_way(command: list[str], manager: Recorder, chance: random.Random) -> int | None:
    """Start an agent and kill it somewhere under way; return its exit code where it was done before, else None."""
    # By progress, not by time: on a slow machine a life would be too short to get anywhere.
    death = len(manager.told) + chance.randint(1, 30)
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    with process:
        while len(manager.told) < death and process.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.01))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
    return None if process.returncode == -signal.SIGKILL else process.returncode
