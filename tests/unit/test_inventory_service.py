"""The admin's calls: what they store, and what they refuse without storing anything."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve, frozen

from edge_day2 import InventoryService, MaintenanceManager, RepeatedSchedule, ScheduleKind, SingleSchedule
from edge_day2.adapters.storage import open_inventory
from edge_day2.domain.messages import PlatformUpdateStatusRequest, UpdateStatus
from edge_day2.domain.resources import (
    Host,
    OSResource,
    OSType,
    Provisioning,
    ScheduleTarget,
    TargetLevel,
    UpdatePolicyKind,
)
from edge_day2.domain.statuses import EntryStatus, FailureReason, StatusDetail, UpdateLogEntry, UpdateStatusType
from edge_day2.errors import AlreadyExists, FailedPrecondition, ImmutableLinkError, InvalidResource, NotFound
from edge_day2.ports.inventory import Inventory
from edge_day2.testing import VirtualClock

TENANT, OTHER = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
GUID = "abcdef00-0000-4000-8000-000000000001"
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def image(number: int, profile_name: str = "microvisor-nonrt") -> OSResource:
    return OSResource(
        resource_id=f"os-{number}",
        tenant_id=TENANT,
        name=f"Microvisor {number}",
        os_type=OSType.IMMUTABLE,
        profile_name=profile_name,
        image_id=f"3.0.{number}",
        sha256=f"{number}" * 64,
        image_url=f"files/{number}.raw.gz",
    )


UBUNTU = OSResource(
    resource_id="os-ubuntu",
    tenant_id=TENANT,
    name="Ubuntu",
    os_type=OSType.MUTABLE,
    profile_name="ubuntu-22.04-lts-generic",
    image_id="22.04.5",
    sha256="b" * 64,
)


@frozen
class Site:
    """One tenant with a host at a site in a region, and four operating systems."""

    inventory: Inventory
    admin: InventoryService
    clock: VirtualClock
    host: Host
    site_id: str
    region_id: str


@pytest.fixture
def site() -> Iterator[Site]:
    clock, counter = VirtualClock(NOW), itertools.count()
    with open_inventory("memory://") as inventory:
        admin = InventoryService(inventory, clock=clock, new_id=lambda: str(next(counter)))
        with inventory.writing() as unit:
            for system in (image(1), image(2), image(3, "microvisor-rt"), UBUNTU):
                unit.add(system)
        world = admin.add_region(TENANT, "World")
        region = admin.add_region(TENANT, "Europe", parent_id=world.resource_id)
        place = admin.add_site(TENANT, "Gdansk", region_id=region.resource_id)
        host = admin.add_host(TENANT, GUID, "gdansk-1", site_id=place.resource_id)
        yield Site(inventory, admin, clock, host, place.resource_id, region.resource_id)


def report(site: Site, kind: UpdateStatusType, detail: str = "") -> None:
    status = UpdateStatus(status_type=kind, status_detail=detail)
    request = PlatformUpdateStatusRequest(host_guid=GUID, update_status=status)
    MaintenanceManager(site.inventory, clock=site.clock).platform_update_status(request, tenant=TENANT)


def test_the_desired_os_of_an_immutable_instance_moves_within_its_profile(site: Site) -> None:
    instance = site.admin.add_instance(TENANT, site.host.resource_id, "os-1")

    linked = site.admin.link_desired_os(TENANT, instance.resource_id, "os-2")

    assert (linked.current_os_id, linked.desired_os_id) == ("os-1", "os-2")
    assert site.admin.instances(TENANT) == (linked,)


def test_the_desired_os_may_move_down_by_hand(site: Site) -> None:
    instance = site.admin.add_instance(TENANT, site.host.resource_id, "os-2")

    assert site.admin.link_desired_os(TENANT, instance.resource_id, "os-1").desired_os_id == "os-1"


@pytest.mark.parametrize(("runs", "wanted"), [("os-1", "os-3"), ("os-1", "os-ubuntu"), ("os-ubuntu", "os-1")])
def test_linking_across_profile_or_type_is_refused(site: Site, runs: str, wanted: str) -> None:
    instance = site.admin.add_instance(TENANT, site.host.resource_id, runs)

    with pytest.raises(ImmutableLinkError):
        site.admin.link_desired_os(TENANT, instance.resource_id, wanted)

    assert site.admin.instances(TENANT) == (instance,)


def test_a_mutable_os_is_patched_in_place(site: Site) -> None:
    site.admin.patch_mutable_os(TENANT, "os-ubuntu", update_packages=["curl"], kernel_command_line="quiet")
    patched = site.admin.patch_mutable_os(TENANT, "os-ubuntu", update_sources=["Types: deb"])

    assert patched.update_packages == ("curl",)
    assert patched.kernel_command_line == "quiet"
    assert patched.update_sources == ("Types: deb",)


def test_an_image_takes_no_apt_sources(site: Site) -> None:
    with pytest.raises(InvalidResource, match="update_sources"):
        site.admin.patch_mutable_os(TENANT, "os-1", update_sources=["Types: deb"])


@pytest.mark.parametrize("text", ["a;reboot", "a\nb", "$(reboot)", "x" * 501, 'a"b'])
def test_a_kernel_command_line_that_a_shell_could_misread_is_refused(site: Site, text: str) -> None:
    with pytest.raises(InvalidResource, match="kernel_command_line"):
        site.admin.patch_mutable_os(TENANT, "os-ubuntu", kernel_command_line=text)


def test_another_tenant_sees_nothing(site: Site) -> None:
    instance = site.admin.add_instance(TENANT, site.host.resource_id, "os-1")

    assert site.admin.instances(OTHER) == ()
    assert site.admin.os_resources(OTHER) == ()
    with pytest.raises(NotFound):
        site.admin.link_desired_os(OTHER, instance.resource_id, "os-2")
    with pytest.raises(NotFound):
        site.admin.explain(OTHER, GUID)


def test_what_is_in_use_cannot_be_deleted(site: Site) -> None:
    instance = site.admin.add_instance(TENANT, site.host.resource_id, "os-1")

    with pytest.raises(FailedPrecondition, match="os-1"):
        site.admin.delete(image(1))
    site.admin.delete(instance)
    site.admin.delete(image(1))

    assert [system.resource_id for system in site.admin.os_resources(TENANT, OSType.IMMUTABLE)] == ["os-2", "os-3"]


def test_a_host_has_one_instance_and_a_uuid_one_host(site: Site) -> None:
    site.admin.add_instance(TENANT, site.host.resource_id, "os-1")

    with pytest.raises(AlreadyExists):
        site.admin.add_instance(TENANT, site.host.resource_id, "os-2")
    with pytest.raises(AlreadyExists):
        site.admin.add_host(TENANT, GUID.upper(), "again")


def test_a_policy_can_be_assigned_where_its_os_fits(site: Site) -> None:
    instance = site.admin.add_instance(TENANT, site.host.resource_id, "os-1")
    fits = site.admin.add_policy(TENANT, "two", UpdatePolicyKind.TARGET, target_os_id="os-2")
    strange = site.admin.add_policy(TENANT, "rt", UpdatePolicyKind.TARGET, target_os_id="os-3")

    assigned = site.admin.assign_policy(TENANT, instance.resource_id, fits.resource_id)
    with pytest.raises(ImmutableLinkError):
        site.admin.assign_policy(TENANT, instance.resource_id, strange.resource_id)

    assert site.admin.instances(TENANT) == (assigned,)
    assert site.admin.assign_policy(TENANT, instance.resource_id, None).os_update_policy_id is None


def nightly(site: Site, kind: ScheduleKind = ScheduleKind.OS_UPDATE) -> None:
    target = ScheduleTarget(level=TargetLevel.REGION, resource_id=site.region_id)
    site.admin.add_schedule(TENANT, "nights", RepeatedSchedule(hours="2", day_week="*"), target=target, kind=kind)


def test_explain_before_anything_is_installed(site: Site) -> None:
    assert site.admin.explain(TENANT, GUID) == "not updated: nothing is installed on this host"


def test_explain_an_instance_that_runs_what_it_should(site: Site) -> None:
    site.admin.add_instance(TENANT, site.host.resource_id, "os-1")

    assert site.admin.explain(TENANT, GUID) == "not updated: desired OS equals current OS"


def test_explain_without_a_schedule_that_opens_updates(site: Site) -> None:
    instance = site.admin.add_instance(TENANT, site.host.resource_id, "os-1")
    site.admin.link_desired_os(TENANT, instance.resource_id, "os-2")
    nightly(site, ScheduleKind.SHIPPING)

    assert site.admin.explain(TENANT, GUID) == "not updated: no schedule of a kind that opens updates"


def test_explain_names_the_window_and_where_it_comes_from(site: Site) -> None:
    instance = site.admin.add_instance(TENANT, site.host.resource_id, "os-1")
    site.admin.link_desired_os(TENANT, instance.resource_id, "os-2")
    nightly(site)

    waiting = site.admin.explain(TENANT, GUID)
    site.clock.instant = NOW + timedelta(hours=14, minutes=30)
    open_now = site.admin.explain(TENANT, GUID)

    assert waiting == "waits for window Tue 2026-03-03 02:00–03:00 UTC from region Europe"  # noqa: RUF001
    assert open_now.startswith("can be updated now, in window Tue 2026-03-03 02:00")


def test_explain_names_a_blackout(site: Site) -> None:
    instance = site.admin.add_instance(TENANT, site.host.resource_id, "os-1")
    site.admin.link_desired_os(TENANT, instance.resource_id, "os-2")
    nightly(site)
    freeze = SingleSchedule(NOW, NOW + timedelta(days=10))
    target = ScheduleTarget(level=TargetLevel.SITE, resource_id=site.site_id)
    site.admin.add_schedule(TENANT, "trade", freeze, target=target, kind=ScheduleKind.BLACKOUT)
    site.clock.instant = NOW + timedelta(hours=14, minutes=30)

    assert site.admin.explain(TENANT, GUID).startswith("blackout until Thu 2026-03-12 12:00 UTC from site Gdansk")


def test_the_run_of_an_update_that_failed_says_that_it_was_rolled_back(site: Site) -> None:
    instance = site.admin.add_instance(TENANT, site.host.resource_id, "os-1")
    entry = UpdateLogEntry(
        package_name="microvisor-nonrt",
        update_time=NOW,
        status=EntryStatus.FAILED,
        failure_reason=FailureReason.OS_COMMIT_FAIL,
    )
    report(site, UpdateStatusType.STARTED)
    report(site, UpdateStatusType.FAILED, StatusDetail(update_log=(entry,)).to_json())
    site.clock.instant = NOW + timedelta(minutes=5)

    rolled_back = StatusDetail(update_log=(evolve(entry, status=EntryStatus.ROLLED_BACK),)).to_json()
    report(site, UpdateStatusType.FAILED, rolled_back)

    (run,) = site.admin.history(TENANT, instance.resource_id)
    assert run.update.detail == rolled_back
    assert run.end_time == NOW + timedelta(minutes=5)
    assert run.update.timestamp == NOW


def test_explain_a_schedule_that_is_over(site: Site) -> None:
    site.admin.add_instance(TENANT, site.host.resource_id, "os-ubuntu")
    over = SingleSchedule(NOW - timedelta(hours=2), NOW - timedelta(hours=1))
    target = ScheduleTarget(level=TargetLevel.HOST, resource_id=site.host.resource_id)
    site.admin.add_schedule(TENANT, "once", over, target=target)

    assert site.admin.explain(TENANT, GUID) == "not updated: no window comes"


def test_explain_an_update_in_progress_a_failure_and_a_loss(site: Site) -> None:
    site.admin.add_instance(TENANT, site.host.resource_id, "os-ubuntu")
    nightly(site)

    report(site, UpdateStatusType.STARTED, StatusDetail(message="paused").to_json())
    assert site.admin.explain(TENANT, GUID) == "being updated since 2026-03-02 12:00 UTC: paused"
    report(site, UpdateStatusType.FAILED)
    assert site.admin.explain(TENANT, GUID).startswith("the last update failed since 2026-03-02 12:00 UTC; waits for")
    site.clock.instant = NOW + timedelta(hours=1)
    report(site, UpdateStatusType.STARTED)
    site.clock.instant = NOW + timedelta(hours=3)
    MaintenanceManager(site.inventory, clock=site.clock).find_lost(TENANT)
    assert site.admin.explain(TENANT, GUID).startswith("not updated: Lost during update")
    runs = site.admin.history(TENANT, site.admin.instances(TENANT)[0].resource_id)
    assert [run.end_time is None for run in runs] == [True, False]


def test_explain_an_untrusted_and_an_unprovisioned_host(site: Site) -> None:
    instance = site.admin.add_instance(TENANT, site.host.resource_id, "os-ubuntu")
    with site.inventory.writing() as unit:
        unit.replace(instance, evolve(instance, provisioning=Provisioning.PENDING))
    assert site.admin.explain(TENANT, GUID) == "not updated: the instance isn't provisioned"

    site.admin.distrust_host(TENANT, site.host.resource_id)
    assert site.admin.explain(TENANT, GUID) == "not updated: the host isn't trusted"


def test_what_names_nothing_is_not_found(site: Site) -> None:
    for call in (
        lambda: site.admin.add_instance(TENANT, site.host.resource_id, "os-9"),
        lambda: site.admin.add_site(TENANT, "nowhere", region_id="region-9"),
        lambda: site.admin.link_desired_os(TENANT, "inst-9", "os-1"),
        lambda: site.admin.patch_mutable_os(TENANT, "os-9"),
        lambda: site.admin.delete(image(9)),
    ):
        with pytest.raises(NotFound):
            call()
