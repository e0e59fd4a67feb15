"""What the OS Resource Manager found and did, as data and as a text to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from attrs import field, frozen

from edge_day2.application.tenant_rounds import is_temporary
from edge_day2.domain.linking import DiscoveredProfile, ImageConflict, LinkingMode, SkipReason, discovery_digest
from edge_day2.domain.reconciled import ReconciledRevision, RevisionChange
from edge_day2.domain.resources import OSType
from edge_day2.domain.revisions import revision_order
from edge_day2.errors import EdgeDay2Error
from edge_day2.ports.release_service import RejectedManifest

ListKey = tuple[str, str, OSType]
"""What a list is read as: the field of the OS Resource, its address, and how it is written."""


@frozen(kw_only=True)
class Discovery:
    """What the Release Service has for a revision: the profiles, oldest first, and what can't be used of it.

    `lists` is what came of every list of CVEs or packages that a profile names: its text, or why there is none.
    """

    profiles: tuple[DiscoveredProfile, ...]
    rejected: tuple[RejectedManifest, ...]
    lists: Mapping[ListKey, str | EdgeDay2Error] = field(factory=dict, repr=False)

    @property
    def is_complete(self) -> bool:
        """Whether fetching it again now would bring nothing more: no failure was one that passes by itself."""
        return not any(is_temporary(item.error) for item in self.rejected)

    @property
    def has_all_manifests(self) -> bool:
        """Whether no manifest is missing because of a failure that passes by itself. Lists don't count."""
        return not any(is_temporary(item.error) for item in self.rejected if not item.file)

    @cached_property
    def digest(self) -> str:
        """See `discovery_digest`."""
        return discovery_digest(self.profiles)

    @cached_property
    def newest(self) -> str:
        """The newest revision that a profile was found in, empty where none was found."""
        return max((found.revision for found in self.profiles), key=revision_order, default="")

    @cached_property
    def without_lists(self) -> tuple[DiscoveredProfile, ...]:
        """The profiles as if no list had been read."""
        return tuple(found.without_lists() for found in self.profiles)


@frozen(kw_only=True)
class ReconcileReport:
    """What one run did and found for one tenant.

    Attributes:
        tenant_id: whose Inventory it was.
        revision: the osProfileRevision as it is set; `newest` is the newest revision that it stands for.
        mode: whether instances are linked; in MANUAL they aren't looked at.
        previous: what was reconciled to the end before; `change` is what is different from that.
        created: ids of OS Resources, as in `patched`.
        linked: for each OS Resource how many instances it became the desired OS of.
        skipped: how many instances kept their desired OS, and why.
        held: how many instances couldn't be linked because others were changing them; the next run links them.
        conflicts: manifests that contradict an OS Resource; never applied.
        rejected: manifests and lists that can't be used, and changes to this tenant's OS Resources that failed.
        failed: those changes alone.
    """

    tenant_id: str
    revision: str
    mode: LinkingMode
    newest: str = ""
    previous: ReconciledRevision | None = None
    change: RevisionChange = RevisionChange.FIRST
    created: tuple[str, ...] = ()
    patched: tuple[str, ...] = ()
    linked: tuple[tuple[str, int], ...] = ()
    skipped: tuple[tuple[SkipReason, int], ...] = ()
    held: int = 0
    conflicts: tuple[ImageConflict, ...] = ()
    rejected: tuple[RejectedManifest, ...] = ()
    failed: tuple[RejectedManifest, ...] = ()

    @property
    def linked_instances(self) -> int:
        """How many instances got a new desired OS."""
        return sum(count for _, count in self.linked)

    @property
    def revision_changed(self) -> bool:
        """Whether the revision, or the newest that a selector picks, is another than before; also the first time."""
        return self.change in (RevisionChange.FIRST, RevisionChange.REVISION)

    @property
    def was_disturbed(self) -> bool:
        """Whether others were in the way, so that the same discovery should be tried again soon."""
        return bool(self.held) or any(is_temporary(item.error) for item in self.failed)

    @property
    def is_complete(self) -> bool:
        """Whether running again now would do nothing more: nothing failed that passes by itself."""
        return not self.was_disturbed and not any(is_temporary(item.error) for item in self.rejected)

    def lines(self) -> Iterator[str]:
        """Yield what was done in one line, and a line for each thing that wasn't, with the reason."""
        named = self.revision if self.newest in ("", self.revision) else f"{self.revision} ({self.newest})"
        before = ""
        if self.previous is not None and self.change is RevisionChange.REVISION:
            before = f", before {self.previous.revision} ({self.previous.newest})"
        yield (
            f"tenant {self.tenant_id}: revision {named}{before}, {self.change.value}; {self.mode.value}: "
            f"{len(self.created)} OS Resources created, {len(self.patched)} patched, "
            f"{self.linked_instances} instances linked"
        )
        for name, ids in (("created", self.created), ("patched", self.patched)):
            yield from (f"{name} {resource_id}" for resource_id in ids)
        yield from (f"linked {count} instances to {resource_id}" for resource_id, count in self.linked)
        yield from (f"kept the desired OS of {count} instances: {reason.value}" for reason, count in self.skipped)
        if self.held:
            yield f"not linked yet, because others were changing them: {self.held} instances"
        yield from (f"not applied: {conflict}" for conflict in self.conflicts)
        for item in self.rejected:
            again = "; tried again" if is_temporary(item.error) else ""
            yield f"not used: {' '.join(filter(None, (item.revision, item.name, item.file)))}: {item.error}{again}"

    def __str__(self) -> str:
        return "\n".join(self.lines())
