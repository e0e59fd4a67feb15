"""A Maintenance Manager that answers agents over gRPC: TLS, tokens, SQLite; with one command, and nodes to try it with.

    python examples/maintenance_server.py [--folder DIR] [--database URL] [--host localhost] [--port 50002] [--nodes 3]

Everything lies in one folder: the database, a certificate authority, the keys that tokens are checked with, and a token
for the demo's nodes. On the first start there are nodes of one profile that run an older image than they should, and
may update themselves at any time. It prints how to point an agent at it, and ends on Ctrl-C.

Needs edge_day2[profiles,sql,grpc]. This shows the wiring. For a real fleet take certificates and JWKS from your own
authority and identity provider.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Final

from edge_day2 import InventoryService, LinkingMode, MaintenanceManager, OSResourceManager, OSType, RepeatedSchedule
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.grpc import JwksFile, JwtAuthenticator, MaintenanceServer, ServerTls, serve
from edge_day2.adapters.release_service import DirectoryReleaseService
from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.resources import Host, ScheduleTarget, TargetLevel
from edge_day2.errors import EdgeDay2Error
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.local_authority import AUDIENCE, LocalAuthority

TENANT: Final = "6f1c2a9e-0c1d-4a53-9a52-0d6f0a5f1e01"
PROFILE: Final = "microvisor-nonrt"
PROFILES: Final = Path(__file__).parent / "profiles"
OLDER, NEWER = "0.9.0", "0.9.8"
# Open around the clock, so that nobody has to wait for a demo.
ALWAYS: Final = RepeatedSchedule(minutes="0", hours="*", day_week="*", duration_seconds=3600)


def settle(inventory: Inventory, nodes: int) -> list[Host]:
    """Return the demo's nodes; bring them up on the first start."""
    with inventory.reading() as unit:
        found = list(unit.all(Host, TENANT))
    if found:
        return found
    admin = InventoryService(inventory, clock=SystemClock())
    service = DirectoryReleaseService(PROFILES)
    OSResourceManager(inventory, service, revision=OLDER).reconcile(TENANT)
    (older,) = (system for system in admin.os_resources(TENANT, OSType.IMMUTABLE) if system.profile_name == PROFILE)
    site = admin.add_site(TENANT, "demo")
    admin.add_schedule(
        TENANT, "always", ALWAYS, target=ScheduleTarget(level=TargetLevel.SITE, resource_id=site.resource_id)
    )
    hosts = [
        admin.add_host(TENANT, str(uuid.uuid4()), f"node {number}", site_id=site.resource_id) for number in range(nodes)
    ]
    for host in hosts:
        admin.add_instance(TENANT, host.resource_id, older.resource_id)
    # The newer revision: every node's desired OS moves to the newest image.
    OSResourceManager(inventory, service, revision=NEWER, mode=LinkingMode.AUTOMATIC).reconcile(TENANT)
    return hosts


def how_to_connect(port: int, options: argparse.Namespace, authority: LocalAuthority, hosts: list[Host]) -> str:
    """Return what to tell somebody who wants to point an agent here."""
    folder = authority.folder
    token = authority.token_file(authority.token(TENANT, lasts=timedelta(days=1)))
    example = f"python {Path(__file__).with_name('agent_against_server.py')} --target {options.host}:{port}"
    return f"""Maintenance Manager on {options.host}:{port}, service maintmgr.v1.MaintmgrService

a simulated node:
  {example} --folder {folder} --guid {hosts[0].guid}

any agent:
  address      {options.host}:{port}
  believe      {authority.ca}
  bearer token {token} (for a day; send it as `authorization: Bearer ...`)
  host GUIDs   {", ".join(host.guid for host in hosts)}
"""


async def run(inventory: Inventory, options: argparse.Namespace) -> None:
    """Answer agents until the process is told to end."""
    authority = LocalAuthority(options.folder / "authority")
    certificate = authority.server(names=[options.host, "localhost", "127.0.0.1"])
    hosts = settle(inventory, options.nodes)

    def ready(server: MaintenanceServer) -> None:
        print(how_to_connect(server.port, options, authority, hosts), flush=True)

    await serve(
        MaintenanceManager(inventory, clock=SystemClock()),
        address=f"{options.host}:{options.port}",
        tls=ServerTls(certificate=certificate.certificate, key=certificate.key),
        authenticator=JwtAuthenticator(JwksFile(path=authority.jwks), audience=AUDIENCE),
        reflection=True,
        on_ready=ready,
    )


def at_least_one(text: str) -> int:
    """Return a number of the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1")
    return int(text)


def main() -> int:
    """Read the options and run; return the exit status."""
    parser = argparse.ArgumentParser(description="A Maintenance Manager that answers agents over gRPC.")
    parser.add_argument("--folder", type=Path, default=Path("maintenance_server"), help="where everything is kept")
    parser.add_argument("--database", help="a URL (default: SQLite in the folder)")
    parser.add_argument("--host", default="localhost", help="name or address to listen on")
    parser.add_argument("--port", type=int, default=50002, help="0: any that is free")
    parser.add_argument("--nodes", type=at_least_one, default=3, help="of the demo, on the first start")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        with open_inventory(options.database or f"sqlite:///{options.folder / 'inventory.db'}") as inventory:
            asyncio.run(run(inventory, options))
    except (EdgeDay2Error, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
