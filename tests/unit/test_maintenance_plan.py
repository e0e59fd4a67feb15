"""One report: what is recorded for it, and what is answered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve

from edge_day2.domain.maintenance import MaintenancePlan, MaintenancePolicy, ReportContext, plan_maintenance
from edge_day2.domain.messages import (
    OSProfileUpdateSource,
    PlatformUpdateStatusRequest,
    UpdateSchedule,
    UpdateSource,
    UpdateStatus,
)
from edge_day2.domain.resources import (
    Host,
    Instance,
    OSResource,
    OSType,
    OSUpdatePolicy,
    ScheduleResource,
    UpdatePolicyKind,
)
from edge_day2.domain.schedules import RepeatedSchedule, ScheduleKind, SingleSchedule
from edge_day2.domain.statuses import (
    InventoryStatus,
    StatusDetail,
    StatusIndicator,
    UpdateLogEntry,
    UpdateRecord,
    UpdateStatusType,
    UpdateType,
)
from edge_day2.errors import InvalidArgument, NotFound

NOW = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
GUID = "12345678-1234-1234-1234-123456789abc"


LATER = NOW + timedelta(hours=1)
S = UpdateStatusType


def image(number: int) -> OSResource:
    return OSResource(
        resource_id=f"os-{number}",
        tenant_id="tenant",
        name=f"edge 3.0.{number}",
        os_type=OSType.IMMUTABLE,
        profile_name="edge",
        profile_version=f"3.0.{number}",
        image_id=f"3.0.{number}",
        sha256=f"{number}" * 64,
        image_url=f"files/edge-3.0.{number}.raw.gz",
    )


UBUNTU = OSResource(
    resource_id="os-9",
    tenant_id="tenant",
    name="ubuntu",
    os_type=OSType.MUTABLE,
    profile_name="ubuntu",
    image_id="22.04",
    sha256="9" * 64,
    update_sources=("Types: deb",),
    update_packages=("curl", "vim"),
    kernel_command_line="quiet",
)


def context(current: OSResource, desired: OSResource, policy: OSUpdatePolicy | None, *profile: OSResource) -> Any:
    return ReportContext(
        host=Host(resource_id="host-1", tenant_id="tenant", guid=GUID, name="host"),
        instance=Instance(
            resource_id="instance-1",
            tenant_id="tenant",
            host_id="host-1",
            os_type=current.os_type,
            current_os_id=current.resource_id,
            desired_os_id=desired.resource_id,
            os_update_policy_id=policy.resource_id if policy is not None else None,
        ),
        current_os=current,
        desired_os=desired,
        policy=policy,
        open_run=None,
        schedules=(),
        profile_os=profile,
    )


def edge(policy: OSUpdatePolicy | None = None) -> ReportContext:
    found: ReportContext = context(image(1), image(2), policy, image(1), image(2), image(3))
    return found


def ubuntu(policy: OSUpdatePolicy | None = None) -> ReportContext:
    found: ReportContext = context(UBUNTU, UBUNTU, policy)
    return found


def policy(kind: UpdatePolicyKind = UpdatePolicyKind.TARGET, **content: Any) -> OSUpdatePolicy:
    return OSUpdatePolicy(resource_id="policy-1", tenant_id="tenant", name="policy", kind=kind, **content)


def plan(context: ReportContext, kind: UpdateStatusType = S.UP_TO_DATE, **fields: Any) -> MaintenancePlan:
    status = UpdateStatus(status_type=kind, **fields)
    request = PlatformUpdateStatusRequest(host_guid=GUID, update_status=status)
    return plan_maintenance(request, context, NOW, MaintenancePolicy())


def after(context: ReportContext, kind: UpdateStatusType, at: datetime = NOW, **fields: Any) -> ReportContext:
    """Return the context with what a report leaves behind."""
    status = UpdateStatus(status_type=kind, **fields)
    request = PlatformUpdateStatusRequest(host_guid=GUID, update_status=status)
    planned = plan_maintenance(request, context, at, MaintenancePolicy())
    run = planned.run or context.open_run
    return evolve(context, instance=planned.instance or context.instance, open_run=run)


def update_of(context: ReportContext) -> UpdateRecord:
    assert context.instance is not None
    return context.instance.update


def available_of(context: ReportContext) -> str:
    assert context.instance is not None
    return context.instance.os_update_available


CURL = UpdateLogEntry(package_name="curl", update_time=NOW, version="7.81")
VIM = UpdateLogEntry(package_name="vim", update_time=NOW, version="9.0")


def log(*entries: UpdateLogEntry) -> str:
    return StatusDetail(update_log=entries).to_json()


@pytest.mark.parametrize("os_type", OSType)
@pytest.mark.parametrize(
    ("reported", "recorded", "text", "indicator"),
    [
        (S.UP_TO_DATE, InventoryStatus.UP_TO_DATE, "No new updates available", StatusIndicator.IDLE),
        (S.STARTED, InventoryStatus.UPDATE_IN_PROGRESS, "Updating", StatusIndicator.IN_PROGRESS),
        (S.UPDATED, InventoryStatus.DONE, "Update completed", StatusIndicator.IDLE),
        (S.FAILED, InventoryStatus.FAILED, "Update failed", StatusIndicator.ERROR),
        (S.DOWNLOADING, InventoryStatus.DOWNLOADING, "Downloading artifacts", StatusIndicator.IDLE),
        (S.DOWNLOADED, InventoryStatus.DOWNLOADED, "Download complete", StatusIndicator.IDLE),
        (S.UNSPECIFIED, InventoryStatus.UNKNOWN, "Unknown", StatusIndicator.UNSPECIFIED),
    ],
)
def test_a_report_sets_the_status_of_the_instance(
    os_type: OSType,
    reported: UpdateStatusType,
    recorded: InventoryStatus,
    text: str,
    indicator: StatusIndicator,
) -> None:
    update = update_of(after(edge() if os_type is OSType.IMMUTABLE else ubuntu(), reported))

    assert (update.status, update.text, update.status.indicator) == (recorded, text, indicator)
    assert update.timestamp == NOW


def test_the_timestamp_moves_only_when_the_status_does() -> None:
    idle = after(after(ubuntu(), S.UP_TO_DATE), S.UP_TO_DATE, LATER, os_update_available='[{"name":"curl"}]')
    assert update_of(idle).timestamp == NOW

    assert update_of(after(idle, S.STARTED, LATER)).timestamp == LATER


def test_done_tells_how_many_packages_changed_and_never_grows() -> None:
    detail = log(CURL, VIM, evolve(CURL, update_type=UpdateType.CONFIGURATION))
    found = ubuntu()

    for _ in range(3):
        found = after(after(found, S.UPDATED, status_detail=detail), S.UPDATED)

    assert update_of(found).text == "Update completed - 2 package(s) updated/installed"
    assert update_of(found).detail == detail


@pytest.mark.parametrize("detail", ["", "not JSON", '{"update_log": null}'])
def test_done_without_a_readable_detail_has_the_plain_text(detail: str) -> None:
    update = update_of(after(ubuntu(), S.UPDATED, status_detail=detail))

    assert (update.text, update.detail) == ("Update completed", "")


def test_a_detail_that_is_longer_than_the_inventory_takes_is_left_out() -> None:
    update = update_of(after(edge(), S.FAILED, status_detail=StatusDetail(message="x" * 100_000).to_json()))

    assert (update.status, update.detail) == (InventoryStatus.FAILED, "")


def test_a_sign_of_life_does_not_wipe_out_why_an_update_failed() -> None:
    failed = after(edge(), S.FAILED, status_detail=log(CURL))

    assert update_of(after(failed, S.FAILED)).detail == log(CURL)


def test_while_an_update_goes_on_the_latest_word_counts() -> None:
    paused = after(edge(), S.STARTED, status_detail=StatusDetail(message="paused").to_json())

    assert update_of(after(paused, S.STARTED)).detail == ""


def test_a_newer_image_of_the_profile_is_said_to_be_available() -> None:
    assert available_of(after(edge(), S.UP_TO_DATE)) == "edge 3.0.3"
    assert available_of(after(context(image(3), image(3), None, image(2), image(3)), S.UP_TO_DATE)) == ""


def test_the_newest_image_is_not_available_any_more_once_it_runs() -> None:
    updated = after(edge(), S.UPDATED, profile_name="edge", os_image_id="3.0.3")

    assert available_of(updated) == ""


def test_upgradable_packages_are_kept_until_an_update_or_another_list() -> None:
    listed = after(ubuntu(), S.UP_TO_DATE, os_update_available='[{"name":"curl"}]')
    started = after(listed, S.STARTED)
    assert available_of(started) == '[{"name":"curl"}]'

    assert available_of(after(started, S.UPDATED)) == ""
    assert available_of(after(started, S.UP_TO_DATE, os_update_available="[]")) == "[]"


def test_a_list_of_packages_that_is_larger_than_the_inventory_takes_leaves_the_last_one() -> None:
    listed = after(ubuntu(), S.UP_TO_DATE, os_update_available="x" * 500_000)

    assert available_of(after(listed, S.UP_TO_DATE, os_update_available="y" * 500_001)) == "x" * 500_000


@pytest.mark.parametrize("field", ["status_detail", "os_update_available"])
@pytest.mark.parametrize("text", ["\0", "\ud800"])
def test_a_text_that_no_database_holds_is_refused(field: str, text: str) -> None:
    with pytest.raises(InvalidArgument, match=field):
        plan(ubuntu(), S.UP_TO_DATE, **{field: text})


def test_a_text_of_any_language_is_kept() -> None:
    assert available_of(after(ubuntu(), S.UP_TO_DATE, os_update_available="zażółć")) == "zażółć"


@pytest.mark.parametrize("length", [timedelta(minutes=14), timedelta(minutes=15), -timedelta(minutes=1)])
def test_a_sign_of_life_during_an_update_is_noted_coarsely(length: timedelta) -> None:
    started = after(edge(), S.STARTED)

    seen = after(started, S.STARTED, NOW + length)

    assert seen.instance is not None
    assert seen.instance.last_seen == (NOW if length == timedelta(minutes=14) else NOW + length)


def image_of(context: ReportContext) -> str | None:
    source = plan(context).response.os_profile_update_source
    return source.os_image_id if source is not None else None


def test_an_immutable_node_is_answered_with_its_desired_image() -> None:
    answer = plan(edge()).response

    assert answer.os_type is OSType.IMMUTABLE
    assert answer.update_source == UpdateSource()
    assert answer.installed_packages == ""
    assert answer.os_profile_update_source == OSProfileUpdateSource(
        os_image_url="files/edge-3.0.2.raw.gz",
        os_image_id="3.0.2",
        os_image_sha="2" * 64,
        profile_name="edge",
        profile_version="3.0.2",
    )


def test_an_immutable_node_is_answered_with_the_kernel_command_line_of_its_image() -> None:
    wanted = evolve(image(2), kernel_command_line="debug")

    assert plan(context(image(1), wanted, None)).response.update_source == UpdateSource(kernel_command="debug")


def test_a_mutable_node_is_answered_with_what_its_os_applies() -> None:
    answer = plan(ubuntu()).response

    assert answer.os_type is OSType.MUTABLE
    assert answer.update_source == UpdateSource(kernel_command="quiet", custom_repos=("Types: deb",))
    assert answer.installed_packages == "curl\nvim"
    assert answer.os_profile_update_source is None


def test_a_policy_for_the_latest_picks_the_highest_version_of_the_profile() -> None:
    assert image_of(edge(policy(UpdatePolicyKind.LATEST))) == "3.0.3"


def test_a_policy_for_the_latest_of_a_mutable_node_keeps_its_packages() -> None:
    answer = plan(ubuntu(policy(UpdatePolicyKind.LATEST))).response

    assert answer.installed_packages == "curl\nvim"
    assert answer.update_source == UpdateSource(kernel_command="quiet", custom_repos=("Types: deb",))


def test_a_policy_for_a_target_picks_that_os_and_its_kernel_command_line() -> None:
    found = edge(policy(target_os_id="os-1", kernel_command_line="debug"))

    assert image_of(found) == "3.0.1"
    assert plan(found).response.update_source == UpdateSource(kernel_command="debug")


def test_a_policy_for_a_kernel_command_line_alone_keeps_the_desired_image() -> None:
    found = edge(policy(kernel_command_line="debug"))

    assert image_of(found) == "3.0.2"
    assert plan(found).response.update_source.kernel_command == "debug"


def test_a_policy_whose_target_is_of_another_profile_wants_nothing() -> None:
    assert image_of(edge(policy(target_os_id="os-9"))) is None


def test_a_policy_of_a_mutable_node_replaces_packages_and_sources() -> None:
    answer = plan(ubuntu(policy(update_packages=("htop",), update_sources=("URIs: x",)))).response

    assert answer.installed_packages == "htop"
    assert answer.update_source == UpdateSource(kernel_command="quiet", custom_repos=("URIs: x",))


def test_a_run_names_the_policy_that_was_applied() -> None:
    run = plan(edge(policy(kernel_command_line="debug")), UpdateStatusType.STARTED).run

    assert run is not None
    assert run.applied_policy_id == "policy-1"


@pytest.mark.parametrize("missing", ["instance", "current_os", "desired_os"])
def test_a_host_without_an_os_is_not_found(missing: str) -> None:
    without = {
        "instance": evolve(edge(), instance=None),
        "current_os": evolve(edge(), current_os=None),
        "desired_os": evolve(edge(), desired_os=None),
    }

    with pytest.raises(NotFound, match=GUID):
        plan(without[missing])


def schedule(number: int, opens: SingleSchedule | RepeatedSchedule, **changes: Any) -> ScheduleResource:
    return ScheduleResource(
        resource_id=f"schedule-{number}", tenant_id="tenant", name="schedule", schedule=opens, **changes
    )


def test_only_schedules_of_the_kinds_that_open_updates_are_answered() -> None:
    nightly, other = RepeatedSchedule(hours="1"), RepeatedSchedule(hours="3")
    schedules = (schedule(1, nightly), schedule(2, other, kind=ScheduleKind.SHIPPING))

    assert plan(evolve(edge(), schedules=schedules)).response.update_schedule == UpdateSchedule(
        repeated_schedules=(nightly,)
    )
