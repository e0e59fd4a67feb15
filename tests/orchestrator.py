"""An orchestrator for tests: managers on the example profiles, and nodes that run what they discovered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from edge_day2.adapters.release_service import DirectoryReleaseService
from edge_day2.application.os_resource_manager import OSResourceManager, ReconcileReport
from edge_day2.domain.linking import LinkingMode
from edge_day2.domain.resources import Host, Instance, OSResource, os_resource_id
from edge_day2.ports.inventory import Inventory

EXAMPLES = Path(__file__).parents[1] / "examples" / "profiles"
OLD_EDGE, NEW_EDGE = "3.0.20251118.2154", "3.0.20251204.0140"
EDGE = "microvisor-nonrt"


def manager(
    inventory: Inventory, profiles: Path = EXAMPLES, revision: str = "0.9.8", **options: Any
) -> OSResourceManager:
    return OSResourceManager(inventory, DirectoryReleaseService(profiles), revision=revision, **options)


def automatic(inventory: Inventory, profiles: Path = EXAMPLES, revision: str = "0.9.8") -> ReconcileReport:
    return manager(inventory, profiles, revision, mode=LinkingMode.AUTOMATIC, batch_size=2).reconcile("tenant")


def os_id(profile: str, version: str) -> str:
    return os_resource_id("tenant", profile, version)


def stored(inventory: Inventory, tenant: str = "tenant") -> dict[str, OSResource]:
    with inventory.reading() as read:
        return {resource.resource_id: resource for resource in read.all(OSResource, tenant)}


def change(inventory: Inventory, kind: type[Any], resource_id: str, **changes: object) -> None:
    with inventory.writing() as write:
        old = write.get(kind, "tenant", resource_id)
        write.replace(old, attrs.evolve(old, **changes))


def install(inventory: Inventory, count: int, profile: str = EDGE, version: str = OLD_EDGE) -> list[str]:
    """Add nodes that run an OS; return the ids of their instances."""
    with inventory.writing() as write:
        os = write.get(OSResource, "tenant", os_id(profile, version))
        names = [f"{profile}-{number:03}" for number in range(count)]
        for number, name in enumerate(names):
            guid = f"{len(profile):08x}-0000-0000-0000-{number:012x}"
            write.add(Host(resource_id=f"host-{name}", tenant_id="tenant", guid=guid, name=name))
            write.add(
                Instance(
                    resource_id=f"inst-{name}",
                    tenant_id="tenant",
                    host_id=f"host-{name}",
                    os_type=os.os_type,
                    current_os_id=os.resource_id,
                    desired_os_id=os.resource_id,
                )
            )
    return [f"inst-{name}" for name in names]


def desired(inventory: Inventory) -> dict[str, str]:
    with inventory.reading() as read:
        return {instance.resource_id: instance.desired_os_id for instance in read.all(Instance, "tenant")}
