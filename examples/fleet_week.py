"""The story of the demo: two tenants, their sites and windows, and what their orchestrator does in the week.

`north` links new images automatically, in `south` an admin does it by hand. On the second day the orchestrator is
upgraded to a newer revision of profiles, on the third new packages are published, on the fourth an admin patches the
Ubuntu OS Resources.
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from attrs import frozen

from edge_day2 import (
    ImageVersion,
    InventoryService,
    LinkingMode,
    MaintenanceManager,
    OSProfile,
    OSResource,
    OSResourceManager,
    OSType,
    RepeatedSchedule,
    SingleSchedule,
)
from edge_day2.adapters.release_service import DirectoryReleaseService
from edge_day2.application.os_resource_manager import ReconcileReport
from edge_day2.domain.maintenance import MaintenancePolicy
from edge_day2.domain.resources import Host, Region, ScheduleResource, ScheduleTarget, Site, TargetLevel
from edge_day2.domain.schedule_book import ScheduleBook
from edge_day2.domain.schedules import ScheduleKind
from edge_day2.errors import InvalidProfile, NotFound
from edge_day2.ports.inventory import Inventory
from edge_day2.ports.release_service import FetchedManifest
from edge_day2.testing import FaultPlan, SimulatedFleet, VirtualClock
from fleet_history import Milestone, NamedWindow, Node
from fleet_outcomes import outcome_of

BEGIN: Final = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)  # a Monday
NORTH: Final = "6f1c2a9e-0c1d-4a53-9a52-0d6f0a5f1e01"
SOUTH: Final = "b7d3e5f2-8a44-4c0b-8d5e-2f9f6c7a1e02"
TENANTS: Final = {NORTH: ("north", LinkingMode.AUTOMATIC), SOUTH: ("south", LinkingMode.MANUAL)}
LINKING: Final = {LinkingMode.AUTOMATIC: "automatically", LinkingMode.MANUAL: "by an admin"}
# Of the nodes whose region has no windows, how many have one of their own; of those in `south`, how many are linked.
OWN_WINDOW: Final = 0.7
LINKED_BY_HAND: Final = 0.8
SIGN_OF_LIFE: Final = timedelta(hours=1)
OWN_PROFILES: Final = Path(__file__).parent / "profiles"

# Nothing is opened in this tenant at this site, whatever its windows say.
BLACKOUT: Final = (SOUTH, "Lyon depot", SingleSchedule(BEGIN + timedelta(days=1), BEGIN + timedelta(days=9)))

PACKAGES: Final = {
    "platform-update-agent": "1.5.0", "in-band-manageability": "4.2.8", "linux-image-generic": "5.15.0.100",
    "openssl": "3.0.2-0ubuntu1.18", "containerd": "1.7.12", "systemd": "249.11-0ubuntu3.12",
}  # fmt: skip
LATER_PACKAGES: Final = {
    "platform-update-agent": "1.5.3", "linux-image-generic": "5.15.0.105", "openssl": "3.0.2-0ubuntu1.19",
    "intel-gpu-tools": "1.28",
}  # fmt: skip


@frozen(kw_only=True)
class Place:
    """A site of the demo, its region, and when its nodes may be disturbed."""

    region: str
    site: str


PLACES: Final = (
    Place(region="Europe", site="Gdansk plant"),
    Place(region="Europe", site="Munich stores"),
    Place(region="Europe", site="Lyon depot"),
    Place(region="Americas", site="Oregon lab"),
    Place(region="Americas", site="Austin stores"),
    Place(region="Asia", site="Penang plant"),
)
# By region, site or neither (the nodes of Penang have windows of their own, or none): all in UTC.
REGION_WINDOWS: Final = {
    "Europe": RepeatedSchedule(minutes="0", hours="1", day_week="1,2,3,4,5", duration_seconds=3 * 3600),
    "Americas": RepeatedSchedule(minutes="30", hours="8", day_week="*", duration_seconds=2 * 3600),
}
SITE_WINDOWS: Final = {
    "Gdansk plant": RepeatedSchedule(minutes="0", hours="12", day_week="3", duration_seconds=3600),
    "Austin stores": RepeatedSchedule(minutes="0", hours="5", day_week="0,6", duration_seconds=4 * 3600),
}


def images_of(service: DirectoryReleaseService, revision: str) -> dict[str, ImageVersion]:
    """Return the image version of each immutable profile of a revision."""
    found = {}
    for manifest in service.manifests(revision):
        # A manifest that can't be used is the OS Resource Manager's to report; the rest of the revision counts.
        with suppress(InvalidProfile):
            if isinstance(manifest, FetchedManifest):
                profile = OSProfile.from_yaml(manifest.text)
                if profile.os_type is OSType.IMMUTABLE:
                    found[profile.profile_name] = profile.image_version
    return found


def two_revisions(service: DirectoryReleaseService) -> tuple[str, str]:
    """Return the newest revision, and the newest one before it all of whose images are older."""
    for newest in service.revisions()[-1:]:
        latest = images_of(service, newest)
        for revision in reversed(service.revisions()[:-1]):
            images = images_of(service, revision)
            if images and all(latest.get(profile, version) > version for profile, version in images.items()):
                return revision, newest
    raise NotFound("the folder of profiles needs two revisions, of which the later one has newer images")


class FleetWeek:
    """The fleet, its orchestrator and its story."""

    def __init__(
        self,
        inventory: Inventory,
        service: DirectoryReleaseService,
        revisions: tuple[str, str],
        nodes: int,
        days: int,
        seed: int,
    ) -> None:
        self.old, self.new = revisions
        self.inventory = inventory
        self.clock = VirtualClock(BEGIN)
        self.end = BEGIN + timedelta(days=days)
        self.reports: dict[str, ReconcileReport] = {}
        self._service = service
        self._random = random.Random(seed)  # noqa: S311  # a simulation
        counter = itertools.count()
        self.admin = InventoryService(inventory, clock=self.clock, new_id=lambda: f"{next(counter):06x}")
        self.fleet = SimulatedFleet(
            # Three signs of life that don't come: one lost report is no lost node.
            MaintenanceManager(inventory, clock=self.clock, policy=MaintenancePolicy(lost_after=3 * SIGN_OF_LIFE)),
            self.clock,
            faults=FaultPlan.rough(seed),
            report_every=SIGN_OF_LIFE,
        )
        self.places: dict[str, Place] = {}
        self.milestones: list[Milestone] = []
        self.wanted: defaultdict[str, list[datetime]] = defaultdict(list)
        for tenant, share in ((NORTH, 0.6), (SOUTH, 0.4)):
            self._settle(tenant, round(nodes * share))

    def _reconcile(self, tenant: str, revision: str) -> None:
        _, mode = TENANTS[tenant]
        manager = OSResourceManager(self.inventory, self._service, revision=revision, mode=mode, clock=self.clock)
        self.reports[f"{TENANTS[tenant][0]} {revision}"] = manager.reconcile(tenant)

    def _settle(self, tenant: str, nodes: int) -> None:
        """Bring up a tenant's regions, sites, windows and nodes, and plan its week."""
        self._reconcile(tenant, self.old)
        regions = {name: self.admin.add_region(tenant, name) for name in sorted({place.region for place in PLACES})}
        sites = {
            place.site: self.admin.add_site(tenant, place.site, region_id=regions[place.region].resource_id)
            for place in PLACES
        }
        for name, schedule in REGION_WINDOWS.items():
            target = ScheduleTarget(level=TargetLevel.REGION, resource_id=regions[name].resource_id)
            self.admin.add_schedule(tenant, f"{name} nights", schedule, target=target)
        for name, schedule in SITE_WINDOWS.items():
            target = ScheduleTarget(level=TargetLevel.SITE, resource_id=sites[name].resource_id)
            self.admin.add_schedule(tenant, f"{name} breaks", schedule, target=target)
        frozen_tenant, site, blackout = BLACKOUT
        if tenant == frozen_tenant:
            target = ScheduleTarget(level=TargetLevel.SITE, resource_id=sites[site].resource_id)
            self.admin.add_schedule(tenant, "stocktaking", blackout, target=target, kind=ScheduleKind.BLACKOUT)
        systems = self.admin.os_resources(tenant)
        for number in range(nodes):
            self._add_node(tenant, number, PLACES[number % len(PLACES)], sites, systems)
        repository = dict(PACKAGES)
        self.fleet.add_tenant(self.inventory, tenant, packages=PACKAGES, repository=repository)
        self._plan_week(tenant, repository)

    def _add_node(
        self, tenant: str, number: int, place: Place, sites: Mapping[str, Site], systems: Sequence[OSResource]
    ) -> None:
        guid = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        name = f"{TENANTS[tenant][0]}-{number:04}"
        host = self.admin.add_host(tenant, guid, name, site_id=sites[place.site].resource_id)
        self.admin.add_instance(tenant, host.resource_id, systems[self._random.randrange(len(systems))].resource_id)
        self.places[host.resource_id] = place
        if place.region not in REGION_WINDOWS and self._random.random() < OWN_WINDOW:
            start = BEGIN + timedelta(days=2, hours=self._random.randrange(60))
            target = ScheduleTarget(level=TargetLevel.HOST, resource_id=host.resource_id)
            schedule = SingleSchedule(start, start + timedelta(hours=3))
            self.admin.add_schedule(tenant, f"{name} maintenance", schedule, target=target)

    def _plan_week(self, tenant: str, repository: dict[str, str]) -> None:
        upgraded = BEGIN + timedelta(days=1, hours=4)
        self._plan(tenant, upgraded, f"orchestrator upgraded to {self.new}", lambda: self._reconcile(tenant, self.new))
        if TENANTS[tenant][1] is LinkingMode.MANUAL:
            linked = upgraded + timedelta(hours=5)
            self._plan(tenant, linked, "admin links the new images", lambda: self._link_by_hand(tenant))
        published = BEGIN + timedelta(days=2, hours=3)
        self._plan(tenant, published, "new packages published", lambda: self._publish(tenant, repository))
        patched = BEGIN + timedelta(days=3, hours=2)
        self._plan(tenant, patched, "admin patches the Ubuntu OS Resources", lambda: self._patch_ubuntu(tenant))

    def _plan(self, tenant: str, at: datetime, text: str, action: Callable[[], None]) -> None:
        """Let the orchestrator act at `at`, and note of which nodes it wants something newer from then on."""
        name, _ = TENANTS[tenant]

        def act() -> None:
            before = {instance.resource_id: instance.desired_os_id for instance in self.admin.instances(tenant)}
            action()
            self.milestones.append(Milestone(at=at, tenant=name, text=text))
            for instance in self.admin.instances(tenant):
                if instance.desired_os_id != before[instance.resource_id]:
                    self.wanted[instance.resource_id].append(at)

        self.fleet.at(at, f"{name}: {text}", act)

    def _want_of_mutable(self, tenant: str) -> None:
        for instance in self.admin.instances(tenant):
            if instance.os_type is OSType.MUTABLE:
                self.wanted[instance.resource_id].append(self.clock.now())

    def _publish(self, tenant: str, repository: dict[str, str]) -> None:
        repository.update(LATER_PACKAGES)
        self._want_of_mutable(tenant)

    def _link_by_hand(self, tenant: str) -> None:
        systems = {system.resource_id: system for system in self.admin.os_resources(tenant, OSType.IMMUTABLE)}
        latest = {system.profile_name: system for system in systems.values()}
        for instance in self.admin.instances(tenant):
            current = systems.get(instance.current_os_id)
            if current is not None and self._random.random() < LINKED_BY_HAND:
                self.admin.link_desired_os(tenant, instance.resource_id, latest[current.profile_name].resource_id)

    def _patch_ubuntu(self, tenant: str) -> None:
        for system in self.admin.os_resources(tenant, OSType.MUTABLE):
            self.admin.patch_mutable_os(
                tenant,
                system.resource_id,
                update_packages=["intel-gpu-tools"],
                kernel_command_line="intel_iommu=on,sm_on",
            )
        self._want_of_mutable(tenant)

    def nodes(self) -> list[Node]:
        """Return the nodes as they stand at the end, in the order of the picture."""
        found = []
        for tenant, (name, _) in TENANTS.items():
            book = self._schedule_book(tenant)
            systems = {system.resource_id: system for system in self.admin.os_resources(tenant)}
            for instance in self.admin.instances(tenant):
                host = book.host(instance.host_id)
                wanted = tuple(self.wanted[instance.resource_id])
                outcome = outcome_of(
                    instance,
                    systems[instance.current_os_id],
                    self.admin.history(tenant, instance.resource_id),
                    self.admin.explain(tenant, host.guid),
                    max(wanted, default=None),
                )
                node = Node(
                    guid=host.guid,
                    name=host.name,
                    tenant=name,
                    region=self.places[host.resource_id].region,
                    site=self.places[host.resource_id].site,
                    wanted=wanted,
                    windows=tuple(self._windows(book, host)),
                    blackouts=tuple(self._blackouts(book, host)),
                    outcome=outcome,
                )
                found.append(node)
        return found

    def _schedule_book(self, tenant: str) -> ScheduleBook:
        book = ScheduleBook(tenant)
        with self.inventory.reading() as unit:
            book.put(*unit.all(Region, tenant), *unit.all(Site, tenant), *unit.all(Host, tenant))
            book.put(*unit.all(ScheduleResource, tenant))
        return book

    def _windows(self, book: ScheduleBook, host: Host) -> Iterator[NamedWindow]:
        opening = (found.resource for found in book.applying(host.resource_id) if found.resource.kind in book.kinds)
        source = ", ".join(resource.name for resource in opening)
        for window in book.windows(host.resource_id, BEGIN, self.end):
            yield NamedWindow(start=window.start, end=window.end or self.end, source=source)

    def _blackouts(self, book: ScheduleBook, host: Host) -> Iterator[NamedWindow]:
        for applied in book.applying(host.resource_id):
            if applied.resource.kind is ScheduleKind.BLACKOUT:
                for window in applied.resource.schedule.windows(BEGIN, self.end):
                    yield NamedWindow(start=window.start, end=window.end or self.end, source=applied.resource.name)
