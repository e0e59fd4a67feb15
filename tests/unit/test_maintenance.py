"""The Maintenance Manager on the Inventory in memory: what a report leaves behind, and what it is answered."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta

import pytest
from attrs import evolve

from edge_day2.adapters.storage import open_inventory
from edge_day2.application.maintenance_manager import Report
from edge_day2.domain.maintenance import MaintenancePolicy
from edge_day2.domain.messages import (
    PlatformUpdateStatusRequest,
    PlatformUpdateStatusResponse,
    UpdateStatus,
)
from edge_day2.domain.resources import (
    OSResource,
    OSType,
    Provisioning,
    Trust,
)
from edge_day2.domain.statuses import (
    EntryStatus,
    FailureReason,
    InventoryStatus,
    StatusDetail,
    StatusIndicator,
    UpdateLogEntry,
    UpdateStatusType,
)
from edge_day2.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    InvalidValue,
    NotFound,
    StorageError,
    Unauthenticated,
)
from report_fleet import EDGE, NOW, TENANT, UBUNTU, Fleet, host, image, instance

S = UpdateStatusType


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with open_inventory("memory://") as inventory:
        yield Fleet(inventory)


def log(*entries: UpdateLogEntry) -> str:
    return StatusDetail(update_log=entries).to_json()


CURL = UpdateLogEntry(package_name="curl", update_time=NOW, version="7.81")
FAILURE = evolve(
    CURL, status=EntryStatus.ROLLED_BACK, failure_reason=FailureReason.BOOTLOADER_FAIL, failure_log="no boot"
)


@pytest.mark.parametrize("kind", UpdateStatusType)
def test_a_report_that_changes_nothing_costs_one_read_and_writes_nothing(fleet: Fleet, kind: UpdateStatusType) -> None:
    fleet.report(EDGE, kind)
    fleet.inventory.read = fleet.inventory.written = 0
    fleet.clock.later(minutes=1)

    fleet.report(EDGE, kind)

    assert (fleet.inventory.read, fleet.inventory.written) == (1, 0)


def test_a_verified_update_moves_the_current_os(fleet: Fleet) -> None:
    fleet.report(EDGE, S.STARTED)

    fleet.report(EDGE, S.UPDATED, profile_name="edge", profile_version="3.0.2", os_image_id="3.0.2")

    assert fleet.instance(EDGE).current_os_id == "os-2"
    assert fleet.instance(EDGE).update.status is InventoryStatus.DONE
    assert fleet.instance(EDGE).os_update_available == ""


def test_a_verified_image_brings_its_cves(fleet: Fleet) -> None:
    with fleet.inventory.writing() as unit:
        new = next(found for found in unit.all(OSResource, TENANT) if found.image_id == "3.0.2")
        unit.replace(new, evolve(new, existing_cves="[]"))

    fleet.report(EDGE, S.UPDATED, profile_name="edge", os_image_id="3.0.2")

    assert fleet.instance(EDGE).existing_cves == "[]"


@pytest.mark.parametrize("kind", [kind for kind in UpdateStatusType if kind is not S.UPDATED])
def test_no_other_report_moves_the_current_os(fleet: Fleet, kind: UpdateStatusType) -> None:
    fleet.report(EDGE, kind, profile_name="edge", os_image_id="3.0.2")

    assert fleet.instance(EDGE).current_os_id == "os-1"


def test_a_new_kernel_command_line_of_the_same_image_is_done(fleet: Fleet) -> None:
    fleet.report(EDGE, S.UPDATED, profile_name="edge", os_image_id="3.0.1")

    assert fleet.instance(EDGE).current_os_id == "os-1"
    assert fleet.instance(EDGE).update.status is InventoryStatus.DONE


def test_what_a_node_says_makes_no_lines_of_its_own_in_the_log(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fleet.report(EDGE, S.UPDATED, profile_name="edge\nERROR root: forged", os_image_id="9" * 1_000_000)

    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 400


@pytest.mark.parametrize(
    ("profile", "image_id", "why"),
    [
        ("edge", "9.9.9", "of which there is no OS Resource"),
        ("another", "3.0.2", "its current OS has profile 'edge'"),
        ("", "3.0.2", "of which there is no OS Resource"),
    ],
)
def test_an_image_that_nobody_knows_is_a_problem_and_the_status_is_recorded(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, profile: str, image_id: str, why: str
) -> None:
    with caplog.at_level(logging.WARNING):
        fleet.report(EDGE, S.UPDATED, profile_name=profile, os_image_id=image_id)

    problem = f"the node runs image {image_id!r} of profile {profile!r}, {why}"
    assert problem in caplog.text
    assert fleet.instance(EDGE).update.text == f"Update completed; {problem}"
    assert fleet.instance(EDGE).update.status is InventoryStatus.DONE
    assert fleet.instance(EDGE).current_os_id == "os-1"


def test_an_image_that_does_not_fit_the_node_is_a_problem_and_the_status_is_recorded(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.add(image(3, architecture="arm64"))

    with caplog.at_level(logging.WARNING):
        fleet.report(EDGE, S.UPDATED, profile_name="edge", os_image_id="3.0.3")

    assert "architecture" in caplog.text
    assert fleet.instance(EDGE).current_os_id == "os-1"


def test_an_update_is_one_run_from_its_first_report_to_its_end(fleet: Fleet) -> None:
    fleet.report(EDGE, S.UP_TO_DATE)
    assert fleet.runs(EDGE) == ()
    fleet.report(EDGE, S.DOWNLOADING)
    fleet.clock.later(minutes=5)
    fleet.report(EDGE, S.STARTED)
    (open_run,) = fleet.runs(EDGE)
    assert (open_run.start_time, open_run.end_time) == (NOW, None)
    assert open_run.name == "edge-node-of- update 20260301-020000"
    assert open_run.description == "OS update for edge 3.0.2"
    assert open_run.update.status is InventoryStatus.UPDATE_IN_PROGRESS

    fleet.clock.later(minutes=5)
    fleet.report(EDGE, S.UPDATED, profile_name="edge", os_image_id="3.0.2")
    fleet.report(EDGE, S.UP_TO_DATE)

    (run,) = fleet.runs(EDGE)
    assert run.end_time == NOW + timedelta(minutes=10)
    assert run.update.status is InventoryStatus.DONE


@pytest.mark.parametrize("kind", [S.FAILED, S.UP_TO_DATE])
def test_a_run_ends_with_a_failure_and_with_nothing_to_do(fleet: Fleet, kind: UpdateStatusType) -> None:
    fleet.report(EDGE, S.STARTED)
    fleet.report(EDGE, kind)

    assert [run.end_time for run in fleet.runs(EDGE)] == [NOW]


def test_an_update_of_a_mutable_node_ends_with_the_number_of_packages_and_the_next_is_another_run(fleet: Fleet) -> None:
    for _ in range(2):
        fleet.report(UBUNTU, S.STARTED)
        fleet.report(UBUNTU, S.UPDATED, status_detail=log(CURL))
        fleet.report(UBUNTU, S.UP_TO_DATE)
        fleet.clock.later(days=1)

    newest, oldest = fleet.runs(UBUNTU)
    assert {run.update.text for run in (newest, oldest)} == {"Update completed - 1 package(s) updated/installed"}
    assert (oldest.end_time, newest.end_time) == (NOW, NOW + timedelta(days=1))


def test_the_number_of_packages_of_one_node_is_never_said_of_another(fleet: Fleet) -> None:
    fleet.report(UBUNTU, S.UPDATED, status_detail=log(CURL))

    fleet.report(EDGE, S.UPDATED, profile_name="edge", os_image_id="3.0.2", status_detail=log(CURL))

    assert fleet.instance(EDGE).update.text == InventoryStatus.DONE.text == "Update completed"


@pytest.mark.parametrize("image_id", ["3.0.1", "9.9.9"])
def test_a_run_ends_also_where_the_current_os_stays(fleet: Fleet, image_id: str) -> None:
    fleet.report(EDGE, S.STARTED)

    fleet.report(EDGE, S.UPDATED, profile_name="edge", os_image_id=image_id)

    (run,) = fleet.runs(EDGE)
    assert (run.update.status, run.end_time) == (InventoryStatus.DONE, NOW)


def test_an_unspecified_report_leaves_the_run_alone(fleet: Fleet) -> None:
    fleet.report(EDGE, S.STARTED)
    fleet.report(EDGE, S.UNSPECIFIED)

    assert [run.update.status for run in fleet.runs(EDGE)] == [InventoryStatus.UPDATE_IN_PROGRESS]


def test_two_updates_are_two_runs_even_where_the_clock_stands_still(fleet: Fleet) -> None:
    for _ in range(2):
        fleet.report(EDGE, S.STARTED)
        fleet.report(EDGE, S.FAILED)

    assert len(fleet.runs(EDGE)) == 2
    assert all(run.end_time is not None for run in fleet.runs(EDGE))


def test_a_node_that_goes_silent_during_an_update_is_lost_after_the_deadline(fleet: Fleet) -> None:
    fleet.report(EDGE, S.STARTED)
    fleet.clock.later(minutes=59)
    assert fleet.manager.find_lost(TENANT) == ()

    fleet.clock.later(minutes=2)
    (lost,) = fleet.manager.find_lost(TENANT)

    assert lost == fleet.instance(EDGE)
    assert (lost.update.status, lost.update.status.indicator) == (InventoryStatus.LOST, StatusIndicator.ERROR)
    assert lost.update.text == "Lost during update, last heard of 2026-03-01 02:00 UTC"
    assert fleet.manager.find_lost(TENANT) == ()
    (run,) = fleet.runs(EDGE)
    assert (run.update.status, run.end_time) == (InventoryStatus.LOST, None)


def test_a_lost_node_that_comes_back_goes_on_with_its_run(fleet: Fleet) -> None:
    fleet.report(EDGE, S.STARTED)
    fleet.clock.later(hours=2)
    fleet.manager.find_lost(TENANT)

    fleet.report(EDGE, S.FAILED, status_detail=log(FAILURE))

    assert fleet.instance(EDGE).update.status is InventoryStatus.FAILED
    (run,) = fleet.runs(EDGE)
    assert run.update.status is InventoryStatus.FAILED
    assert run.end_time == fleet.clock.now()


def test_a_node_that_keeps_reporting_is_not_lost_and_seldom_written(fleet: Fleet) -> None:
    for _ in range(300):
        fleet.report(EDGE, S.STARTED)
        fleet.clock.later(minutes=1)
        assert fleet.manager.find_lost(TENANT) == ()

    assert fleet.inventory.written == 300 / 15


def test_a_node_without_an_update_is_never_lost(fleet: Fleet) -> None:
    fleet.report(EDGE, S.UP_TO_DATE)
    fleet.report(UBUNTU, S.FAILED)
    fleet.clock.later(days=30)

    assert fleet.manager.find_lost(TENANT) == ()


def test_a_node_that_is_heard_of_in_the_very_moment_is_not_lost(fleet: Fleet) -> None:
    fleet.report(EDGE, S.STARTED)
    fleet.clock.later(hours=2)
    fleet.inventory.failures = [Conflict("heard of")]

    assert fleet.manager.find_lost(TENANT) == ()
    assert fleet.instance(EDGE).update.status is InventoryStatus.UPDATE_IN_PROGRESS


def test_an_instance_is_lost_with_its_open_run_alone(fleet: Fleet) -> None:
    fleet.report(EDGE, S.STARTED)
    fleet.report(EDGE, S.FAILED)
    fleet.clock.later(minutes=1)
    fleet.report(EDGE, S.STARTED)
    open_run, ended = fleet.runs(EDGE)
    with fleet.inventory.inventory.writing() as unit:
        unit.delete(open_run)
    fleet.clock.later(hours=2)

    (lost,) = fleet.manager.find_lost(TENANT)

    assert lost.update.status is InventoryStatus.LOST
    assert fleet.runs(EDGE) == (ended,)


@pytest.mark.parametrize("tenant", ["another", ""])
def test_a_host_of_another_tenant_does_not_exist(fleet: Fleet, tenant: str) -> None:
    before = fleet.instance(EDGE)
    request = PlatformUpdateStatusRequest(host_guid=EDGE, update_status=UpdateStatus(status_type=S.FAILED))

    with pytest.raises(NotFound):
        fleet.manager.platform_update_status(request, tenant=tenant)

    assert fleet.manager.find_lost(tenant) == ()
    assert fleet.instance(EDGE) == before


def test_a_node_is_found_by_its_uuid_in_any_case(fleet: Fleet) -> None:
    assert fleet.report(EDGE.upper(), S.UP_TO_DATE).os_type is OSType.IMMUTABLE


BARE, FOE, NEW = (f"00000000-0000-0000-0000-00000000001{digit}" for digit in "123")


def test_a_report_that_is_refused_says_why_and_leaves_nothing_behind(fleet: Fleet) -> None:
    fleet.add(
        host(BARE, "bare"),
        host(FOE, "foe", trust=Trust.UNTRUSTED),
        instance("foe", image(1)),
        host(NEW, "new"),
        instance("new", image(1), provisioning=Provisioning.PENDING),
    )

    with pytest.raises(NotFound, match="has no instance with an OS"):
        fleet.report(BARE, S.STARTED)
    with pytest.raises(Unauthenticated, match="isn't trusted") as untrusted:
        fleet.report(FOE, S.STARTED)
    with pytest.raises(FailedPrecondition, match="isn't provisioned") as pending:
        fleet.report(NEW, S.STARTED)

    assert (untrusted.value.code, pending.value.code) == ("UNAUTHENTICATED", "FAILED_PRECONDITION")
    assert fleet.inventory.written == 0


def test_a_text_that_no_database_holds_is_refused(fleet: Fleet) -> None:
    with pytest.raises(InvalidArgument, match="os_update_available"):
        fleet.report(UBUNTU, S.UP_TO_DATE, os_update_available="\0")

    assert fleet.inventory.written == 0


@pytest.mark.parametrize("error", [Conflict("in the way"), AlreadyExists("run")])
def test_a_collision_is_repeated(fleet: Fleet, error: Exception) -> None:
    fleet.inventory.failures = [error] * 4

    fleet.report(EDGE, S.STARTED)

    assert fleet.inventory.written == 5
    assert len(fleet.runs(EDGE)) == 1


def test_a_collision_again_and_again_is_given_up(fleet: Fleet) -> None:
    fleet.inventory.failures = [Conflict("in the way")] * 9

    with pytest.raises(Conflict):
        fleet.report(EDGE, S.STARTED)

    assert fleet.runs(EDGE) == ()


def test_a_storage_failure_leaves_nothing_behind_and_the_next_report_records_all(fleet: Fleet) -> None:
    fleet.inventory.failures = [StorageError("disk full")]
    with pytest.raises(StorageError):
        fleet.report(EDGE, S.STARTED)
    assert fleet.runs(EDGE) == ()
    assert fleet.instance(EDGE).update.status is InventoryStatus.NONE

    fleet.report(EDGE, S.STARTED)

    assert len(fleet.runs(EDGE)) == 1


def request_of(guid: str, kind: UpdateStatusType) -> PlatformUpdateStatusRequest:
    return PlatformUpdateStatusRequest(host_guid=guid, update_status=UpdateStatus(status_type=kind))


def test_a_batch_is_answered_in_order_and_refuses_only_what_is_wrong(fleet: Fleet) -> None:
    fleet.add(host(BARE, "bare"))

    answers = fleet.manager.platform_update_statuses(
        [
            Report(tenant=TENANT, request=request_of(EDGE, S.STARTED)),
            Report(tenant=TENANT, request=request_of(BARE, S.STARTED)),
            Report(tenant="another", request=request_of(UBUNTU, S.STARTED)),
            Report(tenant=TENANT, request=request_of(UBUNTU, S.FAILED)),
        ]
    )

    assert [type(answer) for answer in answers] == [
        PlatformUpdateStatusResponse,
        NotFound,
        NotFound,
        PlatformUpdateStatusResponse,
    ]
    assert fleet.instance(EDGE).update.status is InventoryStatus.UPDATE_IN_PROGRESS
    assert fleet.instance(UBUNTU).update.status is InventoryStatus.FAILED
    assert fleet.inventory.written == 1


@pytest.mark.parametrize("error", [Conflict("in the way"), StorageError("disk full")])
def test_a_batch_that_fails_leaves_nothing_behind(fleet: Fleet, error: Exception) -> None:
    fleet.inventory.failures = [error]

    with pytest.raises(type(error)):
        fleet.manager.platform_update_statuses([Report(tenant=TENANT, request=request_of(EDGE, S.STARTED))])

    assert fleet.instance(EDGE).update.status is InventoryStatus.NONE


def test_a_node_is_seen_more_often_than_it_is_given_up() -> None:
    with pytest.raises(InvalidValue, match="shorter than lost_after"):
        MaintenancePolicy(lost_after=timedelta(minutes=15), seen_every=timedelta(minutes=15))


def test_times_below_zero_are_refused() -> None:
    with pytest.raises(InvalidValue, match="seen_every"):
        MaintenancePolicy(seen_every=timedelta(minutes=-1))
    with pytest.raises(InvalidValue, match="settled_after"):
        MaintenancePolicy(settled_after=timedelta(minutes=-1))
