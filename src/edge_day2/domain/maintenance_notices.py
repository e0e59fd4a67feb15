"""What an operator reads in the log about an instance's updates: each thing once, when it is recorded.

Pure: what was recorded, and what will be, in; sentences with their fields out. Reports that change nothing make none.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import field, frozen

from edge_day2.domain.log_fields import log_fields
from edge_day2.domain.messages import UpdateStatus
from edge_day2.domain.reported_os import BEFORE_CONFLICT
from edge_day2.domain.resources import Host, Instance, OSUpdateRun
from edge_day2.domain.statuses import EntryStatus, InventoryStatus, UpdateLogEntry, UpdateRecord, parse_detail
from edge_day2.errors import shown

if TYPE_CHECKING:
    from edge_day2.domain.maintenance import ReportContext


class NoticeKind(enum.Enum):
    """What happened. The value is the field `event` of the log record."""

    UPDATE_BEGAN = "update_began"
    UPDATE_DONE = "update_done"
    UPDATE_FAILED = "update_failed"
    UPDATE_ROLLED_BACK = "update_rolled_back"
    UPDATE_NOT_NEEDED = "update_not_needed"
    UPDATE_LOST = "update_lost"
    CAME_BACK = "came_back"
    CURRENT_OS_RECORDED = "current_os_recorded"
    CURRENT_OS_CORRECTED = "current_os_corrected"
    OS_CONFLICT = "os_conflict"
    LATE_REPORT = "late_report"


@frozen(kw_only=True)
class Notice:
    """One thing to log. `fields` are as in `LOG_FIELDS`."""

    kind: NoticeKind
    text: str
    fields: Mapping[str, str] = field(hash=False)


def notice(
    kind: NoticeKind, text: str, instance: Instance, host: Host, run: OSUpdateRun | None, **more: str | None
) -> Notice:
    """Return a notice about an instance; `more` are fields that only this kind has."""
    fields = log_fields(
        event=kind.value,
        tenant_id=instance.tenant_id,
        host_guid=host.guid,
        host_id=host.resource_id,
        instance_id=instance.resource_id,
        update_run_id=run.resource_id if run is not None else None,
        **more,
    )
    return Notice(kind=kind, text=f"instance {instance.resource_id} on host {host.guid}: {text}", fields=fields)


def late_notice(status: UpdateStatus, context: ReportContext) -> Notice:
    """Return what to log of a report that came too late to count."""
    assert context.instance is not None
    kind = status.status_type.name
    text = f"{kind} was said before {shown(context.instance.update.text)}, and isn't recorded"
    return notice(NoticeKind.LATE_REPORT, text, context.instance, context.host, None, status_type=kind)


def notices_of(
    status: UpdateStatus, context: ReportContext, changed: Instance, run: OSUpdateRun | None
) -> tuple[Notice, ...]:
    """Return what there is to say of a report that makes `changed` of the instance, and `run` of its open run."""
    instance = context.instance
    if instance is None or (changed == instance and run == context.open_run):
        return ()
    found: list[Notice] = []

    def say(kind: NoticeKind, text: str, **more: str | None) -> None:
        reported = status.status_type.name
        found.append(notice(kind, text, changed, context.host, run, status_type=reported, **more))

    before, after = instance.update, changed.update
    if before.status is InventoryStatus.LOST and after.status is not InventoryStatus.LOST:
        say(NoticeKind.CAME_BACK, f"the node came back and says {status.status_type.name}")
    if run is not None and run.end_time is None and context.open_run is None:
        wanted = context.desired_os
        target = f" to {wanted.name} ({wanted.image_id})" if wanted is not None else ""
        desired = wanted.resource_id if wanted is not None else None
        say(NoticeKind.UPDATE_BEGAN, f"an update{target} began", os_resource_id=desired)
    ended = context.open_run is not None and run is not None and run.end_time is not None
    if ended or (after.status, after.detail) != (before.status, before.detail):
        match after.status:
            case InventoryStatus.DONE if ended or before.status is not InventoryStatus.DONE:
                say(NoticeKind.UPDATE_DONE, f"the update is done: {after.text}")
            case InventoryStatus.FAILED:
                last = _last_failure(after)
                reason = last.failure_reason.value if last is not None else ""
                log = f"{reason}: {shown(last.failure_log)}" if last is not None else "the node gave no reason"
                if last is not None and last.status is EntryStatus.ROLLED_BACK:
                    text = f"the update failed and was rolled back: {log}"
                    say(NoticeKind.UPDATE_ROLLED_BACK, text, failure_reason=reason)
                else:
                    say(NoticeKind.UPDATE_FAILED, f"the update failed: {log}", failure_reason=reason)
            case InventoryStatus.UP_TO_DATE if ended:
                say(NoticeKind.UPDATE_NOT_NEEDED, "the update ended, there was nothing to do")
    if changed.current_os_id != instance.current_os_id:
        moved = f"{changed.current_os_id} (image {shown(status.os_image_id)}), it was {instance.current_os_id}"
        more = {"os_resource_id": changed.current_os_id, "image_id": status.os_image_id}
        if after.status is InventoryStatus.DONE:
            say(NoticeKind.CURRENT_OS_RECORDED, f"current OS is {moved}", **more)
        else:
            say(NoticeKind.CURRENT_OS_CORRECTED, f"at rest, and no update was heard of: current OS is {moved}", **more)
    conflict = after.text.partition(BEFORE_CONFLICT)[2]
    if conflict not in ("", before.text.partition(BEFORE_CONFLICT)[2]):
        say(NoticeKind.OS_CONFLICT, f"current OS isn't changed: {conflict}", image_id=shown(status.os_image_id))
    return tuple(found)


def _last_failure(update: UpdateRecord) -> UpdateLogEntry | None:
    detail = parse_detail(update.detail)
    entries = detail.update_log if detail is not None else ()
    return next((entry for entry in reversed(entries) if entry.status is not EntryStatus.INSTALLED), None)
