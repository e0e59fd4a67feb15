"""Automatic linking of a large fleet: seconds and peak memory, as a pure plan and through an SQLite file.

    python benchmarks/bench_linking.py [--instances 1000000] [--sqlite-instances 1000000]

The fleet is made while it is consumed, as an Inventory would hand it over: four immutable profiles and one mutable one,
and every immutable instance is due for a newer OS. Memory is measured in a child process of its own for each part: the
peak of the whole process, interpreter and libraries included. Making the database is not part of the time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from edge_day2.adapters.storage import open_inventory
from edge_day2.application.os_resource_manager import OSResourceManager
from edge_day2.domain.linking import DiscoveredProfile, LinkDesiredOS, LinkingMode, plan_linking
from edge_day2.domain.profiles import OSProfile
from edge_day2.domain.resources import Host, Instance, OSProvider, OSResource, OSType, SecurityFeature
from edge_day2.domain.versions import ImageVersion
from edge_day2.ports.release_service import FetchedManifest

LIMIT_SECONDS: Final = 20.0
LIMIT_MEGABYTES: Final = 300.0
TENANT: Final = "tenant"
Result = TypeVar("Result")
PROFILES: Final = ("microvisor-nonrt", "microvisor-rt", "microvisor-idv", "microvisor-standalone", "ubuntu")


def profile(name: str, version: str) -> OSProfile:
    return OSProfile(
        profile_name=name,
        name=f"{name} {version}",
        os_type=OSType.MUTABLE if name == "ubuntu" else OSType.IMMUTABLE,
        os_provider=OSProvider.INFRA,
        security_feature=SecurityFeature.NONE,
        architecture="x86_64",
        image_version=ImageVersion.parse(version),
        sha256="0" * 64,
        image_url=f"files/{name}-{version}.raw.gz",
    )


def discovered(revision: str, version: str) -> list[DiscoveredProfile]:
    return [DiscoveredProfile(revision=revision, profile=profile(name, version)) for name in PROFILES]


def installed() -> list[OSResource]:
    return [found.profile.to_os_resource(tenant_id=TENANT) for found in discovered("0.9.0", "3.0")]


def fleet(count: int) -> Iterator[Instance]:
    resources = installed()
    for number in range(count):
        os = resources[number % len(resources)]
        yield Instance(
            resource_id=f"inst-{number:08x}",
            tenant_id=TENANT,
            host_id=f"host-{number:08x}",
            os_type=os.os_type,
            current_os_id=os.resource_id,
            desired_os_id=os.resource_id,
        )


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def pure_plan(count: int) -> tuple[int, float, float]:
    """Decide about every instance of a fleet and make the linked ones. Return links, seconds and peak memory."""
    start = time.perf_counter()
    plan = plan_linking(discovered("0.9.8", "3.1"), installed(), tenant_id=TENANT, mode=LinkingMode.AUTOMATIC)
    linked = 0
    for link in plan.links(fleet(count)):
        if isinstance(link, LinkDesiredOS):
            link.linked()
            linked += 1
    return linked, time.perf_counter() - start, peak_megabytes()


class OneRevision:
    """A Release Service with one revision, made here."""

    def revisions(self) -> tuple[str, ...]:
        return ("0.9.8",)

    def manifests(self, revision: str, profile_names: Iterable[str] | None = None) -> Iterator[FetchedManifest]:
        for found in discovered(revision, "3.1"):
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


def fill(url: str, count: int) -> None:
    with open_inventory(url) as inventory:
        with inventory.writing() as write:
            write.add_all(installed())
        numbers = iter(range(count))
        instances = fleet(count)
        while chunk := [number for _, number in zip(range(50_000), numbers, strict=False)]:
            with inventory.writing() as write:
                write.add_all(host(number) for number in chunk)
                write.add_all(next(instances) for _ in chunk)


def host(number: int) -> Host:
    guid = f"00000000-0000-0000-0000-{number:012x}"
    return Host(resource_id=f"host-{number:08x}", tenant_id=TENANT, guid=guid, name=f"node {number}")


def through_storage(url: str) -> tuple[int, float, float]:
    """Reconcile a stored fleet with a new revision. Return links, seconds and peak memory."""
    with open_inventory(url) as inventory:
        manager = OSResourceManager(inventory, OneRevision(), revision="0.9.8", mode=LinkingMode.AUTOMATIC)
        start = time.perf_counter()
        report = manager.reconcile(TENANT)
        return report.linked_instances, time.perf_counter() - start, peak_megabytes()


def in_a_process_of_its_own(work: Callable[..., Result], *arguments: object) -> Result:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(work, arguments)


def show(title: str, count: int, result: tuple[int, float, float]) -> None:
    linked, seconds, megabytes = result
    kept = seconds <= LIMIT_SECONDS and megabytes <= LIMIT_MEGABYTES
    print(
        f"{title}: {count:,} instances, {linked:,} linked in {seconds:.1f} s ({count / seconds:,.0f}/s, limit "
        f"{LIMIT_SECONDS:.0f} s), peak {megabytes:.0f} MB (limit {LIMIT_MEGABYTES:.0f} MB), limits "
        f"{'kept' if kept else 'passed'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--sqlite-instances", type=int, default=1_000_000, help="0 leaves SQLite out")
    options = parser.parse_args()
    show("pure plan", options.instances, in_a_process_of_its_own(pure_plan, options.instances))
    if options.sqlite_instances:
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder) / 'inventory.db'}"
            in_a_process_of_its_own(fill, url, options.sqlite_instances)
            result = in_a_process_of_its_own(through_storage, url)
            show("through SQLite", options.sqlite_instances, result)


if __name__ == "__main__":
    main()
