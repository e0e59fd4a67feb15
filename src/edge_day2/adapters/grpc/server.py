"""The Maintenance Manager as a gRPC server that speaks maintmgr.v1.

What an outsider can do is bounded: the handshake has a deadline, a connection a greatest age and number of calls, a
message a size, and reports that wait a number. Who the caller is, is decided from the call's headers, before the
message is taken from the connection. Errors have the codes that agents of the original know, and texts that say
nothing of the Inventory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from attrs import frozen
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from edge_day2.adapters.grpc.answers import Answers
from edge_day2.adapters.grpc.maintmgr_pb2 import DESCRIPTOR
from edge_day2.adapters.grpc.report_workers import MISTAKE, Outcome, Refusal, ReportWorkers
from edge_day2.adapters.grpc.tls import ServerTls
from edge_day2.adapters.grpc.tokens import Authenticator, Caller
from edge_day2.application.maintenance_manager import MaintenanceManager
from edge_day2.errors import InvalidValue, RequestError
from edge_day2.ports.metrics import CALLS, CALLS_IN_WORK, NO_METRICS, HarmlessMetrics, Metrics

_log: Final = logging.getLogger(__name__)

SERVICE: Final = DESCRIPTOR.services_by_name["MaintmgrService"].full_name
METHOD: Final = f"/{SERVICE}/PlatformUpdateStatus"
_BEARER: Final = "bearer "
_HIGHEST_PORT: Final = 65_535
# In seconds: what is on its way to a server that ends is taken.
_LAST_ARRIVALS: Final = 0.5

_Context = grpc.aio.ServicerContext[bytes, bytes]


@frozen(kw_only=True)
class ServerLimits:
    """What one server takes on.

    Attributes:
        reports_in_work: reports that wait or are being answered; one more is told RESOURCE_EXHAUSTED, and comes again.
        seconds_per_report: after so long an agent is told DEADLINE_EXCEEDED; an earlier deadline of its own counts.
        message_bytes: the largest report.
        workers: threads that use the Inventory. With one, a report that waits for a lock delays all others; many get in
            each other's way, since Python runs one at a time. A database across a network makes use of more.
        connections: at once on one address; one more is closed. Each needs a file descriptor (`ulimit -n`).
        calls_per_connection: at once; an agent makes one.
        handshake_seconds: from the connection to the first frame of HTTP/2.
        connection_seconds: then the client is asked to connect again, which also makes it see a new certificate.
        idle_seconds: a connection without a call is closed after so long.
        drain_seconds: how long reports may go on when the server ends.
    """

    reports_in_work: int = 256
    seconds_per_report: float = 10.0
    message_bytes: int = 4 << 20
    workers: int = 2
    connections: int = 20_000
    calls_per_connection: int = 16
    handshake_seconds: float = 20.0
    connection_seconds: float = 1800.0
    idle_seconds: float = 600.0
    drain_seconds: float = 20.0


class MaintenanceServer:
    """One listening server. Belongs to the event loop in which it is started.

    Args:
        manager: answers the reports, in threads of the server's own.
        address: host and port, `[::]:50002` for example; port 0 is any free one.
        tls: certificates, or None for no encryption: only where something else encrypts.
        authenticator: knows callers by their token.
        limits: what the server takes on.
        reflection: whether clients may ask which services there are (for grpcurl and the like).
        shared_port: whether other processes may listen on the same port, each of which gets some of the connections:
            Python uses one core for each process. All of them need it.
        metrics: is told of every call.
    """

    def __init__(
        self,
        manager: MaintenanceManager,
        *,
        address: str,
        tls: ServerTls | None,
        authenticator: Authenticator,
        limits: ServerLimits = ServerLimits(),  # frozen
        reflection: bool = False,
        shared_port: bool = False,
        metrics: Metrics = NO_METRICS,
    ) -> None:
        self._answers = Answers(manager)
        self._metrics = HarmlessMetrics(metrics)
        self._address = address
        self._tls = tls
        self._authenticator = authenticator
        self._limits = limits
        self._reflection = reflection
        self._shared_port = shared_port
        self._server: grpc.aio.Server | None = None
        self._workers: ReportWorkers | None = None
        self._reports: _Reports | None = None
        self._health = health.aio.HealthServicer()
        self.port = 0
        """The port that the server listens on, once it is started."""

    async def start(self) -> None:
        """Listen, and answer from now on.

        Raises:
            InvalidValue: the certificates can't be used, or the address can't be listened on.
        """
        port = self._address.rpartition(":")[2]
        # gRPC would listen on its lowest 16 bits.
        if port.removeprefix("-").isdecimal() and not 0 <= int(port) <= _HIGHEST_PORT:
            raise InvalidValue("address", self._address, f"host and port, the port from 0 to {_HIGHEST_PORT}")
        credentials = None if self._tls is None else self._tls.credentials()
        server = grpc.aio.server(options=server_options(self._limits, shared_port=self._shared_port))
        workers = ReportWorkers(self._answers.answer, self._limits.workers)
        reports = _Reports(workers, self._authenticator, self._limits, self._metrics)
        server.add_generic_rpc_handlers((reports,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._reflection:
            reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        try:
            if credentials is None:
                self.port = server.add_insecure_port(self._address)
            else:
                self.port = server.add_secure_port(self._address, credentials)
            await server.start()
        except RuntimeError as error:
            await workers.close()
            raise InvalidValue("address", self._address, "an address of this machine that is free") from error
        self._server, self._workers, self._reports = server, workers, reports
        for service in ("", SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        _log.info("maintmgr.v1 on %s, port %s", self._address, self.port)

    async def stop(self) -> None:
        """Take no more calls, let the reports that are under way end, and close everything. Safe to call twice."""
        server, workers, reports = self._server, self._workers, self._reports
        self._server = self._workers = self._reports = None
        if server is None or workers is None or reports is None:
            return
        await self._health.enter_graceful_shutdown()
        drained = asyncio.create_task(server.stop(self._limits.drain_seconds))
        # Who watches the health service, or never sends its report, doesn't hold up the end.
        await asyncio.wait([drained], timeout=_LAST_ARRIVALS)
        answered = asyncio.create_task(reports.answered())
        await asyncio.wait([drained, answered], return_when=asyncio.FIRST_COMPLETED)
        answered.cancel()
        await server.stop(None)
        await drained
        await workers.close()
        _log.info("maintmgr.v1 ended")


async def serve(
    manager: MaintenanceManager,
    *,
    address: str,
    tls: ServerTls | None,
    authenticator: Authenticator,
    limits: ServerLimits = ServerLimits(),  # frozen
    reflection: bool = False,
    shared_port: bool = False,
    metrics: Metrics = NO_METRICS,
    on_ready: Callable[[MaintenanceServer], None] = lambda server: None,
) -> None:
    """Answer reports until the process is told to end (SIGTERM or SIGINT), then drain. Call it in the main thread.

    Args:
        manager, address, tls, authenticator, limits, reflection, shared_port, metrics: see `MaintenanceServer`.
        on_ready: is called when the server listens.

    Raises:
        InvalidValue: as `MaintenanceServer.start`.
    """
    server = MaintenanceServer(
        manager,
        address=address,
        tls=tls,
        authenticator=authenticator,
        limits=limits,
        reflection=reflection,
        shared_port=shared_port,
        metrics=metrics,
    )
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    try:
        await server.start()
        on_ready(server)
        await told.wait()
    finally:
        await server.stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def server_options(limits: ServerLimits, *, shared_port: bool = False) -> list[tuple[str, Any]]:
    """Return gRPC's own settings for these limits."""

    def milliseconds(seconds: float) -> int:
        return round(seconds * 1000)

    return [
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_concurrent_streams", limits.calls_per_connection),
        ("grpc.server_handshake_timeout_ms", milliseconds(limits.handshake_seconds)),
        ("grpc.max_connection_age_ms", milliseconds(limits.connection_seconds)),
        ("grpc.max_connection_age_grace_ms", milliseconds(limits.seconds_per_report)),
        ("grpc.max_connection_idle_ms", milliseconds(limits.idle_seconds)),
        # A peer that vanished without a word is noticed.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Agents may look for a dead server every 10 s, also between calls.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Tokens with many roles are longer than the default of 8 KiB.
        ("grpc.max_metadata_size", 16_384),
        ("grpc.absolute_max_metadata_size", 32_768),
        # No agent compresses, and the size limit is that of the compressed message.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        # Unless it is meant, two servers on one port would each get some of the agents unnoticed.
        ("grpc.so_reuseport", int(shared_port)),
    ]


class _Reports(grpc.GenericRpcHandler):
    """Chooses, by the headers of a call, how it is handled."""

    def __init__(
        self, workers: ReportWorkers, authenticator: Authenticator, limits: ServerLimits, metrics: HarmlessMetrics
    ) -> None:
        self._metrics = metrics
        self._workers = workers
        self._authenticator = authenticator
        self._limits = limits
        self._overloaded = _streaming(self._refuse_overload)
        self._unknown_caller = _streaming(self._greet)
        self._under_way = 0
        self._none_under_way = asyncio.Event()
        self._none_under_way.set()

    async def answered(self) -> None:
        """Wait until the answers to all reports that came are sent."""
        await self._none_under_way.wait()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """See `grpc.GenericRpcHandler.service`."""
        if handler_call_details.method != METHOD:
            return None
        if self._is_full():
            return self._overloaded
        caller = self._authenticator.recognize(_token(handler_call_details.invocation_metadata))
        if caller is None:
            return self._unknown_caller
        return grpc.unary_unary_rpc_method_handler(self._answering(caller))

    def _is_full(self) -> bool:
        return self._workers.in_work >= self._limits.reports_in_work

    def _answering(self, caller: Caller) -> Callable[[bytes, _Context], Awaitable[bytes]]:
        async def answer(content: bytes, context: _Context) -> bytes:
            return await self._answer(caller, content, context)

        return answer

    async def _greet(self, messages: object, context: _Context) -> bytes:
        """Find out who calls, and only then take the message."""
        try:
            caller = await self._authenticator.authenticate(_token(context.invocation_metadata()))
        except RequestError as error:
            return await self._refuse(context, Refusal(code=error.code, text=str(error)))
        except Exception:
            # gRPC would tell the caller what it is.
            _log.exception("a caller can't be authenticated")
            return await self._refuse(context, MISTAKE)
        content: Any = None
        with contextlib.suppress(TimeoutError):
            content = await asyncio.wait_for(context.read(), self._limits.seconds_per_report)
        if not isinstance(content, bytes):
            return await self._refuse(context, Refusal(code="DEADLINE_EXCEEDED", text="no report was sent"))
        return await self._answer(caller, content, context)

    async def _refuse_overload(self, messages: object, context: _Context) -> bytes:
        return await self._refuse(context, _OVERLOADED)

    async def _answer(self, caller: Caller, content: bytes, context: _Context) -> bytes:
        if self._is_full():
            return await self._refuse(context, _OVERLOADED)
        self._under_way += 1
        self._none_under_way.clear()
        context.add_done_callback(self._ended)  # type: ignore[arg-type]  # the stubs name a class of their own
        future = self._workers.submit(caller, content)
        self._metrics.record(CALLS_IN_WORK, self._workers.in_work, {})
        timer = asyncio.get_running_loop().call_later(self._limits.seconds_per_report, _give_up, future)
        try:
            outcome = await future
        finally:
            timer.cancel()
            self._metrics.record(CALLS_IN_WORK, self._workers.in_work, {})
        if not isinstance(outcome, bytes):
            return await self._refuse(context, outcome)
        self._metrics.count(CALLS, {"code": grpc.StatusCode.OK.name})
        return outcome

    async def _refuse(self, context: _Context, refusal: Refusal) -> bytes:
        self._metrics.count(CALLS, {"code": refusal.code})
        await context.abort(grpc.StatusCode[refusal.code], refusal.text)
        raise AssertionError

    def _ended(self, context: object) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._none_under_way.set()


_OVERLOADED: Final = Refusal(code="RESOURCE_EXHAUSTED", text="too many reports at once, send it again later")
_TOO_LATE: Final = Refusal(code="DEADLINE_EXCEEDED", text="the report couldn't be answered in time, send it again")


def _give_up(future: asyncio.Future[Outcome]) -> None:
    if not future.done():
        future.set_result(_TOO_LATE)


def _streaming(handler: Callable[[Any, _Context], Awaitable[bytes]]) -> grpc.RpcMethodHandler[bytes, bytes]:
    # The same on the wire as a unary call; but the handler begins before there is a message.
    return grpc.stream_unary_rpc_method_handler(handler)


def _token(metadata: Any) -> str | None:
    for key, value in metadata or ():
        if key == "authorization" and isinstance(value, str) and value[: len(_BEARER)].lower() == _BEARER:
            return value[len(_BEARER) :].strip()
    return None
