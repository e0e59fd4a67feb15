"""What a tenant's Inventory remembers of the OS Resource Manager: the revision that was last reconciled to the end.

What lives here: that record, and what counts as a change of the osProfileRevision. What never will: what a manifest
means for the Inventory (linking.py).

To the end means: every manifest that could be had was dealt with. One that makes no sense or contradicts the Inventory
was, for it stays as it is until it is published anew; one that couldn't be fetched now wasn't.
"""

from __future__ import annotations

import enum
import re
from datetime import datetime
from typing import Final

from attrs import frozen

from edge_day2.errors import InvalidResource

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class LinkingMode(enum.Enum):
    """Who links instances to newly discovered OS Resources.

    MANUAL: an admin. AUTOMATIC: the OS Resource Manager, each immutable instance to the latest of its profile.
    """

    MANUAL = "manual"
    AUTOMATIC = "automatic"


class RevisionChange(enum.Enum):
    """What is different from what was reconciled before."""

    FIRST = "nothing was reconciled to the end before"
    REVISION = "the revision has changed"
    MANIFESTS = "the revision is the same, what is published under it has changed"
    NONE = "nothing has changed"


@frozen(kw_only=True)
class ReconciledRevision:
    """The revision that a tenant's Inventory was last brought in line with; a tenant has one.

    Attributes:
        revision: the osProfileRevision as it was set: a revision's name or a selector `~X.Y.Z`.
        newest: the newest revision that this was then; empty where it had no profile.
        digest: SHA-256 of all that was published, see `linking.discovery_digest`.
        mode: whether instances were linked.
        reconciled_at: when a run first ended with just this; later ones that found the same leave it.

    Raises:
        InvalidResource: a text is empty, the digest isn't 64 lower-case hex digits, or the instant is naive.
    """

    tenant_id: str
    resource_id: str = "reconciled-revision"
    revision: str
    newest: str
    digest: str
    mode: LinkingMode
    reconciled_at: datetime

    def __attrs_post_init__(self) -> None:
        for name in ("tenant_id", "resource_id", "revision"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise InvalidResource(f"ReconciledRevision.{name}", value, "a text that isn't empty")
        if _DIGEST.fullmatch(self.digest) is None:
            raise InvalidResource("ReconciledRevision.digest", self.digest, "64 lower-case hex digits")
        if self.reconciled_at.tzinfo is None:
            raise InvalidResource("ReconciledRevision.reconciled_at", self.reconciled_at, "an aware datetime")

    def change_since(self, before: ReconciledRevision | None) -> RevisionChange:
        """Return what is different from `before`, None where nothing was reconciled.

        A selector whose newest revision is another one than before is a changed revision, as the original's Edge
        Orchestrator was upgraded to a new osProfileRevision. Whether instances are linked is no matter of revisions.
        """
        if before is None:
            return RevisionChange.FIRST
        if (self.revision, self.newest) != (before.revision, before.newest):
            return RevisionChange.REVISION
        return RevisionChange.NONE if self.digest == before.digest else RevisionChange.MANIFESTS

    def says_the_same(self, other: ReconciledRevision | None) -> bool:
        """Return whether `other` differs in its instant alone."""
        return (
            other is not None
            and self.mode is other.mode
            and self.tenant_id == other.tenant_id
            and self.change_since(other) is RevisionChange.NONE
        )
