"""The fleet that benchmarks of the orchestrator side share: made by number, so that parts can be made again."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from attrs import evolve

from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.profiles import OSProfile
from edge_day2.domain.resources import (
    Host,
    Instance,
    OSProvider,
    OSResource,
    OSType,
    OSUpdateRun,
    Region,
    Resource,
    ScheduleResource,
    ScheduleTarget,
    SecurityFeature,
    Site,
    TargetLevel,
)
from edge_day2.domain.schedules import RepeatedSchedule
from edge_day2.domain.statuses import InventoryStatus, UpdateRecord
from edge_day2.domain.versions import ImageVersion

# What a handler does with thousands of failed updates isn't what is measured, nor to be read.
logging.getLogger("edge_day2").addHandler(logging.NullHandler())

TENANT: Final = "3c90a0e4-5b3f-4d0c-9c7e-0123456789ab"
NOW: Final = datetime(2026, 3, 2, tzinfo=UTC)
PROFILES: Final = ("microvisor-nonrt", "microvisor-rt", "microvisor-idv", "microvisor-standalone", "ubuntu")
VERSIONS: Final = 8
_HOSTS_OF_A_SITE: Final = 50
_SITES_OF_A_REGION: Final = 20
_UPDATING_EVERY: Final = 100
_CVES: Final = '[{"cve_id":"CVE-2026-0001","priority":"high","affected_packages":["openssl"]}]' * 10
_INSTANCES_TOGETHER: Final = 50_000


def guid(number: int) -> str:
    """Return a host's GUID: spread over the index, as real ones are."""
    return str(UUID(int=random.Random(number).getrandbits(128)))


def is_updating(number: int) -> bool:
    """Return whether this node is in the middle of an update."""
    return number % _UPDATING_EVERY == 0


def profile(name: str, version: str) -> OSProfile:
    """Return what is published of a profile in one version."""
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


def _system(name: str, version: int) -> OSResource:
    return evolve(profile(name, f"3.{version}").to_os_resource(tenant_id=TENANT), existing_cves=_CVES)


_SYSTEMS: Final = {name: [_system(name, version) for version in range(VERSIONS)] for name in PROFILES}


def systems() -> Iterator[OSResource]:
    """Yield the OS Resources: five profiles, each in so many versions."""
    for versions in _SYSTEMS.values():
        yield from versions


def latest_system(number: int) -> OSResource:
    """Return the latest OS of the profile of an instance."""
    return _SYSTEMS[PROFILES[number % len(PROFILES)]][-1]


def host(number: int) -> Host:
    """Return a host in its site."""
    name = f"{number:08x}"
    return Host(resource_id=f"host-{name}", tenant_id=TENANT, name=name, guid=guid(number), site_id=_site(number))


def instance(number: int) -> Instance:
    """Return an instance: four of five run an immutable OS that isn't the latest, one in a hundred is updating."""
    latest = latest_system(number)
    mutable = latest.os_type is OSType.MUTABLE
    versions = _SYSTEMS[latest.profile_name]
    status = InventoryStatus.UPDATE_IN_PROGRESS if is_updating(number) else InventoryStatus.UP_TO_DATE
    return Instance(
        resource_id=f"inst-{number:08x}",
        tenant_id=TENANT,
        host_id=f"host-{number:08x}",
        os_type=latest.os_type,
        current_os_id=(latest if mutable else versions[number // len(PROFILES) % (VERSIONS - 1)]).resource_id,
        desired_os_id=latest.resource_id,
        update=UpdateRecord(status=status, text=status.text, timestamp=NOW),
        last_seen=NOW if is_updating(number) else None,
        os_update_available="" if mutable else latest.name,
    )


def _site(number: int) -> str:
    return f"site-{number // _HOSTS_OF_A_SITE}"


def _around(number: int) -> Iterator[Resource]:
    """Yield the places that begin with this host, each with its nightly schedule."""
    sites, first = divmod(number, _HOSTS_OF_A_SITE)
    if first:
        return
    region = f"region-{sites // _SITES_OF_A_REGION}"
    if sites % _SITES_OF_A_REGION == 0:
        yield Region(resource_id=region, tenant_id=TENANT, name=region, parent_id="region")
        yield _nightly(TargetLevel.REGION, region)
    site = _site(number)
    yield Site(resource_id=site, tenant_id=TENANT, name=site, region_id=region)
    yield _nightly(TargetLevel.SITE, site)


def _nightly(level: TargetLevel, place: str) -> ScheduleResource:
    return ScheduleResource(
        resource_id=f"schedule-{place}",
        tenant_id=TENANT,
        name="nightly",
        schedule=RepeatedSchedule(),
        target=ScheduleTarget(level=level, resource_id=place),
    )


def _nodes(first: int, beyond: int) -> Iterator[Resource]:
    for number in range(first, beyond):
        yield from _around(number)
        yield host(number)
        installed = instance(number)
        yield installed
        if is_updating(number):
            yield OSUpdateRun(
                resource_id=f"osupdaterun-{number:08x}",
                tenant_id=TENANT,
                instance_id=installed.resource_id,
                name=f"{number:08x} update",
                start_time=NOW,
                update=installed.update,
            )


def fill(url: str, instances: int) -> None:
    """Fill an empty Inventory: regions of 20 sites, sites of 50 hosts, one instance on each."""
    with open_inventory(url) as inventory:
        with inventory.writing() as unit:
            unit.add_all(systems())
            unit.add(Region(resource_id="region", tenant_id=TENANT, name="world"))
        for first in range(0, instances, _INSTANCES_TOGETHER):
            with inventory.writing() as unit:
                unit.add_all(_nodes(first, min(first + _INSTANCES_TOGETHER, instances)))
