"""Which reports come too late to count: what the node said before something that is recorded already.

The protocol has no sequence numbers. What can be known: a node that is recorded as just updated doesn't begin an update
from the image before it; and the times in an update log are all of the node's own clock, so the older of two logs was
written first. What can't: a late STARTED that names no image, or the one that runs, looks like a new update; the node's
next report ends it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from edge_day2.domain.messages import UpdateStatus
from edge_day2.domain.reported_os import named
from edge_day2.domain.resources import OSType
from edge_day2.domain.statuses import InventoryStatus, UpdateStatusType, parse_detail

if TYPE_CHECKING:
    from edge_day2.domain.maintenance import ReportContext

_BEGINS: Final = (UpdateStatusType.STARTED, UpdateStatusType.DOWNLOADING, UpdateStatusType.DOWNLOADED)
_ENDS: Final = (UpdateStatusType.UPDATED, UpdateStatusType.FAILED)
_ENDED_WELL: Final = (InventoryStatus.DONE, InventoryStatus.UP_TO_DATE)


def is_late(status: UpdateStatus, context: ReportContext, now: datetime, settled_after: timedelta) -> bool:
    """Return whether `status` was certainly said before what is recorded.

    `settled_after` is how long a report can be on its way. A node that really begins anew from an older image says so
    for longer, and is heard then.
    """
    if context.open_run is not None:
        return False
    if status.status_type in _BEGINS:
        return _from_the_image_before(status, context, now, settled_after)
    return status.status_type in _ENDS and _has_the_older_log(status, context)


def _from_the_image_before(
    status: UpdateStatus, context: ReportContext, now: datetime, settled_after: timedelta
) -> bool:
    instance, current = context.instance, context.current_os
    assert instance is not None
    assert current is not None
    update = instance.update
    if instance.os_type is OSType.MUTABLE or update.status not in _ENDED_WELL or update.timestamp is None:
        return False
    just_ended = timedelta() <= now - update.timestamp < settled_after
    return just_ended and status.os_image_id != current.image_id and named(status, context) is not None


def _has_the_older_log(status: UpdateStatus, context: ReportContext) -> bool:
    assert context.instance is not None
    recorded = context.instance.update
    # A sign of life repeats the same detail: not worth reading.
    if recorded.status is not InventoryStatus.FAILED or status.status_detail in ("", recorded.detail):
        return False
    said, known = _last_time(status.status_detail), _last_time(recorded.detail)
    return said is not None and known is not None and said < known


def _last_time(text: str) -> datetime | None:
    detail = parse_detail(text)
    if detail is None:
        return None
    # A time that can't be read, or of a clock that wasn't set yet, says nothing.
    return max((entry.update_time for entry in detail.update_log if entry.update_time.year > 1970), default=None)
