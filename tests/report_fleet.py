"""A small tenant and its Maintenance Manager, for tests of what reports leave behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import evolve

from edge_day2.application.maintenance_manager import MaintenanceManager
from edge_day2.domain.messages import PlatformUpdateStatusRequest, PlatformUpdateStatusResponse, UpdateStatus
from edge_day2.domain.resources import Host, Instance, OSResource, OSType, OSUpdateRun, Resource
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.ports.inventory import Inventory, UnitOfWork
from edge_day2.ports.metrics import NO_METRICS, Metrics

NOW = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
EDGE, UBUNTU = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"
TENANT = "tenant"


class SetClock:
    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> datetime:
        return self.time

    def later(self, **length: float) -> None:
        self.time += timedelta(**length)


class Watched:
    """An Inventory that counts its transactions and can be made to fail."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.read = self.written = 0
        self.failures: list[Exception] = []

    @contextmanager
    def reading(self) -> Iterator[UnitOfWork]:
        self.read += 1
        with self.inventory.reading() as unit:
            yield unit

    @contextmanager
    def writing(self) -> Iterator[UnitOfWork]:
        self.written += 1
        with self.inventory.writing() as unit:
            yield unit
            if self.failures:
                raise self.failures.pop(0)

    def turn(self, name: str) -> AbstractContextManager[bool]:
        return self.inventory.turn(name)

    def close(self) -> None:
        self.inventory.close()

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def image(number: int, **changes: Any) -> OSResource:
    fields: dict[str, Any] = {
        "resource_id": f"os-{number}",
        "tenant_id": TENANT,
        "name": f"edge 3.0.{number}",
        "os_type": OSType.IMMUTABLE,
        "profile_name": "edge",
        "profile_version": f"3.0.{number}",
        "image_id": f"3.0.{number}",
        "sha256": f"{number}" * 64,
        "image_url": f"files/edge-3.0.{number}.raw.gz",
    }
    return OSResource(**{**fields, **changes})


UBUNTU_OS = image(
    9,
    name="ubuntu",
    os_type=OSType.MUTABLE,
    profile_name="ubuntu",
    image_id="22.04",
    image_url="",
    update_sources=("Types: deb",),
    update_packages=("curl", "vim"),
    kernel_command_line="quiet",
)


def host(guid: str, name: str, **changes: Any) -> Host:
    return Host(resource_id=f"host-{name}", tenant_id=TENANT, guid=guid, name=name, **changes)


def instance(host_name: str, os: OSResource, **changes: Any) -> Instance:
    fields: dict[str, Any] = {
        "resource_id": f"instance-{host_name}",
        "tenant_id": TENANT,
        "host_id": f"host-{host_name}",
        "os_type": os.os_type,
        "current_os_id": os.resource_id,
        "desired_os_id": os.resource_id,
    }
    return Instance(**{**fields, **changes})


class Fleet:
    """A tenant with an immutable node (runs image 1, wants image 2) and a mutable one, and their manager."""

    def __init__(self, inventory: Inventory, metrics: Metrics = NO_METRICS) -> None:
        self.inventory = Watched(inventory)
        self.clock = SetClock()
        self.manager = MaintenanceManager(
            self.inventory, clock=self.clock, metrics=metrics, named_tenants=("a tenant of importance",)
        )
        self.add(
            image(1),
            image(2),
            UBUNTU_OS,
            host(EDGE, "edge-node-of-a-long-name"),
            host(UBUNTU, "ubuntu"),
            instance("edge-node-of-a-long-name", image(1), desired_os_id="os-2"),
            instance("ubuntu", UBUNTU_OS),
        )

    def add(self, *resources: Resource) -> None:
        with self.inventory.inventory.writing() as unit:
            for resource in resources:
                unit.add(resource)

    def change(self, guid: str, **changes: Any) -> None:
        with self.inventory.inventory.writing() as unit:
            found = unit.instance_of_host(TENANT, unit.host_by_guid(TENANT, guid).resource_id)
            assert found is not None
            unit.replace(found, evolve(found, **changes))

    def report(self, guid: str, kind: UpdateStatusType, **fields: Any) -> PlatformUpdateStatusResponse:
        status = UpdateStatus(status_type=kind, **fields)
        request = PlatformUpdateStatusRequest(host_guid=guid, update_status=status)
        return self.manager.platform_update_status(request, tenant=TENANT)

    def instance(self, guid: str) -> Instance:
        with self.inventory.inventory.reading() as unit:
            found = unit.instance_of_host(TENANT, unit.host_by_guid(TENANT, guid).resource_id)
        assert found is not None
        return found

    def runs(self, guid: str) -> tuple[OSUpdateRun, ...]:
        with self.inventory.inventory.reading() as unit:
            return unit.runs_of_instance(TENANT, self.instance(guid).resource_id)
