"""Two thousand connections to one server, each of which spoke to it: agents are answered all the same."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from edge_day2.adapters.grpc import GrpcLink
from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.resources import OSType
from wire_server import IDLE, ONCE, TENANT, settle

CONNECTIONS = 2000
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
ACKNOWLEDGED = 9

SERVER = """
import asyncio, sys
from edge_day2 import MaintenanceManager
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.grpc import SingleTenant, serve
from edge_day2.adapters.storage import open_inventory

with open_inventory(sys.argv[1]) as inventory:
    asyncio.run(serve(
        MaintenanceManager(inventory, clock=SystemClock()), address="127.0.0.1:0", tls=None,
        authenticator=SingleTenant(tenant=sys.argv[2]), on_ready=lambda server: print(server.port, flush=True),
    ))
"""


@contextmanager
def many_files(count: int) -> Iterator[None]:
    """Allow so many open files, where the machine does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_two_thousand_connections_stand_while_agents_are_answered(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'inventory.db'}"
    with open_inventory(url) as inventory:
        settle(inventory, 1)
    command = [sys.executable, "-c", SERVER, url, TENANT]
    with (
        many_files(CONNECTIONS + 500),
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
        ExitStack() as connections,
    ):
        connections.callback(process.terminate)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        opened = []
        for _ in range(CONNECTIONS):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            connection.sendall(PREFACE)
            opened.append(connection)
        # The server's own settings: it has taken every one of them.
        assert all(len(connection.recv(ACKNOWLEDGED)) == ACKNOWLEDGED for connection in opened)

        for _ in range(5):
            with GrpcLink(f"127.0.0.1:{port}", tls=None, retry=ONCE) as link:
                assert link.platform_update_status(IDLE).os_type is OSType.IMMUTABLE

    assert process.returncode == 0
