"""The server: codes and texts, load, deadlines, draining, health and reflection."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from attrs import evolve
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from edge_day2 import InventoryService, MaintenanceManager
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.grpc import Caller, JwtAuthenticator, RetryPolicy, ServerLimits
from edge_day2.adapters.grpc.conversion import encode_request
from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse
from edge_day2.domain.resources import Host, Instance, OSType, Provisioning
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    InvalidValue,
    NotFound,
    RequestError,
    ResourceExhausted,
    StorageError,
    Unauthenticated,
    Unavailable,
)
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.local_authority import LocalAuthority
from wire_server import (
    IDLE,
    ONCE,
    TENANT,
    RunningServer,
    bearer,
    channel_of,
    guid,
    running,
    says,
    serving,
    settle,
    unary,
)

# Seconds, on the slowest of machines.
LONG = 120.0


class StandIn(MaintenanceManager):
    """A Maintenance Manager that does what a test says."""

    def __init__(self, answer: Callable[[], PlatformUpdateStatusResponse]) -> None:
        self._do = answer
        self.asked = 0

    def platform_update_status(
        self, request: PlatformUpdateStatusRequest, *, tenant: str
    ) -> PlatformUpdateStatusResponse:
        self.asked += 1
        return self._do()


class Gate(StandIn):
    """A Maintenance Manager that answers when it is let."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        super().__init__(self._wait)

    def _wait(self) -> PlatformUpdateStatusResponse:
        self.entered.release()
        assert self.open.wait(LONG)
        return PlatformUpdateStatusResponse(os_type=OSType.MUTABLE)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def refusal(server: RunningServer, request: PlatformUpdateStatusRequest) -> RequestError:
    """Return why the server doesn't answer this report."""
    with server.link() as link, pytest.raises(RequestError) as caught:
        link.platform_update_status(request)
    return caught.value


@contextmanager
def over(inventory: Inventory, folder: Path, **options: Any) -> Iterator[RunningServer]:
    """Run a server over this Inventory."""
    manager = MaintenanceManager(inventory, clock=SystemClock())
    with running(manager, LocalAuthority(folder / "authority"), **options) as server:
        yield server


def test_codes_are_those_that_agents_know_and_texts_say_nothing_of_the_inventory(tmp_path: Path) -> None:
    with open_inventory("memory://") as inventory, over(inventory, tmp_path) as server:
        settle(inventory, 4)
        with inventory.reading() as unit:
            hosts = {host.guid: host for host in unit.all(Host, TENANT)}
        InventoryService(inventory, clock=SystemClock()).distrust_host(TENANT, hosts[guid(1)].resource_id)
        with inventory.writing() as unit:
            pending = unit.instance_of_host(TENANT, hosts[guid(2)].resource_id)
            assert pending is not None
            unit.replace(pending, evolve(pending, provisioning=Provisioning.PENDING))
            unit.add(Host(resource_id="bare", tenant_id=TENANT, guid=guid(9), name="bare"))

        found = [refusal(server, says(UpdateStatusType.UP_TO_DATE, number)) for number in (1, 2, 9, 1000)]

    assert [type(error) for error in found] == [Unauthenticated, FailedPrecondition, NotFound, NotFound]
    assert str(found[2]) == str(found[3])
    assert not any(TENANT in str(error) or "inst-" in str(error) for error in found)


def test_a_mistake_in_a_report_is_explained(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        nul = refusal(server, says(UpdateStatusType.STARTED, status_detail="\0"))
        with channel_of(server) as opened:
            call = unary(opened)
            with pytest.raises(grpc.RpcError) as no_uuid:
                call(b"\x0a\x04node\x12\x00", metadata=bearer(server))
            with pytest.raises(grpc.RpcError) as no_message:
                call(b"\xff\xff\xff", metadata=bearer(server))

    assert isinstance(nul, InvalidArgument)
    assert "status_detail" in str(nul)
    for caught, expected in ((no_uuid, "host_guid"), (no_message, "request")):
        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert expected in str(caught.value.details())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StorageError("the database failed: password of postgres"), Unavailable),
        (ZeroDivisionError("password of postgres"), Internal),
    ],
)
def test_what_fails_inside_is_told_without_its_text(
    tmp_path: Path, error: Exception, expected: type[RequestError]
) -> None:
    def fail() -> PlatformUpdateStatusResponse:
        raise error

    with running(StandIn(fail), LocalAuthority(tmp_path)) as server:
        told = refusal(server, IDLE)

    assert type(told) is expected
    assert "password" not in str(told)


def test_a_mistake_while_a_caller_is_checked_is_told_without_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(authenticator: JwtAuthenticator, token: str | None) -> Caller:
        raise ZeroDivisionError("password of the identity provider")

    monkeypatch.setattr(JwtAuthenticator, "authenticate", fail)
    with serving(tmp_path) as server:
        told = refusal(server, IDLE)

    assert type(told) is Internal
    assert str(told) == "INTERNAL: internal error"


def test_an_unknown_method_is_unimplemented(tmp_path: Path) -> None:
    with serving(tmp_path) as server, channel_of(server) as opened:
        with pytest.raises(grpc.RpcError) as caught:
            unary(opened, "/maintmgr.v1.MaintmgrService/Other")(b"", metadata=bearer(server))

        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_one_report_too_many_is_told_to_come_again_while_health_is_still_answered(tmp_path: Path, gate: Gate) -> None:
    limits = ServerLimits(reports_in_work=2, workers=2, seconds_per_report=LONG)
    with running(gate, LocalAuthority(tmp_path), limits=limits) as server, ThreadPoolExecutor(2) as agents:
        waiting = [agents.submit(_report, server, number) for number in range(2)]
        for _ in waiting:
            assert gate.entered.acquire(timeout=LONG)

        assert type(refusal(server, IDLE)) is ResourceExhausted
        assert health_of(server) == health_pb2.HealthCheckResponse.SERVING

        gate.open.set()
        assert [future.result(LONG) for future in waiting] == [OSType.MUTABLE] * 2
        assert _report(server) is OSType.MUTABLE


def test_an_agent_that_was_told_to_come_again_does(tmp_path: Path, gate: Gate) -> None:
    retry = RetryPolicy(attempts=1000, first_wait_seconds=0.01, longest_wait_seconds=0.05)
    limits = ServerLimits(reports_in_work=1, workers=1, seconds_per_report=LONG)
    with running(gate, LocalAuthority(tmp_path), limits=limits) as server, ThreadPoolExecutor(2) as agents:
        first = agents.submit(_report, server)
        assert gate.entered.acquire(timeout=LONG)
        second = agents.submit(_report, server, 1, retry)
        gate.open.set()

        assert [first.result(LONG), second.result(LONG)] == [OSType.MUTABLE] * 2


def test_a_report_that_takes_too_long_is_told_so(tmp_path: Path, gate: Gate) -> None:
    with running(gate, LocalAuthority(tmp_path), limits=ServerLimits(seconds_per_report=0.1)) as server:
        told = refusal(server, IDLE)
        gate.open.set()

    assert type(told) is DeadlineExceeded


def test_a_server_that_ends_answers_what_it_has_begun(tmp_path: Path, gate: Gate) -> None:
    with ThreadPoolExecutor(1) as agents:
        limits = ServerLimits(seconds_per_report=LONG, drain_seconds=LONG)
        with running(gate, LocalAuthority(tmp_path), limits=limits) as server:
            waiting = agents.submit(_report, server)
            assert gate.entered.acquire(timeout=LONG)
            threading.Timer(1.0, gate.open.set).start()

        assert waiting.result(LONG) is OSType.MUTABLE


def test_a_server_that_ends_waits_for_reports_and_not_for_those_who_watch_its_health(
    tmp_path: Path, gate: Gate
) -> None:
    limits = ServerLimits(seconds_per_report=LONG, drain_seconds=3600)
    with ThreadPoolExecutor(1) as agents, ExitStack() as watching:
        with running(gate, LocalAuthority(tmp_path), limits=limits) as server:
            opened = watching.enter_context(channel_of(server))
            watch: grpc.UnaryStreamMultiCallable[bytes, bytes] = opened.unary_stream("/grpc.health.v1.Health/Watch")
            states = (health_pb2.HealthCheckResponse.FromString(answer).status for answer in watch(b""))
            assert next(states) == health_pb2.HealthCheckResponse.SERVING
            waiting = agents.submit(_report, server)
            assert gate.entered.acquire(timeout=LONG)
            server.end()
            assert next(states) == health_pb2.HealthCheckResponse.NOT_SERVING
            gate.open.set()

        assert waiting.result(LONG) is OSType.MUTABLE


def test_a_port_is_never_shared(tmp_path: Path) -> None:
    with (
        serving(tmp_path) as server,
        open_inventory("memory://") as inventory,
        pytest.raises(InvalidValue, match="free"),
        over(inventory, tmp_path / "second", port=server.port),
    ):
        pass


@pytest.mark.parametrize("port", [65_536, -1])
def test_a_port_that_is_none_is_refused(tmp_path: Path, port: int) -> None:
    with pytest.raises(InvalidValue, match="the port from 0 to 65535"), serving(tmp_path, port=port):
        pass


def test_a_port_is_shared_by_processes_that_all_want_it(tmp_path: Path) -> None:
    authority = LocalAuthority(tmp_path)
    with open_inventory("memory://") as inventory:
        settle(inventory, 1)
        manager = MaintenanceManager(inventory, clock=SystemClock())
        with running(manager, authority, shared_port=True) as first:
            with running(manager, authority, shared_port=True, port=first.port) as second:
                assert first.port == second.port
                assert _report(second) is OSType.IMMUTABLE
            assert _report(first) is OSType.IMMUTABLE


def test_health_is_told_for_the_whole_and_for_the_service(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        serving_now = health_pb2.HealthCheckResponse.SERVING
        assert health_of(server) == health_of(server, "maintmgr.v1.MaintmgrService") == serving_now


@pytest.mark.parametrize("switched_on", [True, False])
def test_reflection_can_be_switched(tmp_path: Path, switched_on: bool) -> None:
    with serving(tmp_path, reflection=switched_on) as server, channel_of(server) as opened:
        found = services_of(opened)

    expected = {"maintmgr.v1.MaintmgrService", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert found == (expected if switched_on else {"UNIMPLEMENTED"})


def services_of(opened: grpc.Channel) -> set[str]:
    """Return the names that reflection gives, or the code with which it is refused."""
    ask: grpc.StreamStreamMultiCallable[Any, Any] = opened.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    try:
        return {service.name for answer in call for service in answer.list_services_response.service}
    except grpc.RpcError:
        return {call.code().name}


SERVER = """
import asyncio, sys
from edge_day2 import MaintenanceManager
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.grpc import SingleTenant, serve
from edge_day2.adapters.storage import open_inventory

with open_inventory(sys.argv[1]) as inventory:
    asyncio.run(serve(
        MaintenanceManager(inventory, clock=SystemClock()), address="localhost:0", tls=None,
        authenticator=SingleTenant(tenant=sys.argv[2]), on_ready=lambda server: print(server.port, flush=True),
    ))
print("drained", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_told_to_end_drains_and_ends_well(tmp_path: Path, number: signal.Signals) -> None:
    url = f"sqlite:///{tmp_path / 'inventory.db'}"
    with open_inventory(url) as inventory:
        settle(inventory, 1)
    command = [sys.executable, "-c", SERVER, url, TENANT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with grpc.insecure_channel(f"localhost:{port}") as opened:
            assert unary(opened)(encode_request(IDLE), timeout=30)
            process.send_signal(number)
            assert process.stdout.readline() == "drained\n"

    assert process.returncode == 0


def _report(server: RunningServer, number: int = 0, retry: RetryPolicy = ONCE) -> OSType | None:
    with server.link(retry=retry) as link:
        return link.platform_update_status(says(UpdateStatusType.UP_TO_DATE, number)).os_type


def health_of(server: RunningServer, service: str = "") -> int:
    """Return what the health service says of a service."""
    request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    with channel_of(server) as opened:
        answer = unary(opened, "/grpc.health.v1.Health/Check")(request, timeout=30)
    return int(health_pb2.HealthCheckResponse.FromString(answer).status)


def test_the_instance_stands_as_it_was_told(tmp_path: Path) -> None:
    with open_inventory("memory://") as inventory, over(inventory, tmp_path) as server:
        settle(inventory, 1)
        with server.link() as link:
            link.platform_update_status(says(UpdateStatusType.STARTED))
        with inventory.reading() as unit:
            (instance,) = unit.all(Instance, TENANT)

    assert instance.update.text == "Updating"
