"""What systemd is told, over a socket like its own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from edge_day2.adapters.service_manager import SystemdServiceManager
from edge_day2.ports.service_manager import ServiceManagerPort


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """Yield the socket of a service manager, and its address as a service is given it."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@{uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        server.settimeout(60)
        yield server, address


def heard(systemd: socket.socket) -> str:
    """Return the next message."""
    return systemd.recv(4096).decode()


def test_systemd_is_told_when_the_service_begins_and_ends(systemd: tuple[socket.socket, str]) -> None:
    server, address = systemd
    manager: ServiceManagerPort = SystemdServiceManager({"NOTIFY_SOCKET": address})

    manager.ready()
    manager.status("waits for the window\nREADY=1")
    manager.stopping()

    assert [heard(server) for _ in range(3)] == ["READY=1", "STATUS=waits for the window READY=1", "STOPPING=1"]


def test_the_limit_of_the_watchdog_is_set_anew_with_each_sign_of_life(systemd: tuple[socket.socket, str]) -> None:
    server, address = systemd
    manager = SystemdServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000000"})

    manager.alive(920.5)

    assert heard(server) == "WATCHDOG_USEC=920500000\nWATCHDOG=1"


def test_a_watchdog_that_nobody_wants_is_not_switched_on(systemd: tuple[socket.socket, str]) -> None:
    server, address = systemd
    manager = SystemdServiceManager({"NOTIFY_SOCKET": address})

    manager.alive(920)
    manager.ready()

    assert heard(server) == "READY=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/no/such/socket", "WATCHDOG_USEC": "1"}])
def test_without_a_service_manager_the_agent_goes_on(environment: dict[str, str]) -> None:
    manager = SystemdServiceManager(environment)

    manager.ready()
    manager.alive(1)
    manager.status("works")
    manager.stopping()
