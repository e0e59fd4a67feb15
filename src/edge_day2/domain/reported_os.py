"""What the image that a report names means for an instance's current OS.

Reports have no sequence numbers, so a late one looks like a new one. UPDATED is believed at once: the node has verified
and committed that image. UP_TO_DATE is what a node at rest says again and again; it is believed when it has been said
for a while, and so corrects what was missed: a node that was re-imaged or put back by hand, an UPDATED that named an
image before its OS Resource existed, a late report that was believed. No report moves an instance to another profile.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from attrs import frozen

from edge_day2.domain.messages import UpdateStatus
from edge_day2.domain.resources import OSResource, OSType, check_link
from edge_day2.domain.statuses import InventoryStatus, UpdateStatusType
from edge_day2.errors import ImmutableLinkError, shown

if TYPE_CHECKING:
    from edge_day2.domain.maintenance import ReportContext

BEFORE_CONFLICT: Final = "; "
"""Between a status's own text, which never has this, and what is wrong with the current OS."""

_AT_REST: Final = (UpdateStatusType.UPDATED, UpdateStatusType.UP_TO_DATE)


@frozen(kw_only=True)
class ReportedOS:
    """What follows from the image that a report names.

    `installed` is the OS Resource that becomes the current OS, None where that stays. `conflict` says why the current
    OS can't be what the node says that it runs, "" where it is or can be.
    """

    installed: OSResource | None = None
    conflict: str = ""


def judge_image(status: UpdateStatus, context: ReportContext, now: datetime, settled_after: timedelta) -> ReportedOS:
    """Return what the image that `status` names means; `settled_after` is how long UP_TO_DATE has to be said."""
    instance, current, kind = context.instance, context.current_os, status.status_type
    assert instance is not None
    assert current is not None
    told = f"the node runs image {shown(status.os_image_id)} of profile {shown(status.profile_name)}"
    if status.profile_name not in ("", current.profile_name) and kind in (*_AT_REST, UpdateStatusType.FAILED):
        return ReportedOS(conflict=f"{told}, its current OS has profile {shown(current.profile_name)}")
    unchanged = status.os_image_id in ("", current.image_id)
    if instance.os_type is OSType.MUTABLE or kind not in _AT_REST or unchanged:
        return ReportedOS()
    found = named(status, context)
    if found is None:
        return ReportedOS(conflict=f"{told}, of which there is no OS Resource")
    try:
        check_link(instance, current, found)
    except ImmutableLinkError as error:
        return ReportedOS(conflict=f"{told}: {error}")
    if kind is UpdateStatusType.UPDATED or _has_settled(context, now, settled_after):
        return ReportedOS(installed=found)
    return ReportedOS()


def named(status: UpdateStatus, context: ReportContext) -> OSResource | None:
    """Return the OS Resource of the current profile that `status` names, None where there is none."""
    identity = (status.profile_name, status.os_image_id)
    return next((found for found in context.profile_os if (found.profile_name, found.image_id) == identity), None)


def _has_settled(context: ReportContext, now: datetime, settled_after: timedelta) -> bool:
    assert context.instance is not None
    update = context.instance.update
    at_rest = update.status is InventoryStatus.UP_TO_DATE
    return at_rest and update.timestamp is not None and now - update.timestamp >= settled_after
