"""A Maintenance Manager on SQLite behind a real port, in a thread with an event loop or in a process of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from edge_day2 import MaintenanceManager, OSResource, OSType, RepeatedSchedule
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.grpc import (
    Authenticator,
    ClientTls,
    GrpcLink,
    JwksFile,
    JwtAuthenticator,
    MaintenanceServer,
    RetryPolicy,
    ServerLimits,
    ServerTls,
)
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.inventory_service import InventoryService
from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse, UpdateStatus
from edge_day2.domain.resources import ScheduleTarget, TargetLevel
from edge_day2.domain.statuses import StatusDetail, UpdateStatusType
from edge_day2.ports.inventory import Inventory
from edge_day2.ports.metrics import NO_METRICS, Metrics
from edge_day2.testing.local_authority import AUDIENCE, LocalAuthority

TENANT = "11111111-1111-4111-8111-111111111111"
OTHER_TENANT = "22222222-2222-4222-8222-222222222222"
METHOD = "/maintmgr.v1.MaintmgrService/PlatformUpdateStatus"
# Seconds enough for the slowest of machines: no test waits for these deadlines.
ONCE = RetryPolicy(attempts=1, deadline_seconds=120)
PATIENT = ServerLimits(handshake_seconds=120, seconds_per_report=120)


def guid(number: int) -> str:
    """Return the GUID of a node."""
    return f"00000000-0000-4000-8000-{number:012x}"


def image(version: int, tenant: str = TENANT) -> OSResource:
    """Return an OS Resource of the one profile that the tests know."""
    return OSResource(
        resource_id=f"os-{version}-{tenant[:4]}",
        tenant_id=tenant,
        name=f"Edge Microvisor Toolkit 3.{version}",
        os_type=OSType.IMMUTABLE,
        profile_name="microvisor-nonrt",
        profile_version=f"3.{version}.0",
        image_id=f"3.{version}",
        sha256=f"{version % 10}" * 64,
        image_url=f"files/microvisor-3.{version}.raw.gz",
    )


def settle(inventory: Inventory, nodes: int, *, tenant: str = TENANT, scheduled: bool = True) -> None:
    """Bring up a site with nodes that run 3.1, should run 3.2, and may be updated at any time, or never."""
    with inventory.writing() as unit:
        unit.add_all([image(1, tenant), image(2, tenant)])
    admin = InventoryService(inventory, clock=SystemClock())
    site = admin.add_site(tenant, "site")
    target = ScheduleTarget(level=TargetLevel.SITE, resource_id=site.resource_id)
    always = RepeatedSchedule(minutes="0", hours="*", day_week="*", duration_seconds=3600)
    if scheduled:
        admin.add_schedule(tenant, "always", always, target=target)
    for number in range(nodes):
        host = admin.add_host(tenant, guid(number), f"node {number}", site_id=site.resource_id)
        instance = admin.add_instance(tenant, host.resource_id, image(1, tenant).resource_id)
        admin.link_desired_os(tenant, instance.resource_id, image(2, tenant).resource_id)


def says(kind: UpdateStatusType, number: int = 0, **texts: str) -> PlatformUpdateStatusRequest:
    """Return the report of a node."""
    return PlatformUpdateStatusRequest(host_guid=guid(number), update_status=UpdateStatus(status_type=kind, **texts))


def updates(count: int) -> list[UpdateStatus]:
    """Return the reports of so many updates, of which every second one fails. No two reports are equal."""
    said: list[UpdateStatus] = []
    for number in range(count):
        detail = StatusDetail(message=f"update {number}").to_json()
        end = UpdateStatusType.FAILED if number % 2 else UpdateStatusType.UPDATED
        said += [UpdateStatus(status_type=kind, status_detail=detail) for kind in (UpdateStatusType.STARTED, end)]
    return said


IDLE = says(UpdateStatusType.UP_TO_DATE)


class Recorder(MaintenanceManager):
    """A Maintenance Manager that notes what it is told."""

    def __init__(self, inventory: Inventory) -> None:
        super().__init__(inventory, clock=SystemClock())
        self.told: list[UpdateStatus] = []

    def platform_update_status(
        self, request: PlatformUpdateStatusRequest, *, tenant: str
    ) -> PlatformUpdateStatusResponse:
        self.told.append(request.update_status)
        return super().platform_update_status(request, tenant=tenant)


class RunningServer:
    """A server in a thread. `link` gives an agent's way to it."""

    def __init__(self, port: int, authority: LocalAuthority, end: Callable[[], None]) -> None:
        self.port = port
        self.authority = authority
        self.end = end
        """Tell the server to end, as the end of the block does."""

    def link(self, *, token: str | None = None, retry: RetryPolicy = ONCE, tls: ClientTls | None = None) -> GrpcLink:
        """Return a link with a token (default: a good one) to the server's port."""
        file = self.authority.token_file(self.authority.token(TENANT) if token is None else token)
        tls = ClientTls(ca=self.authority.ca) if tls is None else tls
        return GrpcLink(f"localhost:{self.port}", tls=tls, token_file=file, retry=retry)


@contextmanager
def running(
    manager: MaintenanceManager,
    authority: LocalAuthority,
    *,
    tls: ServerTls | None = None,
    limits: ServerLimits = PATIENT,
    port: int = 0,
    reflection: bool = False,
    shared_port: bool = False,
    metrics: Metrics = NO_METRICS,
    **authentication: Any,
) -> Iterator[RunningServer]:
    """Run a server with TLS and tokens while the block runs."""
    if tls is None:
        pair = authority.server()
        tls = ServerTls(certificate=pair.certificate, key=pair.key)
    found: Future[int] = Future()
    told: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        authenticator: Authenticator = JwtAuthenticator(
            JwksFile(path=authority.jwks), **{"audience": AUDIENCE, **authentication}
        )
        server = MaintenanceServer(
            manager,
            address=f"localhost:{port}",
            tls=tls,
            authenticator=authenticator,
            limits=limits,
            reflection=reflection,
            shared_port=shared_port,
            metrics=metrics,
        )
        stop = asyncio.Event()
        told.set_result((asyncio.get_running_loop(), stop))
        await server.start()
        found.set_result(server.port)
        await stop.wait()
        await server.stop()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            if not found.done():
                found.set_exception(error)

    def end() -> None:
        if told.done():
            loop, stop = told.result()
            if not loop.is_closed():
                loop.call_soon_threadsafe(stop.set)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield RunningServer(found.result(60), authority, end)
    finally:
        end()
        thread.join()


@contextmanager
def serving(folder: Path, *, nodes: int = 1, **options: Any) -> Iterator[RunningServer]:
    """Run a server over a new SQLite Inventory with some nodes."""
    with open_inventory(f"sqlite:///{folder / 'inventory.db'}", lock_timeout_seconds=30) as inventory:
        settle(inventory, nodes)
        manager = MaintenanceManager(inventory, clock=SystemClock())
        with running(manager, LocalAuthority(folder / "authority"), **options) as server:
            yield server


def unary(opened: grpc.Channel, method: str = METHOD) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
    """Return the call as agents make it."""
    return opened.unary_unary(method)


def streaming(opened: grpc.Channel) -> grpc.StreamUnaryMultiCallable[bytes, bytes]:
    """Return the call as one that sends its headers now and its message some day."""
    return opened.stream_unary(METHOD)


@contextmanager
def channel_of(server: RunningServer) -> Iterator[grpc.Channel]:
    """Open a plain gRPC channel, as any client may."""
    credentials = grpc.ssl_channel_credentials(server.authority.ca.read_bytes())
    options = [("grpc.max_send_message_length", -1)]
    with grpc.secure_channel(f"localhost:{server.port}", credentials, options) as opened:
        yield opened


def bearer(server: RunningServer) -> tuple[tuple[str, str], ...]:
    """Return the headers of an agent."""
    return (("authorization", f"Bearer {server.authority.token(TENANT)}"),)
