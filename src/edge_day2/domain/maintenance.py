"""What the Maintenance Manager answers to one report, and what it records for it. Pure: context in, plan out.

Rules of the original that are kept: the status map, the texts, the checks before anything is answered, the fields of
the answer by OS type. Of its defects these are gone: texts that grow, runs that never end, fields that flap, writes
for reports that change nothing, an update status without a current OS, and nodes that stay "updating" for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from attrs import evolve, field, frozen

from edge_day2.domain.late_reports import is_late
from edge_day2.domain.maintenance_notices import Notice, NoticeKind, late_notice, notice, notices_of
from edge_day2.domain.messages import (
    OSProfileUpdateSource,
    PlatformUpdateStatusRequest,
    PlatformUpdateStatusResponse,
    UpdateSource,
    UpdateStatus,
)
from edge_day2.domain.reported_os import BEFORE_CONFLICT, ReportedOS, judge_image
from edge_day2.domain.resources import (
    Host,
    Instance,
    OSResource,
    OSType,
    OSUpdatePolicy,
    OSUpdateRun,
    Provisioning,
    ScheduleResource,
    Trust,
    UpdatePolicyKind,
    record_verified_os,
)
from edge_day2.domain.schedules import ScheduleKind
from edge_day2.domain.statuses import (
    INVENTORY_STATUS,
    InventoryStatus,
    UpdateRecord,
    UpdateStatusType,
    count_changes,
    parse_detail,
)
from edge_day2.domain.window_outlook import Explanation
from edge_day2.domain.wire_schedules import update_schedule
from edge_day2.errors import FailedPrecondition, InvalidArgument, InvalidValue, NotFound, Unauthenticated, shown

_MAX_DETAIL: Final = 100_000
_MAX_AVAILABLE: Final = 500_000
_MAX_NAME: Final = 13
_LONGEST_PART: Final = 100


@frozen(kw_only=True)
class ReportContext:
    """All that is needed to answer one report.

    `schedules` are those that target the host, its site or a region around it, in the order of their ids.
    `profile_os` are the OS Resources of the current OS's profile for an immutable instance, in the order of their ids,
    else empty. No OS Resource has its lists of CVEs and packages here (`without_lists`): no answer needs them.
    """

    host: Host
    instance: Instance | None
    current_os: OSResource | None
    desired_os: OSResource | None
    policy: OSUpdatePolicy | None
    open_run: OSUpdateRun | None
    schedules: tuple[ScheduleResource, ...]
    profile_os: tuple[OSResource, ...]


def nothing_installed(host: Host, schedules: tuple[ScheduleResource, ...]) -> ReportContext:
    """Return the context of a host that has no instance."""
    return ReportContext(
        host=host,
        instance=None,
        current_os=None,
        desired_os=None,
        policy=None,
        open_run=None,
        schedules=schedules,
        profile_os=(),
    )


@frozen(kw_only=True)
class MaintenancePolicy:
    """Choices of a Maintenance Manager.

    Attributes:
        kinds: the kinds of schedule that open an update window.
        lost_after: a node that began an update and wasn't heard of for so long is LOST.
        seen_every: while an update is in progress, how often a report that changes nothing is noted.
        settled_after: longer than a report can be on its way. For so long a node has to say that it is at rest before
            an image is believed that no update brought, and for so long after an update nothing begins from the image
            before it.

    Raises:
        InvalidValue: `seen_every` isn't shorter than `lost_after`, or a time is below zero.
    """

    kinds: frozenset[ScheduleKind] = frozenset({ScheduleKind.OS_UPDATE})
    lost_after: timedelta = timedelta(hours=1)
    seen_every: timedelta = timedelta(minutes=15)
    settled_after: timedelta = timedelta(minutes=2)

    def __attrs_post_init__(self) -> None:
        if not timedelta(0) <= self.seen_every < self.lost_after:
            expected = f"nothing below zero, and shorter than lost_after, {self.lost_after}"
            raise InvalidValue("MaintenancePolicy.seen_every", self.seen_every, expected)
        if self.settled_after < timedelta(0):
            raise InvalidValue("MaintenancePolicy.settled_after", self.settled_after, "nothing below zero")


@frozen(kw_only=True)
class MaintenancePlan:
    """The answer to one report, and the changes to store with it in one transaction.

    `instance` and `run` are None where they stay as they are. `amendment` is what became of an update whose run has
    ended already: it failed, and then it was rolled back. `notices` are for the log, once the changes are stored.
    """

    response: PlatformUpdateStatusResponse
    instance: Instance | None = None
    run: OSUpdateRun | None = None
    amendment: UpdateRecord | None = None
    notices: tuple[Notice, ...] = field(default=())


def plan_maintenance(
    request: PlatformUpdateStatusRequest, context: ReportContext, now: datetime, policy: MaintenancePolicy
) -> MaintenancePlan:
    """Return what to answer to `request` and what to record.

    Raises:
        InvalidArgument: a text of the report can't be stored.
        NotFound: the host has no instance, or the instance's OS is gone.
        Unauthenticated: the host isn't trusted.
        FailedPrecondition: the instance isn't provisioned.
    """
    host, instance = context.host, context.instance
    for name in ("status_detail", "os_update_available"):
        _check_storable(name, getattr(request.update_status, name))
    if instance is None or context.current_os is None or context.desired_os is None:
        raise NotFound(f"host {host.guid} has no instance with an OS")
    if host.trust is Trust.UNTRUSTED:
        raise Unauthenticated(f"host {host.guid} isn't trusted")
    if instance.provisioning is not Provisioning.PROVISIONED:
        raise FailedPrecondition(f"instance {instance.resource_id} isn't provisioned")
    status = request.update_status
    changed, run, late = instance, context.open_run, is_late(status, context, now, policy.settled_after)
    if not late:
        changed = _record(status, context, now, policy)
        run = _run(status, changed, context, now)
    response = PlatformUpdateStatusResponse(
        os_type=instance.os_type,
        update_schedule=update_schedule(context.schedules, now, policy.kinds),
        update_source=_update_source(context),
        installed_packages="\n".join(_packages(context)),
        os_profile_update_source=_profile_source(context),
    )
    return MaintenancePlan(
        response=response,
        instance=changed if changed != instance else None,
        run=run if run != context.open_run else None,
        amendment=_amendment(instance, changed, context),
        notices=(late_notice(status, context),) if late else notices_of(status, context, changed, run),
    )


def _check_storable(name: str, text: str) -> None:
    if "\0" in text or not (text.isascii() or _is_utf8(text)):
        raise InvalidArgument(f"{name}: found {shown(text)}, expected a text without NUL and lone surrogates")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _record(status: UpdateStatus, context: ReportContext, now: datetime, policy: MaintenancePolicy) -> Instance:
    instance, current = context.instance, context.current_os
    assert instance is not None
    assert current is not None
    os = judge_image(status, context, now, policy.settled_after)
    recorded = _update_record(status, instance, now, os)
    seen = None
    if recorded.status is InventoryStatus.UPDATE_IN_PROGRESS:
        seen = instance.last_seen
        if seen is None or recorded.timestamp == now or now - seen >= policy.seen_every or now < seen:
            seen = now
    changed = instance
    if recorded != instance.update or seen != instance.last_seen:
        changed = evolve(instance, update=recorded, last_seen=seen)
    if os.installed is not None:
        changed = record_verified_os(changed, current, os.installed)
    available = _available(status, context, changed)
    if available != changed.os_update_available:
        changed = evolve(changed, os_update_available=available)
    return changed


def _update_record(status: UpdateStatus, instance: Instance, now: datetime, os: ReportedOS) -> UpdateRecord:
    kind = INVENTORY_STATUS[status.status_type]
    detail = parse_detail(status.status_detail) if status.status_detail else None
    text, before = kind.text, instance.update.text.partition(BEFORE_CONFLICT)[0]
    if kind is InventoryStatus.DONE and instance.os_type is OSType.MUTABLE and detail is not None:
        text = f"{text} - {count_changes(detail.update_log)} package(s) updated/installed"
    kept = status.status_detail if detail is not None and len(status.status_detail) <= _MAX_DETAIL else ""
    # A sign of life without detail doesn't wipe out how the update ended; while it goes on, the latest word counts.
    if not kept and instance.update.status is kind and kind is not InventoryStatus.UPDATE_IN_PROGRESS:
        kept, text = instance.update.detail, before
    same = instance.update.status is kind and before == text
    return UpdateRecord(
        status=kind,
        text=f"{text}{BEFORE_CONFLICT}{os.conflict}" if os.conflict else text,
        timestamp=instance.update.timestamp if same else now,
        detail=kept,
    )


def _available(status: UpdateStatus, context: ReportContext, instance: Instance) -> str:
    if instance.os_type is OSType.MUTABLE:
        # Not every report carries the list; after an update an empty one means that nothing is left.
        kept = "" if status.status_type is UpdateStatusType.UPDATED else instance.os_update_available
        told = status.os_update_available
        return told if 0 < len(told) <= _MAX_AVAILABLE else kept
    latest = latest_of(context.profile_os)
    running = (resource for resource in context.profile_os if resource.resource_id == instance.current_os_id)
    current = next(running, context.current_os)
    if latest is None or current is None or latest.image_version <= current.image_version:
        return ""
    return latest.name


def _run(status: UpdateStatus, changed: Instance, context: ReportContext, now: datetime) -> OSUpdateRun | None:
    run, recorded = context.open_run, changed.update
    if run is None:
        assert context.instance is not None
        assert context.desired_os is not None
        brought = changed.current_os_id != context.instance.current_os_id
        # Of an update whose beginning wasn't heard all that is known is its end.
        ended = status.status_type is UpdateStatusType.UPDATED and brought
        if not ended and status.status_type not in (UpdateStatusType.STARTED, UpdateStatusType.DOWNLOADING):
            return None
        profile = (found.name for found in context.profile_os if found.resource_id == changed.current_os_id)
        return OSUpdateRun(
            resource_id=f"osupdaterun-{_short(changed.resource_id)}-{now:%Y%m%d%H%M%S%f}",
            tenant_id=changed.tenant_id,
            instance_id=changed.resource_id,
            name=f"{context.host.name[:_MAX_NAME]} update {now:%Y%m%d-%H%M%S}",
            description=f"OS update for {next(profile, '') if ended else context.desired_os.name}",
            applied_policy_id=changed.os_update_policy_id,
            start_time=now,
            end_time=now if ended else None,
            update=recorded,
        )
    match status.status_type:
        case UpdateStatusType.UPDATED | UpdateStatusType.FAILED | UpdateStatusType.UP_TO_DATE:
            return evolve(run, update=recorded, end_time=now)
        case UpdateStatusType.UNSPECIFIED:
            return run
        case _:
            return evolve(run, update=recorded)


def _short(resource_id: str) -> str:
    """Return an id that another one can be made of, which is no longer than ids may be."""
    if len(resource_id) <= _LONGEST_PART:
        return resource_id
    return hashlib.sha256(resource_id.encode()).hexdigest()


def _amendment(instance: Instance, changed: Instance, context: ReportContext) -> UpdateRecord | None:
    failed = instance.update.status is changed.update.status is InventoryStatus.FAILED
    told_more = changed.update.detail != instance.update.detail
    return changed.update if failed and told_more and context.open_run is None else None


def amend(last: OSUpdateRun, amendment: UpdateRecord, now: datetime) -> OSUpdateRun:
    """Return the instance's last run with what became of its update; one that didn't fail stays as it is."""
    return evolve(last, update=amendment, end_time=now) if last.update.status is InventoryStatus.FAILED else last


def mark_lost(instance: Instance, run: OSUpdateRun | None, now: datetime) -> tuple[Instance, OSUpdateRun | None]:
    """Return instance and open run of a node that began an update and was never heard of again.

    The run stays open: should the node come back, what it reports ends it.
    """
    seen = instance.last_seen
    text = InventoryStatus.LOST.text + (f", last heard of {seen:%Y-%m-%d %H:%M} UTC" if seen is not None else "")
    lost = UpdateRecord(status=InventoryStatus.LOST, text=text, timestamp=now, detail=instance.update.detail)
    return evolve(instance, update=lost, last_seen=None), evolve(run, update=lost) if run is not None else None


def lost_notice(lost: Instance, run: OSUpdateRun | None, host: Host) -> Notice:
    """Return what to log of an instance that `mark_lost` made."""
    return notice(NoticeKind.UPDATE_LOST, lost.update.text, lost, host, run)


def explain(context: ReportContext, outlook: Explanation, held_back: str = "") -> str:
    """Return in one sentence why the host is, or isn't, being updated.

    `outlook` says what the schedules that apply to the host allow; it is asked without the instance. `held_back` is how
    a rollout says that the host's turn hasn't come, "" where none holds it back.
    """
    instance = context.instance
    if instance is None:
        return "not updated: nothing is installed on this host"
    if context.host.trust is not Trust.UNTRUSTED and instance.provisioning is not Provisioning.PROVISIONED:
        return "not updated: the instance isn't provisioned"
    recorded = instance.update
    since = f"since {recorded.timestamp:%Y-%m-%d %H:%M} UTC" if recorded.timestamp is not None else "not yet"
    detail = parse_detail(recorded.detail)
    if recorded.status is InventoryStatus.UPDATE_IN_PROGRESS:
        return f"being updated {since}" + (f": {detail.message}" if detail is not None and detail.message else "")
    if recorded.status is InventoryStatus.LOST:
        return f"not updated: {recorded.text}; the node doesn't report any more"
    conflict = recorded.text.partition(BEFORE_CONFLICT)[2]
    if conflict:
        return f"{conflict}; {outlook.sentence}"
    wanted = _wanted_os(context)
    if instance.os_type is OSType.IMMUTABLE and wanted is not None and wanted == context.current_os:
        return f"not updated: {held_back or 'desired OS equals current OS'}"
    failed = ""
    if recorded.status is InventoryStatus.FAILED:
        log = next((entry.failure_log for entry in reversed(detail.update_log)), "") if detail is not None else ""
        failed = f"the last update failed {since}{f' ({log})' if log else ''}; "
    return failed + outlook.sentence


def latest_of(resources: Iterable[OSResource]) -> OSResource | None:
    """Return the OS Resource with the highest image version, None where there is none."""
    return max(resources, key=lambda found: (found.image_version.sort_key, found.resource_id), default=None)


def _wanted_os(context: ReportContext) -> OSResource | None:
    policy, instance = context.policy, context.instance
    # A mutable node's OS Resource is patched, never replaced: no policy picks another one.
    if policy is None or instance is None or instance.os_type is OSType.MUTABLE:
        return context.desired_os
    if policy.kind is UpdatePolicyKind.LATEST:
        return latest_of(context.profile_os)
    if policy.target_os_id is None:
        return context.desired_os
    return next((found for found in context.profile_os if found.resource_id == policy.target_os_id), None)


def _profile_source(context: ReportContext) -> OSProfileUpdateSource | None:
    wanted = _wanted_os(context)
    assert context.instance is not None
    if context.instance.os_type is not OSType.IMMUTABLE or wanted is None:
        return None
    return OSProfileUpdateSource(
        os_image_url=wanted.image_url,
        os_image_id=wanted.image_id,
        os_image_sha=wanted.sha256,
        profile_name=wanted.profile_name,
        profile_version=wanted.profile_version,
    )


def _update_source(context: ReportContext) -> UpdateSource:
    assert context.instance is not None
    wanted, policy = _wanted_os(context), context.policy
    kernel_command = policy.kernel_command_line if policy is not None else ""
    if not kernel_command and wanted is not None:
        kernel_command = wanted.kernel_command_line
    if context.instance.os_type is OSType.IMMUTABLE:
        return UpdateSource(kernel_command=kernel_command)
    sources = policy.update_sources if policy is not None else ()
    if not sources and wanted is not None:
        sources = wanted.update_sources
    return UpdateSource(kernel_command=kernel_command, custom_repos=sources)


def _packages(context: ReportContext) -> tuple[str, ...]:
    assert context.instance is not None
    if context.instance.os_type is OSType.IMMUTABLE:
        return ()
    if context.policy is not None and context.policy.update_packages:
        return context.policy.update_packages
    return context.desired_os.update_packages if context.desired_os is not None else ()
