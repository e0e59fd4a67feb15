"""What a node talks to, on this machine's loopback: a Maintenance Manager over gRPC with TLS, and an image server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from attrs import frozen

from edge_day2 import Instance, MaintenanceManager, OSResource, OSType, SingleSchedule
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.grpc import ServerTls
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.inventory_service import InventoryService
from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse, UpdateStatus
from edge_day2.domain.resources import OSUpdateRun, ScheduleTarget, TargetLevel
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.ports.inventory import Inventory
from edge_day2.testing.local_authority import LocalAuthority
from vm.guest_image import PROFILE, GuestImage
from vm.image_server import ImageServer
from wire_server import TENANT, running

# This machine, as a guest on QEMU's user network sees it.
HOST: Final = "10.0.2.2"
GUID: Final = "00000000-0000-4000-8000-000000000001"


class ListeningManager(MaintenanceManager):
    """A Maintenance Manager that notes what it is told."""

    def __init__(self, inventory: Inventory) -> None:
        super().__init__(inventory, clock=SystemClock())
        self.told: list[UpdateStatus] = []

    def platform_update_status(
        self, request: PlatformUpdateStatusRequest, *, tenant: str
    ) -> PlatformUpdateStatusResponse:
        answer = super().platform_update_status(request, tenant=tenant)
        self.told.append(request.update_status)
        return answer


@frozen
class ControlPlane:
    """The orchestrator of one node, and where the node reaches it."""

    inventory: Inventory
    manager: ListeningManager
    images: ImageServer
    authority: LocalAuthority
    port: int

    def instance(self) -> Instance:
        """Return the node's instance as the Inventory holds it."""
        with self.inventory.reading() as unit:
            (found,) = unit.all(Instance, TENANT)
        return found

    def runs(self) -> tuple[OSUpdateRun, ...]:
        """Return the node's update runs, the oldest first."""
        with self.inventory.reading() as unit:
            return tuple(unit.runs_of_instance(TENANT, self.instance().resource_id))[::-1]

    def told(self) -> list[UpdateStatusType]:
        """Return the kinds of reports that came in, without repetitions."""
        return [kind for kind, _ in itertools.groupby(status.status_type for status in self.manager.told)]

    def current_version(self) -> str:
        """Return the image version that the Inventory believes the node to run."""
        with self.inventory.reading() as unit:
            return unit.get(OSResource, TENANT, self.instance().current_os_id).image_id


@contextmanager
def control_plane(folder: Path, old: GuestImage, new: GuestImage) -> Iterator[ControlPlane]:
    """Run the orchestrator of a node that runs `old` and is to run `new`, at any time."""
    images = ImageServer({f"files/{name_of(image)}": image.compressed for image in (old, new)})
    with open_inventory(f"sqlite:///{folder / 'inventory.db'}", lock_timeout_seconds=60) as inventory:
        settle(inventory, old, new)
        manager = ListeningManager(inventory)
        authority = LocalAuthority(folder / "authority")
        pair = authority.server(names=["localhost", "127.0.0.1", HOST])
        tls = ServerTls(certificate=pair.certificate, key=pair.key)
        with images.serving(), running(manager, authority, tls=tls) as server:
            authority.token_file(authority.token(TENANT, lasts=timedelta(days=1)))
            yield ControlPlane(inventory, manager, images, authority, server.port)


def name_of(image: GuestImage) -> str:
    """Return the path of an image in the folder `files` of the server."""
    return f"{PROFILE}-{image.version}.raw.gz"


def settle(inventory: Inventory, old: GuestImage, new: GuestImage) -> None:
    """Bring up a site with one node, and a window that never closes."""
    ids = {}
    with inventory.writing() as unit:
        for image in (old, new):
            resource = OSResource(
                resource_id=f"os-{image.version}",
                tenant_id=TENANT,
                name=f"{PROFILE} {image.version}",
                os_type=OSType.IMMUTABLE,
                profile_name=PROFILE,
                profile_version=image.version,
                image_id=image.version,
                sha256=image.sha256,
                image_url=name_of(image),
            )
            ids[image.version] = resource.resource_id
            unit.add(resource)
    admin = InventoryService(inventory, clock=SystemClock())
    site = admin.add_site(TENANT, "site")
    always = SingleSchedule(datetime(2026, 1, 1, tzinfo=UTC))
    target = ScheduleTarget(level=TargetLevel.SITE, resource_id=site.resource_id)
    admin.add_schedule(TENANT, "always", always, target=target)
    host = admin.add_host(TENANT, GUID, "node", site_id=site.resource_id)
    instance = admin.add_instance(TENANT, host.resource_id, ids[old.version])
    admin.link_desired_os(TENANT, instance.resource_id, ids[new.version])
