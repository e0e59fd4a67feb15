"""What an Inventory can hold, for tests: a small plain fleet, and hypothesis strategies for any content at all.

A fleet has a tenant, so that examples which share one database never meet. What has to hold is in `contracts`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, TypeVar

from attrs import evolve, fields, frozen
from hypothesis import strategies as st

from edge_day2.domain.reconciled import LinkingMode, ReconciledRevision
from edge_day2.domain.resources import (
    Host,
    Instance,
    OSProvider,
    OSResource,
    OSType,
    OSUpdatePolicy,
    OSUpdateRun,
    Provisioning,
    Region,
    Resource,
    ScheduleResource,
    ScheduleTarget,
    SecurityFeature,
    Site,
    TargetLevel,
    Trust,
    UpdatePolicyKind,
)
from edge_day2.domain.schedules import RepeatedSchedule, ScheduleKind, SingleSchedule
from edge_day2.domain.statuses import InventoryStatus, UpdateRecord
from edge_day2.ports.inventory import Inventory

R = TypeVar("R", bound=Resource)
N = TypeVar("N", Region, Site, Host, OSUpdatePolicy, ScheduleResource)

TENANT: Final = "tenant-a"
GUID: Final = "3C90A0E4-5b3f-4d0c-9c7e-0123456789ab"
START: Final = datetime(2026, 3, 2, 1, 30, tzinfo=UTC)


@frozen(kw_only=True)
class Fleet:
    """One resource of every kind and what it refers to. The instance runs `old_os` and should run `new_os`."""

    old_os: OSResource
    new_os: OSResource
    country: Region
    town: Region
    site: Site
    host: Host
    policy: OSUpdatePolicy
    instance: Instance
    for_host: ScheduleResource
    for_site: ScheduleResource
    for_region: ScheduleResource
    for_nothing: ScheduleResource
    past_run: OSUpdateRun
    open_run: OSUpdateRun
    reconciled: ReconciledRevision

    @property
    def resources(self) -> tuple[Resource, ...]:
        """All of them, each behind what it refers to."""
        return tuple(getattr(self, attribute.name) for attribute in fields(type(self)))


def plain_fleet(tenant_id: str = TENANT) -> Fleet:
    """Return a fleet of one immutable instance in a town of a country."""
    old_os = OSResource(
        resource_id="os-old",
        tenant_id=tenant_id,
        name="Edge Microvisor Toolkit 3.0",
        os_type=OSType.IMMUTABLE,
        profile_name="microvisor-nonrt",
        image_id="3.0.20251104.0140",
        sha256="0" * 64,
        image_url="files/microvisor-3.0.raw.gz",
        metadata=(("tier", "gold"),),
    )
    schedule = ScheduleResource(
        resource_id="schedule-1-host",
        tenant_id=tenant_id,
        name="nightly",
        schedule=RepeatedSchedule(),
        target=ScheduleTarget(level=TargetLevel.HOST, resource_id="host-1"),
    )
    run = OSUpdateRun(
        resource_id="run-1",
        tenant_id=tenant_id,
        instance_id="instance-1",
        name="first",
        start_time=START,
        end_time=START.replace(hour=3),
        update=UpdateRecord(status=InventoryStatus.DONE, text=InventoryStatus.DONE.text, timestamp=START),
        applied_policy_id="policy-1",
    )
    return Fleet(
        old_os=old_os,
        new_os=evolve(old_os, resource_id="os-new", name="Edge Microvisor Toolkit 3.1", image_id="3.1"),
        country=Region(resource_id="region-country", tenant_id=tenant_id, name="country"),
        town=Region(resource_id="region-town", tenant_id=tenant_id, name="town", parent_id="region-country"),
        site=Site(resource_id="site-1", tenant_id=tenant_id, name="plant", region_id="region-town"),
        host=Host(resource_id="host-1", tenant_id=tenant_id, name="line 4", guid=GUID, site_id="site-1"),
        policy=OSUpdatePolicy(
            resource_id="policy-1",
            tenant_id=tenant_id,
            name="to 3.1",
            kind=UpdatePolicyKind.TARGET,
            target_os_id="os-new",
        ),
        instance=Instance(
            resource_id="instance-1",
            tenant_id=tenant_id,
            host_id="host-1",
            os_type=OSType.IMMUTABLE,
            current_os_id="os-old",
            desired_os_id="os-new",
            os_update_policy_id="policy-1",
        ),
        for_host=schedule,
        for_site=evolve(
            schedule,
            resource_id="schedule-2-site",
            schedule=SingleSchedule(START, None),
            target=ScheduleTarget(level=TargetLevel.SITE, resource_id="site-1"),
        ),
        for_region=evolve(
            schedule,
            resource_id="schedule-0-region",
            kind=ScheduleKind.MAINTENANCE,
            target=ScheduleTarget(level=TargetLevel.REGION, resource_id="region-country"),
        ),
        for_nothing=evolve(schedule, resource_id="schedule-3", target=None),
        past_run=run,
        open_run=evolve(run, resource_id="run-2", name="second", start_time=START.replace(day=3), end_time=None),
        reconciled=ReconciledRevision(
            tenant_id=tenant_id,
            revision="~0.9.0",
            newest="0.9.8",
            digest="0" * 64,
            mode=LinkingMode.AUTOMATIC,
            reconciled_at=START,
        ),
    )


def store(inventory: Inventory, *resources: Resource) -> None:
    """Add `resources` in one transaction."""
    with inventory.writing() as unit:
        unit.add_all(resources)


def load(inventory: Inventory, resource: R) -> R:
    """Return what is stored under the key of `resource`."""
    with inventory.reading() as unit:
        return unit.get(type(resource), resource.tenant_id, resource.resource_id)


# Everything that PostgreSQL's text type can hold.
_TEXT: Final = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60)
_NAMES: Final = _TEXT.filter(bool)
_INSTANTS: Final = st.datetimes(timezones=st.just(UTC))
_PAIRS: Final = st.lists(st.tuples(_TEXT, _TEXT), max_size=3).map(tuple)
_SOURCES: Final = st.lists(_TEXT.filter(lambda text: bool(text.strip())), max_size=3).map(tuple)
_PACKAGES: Final = st.lists(_NAMES, max_size=3).map(tuple)
_KERNEL: Final = st.text("abcXYZ019-_=.,/ ", max_size=40)
_SHA256: Final = st.text("0123456789abcdef", min_size=64, max_size=64)
_GUIDS: Final = st.uuids().flatmap(lambda uuid: st.sampled_from([str(uuid), str(uuid).upper()]))
_UPDATES: Final = st.builds(
    UpdateRecord,
    status=st.sampled_from(InventoryStatus),
    text=_TEXT,
    timestamp=st.none() | _INSTANTS,
    detail=_TEXT,
)


@st.composite
def schedules(draw: st.DrawFn) -> SingleSchedule | RepeatedSchedule:
    """Any schedule: single, open-ended or not, or repeated in some time zone."""
    if draw(st.booleans()):
        first, second = sorted(draw(st.lists(_INSTANTS, min_size=2, max_size=2, unique=True)))
        return SingleSchedule(first, draw(st.sampled_from([second, None])))

    def field(lowest: int, highest: int) -> str:
        values = st.lists(st.integers(lowest, highest), min_size=1, max_size=3).map(
            lambda found: ",".join(map(str, found))
        )
        return draw(st.just("*") | values)

    return RepeatedSchedule(
        minutes=field(0, 59),
        hours=field(0, 23),
        day_month=field(1, 28),
        month=field(1, 12),
        day_week=field(0, 6),
        duration_seconds=draw(st.integers(1, 86_400)),
        time_zone=draw(st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia"])),
    )


@st.composite
def contents(draw: st.DrawFn, fleet: Fleet) -> Fleet:
    """The resources and links of `fleet`, with any other content that they may have."""

    def any_os(resource: OSResource, os_type: OSType) -> OSResource:
        mutable = os_type is OSType.MUTABLE
        return evolve(
            resource,
            name=draw(_NAMES),
            os_type=os_type,
            profile_name=draw(_NAMES),
            # The first number keeps the two identities apart.
            image_id=f"{1 if resource is fleet.old_os else 2}.{draw(st.integers(0, 10**9))}",
            sha256=draw(_SHA256),
            image_url=draw(_NAMES),
            profile_version=draw(_TEXT),
            architecture=draw(_TEXT),
            os_provider=draw(st.sampled_from(OSProvider)),
            security_feature=draw(st.sampled_from(SecurityFeature)),
            description=draw(_TEXT),
            metadata=draw(_PAIRS),
            platform_bundle=draw(_PAIRS),
            package_manifest_url=draw(_TEXT),
            existing_cves_url=draw(_TEXT),
            fixed_cves_url=draw(_TEXT),
            existing_cves=draw(_TEXT),
            fixed_cves=draw(_TEXT),
            installed_packages=draw(_TEXT),
            tls_ca_cert=draw(_TEXT),
            update_sources=draw(_SOURCES) if mutable else (),
            update_packages=draw(_PACKAGES) if mutable else (),
            kernel_command_line=draw(_KERNEL),
        )

    def any_run(run: OSUpdateRun, end_time: datetime | None) -> OSUpdateRun:
        return evolve(
            run,
            name=draw(_NAMES),
            description=draw(_TEXT),
            start_time=draw(_INSTANTS),
            end_time=end_time,
            update=draw(_UPDATES),
            applied_policy_id=draw(st.none() | _NAMES),
        )

    def named(resource: N) -> N:
        return evolve(resource, name=draw(_NAMES))

    def scheduled(resource: ScheduleResource) -> ScheduleResource:
        return evolve(named(resource), kind=draw(st.sampled_from(ScheduleKind)), schedule=draw(schedules()))

    os_type = draw(st.sampled_from(OSType))
    mutable = os_type is OSType.MUTABLE
    return Fleet(
        old_os=any_os(fleet.old_os, os_type),
        new_os=any_os(fleet.new_os, os_type),
        country=named(fleet.country),
        town=named(fleet.town),
        site=named(fleet.site),
        host=evolve(named(fleet.host), guid=draw(_GUIDS), trust=draw(st.sampled_from(Trust))),
        policy=evolve(
            named(fleet.policy),
            description=draw(_TEXT),
            target_os_id=None if mutable else "os-new",
            update_sources=draw(_SOURCES) if mutable else (),
            update_packages=draw(_PACKAGES) if mutable else (),
            kernel_command_line=draw(_KERNEL.filter(bool)),
        ),
        instance=evolve(
            fleet.instance,
            os_type=os_type,
            desired_os_id="os-old" if mutable else "os-new",
            os_update_policy_id=draw(st.sampled_from([None, "policy-1"])),
            provisioning=draw(st.sampled_from(Provisioning)),
            update=draw(_UPDATES),
            last_seen=draw(st.none() | _INSTANTS),
            os_update_available=draw(_TEXT),
            existing_cves=draw(_TEXT),
        ),
        for_host=scheduled(fleet.for_host),
        for_site=scheduled(fleet.for_site),
        for_region=scheduled(fleet.for_region),
        for_nothing=scheduled(fleet.for_nothing),
        past_run=any_run(fleet.past_run, draw(_INSTANTS)),
        open_run=any_run(fleet.open_run, None),
        reconciled=evolve(
            fleet.reconciled,
            revision=draw(_NAMES),
            newest=draw(_TEXT),
            digest=draw(_SHA256),
            mode=draw(st.sampled_from(LinkingMode)),
            reconciled_at=draw(_INSTANTS),
        ),
    )
