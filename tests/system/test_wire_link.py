"""An agent's link: attempts, reconnecting, tokens, deadlines, and reports that wait while nobody answers."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from edge_day2 import Instance, MaintenanceManager
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.grpc import ClientTls, GrpcLink, RetryPolicy
from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.immutable_events import Image
from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse, UpdateStatus
from edge_day2.domain.resources import OSType, OSUpdateRun
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    RequestError,
    StorageError,
    Unauthenticated,
    Unavailable,
)
from edge_day2.ports.inventory import Inventory
from edge_day2.testing import SimulatedNode, VirtualClock
from edge_day2.testing.local_authority import LocalAuthority
from wire_server import IDLE, ONCE, TENANT, guid, image, running, says, serving, settle

QUICK = RetryPolicy(attempts=4, first_wait_seconds=0.001, longest_wait_seconds=0.01)


class Recorder(MaintenanceManager):
    """A Maintenance Manager that notes what it is told, and fails as often as a test wants."""

    def __init__(self, inventory: Inventory, failures: int = 0) -> None:
        super().__init__(inventory, clock=SystemClock())
        self.failures = failures
        self.told: list[UpdateStatus] = []

    def platform_update_status(
        self, request: PlatformUpdateStatusRequest, *, tenant: str
    ) -> PlatformUpdateStatusResponse:
        self.told.append(request.update_status)
        if self.failures:
            self.failures -= 1
            raise StorageError("the disk is full")
        return super().platform_update_status(request, tenant=tenant)


@contextmanager
def recording(failures: int = 0) -> Iterator[Recorder]:
    with open_inventory("memory://") as inventory:
        settle(inventory, 1)
        yield Recorder(inventory, failures)


def test_a_report_that_is_not_taken_is_sent_again(tmp_path: Path) -> None:
    with (
        recording(failures=3) as manager,
        running(manager, LocalAuthority(tmp_path)) as server,
        server.link(retry=QUICK) as link,
    ):
        assert link.platform_update_status(IDLE).os_type is OSType.IMMUTABLE

    assert len(manager.told) == 4


def test_attempts_end_with_the_last_error(tmp_path: Path) -> None:
    with (
        recording(failures=9) as manager,
        running(manager, LocalAuthority(tmp_path)) as server,
        server.link(retry=QUICK) as link,
        pytest.raises(Unavailable, match="couldn't be recorded"),
    ):
        link.platform_update_status(IDLE)

    assert len(manager.told) == 4


def test_a_refusal_is_not_sent_again(tmp_path: Path) -> None:
    with (
        recording() as manager,
        running(manager, LocalAuthority(tmp_path)) as server,
        server.link(retry=QUICK) as link,
        pytest.raises(NotFound),
    ):
        link.platform_update_status(says(UpdateStatusType.UP_TO_DATE, 1000))

    assert len(manager.told) == 1


def test_a_report_that_the_wire_can_not_carry_is_not_sent(tmp_path: Path) -> None:
    with (
        recording() as manager,
        running(manager, LocalAuthority(tmp_path)) as server,
        server.link() as link,
        pytest.raises(InvalidArgument, match="status_detail"),
    ):
        link.platform_update_status(says(UpdateStatusType.STARTED, status_detail="\ud800"))

    assert manager.told == []


def test_a_link_finds_a_server_that_came_back(tmp_path: Path) -> None:
    authority = LocalAuthority(tmp_path)
    with recording() as manager:
        with running(manager, authority) as server:
            link = server.link(retry=RetryPolicy(attempts=1))
            link.platform_update_status(IDLE)
        with link:
            with pytest.raises(Unavailable):
                link.platform_update_status(IDLE)
            with running(manager, authority, port=server.port):
                assert link.platform_update_status(IDLE).os_type is OSType.IMMUTABLE


@contextmanager
def slow_way(port: int, seconds: float) -> Iterator[int]:
    """Pass one connection on to a port of this machine, its first bytes so much later; yield the port to connect to."""

    def carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65_536):
                target.sendall(content)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        near, _ = listening.accept()
        with near, socket.create_connection(("localhost", port)) as far:
            # The slow line itself.
            time.sleep(seconds)
            back = threads.submit(carry, far, near)
            carry(near, far)
            back.result()

    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(2) as threads:
        threads.submit(serve)
        yield listening.getsockname()[1]


def test_a_handshake_over_a_slow_way_is_waited_for(tmp_path: Path) -> None:
    with serving(tmp_path) as server, slow_way(server.port, 1.5) as port:
        token = server.authority.token_file(server.authority.token(TENANT))
        tls = ClientTls(ca=server.authority.ca)
        with GrpcLink(f"127.0.0.1:{port}", tls=tls, token_file=token, retry=ONCE) as link:
            assert link.platform_update_status(IDLE).os_type is OSType.IMMUTABLE


def test_a_server_that_accepts_and_says_nothing_has_a_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        retry = RetryPolicy(attempts=1, deadline_seconds=0.3)
        with GrpcLink(target, tls=None, retry=retry) as link, pytest.raises((DeadlineExceeded, Unavailable)):
            link.platform_update_status(IDLE)


def test_a_report_without_encryption_takes_no_way_over_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        with foreign(grpc.StatusCode.NOT_FOUND) as link, pytest.raises(NotFound):
            link.platform_update_status(IDLE)
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


@pytest.mark.parametrize("content", [None, b"", b"  \n", b"two words", b"caf\xc3\xa9", b"a\0b"])
def test_a_token_file_without_a_token_is_said_without_its_content(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)

    with (
        GrpcLink("localhost:1", tls=None, token_file=file, retry=ONCE) as link,
        pytest.raises(Unauthenticated, match="token file") as caught,
    ):
        link.platform_update_status(IDLE)

    assert "two words" not in str(caught.value)


def test_white_space_around_a_token_is_no_part_of_it(tmp_path: Path) -> None:
    with serving(tmp_path) as server, server.link(token=f"\n{server.authority.token(TENANT)}\n") as link:
        assert link.platform_update_status(IDLE).os_type is OSType.IMMUTABLE


@contextmanager
def foreign(answer: bytes | grpc.StatusCode) -> Iterator[GrpcLink]:
    """Run a server that isn't ours and always says the same; yield a link to it."""

    def say(content: bytes, context: grpc.ServicerContext) -> bytes:
        if isinstance(answer, bytes):
            return answer
        context.abort(answer, "as the test wants\nit\x1b[31m")
        raise AssertionError

    handlers: dict[str, Any] = {"PlatformUpdateStatus": grpc.unary_unary_rpc_method_handler(say)}
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        handler: Any = grpc.method_handlers_generic_handler("maintmgr.v1.MaintmgrService", handlers)
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with GrpcLink(f"127.0.0.1:{port}", tls=None, retry=ONCE) as link:
                yield link
        finally:
            server.stop(None).wait()


@pytest.mark.parametrize("answer", [b"\xff\xff", b"", b"\x0a\x00\x12\x02\x1a\x00"])
def test_an_answer_that_breaks_the_protocol_is_the_servers_mistake(answer: bytes) -> None:
    with foreign(answer) as link, pytest.raises(Internal, match="breaks the protocol"):
        link.platform_update_status(IDLE)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_code_of_another_server_is_one_of_our_errors(code: grpc.StatusCode) -> None:
    with foreign(code) as link, pytest.raises(RequestError, match="as the test wants it") as caught:
        link.platform_update_status(IDLE)

    expected = {"CANCELLED": "UNAVAILABLE"}.get(code.name, code.name)
    assert caught.value.code in {expected, "INTERNAL"}
    assert "\x1b" not in str(caught.value)


def test_a_node_updates_itself_over_a_wire_that_is_mostly_down(tmp_path: Path) -> None:
    authority = LocalAuthority(tmp_path)
    clock = VirtualClock(datetime.now(UTC))
    with recording() as manager:
        with running(manager, authority) as server:
            link = server.link(retry=RetryPolicy(attempts=1))
        first = image(1)
        running_image = Image(
            profile_name=first.profile_name, image_id=first.image_id, sha256=first.sha256, url=first.image_url
        )
        node = SimulatedNode(guid(0), link=link, clock=clock, image=running_image)

        def live(steps: int) -> None:
            for _ in range(steps):
                ahead = node.advance()
                assert ahead is not None
                clock.instant = ahead

        with link:
            for _ in range(6):
                with running(manager, authority, port=server.port):
                    live(1)
                live(4)
            with running(manager, authority, port=server.port):
                live(10)

    told = [status.status_type.name for status, _ in itertools.groupby(manager.told)]
    words = [name for name, _ in itertools.groupby(name for name in told if not name.startswith("DOWNLOAD"))]
    assert node.version == "3.2"
    assert words == ["UP_TO_DATE", "STARTED", "UPDATED", "UP_TO_DATE"]


def test_what_a_node_told_over_the_wire_is_in_the_inventory_once(tmp_path: Path) -> None:
    with recording() as manager, running(manager, LocalAuthority(tmp_path)) as server, server.link() as link:
        second = image(2)
        for kind in (UpdateStatusType.STARTED, UpdateStatusType.UPDATED, UpdateStatusType.UP_TO_DATE):
            for _ in range(3):
                link.platform_update_status(says(kind, profile_name=second.profile_name, os_image_id=second.image_id))

        with manager._inventory.reading() as unit:
            (instance,) = unit.all(Instance, TENANT)
            (run,) = unit.all(OSUpdateRun, TENANT)

    assert instance.current_os_id == second.resource_id
    assert run.end_time is not None
