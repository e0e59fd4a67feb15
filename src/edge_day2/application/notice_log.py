"""From notices of the domain to records of `logging`: at which level an operator finds each of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final

from edge_day2.domain.maintenance_notices import Notice, NoticeKind

NOTICE_LEVELS: Final[Mapping[NoticeKind, int]] = {
    NoticeKind.UPDATE_BEGAN: logging.INFO,
    NoticeKind.UPDATE_DONE: logging.INFO,
    NoticeKind.UPDATE_NOT_NEEDED: logging.INFO,
    NoticeKind.UPDATE_FAILED: logging.WARNING,
    NoticeKind.UPDATE_ROLLED_BACK: logging.WARNING,
    NoticeKind.UPDATE_LOST: logging.WARNING,
    NoticeKind.CAME_BACK: logging.INFO,
    NoticeKind.CURRENT_OS_RECORDED: logging.INFO,
    NoticeKind.CURRENT_OS_CORRECTED: logging.WARNING,
    NoticeKind.OS_CONFLICT: logging.WARNING,
    # A node may repeat such a report: nothing is recorded of it, so nobody could know that it was said.
    NoticeKind.LATE_REPORT: logging.DEBUG,
}


def log_notices(logger: logging.Logger, notices: Iterable[Notice]) -> None:
    """Write each notice to `logger`, with its fields as `extra`."""
    for notice in notices:
        logger.log(NOTICE_LEVELS[notice.kind], "%s", notice.text, extra=dict(notice.fields))
