"""A fleet's Day 2: two revisions of OS profiles, 200 nodes of both kinds, some simulated days, and some bad luck.

An SQLite Inventory holds two tenants. In `north` the OS Resource Manager links new images by itself, in `south` an
admin does it by hand. On the second day the orchestrator is upgraded to a newer revision of profiles, and the nodes
update themselves in the windows of their site, region or own. At the end: a table, and a picture in one HTML file.

    python examples/day2_fleet.py --profiles DIR --nodes 200 --days 6 --seed 7
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from attrs import frozen
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from edge_day2 import (
    EdgeDay2Error,
    ImageVersion,
    Instance,
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
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.os_resource_manager import ReconcileReport
from edge_day2.domain.resources import Host, Region, ScheduleResource, ScheduleTarget, Site, TargetLevel
from edge_day2.domain.schedule_book import ScheduleBook
from edge_day2.domain.statuses import EntryStatus, InventoryStatus, parse_detail
from edge_day2.errors import NotFound
from edge_day2.ports.inventory import Inventory
from edge_day2.ports.release_service import FetchedManifest
from edge_day2.testing import FaultPlan, SimulatedFleet, VirtualClock
from fleet_timeline import Row, write_timeline

BEGIN: Final = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)  # a Monday
NORTH: Final = "6f1c2a9e-0c1d-4a53-9a52-0d6f0a5f1e01"
SOUTH: Final = "b7d3e5f2-8a44-4c0b-8d5e-2f9f6c7a1e02"
TENANTS: Final = {NORTH: ("north", LinkingMode.AUTOMATIC), SOUTH: ("south", LinkingMode.MANUAL)}
# Of the nodes whose region has no windows, how many have one of their own; of those in `south`, how many are linked.
OWN_WINDOW: Final = 0.7
LINKED_BY_HAND: Final = 0.8
OWN_PROFILES: Final = Path(__file__).parent / "profiles"

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


class Demo:
    """The fleet, its orchestrator and its story."""

    def __init__(
        self, inventory: Inventory, service: DirectoryReleaseService, nodes: int, days: int, seed: int
    ) -> None:
        self.old, self.new = two_revisions(service)
        self.inventory = inventory
        self.clock = VirtualClock(BEGIN)
        self.end = BEGIN + timedelta(days=days)
        self.reports: dict[str, ReconcileReport] = {}
        self._service = service
        self._random = random.Random(seed)  # noqa: S311  # a simulation
        counter = itertools.count()
        self.admin = InventoryService(inventory, clock=self.clock, new_id=lambda: f"{next(counter):06x}")
        self.fleet = SimulatedFleet(
            MaintenanceManager(inventory, clock=self.clock),
            self.clock,
            faults=FaultPlan.rough(seed),
            report_every=timedelta(hours=1),
        )
        self.hosts: dict[str, Host] = {}
        self.places: dict[str, Place] = {}
        for tenant, share in ((NORTH, 0.6), (SOUTH, 0.4)):
            self._settle(tenant, round(nodes * share))

    def _reconcile(self, tenant: str, revision: str) -> None:
        _, mode = TENANTS[tenant]
        manager = OSResourceManager(self.inventory, self._service, revision=revision, mode=mode)
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
        self.hosts[guid], self.places[guid] = host, place
        if place.region not in REGION_WINDOWS and self._random.random() < OWN_WINDOW:
            start = BEGIN + timedelta(days=2, hours=self._random.randrange(60))
            target = ScheduleTarget(level=TargetLevel.HOST, resource_id=host.resource_id)
            schedule = SingleSchedule(start, start + timedelta(hours=3))
            self.admin.add_schedule(tenant, f"{name} maintenance", schedule, target=target)

    def _plan_week(self, tenant: str, repository: dict[str, str]) -> None:
        name, mode = TENANTS[tenant]
        upgraded = BEGIN + timedelta(days=1, hours=4)
        self.fleet.at(
            upgraded, f"{name}: orchestrator upgraded to {self.new}", lambda: self._reconcile(tenant, self.new)
        )
        if mode is LinkingMode.MANUAL:
            linked = upgraded + timedelta(hours=5)
            self.fleet.at(linked, f"{name}: admin links the new images", lambda: self._link_by_hand(tenant))
        published = BEGIN + timedelta(days=2, hours=3)
        self.fleet.at(published, f"{name}: new packages published", lambda: repository.update(LATER_PACKAGES))
        patched = BEGIN + timedelta(days=3, hours=2)
        self.fleet.at(patched, f"{name}: admin patches the Ubuntu OS Resources", lambda: self._patch_ubuntu(tenant))

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

    def outcomes(self) -> list[tuple[OSResource, str, str]]:
        """Return for every node the OS that it runs, how it stands at the end, and why."""
        found = []
        guids = {host.resource_id: host.guid for host in self.hosts.values()}
        for tenant in TENANTS:
            systems = {system.resource_id: system for system in self.admin.os_resources(tenant)}
            for instance in self.admin.instances(tenant):
                runs = self.admin.history(tenant, instance.resource_id)
                done = any(run.update.status is InventoryStatus.DONE for run in runs)
                why = self.admin.explain(tenant, guids[instance.host_id])
                found.append((systems[instance.current_os_id], *outcome_of(instance, why, done=done)))
        return found

    def rows(self) -> list[Row]:
        """Return the rows of the picture: the nodes by tenant, region and site, with their windows."""
        found = []
        for tenant, (name, _) in TENANTS.items():
            book = ScheduleBook(tenant)
            with self.inventory.reading() as unit:
                book.put(*unit.all(Region, tenant), *unit.all(Site, tenant), *unit.all(Host, tenant))
                book.put(*unit.all(ScheduleResource, tenant))
            for host in self.hosts.values():
                if host.tenant_id == tenant:
                    place = self.places[host.guid]
                    windows = tuple(book.windows(host.resource_id, BEGIN, self.end))
                    found.append(Row(guid=host.guid, name=host.name, group=f"{name}: {place.site}", windows=windows))
        return sorted(found, key=lambda row: (row.group, row.name))


def outcome_of(instance: Instance, why: str, *, done: bool) -> tuple[str, str]:
    """Return in a word how a node stands at the end, and why. `done`: at least one of its updates was completed."""
    recorded = instance.update
    match recorded.status:
        case InventoryStatus.LOST:
            return "lost", "silent since its update began"
        case InventoryStatus.FAILED:
            detail = parse_detail(recorded.detail)
            entry = next(iter(reversed(detail.update_log)), None) if detail is not None else None
            if entry is None:
                return "failed", "no reason given"
            stands = "rolled back" if entry.status is EntryStatus.ROLLED_BACK else "failed"
            return stands, f"{entry.failure_reason.summary} ({entry.failure_reason.value})"
        case InventoryStatus.UPDATE_IN_PROGRESS | InventoryStatus.DOWNLOADING | InventoryStatus.DOWNLOADED:
            return "waiting", recorded.text.lower()
    if instance.current_os_id != instance.desired_os_id or recorded.status is InventoryStatus.NONE:
        # Dates would make every reason one of its own.
        return "waiting", re.sub(r" [A-Z][a-z]{2} \d{4}-.*(?= from )", "", why)
    return ("updated", "") if done else ("current", "")


COLUMNS: Final = ("updated", "current", "rolled back", "failed", "waiting", "lost")


def print_tables(console: Console, outcomes: Sequence[tuple[OSResource, str, str]]) -> None:
    """Print how the nodes stand per kind, profile and version, and the reasons of those that aren't updated."""
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    for system, stands, _ in outcomes:
        counts.setdefault((system.os_type.name.lower(), system.profile_name, system.image_id), Counter())[stands] += 1
    table = Table(
        title="How the fleet stands at the end",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_footer=True,
        padding=(0, 1, 0, 0),
    )
    total = Counter(stands for _, stands, _ in outcomes)
    table.add_column("OS profile, version", footer="all", no_wrap=True)
    table.add_column("nodes", footer=str(len(outcomes)), justify="right", no_wrap=True)
    for name in COLUMNS:
        width = max(len(word) for word in name.split())
        label = name.replace(" ", "\n")
        table.add_column(label, footer=str(total[name]), justify="right", min_width=width, no_wrap=True)
    section = "", ""
    for (kind, profile, version), found in sorted(counts.items()):
        if (kind, profile) != section:
            if kind != section[0]:
                table.add_row(f"[bold]{kind}")
            section = kind, profile
            table.add_row(f" {profile.replace('-lts-generic', '')}")
        table.add_row(f"  {version}", str(found.total()), *(str(found[name] or "") for name in COLUMNS))
    console.print(table)
    reasons = Counter((stands, why) for _, stands, why in outcomes if why)
    why_table = Table(title="Why not", title_justify="left", box=box.SIMPLE_HEAD)
    why_table.add_column("nodes", justify="right")
    why_table.add_column("")
    why_table.add_column("reason")
    for (stands, why), nodes in sorted(reasons.items(), key=lambda found: (found[0][0], -found[1])):
        why_table.add_row(str(nodes), stands, why)
    console.print(why_table)


def number(least: int) -> Callable[[str], int]:
    """Return a converter of the command line's whole numbers."""

    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from {least} on")
        return int(text)

    return convert


def run(options: argparse.Namespace, console: Console) -> None:
    """Run the demo."""
    begun = time.perf_counter()
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    options.picture.touch()
    with (
        tempfile.TemporaryDirectory() as folder,
        open_inventory(f"sqlite:///{folder}/inventory.db") as inventory,
    ):
        with Progress(TextColumn("{task.description:>20}"), BarColumn(), TimeElapsedColumn(), console=console) as bar:
            task = bar.add_task("bringing the fleet up", total=timedelta(days=options.days).total_seconds())
            demo = Demo(inventory, DirectoryReleaseService(options.profiles), options.nodes, options.days, options.seed)

            def show(now: datetime) -> None:
                bar.update(task, description=f"{now:%A %H:%M}", completed=(now - BEGIN).total_seconds())

            demo.fleet.run(demo.end, show)
        print_tables(console, demo.outcomes())
        title = f"{len(demo.fleet.nodes)} nodes, {options.days} days, OS profiles {demo.old} → {demo.new}"
        write_timeline(options.picture, demo.fleet.history, demo.rows(), BEGIN, demo.end, title)
    for name, report in demo.reports.items():
        console.print(
            f"{name}: {len(report.created)} OS Resources created, {len(report.patched)} patched, "
            f"{report.linked_instances} instances linked, {len(report.conflicts)} conflicts, "
            f"{len(report.rejected)} manifests rejected",
            soft_wrap=True,
        )
    console.print(f"{len(demo.fleet.nodes)} nodes, {options.days} days in {time.perf_counter() - begun:.1f} s")
    console.print(f"picture: {options.picture}", soft_wrap=True)


def main() -> None:
    """Read the command line and run the demo."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--profiles", type=Path, default=OWN_PROFILES, help="folder with a folder for each revision")
    parser.add_argument("--nodes", type=number(1), default=200)
    parser.add_argument("--days", type=number(1), default=6)
    parser.add_argument("--seed", type=number(0), default=7)
    parser.add_argument("--picture", type=Path, default=Path("build/day2_fleet.html"), help="where the picture goes")
    try:
        run(parser.parse_args(), Console())
    except (EdgeDay2Error, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
