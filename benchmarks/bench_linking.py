"""Automatic linking of a large fleet: seconds and peak memory, as a pure plan, on SQLite and on PostgreSQL.

    python benchmarks/bench_linking.py [--instances 1000000] [--databases sqlite postgresql] [--batch 5000 …]
                                       [--threads 1 2] [--folder DIR]

Four of five instances run an immutable OS and are due for a newer one. Memory is measured in a child process of its
own for each part: the peak of the whole process, interpreter and libraries included. Making the database is not part
of the time. Each further reconciliation has a newer revision to link: one alone for each size of batch and, on
PostgreSQL, each number of threads, and a last one while a node after the other reports something new from another
process; what the slowest of them waited is the time that a report took as a whole.

Ends with status 1 where a limit is passed, 20 seconds or 300 MB, and no other number of threads keeps to it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from edge_day2 import MaintenanceManager
from edge_day2.adapters.clock import SystemClock
from edge_day2.adapters.storage import open_inventory
from edge_day2.application.os_resource_manager import OSResourceManager
from edge_day2.domain.linking import DiscoveredProfile, LinkDesiredOS, LinkingMode, plan_linking
from edge_day2.domain.messages import PlatformUpdateStatusRequest, UpdateStatus
from edge_day2.domain.profiles import OSProfile
from edge_day2.domain.statuses import UpdateStatusType
from edge_day2.errors import Conflict
from edge_day2.ports.release_service import FetchedManifest
from inventory_databases import DATABASES, Database
from inventory_fleet import PROFILES, TENANT, VERSIONS, fill, guid, instance, profile, systems
from own_process import in_a_process_of_its_own, peak_megabytes

LIMIT_SECONDS: Final = 20.0
LIMIT_MEGABYTES: Final = 300.0
DEFAULT_BATCH: Final = 5000


def discovered(version: str) -> list[DiscoveredProfile]:
    return [DiscoveredProfile(revision=version, profile=profile(name, version)) for name in PROFILES]


def pure_plan(count: int, version: str) -> tuple[int, float, float]:
    """Decide about every instance of a fleet and make the linked ones. Return links, seconds and peak memory."""
    start = time.perf_counter()
    plan = plan_linking(discovered(version), systems(), tenant_id=TENANT, mode=LinkingMode.AUTOMATIC)
    linked = 0
    for link in plan.links(map(instance, range(count))):
        if isinstance(link, LinkDesiredOS):
            link.linked()
            linked += 1
    return linked, time.perf_counter() - start, peak_megabytes()


class OneRevision:
    """A Release Service with one revision, made here."""

    def __init__(self, version: str) -> None:
        self._version = version

    def revisions(self) -> tuple[str, ...]:
        return (self._version,)

    def manifests(self, revision: str, profile_names: Iterable[str] | None = None) -> Iterator[FetchedManifest]:
        for found in discovered(self._version):
            yield FetchedManifest(revision=revision, name=found.profile.profile_name, text=manifest(found.profile))


def manifest(content: OSProfile) -> str:
    said = {
        "profileName": content.profile_name,
        "name": content.name,
        "type": f"OS_TYPE_{content.os_type.name}",
        "provider": f"OS_PROVIDER_KIND_{content.os_provider.name}",
        "securityFeature": f"SECURITY_FEATURE_{content.security_feature.name}",
        "architecture": content.architecture,
        "osImageVersion": content.image_version.text,
        "osImageSha256": content.sha256,
        "osImageUrl": content.image_url,
    }
    return "spec:\n" + "".join(f"  {key}: {value!r}\n" for key, value in said.items())


def reconcile(url: str, version: str, batch: int, threads: int = 1) -> tuple[int, float, float]:
    """Reconcile a stored fleet with a new revision. Return links, seconds and peak memory."""
    with open_inventory(url) as inventory:
        mode, source = LinkingMode.AUTOMATIC, OneRevision(version)
        manager = OSResourceManager(
            inventory, source, revision=version, mode=mode, batch_size=batch, linking_threads=threads
        )
        start = time.perf_counter()
        report = manager.reconcile(TENANT)
        return report.linked_instances, time.perf_counter() - start, peak_megabytes()


def report_until(url: str, count: int, ready: Any, over: Any, waits: Any) -> None:
    """Let nodes report something new, one after the other, and put how long each took, and how many had to repeat."""
    draw, took, given_up = random.Random(3), [], 0
    with open_inventory(url) as inventory:
        manager = MaintenanceManager(inventory, clock=SystemClock())
        ready.set()
        while not over.is_set():
            node = guid(draw.randrange(count))
            for kind in (UpdateStatusType.FAILED, UpdateStatusType.STARTED):
                request = PlatformUpdateStatusRequest(host_guid=node, update_status=UpdateStatus(status_type=kind))
                began = time.perf_counter()
                try:
                    manager.platform_update_status(request, tenant=TENANT)
                except Conflict:
                    given_up += 1
                took.append(time.perf_counter() - began)
    waits.put((sorted(took), given_up))


def reconcile_under_reports(url: str, count: int, version: str, batch: int) -> None:
    """Reconcile while another process reports; print what reports and linking took."""
    context = multiprocessing.get_context("spawn")
    ready, over, waits = context.Event(), context.Event(), context.Queue()
    reporter = context.Process(target=report_until, args=(url, count, ready, over, waits))
    reporter.start()
    ready.wait()
    linked, seconds, _ = in_a_process_of_its_own(reconcile, url, version, batch)
    over.set()
    took, given_up = waits.get()
    reporter.join()
    middle, late, last = took[len(took) // 2], took[len(took) * 99 // 100], took[-1]
    print(
        f"  while nodes report: {linked:,} linked in {seconds:.1f} s; {len(took):,} reports that change something took "
        f"{middle * 1000:.1f} ms, 99 of 100 at most {late * 1000:.0f} ms, the slowest {last * 1000:.0f} ms; "
        f"{given_up} were told Conflict"
    )


def show(title: str, count: int, result: tuple[int, float, float]) -> bool:
    """Print what linking took, and return whether the limits are kept."""
    linked, seconds, megabytes = result
    kept = seconds <= LIMIT_SECONDS and megabytes <= LIMIT_MEGABYTES
    print(
        f"{title}: {count:,} instances, {linked:,} linked in {seconds:.1f} s ({count / seconds:,.0f}/s, limit "
        f"{LIMIT_SECONDS:.0f} s), peak {megabytes:.0f} MB (limit {LIMIT_MEGABYTES:.0f} MB), limits "
        f"{'kept' if kept else 'passed'}"
    )
    return kept


def run(database: Database, options: argparse.Namespace) -> bool:
    """Measure on one database; return whether the limits are kept."""
    count, kept, version = options.instances, True, VERSIONS
    print(database.settings())
    url = database.url("linked")
    in_a_process_of_its_own(fill, url, count)
    threads = options.threads if "postgresql" in url else [1]
    for batch in options.batch:
        ways = []
        for at_once in threads:
            database.settle("linked")
            result = in_a_process_of_its_own(reconcile, url, f"3.{version}", batch, at_once)
            ways.append(show(f"  by {batch:,} in {at_once} thread(s)", count, result))
            version += 1
        kept = any(ways) and kept
    database.settle("linked")
    reconcile_under_reports(url, count, f"3.{version}", options.batch[0])
    return kept


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--databases", nargs="*", choices=DATABASES, default=list(DATABASES))
    parser.add_argument("--batch", type=int, nargs="+", default=[DEFAULT_BATCH], help="sizes to try, one after another")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="how many to try, on PostgreSQL")
    parser.add_argument("--folder", type=Path, help="where the databases are made (default: a temporary folder)")
    options = parser.parse_args()
    planned = in_a_process_of_its_own(pure_plan, options.instances, f"3.{VERSIONS}")
    kept = show("pure plan", options.instances, planned)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name in options.databases:
            with DATABASES[name](Path(folder)) as database:
                kept = run(database, options) and kept
    if not kept:
        sys.exit(1)


if __name__ == "__main__":
    main()
