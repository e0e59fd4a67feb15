"""The one error that node ports raise for what a flow handles: a step that failed, and why."""

from __future__ import annotations

from edge_day2.domain.statuses import FailureReason
from edge_day2.errors import EdgeDay2Error


class NodeFailure(EdgeDay2Error):
    """A port couldn't do what it was asked for.

    Args:
        reason: what the status detail says.
        log: what a person needs to know: the tool's own words, the file, the limit.
        conclusive: the target itself is proven bad, so that trying it again is of no use until it changes.
    """

    def __init__(self, reason: FailureReason, log: str, *, conclusive: bool = False) -> None:
        super().__init__(f"{reason.value}: {log}")
        self.reason = reason
        self.log = log
        self.conclusive = conclusive


class OutOfTime(EdgeDay2Error):
    """A port gave up because the maintenance window closed. What it did so far can be done again."""


class PackageDatabaseInterrupted(EdgeDay2Error):
    """dpkg was interrupted earlier: nothing can be installed before `AptPort.repair`."""
