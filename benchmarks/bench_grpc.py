"""What the wire costs: reports in a second and their latency, against an empty handler on the same stack; memory.

    python benchmarks/bench_grpc.py [--seconds 3] [--rounds 4] [--agents 64] [--instances 1000] [--connections 2000]
                                    [--processes 1]

Both servers are processes of their own on this machine, as many of each on one port as asked for, with the same TLS and
the same settings of gRPC; ours also checks tokens and asks SQLite. They take turns, so that a change of the machine's
speed meets both. The load comes from one process more, over one connection for each agent, with one report under way on
each; reports say what the Inventory knows already. Then so many connections are opened to each server, and each makes
one call.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
from attrs import field, frozen

from edge_day2 import MaintenanceManager
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.grpc import JwksFile, JwtAuthenticator, MaintenanceServer, ServerTls, serve
from edge_day2.adapters.grpc.conversion import encode_request
from edge_day2.adapters.grpc.server import METHOD, ServerLimits, server_options
from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.messages import PlatformUpdateStatusRequest, UpdateStatus
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.testing.local_authority import AUDIENCE, LocalAuthority
from inventory_fleet import TENANT, fill, guid, is_updating

ANSWER_BYTES = 170


def report(number: int) -> bytes:
    """Return the report of a node that has nothing new to say."""
    status = UpdateStatus(status_type=UpdateStatusType.UP_TO_DATE)
    return encode_request(PlatformUpdateStatusRequest(host_guid=guid(number), update_status=status))


async def serve_nothing(folder: Path, port: int) -> None:
    """Answer every report with the same bytes."""

    async def answer(content: bytes, context: Any) -> bytes:
        return b"\0" * ANSWER_BYTES

    service, _, method = METHOD.strip("/").partition("/")
    server = grpc.aio.server(options=server_options(ServerLimits(), shared_port=True))
    handlers: Any = {method: grpc.unary_unary_rpc_method_handler(answer)}
    handler: Any = grpc.method_handlers_generic_handler(service, handlers)
    server.add_generic_rpc_handlers((handler,))
    server.add_secure_port(f"127.0.0.1:{port}", tls(folder).credentials())
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


async def serve_reports(folder: Path, port: int) -> None:
    """Answer reports as in production."""

    def ready(server: MaintenanceServer) -> None:
        print("ready", flush=True)

    with open_inventory(f"sqlite:///{folder / 'inventory.db'}") as inventory:
        await serve(
            MaintenanceManager(inventory, clock=SystemClock()),
            address=f"127.0.0.1:{port}",
            tls=tls(folder),
            authenticator=JwtAuthenticator(JwksFile(path=folder / "jwks.json"), audience=AUDIENCE),
            limits=ServerLimits(reports_in_work=4096),
            shared_port=True,
            on_ready=ready,
        )


def tls(folder: Path) -> ServerTls:
    """Return the settings that both servers have."""
    return ServerTls(certificate=folder / "server.pem", key=folder / "server.key")


@contextmanager
def processes(kind: str, folder: Path, count: int) -> Iterator[tuple[int, list[int]]]:
    """Run servers on one port; yield it, and their process ids."""
    with ExitStack() as running:
        reserved = running.enter_context(socket.socket())
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        command = [sys.executable, __file__, "--serve", kind, "--folder", str(folder), "--port", str(port)]
        servers = []
        for _ in range(count):
            server = running.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            running.callback(server.terminate)
            assert server.stdout is not None
            server.stdout.readline()
            servers.append(server.pid)
        yield port, servers


def resident_bytes(servers: list[int]) -> int:
    """Return how much memory processes hold."""
    pages = sum(int(Path(f"/proc/{server}/statm").read_text().split()[1]) for server in servers)
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(servers: list[int]) -> float:
    """Return how much of the processors processes have used."""
    fields = (Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split() for server in servers)
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


@frozen
class Load:
    """Agents that send reports to one port, as fast as they are answered."""

    port: int
    ca: bytes
    metadata: tuple[tuple[str, str], ...]
    reports: list[bytes]
    latencies: list[float] = field(factory=list)

    def channel(self) -> grpc.aio.Channel:
        """Open a connection that is shared with nobody."""
        credentials = grpc.ssl_channel_credentials(self.ca)
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(f"localhost:{self.port}", credentials, options)

    async def run(self, agents: int, seconds: float, *, measured: bool) -> float:
        """Let so many agents report; return reports per second."""
        channels = [self.channel() for _ in range(agents)]
        await self._call_each(channels)
        count, began = 0, time.perf_counter()
        end = began + seconds

        async def agent(number: int, channel: grpc.aio.Channel) -> int:
            draw, done = random.Random(number), 0
            # A node's reports come one after the other: no two agents speak for one.
            own = self.reports[number::agents]
            while (start := time.perf_counter()) < end:
                await self._call(channel, own[draw.randrange(len(own))])
                if measured:
                    self.latencies.append(time.perf_counter() - start)
                done += 1
            return done

        count = sum(await asyncio.gather(*(agent(number, channel) for number, channel in enumerate(channels))))
        rate = count / (time.perf_counter() - began)
        await asyncio.gather(*(channel.close() for channel in channels))
        return rate

    async def connect(self, connections: int) -> list[grpc.aio.Channel]:
        """Open so many connections, each with one call made."""
        channels = [self.channel() for _ in range(connections)]
        for start in range(0, connections, 50):
            await self._call_each(channels[start : start + 50])
        return channels

    async def _call_each(self, channels: list[grpc.aio.Channel]) -> None:
        await asyncio.gather(
            *(self._call(channel, content) for channel, content in zip(channels, self.reports, strict=False))
        )

    async def _call(self, channel: grpc.aio.Channel, content: bytes) -> bytes:
        call: Any = channel.unary_unary(METHOD)
        answer: bytes = await call(content, metadata=self.metadata)
        return answer


async def measure(
    ports: dict[str, tuple[int, list[int]]], options: argparse.Namespace, folder: Path, token: str
) -> None:
    """Load both servers in turns, then open connections, and print what came out."""
    metadata = (("authorization", f"Bearer {token}"),)
    ca = (folder / "ca.pem").read_bytes()
    reports = [report(number) for number in range(options.instances) if not is_updating(number)]
    loads = {kind: Load(port, ca, metadata, reports) for kind, (port, _) in ports.items()}
    rates: dict[str, list[float]] = {kind: [] for kind in loads}
    used: dict[str, float] = dict.fromkeys(loads, 0.0)
    for one in loads.values():
        await one.run(options.agents, options.seconds, measured=False)
    for _ in range(options.rounds):
        for kind, one in loads.items():
            before = cpu_seconds(ports[kind][1])
            rates[kind].append(await one.run(options.agents, options.seconds, measured=True))
            used[kind] += cpu_seconds(ports[kind][1]) - before
    medians = {kind: statistics.median(found) for kind, found in rates.items()}
    for kind, one in loads.items():
        one.latencies.sort()
        middle, late = (one.latencies[int(len(one.latencies) * share)] * 1000 for share in (0.5, 0.99))
        cpu = used[kind] / len(one.latencies) * 1e6
        print(
            f"{kind:8} {medians[kind]:8,.0f} reports/s, p50 {middle:6.2f} ms, p99 {late:6.2f} ms, "
            f"{cpu:.0f} us of a core each"
        )
    ratios = [ours / theirs for ours, theirs in zip(rates["reports"], rates["nothing"], strict=True)]
    print(
        f"ratio    {medians['reports'] / medians['nothing']:8.2f} (by rounds {', '.join(f'{r:.2f}' for r in ratios)})"
    )
    for kind, (_, servers) in ports.items():
        before = resident_bytes(servers)
        channels = await loads[kind].connect(options.connections)
        grown = resident_bytes(servers) - before
        await asyncio.gather(*(channel.close() for channel in channels))
        print(f"{kind:8} {options.connections:,} connections: {grown / options.connections / 1024:.1f} KiB each")


def main() -> None:
    """Run a server, or everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--agents", type=int, default=64)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--processes", type=int, default=1, help="of each server, on one port")
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--serve", choices=("nothing", "reports"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run({"nothing": serve_nothing, "reports": serve_reports}[options.serve](options.folder, options.port))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = LocalAuthority(folder)
        authority.server()
        fill(f"sqlite:///{folder / 'inventory.db'}", options.instances)
        with (
            processes("nothing", folder, options.processes) as nothing,
            processes("reports", folder, options.processes) as reports,
        ):
            ports = {"nothing": nothing, "reports": reports}
            asyncio.run(measure(ports, options, folder, authority.token(TENANT)))


if __name__ == "__main__":
    main()
