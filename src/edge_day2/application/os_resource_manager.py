"""The OS Resource Manager: brings a tenant's Inventory in line with the published OS profile manifests.

What lives here: fetching, transactions, repeating after somebody else's change. What never will: deciding what a
manifest means for the Inventory (domain/linking.py).

A run may be repeated, interrupted, and made by several processes at once. Every change is decided from what is stored
now, is its own small transaction (an instance's link: one of a batch), and is decided again when somebody else came
first. So what is done stays done, and the next run does the rest. Where nothing changed, nothing is written.

What was reconciled to the end is remembered (domain/reconciled.py). A run that discovers the same again doesn't read or
compare the lists of CVEs and packages, which are nearly all of what a tenant's OS Resources weigh. It does the rest: OS
Resources that were deleted are created, those that say something else than their manifests are patched, conflicts
are reported, and in mode AUTOMATIC instances that were added or linked down are linked.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

from attrs import define, evolve, field

from edge_day2.application.list_reader import ListReader
from edge_day2.application.reconcile_account import ReconcileAccount
from edge_day2.application.reconcile_report import Discovery, ReconcileReport
from edge_day2.application.rollout_linking import WALL_CLOCK, RolloutManager
from edge_day2.application.tenant_rounds import TenantRound, each_tenant
from edge_day2.domain.linking import (
    CreateOSResource,
    DiscoveredProfile,
    LinkingMode,
    LinkingPlan,
    PatchOSResource,
    SkipReason,
    plan_linking,
)
from edge_day2.domain.log_fields import log_fields
from edge_day2.domain.profiles import OSProfile
from edge_day2.domain.reconciled import ReconciledRevision, RevisionChange
from edge_day2.domain.resources import Link, OSResource
from edge_day2.domain.revisions import check_revision
from edge_day2.errors import (
    AlreadyExists,
    Conflict,
    EdgeDay2Error,
    InvalidResource,
    InvalidValue,
    NotFound,
)
from edge_day2.ports.clock import Clock
from edge_day2.ports.inventory import Inventory
from edge_day2.ports.metrics import NO_METRICS, HarmlessMetrics, Metrics
from edge_day2.ports.release_files import ReleaseFiles
from edge_day2.ports.release_service import RejectedManifest, ReleaseService

__all__ = ["Discovery", "OSResourceManager", "ReconcileReport"]

_log: Final = logging.getLogger(__name__)

# Every repetition means that somebody else made progress; several managers at once need two.
_ATTEMPTS: Final = 5
# Long enough to share the cost of a commit, short enough that a status report never waits long for the database.
_BATCH: Final = 5000
_OVERTAKEN: Final = (Conflict, AlreadyExists, NotFound)


class OSResourceManager:
    """Discovers OS profiles of one osProfileRevision, and creates, patches and links OS Resources.

    `revision` is a revision's name or a selector `~X.Y.Z`. `enabled_profiles` are the names of the profiles to use;
    None means all that are published. `files` is where package manifests and lists of CVEs are; None: they aren't read.
    Instances are linked in transactions of `batch_size`, one OS Resource after the other, or several side by side in
    `linking_threads` with a connection each: worth it with PostgreSQL, while SQLite lets one write at a time.
    `clock` says when a revision was reconciled, and in mode AUTOMATIC rollouts go by it. `metrics` is told of every
    run; it names the tenants `named_tenants`.
    """

    def __init__(
        self,
        inventory: Inventory,
        release_service: ReleaseService,
        *,
        revision: str,
        mode: LinkingMode = LinkingMode.MANUAL,
        enabled_profiles: Collection[str] | None = None,
        files: ReleaseFiles | None = None,
        batch_size: int = _BATCH,
        linking_threads: int = 1,
        clock: Clock = WALL_CLOCK,
        metrics: Metrics = NO_METRICS,
        named_tenants: Collection[str] = (),
    ) -> None:
        """Raises InvalidValue where `revision`, a number or the name of a profile makes no sense."""
        for name, number in (("batch_size", batch_size), ("linking_threads", linking_threads)):
            if number < 1:
                raise InvalidValue(name, number, "at least 1")
        if enabled_profiles is not None and not all(enabled_profiles):
            # What a comma-separated setting that is empty comes to; it would enable nothing and say nothing.
            raise InvalidValue("enabled_profiles", enabled_profiles, "names that aren't empty")
        self._inventory = inventory
        self._release_service = release_service
        self._revision = check_revision(revision)
        self._mode = mode
        self._enabled = None if enabled_profiles is None else frozenset(enabled_profiles)
        self._files = files
        self._batch_size = batch_size
        self._linking_threads = linking_threads
        self._clock = clock
        self._account = ReconcileAccount(HarmlessMetrics(metrics, named_tenants=named_tenants), mode)
        self._rollouts = RolloutManager(inventory, clock=clock, batch_size=batch_size)

    def discover(self, after: Discovery | None = None) -> Discovery:
        """Fetch and read the manifests, and the files that they name. One discovery serves any number of tenants.

        A file that can't be had or makes no sense is among what is rejected; its profile is used without it. Of the
        files those that `after` has, or knows to make no sense, aren't fetched again.

        Raises:
            NotFound: there is no such revision.
            Unavailable: the Release Service can't be reached.
            MissingExtra: no YAML parser is installed (extra `profiles`).
        """
        profiles: list[DiscoveredProfile] = []
        rejected: list[RejectedManifest] = []
        for manifest in self._release_service.manifests(self._revision, self._enabled):
            if isinstance(manifest, RejectedManifest):
                rejected.append(manifest)
                continue
            try:
                profile = OSProfile.from_yaml(manifest.text, file_name=manifest.name)
            except InvalidValue as error:
                rejected.append(RejectedManifest(revision=manifest.revision, name=manifest.name, error=error))
            else:
                profiles.append(DiscoveredProfile(revision=manifest.revision, profile=profile))
        rejected += self._missing(profiles, rejected)
        lists = ListReader(self._files, {} if after is None else after.lists)
        profiles = [evolve(found, lists=lists.of(found, rejected)) for found in profiles]
        for item in rejected:
            fields = log_fields(event="manifest_rejected")
            _log.warning("revision %s: %s %s: %s", item.revision, item.name, item.file, item.error, extra=fields)
        return Discovery(profiles=tuple(profiles), rejected=tuple(rejected), lists=lists.read)

    def reconcile_all(
        self, tenants: Iterable[str] | None = None, *, discovery: Discovery | None = None
    ) -> TenantRound[ReconcileReport]:
        """Bring the Inventories of many tenants in line, of each that no other process is doing this for.

        Any number of processes may do so at once. One tenant's failure stops no other: it is in what is returned.

        Args:
            tenants: which ones; None: all that the Inventory holds.
            discovery: saves fetching the manifests again.

        Raises:
            NotFound, Unavailable, MissingExtra: as `discover`, before anything is changed.
            StorageError: the tenants can't be read.
        """
        found = discovery or self.discover()
        return each_tenant(self._inventory, "reconcile", tenants, lambda tenant_id: self.reconcile(tenant_id, found))

    def reconcile(self, tenant_id: str, discovery: Discovery | None = None) -> ReconcileReport:
        """Bring the tenant's Inventory in line with the manifests; `discovery` saves fetching them again.

        Raises:
            Conflict: others changed the same things again and again. What is done is kept; repeat later.
            StorageError: the Inventory failed. What is done is kept; repeat later.
            NotFound, Unavailable, MissingExtra: as `discover`, before anything is changed.
        """
        return self._account.of(tenant_id, lambda: self._reconcile(tenant_id, discovery))

    def _reconcile(self, tenant_id: str, discovery: Discovery | None) -> ReconcileReport:
        discovery = discovery or self.discover()
        written: dict[type, list[str]] = {CreateOSResource: [], PatchOSResource: []}
        failed: dict[str, RejectedManifest] = {}
        for _ in range(_ATTEMPTS):
            previous, plan = self._plan(tenant_id, discovery)
            failed = self._change(plan.changes, written)
            if not failed:
                break
        plan = plan.without(frozenset(failed))
        links = self._link_all(tenant_id, plan) if plan.targets else _Links()
        now = ReconciledRevision(
            tenant_id=tenant_id,
            revision=self._revision,
            newest=discovery.newest,
            digest=discovery.digest,
            mode=self._mode,
            reconciled_at=self._clock.now(),
        )
        report = ReconcileReport(
            tenant_id=tenant_id,
            revision=self._revision,
            mode=self._mode,
            newest=discovery.newest,
            previous=previous,
            change=now.change_since(previous),
            created=tuple(written[CreateOSResource]),
            patched=tuple(written[PatchOSResource]),
            linked=tuple(sorted(links.linked.items())),
            skipped=tuple(sorted(links.skipped.items(), key=lambda item: item[0].name)),
            held=links.held,
            conflicts=plan.conflicts,
            rejected=(*discovery.rejected, *failed.values()),
            failed=tuple(failed.values()),
        )
        if discovery.has_all_manifests and not report.was_disturbed:
            self._remember(previous, now)
        _tell(report)
        return report

    def _remember(self, previous: ReconciledRevision | None, now: ReconciledRevision) -> None:
        if now.says_the_same(previous):
            return
        try:
            with self._inventory.writing() as write:
                if previous is None:
                    write.add(now)
                else:
                    write.replace(previous, now)
        except _OVERTAKEN:
            # Another manager ended a run in this moment. Should that be of another revision, the next run tells.
            fields = log_fields(tenant_id=now.tenant_id)
            _log.info("tenant %s: another manager has just reconciled it", now.tenant_id, extra=fields)

    def _missing(
        self, profiles: Iterable[DiscoveredProfile], rejected: Iterable[RejectedManifest]
    ) -> Iterator[RejectedManifest]:
        """Yield the enabled profiles of which nothing was found, neither good nor bad."""
        found = {item.profile.profile_name for item in profiles}
        found |= {manifest.name.removesuffix(".yaml").removesuffix(".yml") for manifest in rejected}
        for name in sorted((self._enabled or frozenset()) - found):
            error = NotFound(f"profile {name!r} is enabled, but revision {self._revision!r} has no such manifest")
            yield RejectedManifest(revision=self._revision, name=name, error=error)

    def _plan(self, tenant_id: str, discovery: Discovery) -> tuple[ReconciledRevision | None, LinkingPlan]:
        """Return what was reconciled before, and what is to be done."""
        with self._inventory.reading() as read:
            previous = next(read.all(ReconciledRevision, tenant_id), None)
            if previous is not None and previous.digest == discovery.digest:
                profiles, resources = discovery.without_lists, read.os_without_lists(tenant_id)
                plan = plan_linking(profiles, resources, tenant_id=tenant_id, mode=self._mode)
                if not plan.changes:
                    return previous, plan
            resources = read.all(OSResource, tenant_id)
            return previous, plan_linking(discovery.profiles, resources, tenant_id=tenant_id, mode=self._mode)

    def _change(
        self, changes: Iterable[CreateOSResource | PatchOSResource], written: dict[type, list[str]]
    ) -> dict[str, RejectedManifest]:
        """Carry out each change on its own; return those in whose way something was."""
        failed: dict[str, RejectedManifest] = {}
        for change in changes:
            new = change.resource if isinstance(change, CreateOSResource) else change.new
            try:
                with self._inventory.writing() as write:
                    if isinstance(change, CreateOSResource):
                        write.add(new)
                    else:
                        write.replace(change.old, new)
            except (*_OVERTAKEN, InvalidResource) as error:
                failed[new.resource_id] = _rejected(change.revision, new, error)
            else:
                written[type(change)].append(new.resource_id)
        return failed

    def _link_all(self, tenant_id: str, plan: LinkingPlan) -> _Links:
        """Link every instance that is due."""
        plan, admitted = self._rollouts.link(tenant_id, plan)
        links = _Links(linked=admitted)
        due, links.skipped = self._due(tenant_id, plan)
        # Whom a rollout has just admitted counts as linked alone.
        links.skipped.subtract({SkipReason.UP_TO_DATE: admitted.total()})
        links.skipped = +links.skipped
        for _ in range(_ATTEMPTS):
            if not due:
                break
            before = links.linked.total()
            self._link_each(tenant_id, due, links.linked)
            # Others held some of them, or linked them down just now.
            due, _ = self._due(tenant_id, plan)
            if links.linked.total() == before:
                break
        links.held = sum(sum(alike.values()) for alike in due.values())
        links.linked = +links.linked
        return links

    def _due(self, tenant_id: str, plan: LinkingPlan) -> tuple[dict[str, dict[Link, int]], Counter[SkipReason]]:
        """Return how many instances with which links are due for which desired OS, and how many keep theirs and why."""
        due: dict[str, dict[Link, int]] = {}
        skipped: Counter[SkipReason] = Counter()
        with self._inventory.reading() as read:
            for link, count in read.links(tenant_id).items():
                verdict = plan.judge(link)
                if isinstance(verdict, SkipReason):
                    skipped[verdict] += count
                else:
                    due.setdefault(verdict.resource_id, {})[link] = count
        return due, skipped

    def _link_each(self, tenant_id: str, due: Mapping[str, Collection[Link]], linked: Counter[str]) -> None:
        def link(desired_os_id: str) -> int:
            return self._link(tenant_id, due[desired_os_id], desired_os_id)

        with ExitStack() as stack:
            link_all: Callable[..., Iterator[int]] = map
            if self._linking_threads > 1:
                threads = ThreadPoolExecutor(self._linking_threads, thread_name_prefix="edge_day2-linking")
                link_all = stack.enter_context(threads).map
            for desired_os_id, count in zip(due, link_all(link, due), strict=True):
                linked[desired_os_id] += count

    def _link(self, tenant_id: str, links: Collection[Link], desired_os_id: str) -> int:
        """Relink the instances with these links, batch by batch; return how many it was."""
        count = 0
        while batch := self._link_batch(tenant_id, links, desired_os_id):
            count += batch
        return count

    def _link_batch(self, tenant_id: str, links: Collection[Link], desired_os_id: str) -> int:
        for attempt in range(_ATTEMPTS + 1):
            try:
                with self._inventory.writing() as write:
                    return write.relink(tenant_id, links, desired_os_id, at_most=self._batch_size)
            except NotFound as error:
                raise Conflict(
                    f"OS Resource {desired_os_id!r} was deleted while instances were linked to it"
                ) from error
            except Conflict:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError


@define
class _Links:
    """What came of linking: how many for each OS Resource, how many kept theirs and why, how many others held."""

    linked: Counter[str] = field(factory=Counter)
    skipped: Counter[SkipReason] = field(factory=Counter)
    held: int = 0


def _rejected(revision: str, resource: OSResource, error: EdgeDay2Error) -> RejectedManifest:
    return RejectedManifest(revision=revision, name=resource.profile_name, error=error)


def _tell(report: ReconcileReport) -> None:
    tenant_id = report.tenant_id
    if report.change is not RevisionChange.NONE or report.created or report.patched or report.linked:
        _log.info("%s", next(report.lines()), extra=log_fields(event="reconciled", tenant_id=tenant_id))
    for item in report.failed:
        fields = log_fields(event="manifest_rejected", tenant_id=tenant_id)
        text = "tenant %s: revision %s: %s: %s"
        _log.warning(text, tenant_id, item.revision, item.name, item.error, extra=fields)
