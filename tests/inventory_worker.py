"""A process that does everything that is done to an Inventory, until it is killed, and says what was stored.

    python inventory_worker.py URL NUMBER SEED ROUNDS

Each line that it prints is true from then on: the number of a report of its own node, of a region that an admin
added, of a fleet that was imported whole. Everything else happens to nodes that all workers share.
"""

from __future__ import annotations

import itertools
import random
import sys
from datetime import timedelta

from attrs import evolve

from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.fleet_lines import import_fleet
from edge_day2.adapters.release_service import DirectoryReleaseService
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.inventory_service import InventoryService
from edge_day2.application.maintenance_manager import MaintenanceManager, Report
from edge_day2.application.os_resource_manager import Discovery, OSResourceManager
from edge_day2.domain.linking import DiscoveredProfile, LinkingMode
from edge_day2.domain.maintenance import MaintenancePolicy
from edge_day2.domain.messages import PlatformUpdateStatusRequest, UpdateStatus
from edge_day2.domain.profiles import OSProfile
from edge_day2.domain.resources import (
    Host,
    Instance,
    OSProvider,
    OSResource,
    OSType,
    Region,
    Resource,
    ScheduleTarget,
    SecurityFeature,
    TargetLevel,
    UpdatePolicyKind,
    os_resource_id,
)
from edge_day2.domain.schedules import RepeatedSchedule
from edge_day2.domain.statuses import UpdateRecord, UpdateStatusType
from edge_day2.domain.versions import ImageVersion
from edge_day2.errors import AlreadyExists, Conflict, FailedPrecondition, ImmutableLinkError, NotFound, StorageError
from edge_day2.ports.inventory import Inventory

TENANT = "tenant"
WORKERS = 3
SHARED_NODES = 6
IMPORTED = 40

_IN_THE_WAY = (AlreadyExists, Conflict, FailedPrecondition, ImmutableLinkError, NotFound, StorageError)
_REPORTED = (UpdateStatusType.STARTED, UpdateStatusType.STARTED, UpdateStatusType.FAILED)
_SHARED_REPORTS = (
    UpdateStatusType.STARTED,
    UpdateStatusType.DOWNLOADING,
    UpdateStatusType.UPDATED,
    UpdateStatusType.FAILED,
    UpdateStatusType.UP_TO_DATE,
)


def guid_of(node: int) -> str:
    """Return the GUID of a node; those of the workers themselves come behind the shared ones."""
    return f"{node:08}-0000-4000-8000-000000000000"


def _profile(number: int) -> OSProfile:
    return OSProfile(
        profile_name="edge",
        name=f"edge {number}",
        os_type=OSType.IMMUTABLE,
        os_provider=OSProvider.INFRA,
        security_feature=SecurityFeature.NONE,
        architecture="x86_64",
        image_version=ImageVersion.parse(f"1.{number}"),
        sha256=f"{number % 10}" * 64,
        image_url=f"edge-{number}.raw",
    )


def first_content() -> list[Resource]:
    """Return what is there before the first worker begins: one mutable and some immutable nodes."""
    edge = _profile(0).to_os_resource(tenant_id=TENANT)
    ubuntu = evolve(edge, resource_id="os-ubuntu", os_type=OSType.MUTABLE, profile_name="ubuntu", image_url="")
    content: list[Resource] = [edge, ubuntu]
    for node in range(SHARED_NODES + WORKERS):
        system: OSResource = ubuntu if node % 3 == 0 else edge
        name = f"host-{node}"
        content.append(Host(resource_id=name, tenant_id=TENANT, guid=guid_of(node), name=name))
        content.append(
            Instance(
                resource_id=f"instance-{node}",
                tenant_id=TENANT,
                host_id=name,
                os_type=system.os_type,
                current_os_id=system.resource_id,
                desired_os_id=system.resource_id,
            )
        )
    return content


class Worker:
    """One process's work: random, repeatable, and interrupted by nothing but a kill."""

    def __init__(self, inventory: Inventory, number: int, seed: int) -> None:
        self._inventory = inventory
        self._number = number
        self._chance = random.Random(seed)
        self._numbers = itertools.count(seed * 1_000_000)
        lost = MaintenancePolicy(lost_after=timedelta(milliseconds=30), seen_every=timedelta(milliseconds=10))
        self._manager = MaintenanceManager(inventory, clock=SystemClock(), policy=lost)
        self._service = InventoryService(inventory, clock=SystemClock())
        # Never asked: every discovery is given.
        nothing = DirectoryReleaseService("nowhere")
        self._linker = OSResourceManager(inventory, nothing, revision="1.0.0", mode=LinkingMode.AUTOMATIC, batch_size=2)

    def work_for_ever(self) -> None:
        """Do one thing after another."""
        while True:
            self.work()

    def work(self) -> None:
        """Do one thing; others may be in its way."""
        work = self._chance.choice(
            [self._report_own] * 3
            + [self._report_one, self._report_many, self._report_each, self._find_lost]
            + [self._administer, self._link, self._link_by_hand, self._import, self._come_and_go, self._policies]
        )
        try:
            work()
        except _IN_THE_WAY as error:
            print("refused", type(error).__name__, flush=True)

    def _stored(self, what: str, number: int) -> None:
        print(what, number, flush=True)

    def _request(self, node: int, kind: UpdateStatusType, detail: str = "") -> PlatformUpdateStatusRequest:
        status = UpdateStatus(status_type=kind, status_detail=detail)
        return PlatformUpdateStatusRequest(host_guid=guid_of(node), update_status=status)

    def _shared(self) -> Report:
        node, kind = self._chance.randrange(SHARED_NODES), self._chance.choice(_SHARED_REPORTS)
        return Report(tenant=TENANT, request=self._request(node, kind))

    def _report_own(self) -> None:
        number = next(self._numbers)
        detail = f'{{"update_log":[],"message":"{number}"}}'
        request = self._request(SHARED_NODES + self._number, self._chance.choice(_REPORTED), detail)
        self._manager.platform_update_status(request, tenant=TENANT)
        self._stored("reported", number)

    def _report_one(self) -> None:
        report = self._shared()
        self._manager.platform_update_status(report.request, tenant=report.tenant)

    def _report_many(self) -> None:
        self._manager.platform_update_statuses([self._shared() for _ in range(8)])

    def _report_each(self) -> None:
        self._manager.answer_each([self._shared() for _ in range(8)])

    def _find_lost(self) -> None:
        self._manager.find_lost(TENANT)

    def _administer(self) -> None:
        number = next(self._numbers)
        region = Region(resource_id=f"region-{number}", tenant_id=TENANT, name="added")
        with self._inventory.writing() as unit:
            unit.add(region)
            unit.replace(region, evolve(region, name=str(number)))
        self._stored("added", number)

    def _link(self) -> None:
        number = self._chance.randrange(1, 20)
        found = DiscoveredProfile(revision="1.0.0", profile=_profile(number))
        self._linker.reconcile(TENANT, Discovery(profiles=(found,), rejected=()))

    def _link_by_hand(self) -> None:
        number, node = self._chance.randrange(20), self._chance.randrange(SHARED_NODES)
        desired = os_resource_id(TENANT, "edge", f"1.{number}")
        self._service.link_desired_os(TENANT, f"instance-{node}", desired)

    def _import(self) -> None:
        number = next(self._numbers)
        lines = (
            f'{{"resource":"Region","resource_id":"fleet-{number}-{line}","tenant_id":"imported","name":"{number}"}}'
            for line in range(IMPORTED)
        )
        import_fleet(self._inventory, lines)
        self._stored("imported", number)

    def _come_and_go(self) -> None:
        """Delete an OS Resource that perhaps somebody is being linked to, and a node with its history."""
        number, node = self._chance.randrange(1, 20), self._chance.randrange(SHARED_NODES)
        with self._inventory.writing() as unit:
            unit.delete(unit.get(OSResource, TENANT, os_resource_id(TENANT, "edge", f"1.{number}")))
        with self._inventory.writing() as unit:
            instance = unit.get(Instance, TENANT, f"instance-{node}")
            for run in unit.runs_of_instance(TENANT, instance.resource_id):
                unit.delete(run)
            unit.delete(instance)
            again = evolve(instance, update=UpdateRecord(), last_seen=None, desired_os_id=instance.current_os_id)
            unit.add(again)

    def _policies(self) -> None:
        node = self._chance.randrange(SHARED_NODES)
        with self._inventory.reading() as unit:
            target = unit.get(Instance, TENANT, f"instance-{node}").current_os_id
        policy = self._service.add_policy(TENANT, "p", UpdatePolicyKind.TARGET, target_os_id=target)
        self._service.assign_policy(TENANT, f"instance-{node}", policy.resource_id)
        at = ScheduleTarget(level=TargetLevel.HOST, resource_id=f"host-{node}")
        self._service.add_schedule(TENANT, "nightly", RepeatedSchedule(), target=at)
        self._service.assign_policy(TENANT, f"instance-{node}", None)
        self._service.delete(policy)


def main() -> None:
    """Open the Inventory and work, for so many rounds or, with 0, for ever."""
    url, number, seed, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    with open_inventory(url, lock_timeout_seconds=30) as inventory:
        print("opened", flush=True)
        worker = Worker(inventory, number, seed)
        if rounds:
            for _ in range(rounds):
                worker.work()
        else:
            worker.work_for_ever()


if __name__ == "__main__":
    main()
