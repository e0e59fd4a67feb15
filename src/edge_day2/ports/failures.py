"""What node ports raise for a flow to handle: a step that failed, and why; with names for what a caller can act on."""

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


class UntrustedSource(NodeFailure):
    """An address that the configuration doesn't allow. Nothing was asked of it."""

    def __init__(self, log: str) -> None:
        super().__init__(FailureReason.RS_AUTHENTICATION, log)


class ImageCorrupt(NodeFailure):
    """What came, whole, isn't the image that was asked for: its SHA-256 is `found`, not `expected`.

    Never conclusive, however often it comes: the image that the manifest names hasn't been seen at all, and whoever
    keeps the file can put it right without another manifest.
    """

    def __init__(self, log: str, *, expected: str, found: str) -> None:
        super().__init__(FailureReason.SIGNATURE_CHECK, f"{log}: its SHA-256 is {found}, expected {expected}")
        self.expected = expected
        self.found = found


class ImageUnusable(NodeFailure):
    """The image can't be unpacked, or doesn't hold what it should.

    Conclusive where its digest is the right one: then it is the image itself, and not the way here.
    """

    def __init__(self, log: str, *, reason: FailureReason = FailureReason.UT_WRITE) -> None:
        super().__init__(reason, log)


class ImageTooLarge(ImageUnusable):
    """The image needs more room than there is: in the slot, on a file system, in memory. The log says where."""

    def __init__(self, log: str) -> None:
        super().__init__(log, reason=FailureReason.INSUFFICIENT_STORAGE)


class OutOfTime(EdgeDay2Error):
    """A port gave up because the maintenance window closed. What it did so far can be done again."""


class Interrupted(OutOfTime):
    """A port gave up because it was told to: the agent is about to end."""


class PackageDatabaseInterrupted(EdgeDay2Error):
    """dpkg was interrupted earlier: nothing can be installed before `AptPort.repair`."""
