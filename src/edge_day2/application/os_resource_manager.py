"""The OS Resource Manager: brings a tenant's Inventory in line with the published OS profile manifests.

What lives here: fetching, transactions, repeating after somebody else's change. What never will: deciding what a
manifest means for the Inventory (domain/linking.py).

A run may be repeated, interrupted, and made by several processes at once. Every change is decided from what is stored
now, is its own small transaction (an instance's link: one of a batch), and is decided again when somebody else came
first. So what is done stays done, and the next run does the rest. Where nothing changed, nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from attrs import evolve, frozen

from edge_day2.domain.linking import (
    CreateOSResource,
    DiscoveredProfile,
    ImageConflict,
    LinkingMode,
    LinkingPlan,
    PatchOSResource,
    SkipReason,
    plan_linking,
)
from edge_day2.domain.profiles import OSProfile
from edge_day2.domain.resources import Link, OSResource, OSType
from edge_day2.domain.revisions import check_revision
from edge_day2.domain.software_lists import cve_list, oval_cve_list, package_list
from edge_day2.errors import (
    AlreadyExists,
    Conflict,
    EdgeDay2Error,
    InvalidResource,
    InvalidValue,
    NotFound,
    RequestError,
)
from edge_day2.ports.inventory import Inventory
from edge_day2.ports.release_files import ReleaseFiles
from edge_day2.ports.release_service import RejectedManifest, ReleaseService

# Every repetition means that somebody else made progress; several managers at once need two.
_ATTEMPTS: Final = 5
# Long enough to share the cost of a commit, short enough that a status report never waits long for the database.
_BATCH: Final = 5000
# Ubuntu's longest OVAL document has some 500 MB, of which a piece at a time is in memory.
_LARGEST_OVAL: Final = 2 << 30
_LARGEST_JSON: Final = 16 << 20
_OVERTAKEN: Final = (Conflict, AlreadyExists, NotFound)


@frozen(kw_only=True)
class Discovery:
    """What the Release Service has for a revision: the profiles, oldest first, and the manifests that can't be used."""

    profiles: tuple[DiscoveredProfile, ...]
    rejected: tuple[RejectedManifest, ...]


@frozen(kw_only=True)
class ReconcileReport:
    """What one run did and found.

    `created` and `patched` are ids of OS Resources; `linked` says for each OS Resource how many instances it became
    the desired OS of, `skipped` how many kept theirs and why; in mode MANUAL instances aren't looked at.
    """

    tenant_id: str
    revision: str
    mode: LinkingMode
    created: tuple[str, ...] = ()
    patched: tuple[str, ...] = ()
    linked: tuple[tuple[str, int], ...] = ()
    skipped: tuple[tuple[SkipReason, int], ...] = ()
    conflicts: tuple[ImageConflict, ...] = ()
    rejected: tuple[RejectedManifest, ...] = ()

    @property
    def linked_instances(self) -> int:
        """How many instances got a new desired OS."""
        return sum(count for _, count in self.linked)


class OSResourceManager:
    """Discovers OS profiles of one osProfileRevision, and creates, patches and links OS Resources.

    `revision` is a revision's name or a selector `~X.Y.Z`. `enabled_profiles` are the names of the profiles to use;
    None means all that are published. `files` is where package manifests and lists of CVEs are; None: they aren't read.
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
    ) -> None:
        """Raises InvalidValue where `revision` or `batch_size` makes no sense."""
        if batch_size < 1:
            raise InvalidValue("batch_size", batch_size, "at least 1")
        self._inventory = inventory
        self._release_service = release_service
        self._revision = check_revision(revision)
        self._mode = mode
        self._enabled = None if enabled_profiles is None else frozenset(enabled_profiles)
        self._files = files
        self._batch_size = batch_size

    def discover(self) -> Discovery:
        """Fetch and read the manifests, and the files that they name. One discovery serves any number of tenants.

        A file that can't be had or makes no sense is among what is rejected; its profile is used without it.

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
        if self._files is not None:
            lists = _Lists(self._files)
            profiles = [evolve(found, lists=lists.of(found, rejected)) for found in profiles]
        return Discovery(profiles=tuple(profiles), rejected=tuple(rejected))

    def reconcile(self, tenant_id: str, discovery: Discovery | None = None) -> ReconcileReport:
        """Bring the tenant's Inventory in line with the manifests; `discovery` saves fetching them again.

        Raises:
            Conflict: others changed the same things again and again. What is done is kept; repeat later.
            StorageError: the Inventory failed. What is done is kept; repeat later.
            NotFound, Unavailable, MissingExtra: as `discover`, before anything is changed.
        """
        discovery = discovery or self.discover()
        written: dict[type, list[str]] = {CreateOSResource: [], PatchOSResource: []}
        failed: dict[str, RejectedManifest] = {}
        for _ in range(_ATTEMPTS):
            plan = self._plan(tenant_id, discovery)
            failed = self._change(plan.changes, written)
            if not failed:
                break
        plan = plan.without(frozenset(failed))
        linked: Counter[str] = Counter()
        skipped: Counter[SkipReason] = Counter()
        if plan.targets:
            linked, skipped = self._link_all(tenant_id, plan)
        return ReconcileReport(
            tenant_id=tenant_id,
            revision=self._revision,
            mode=self._mode,
            created=tuple(written[CreateOSResource]),
            patched=tuple(written[PatchOSResource]),
            linked=tuple(sorted(linked.items())),
            skipped=tuple(sorted(skipped.items(), key=lambda item: item[0].name)),
            conflicts=plan.conflicts,
            rejected=(*discovery.rejected, *failed.values()),
        )

    def _missing(
        self, profiles: Iterable[DiscoveredProfile], rejected: Iterable[RejectedManifest]
    ) -> Iterator[RejectedManifest]:
        """Yield the enabled profiles of which nothing was found, neither good nor bad."""
        found = {item.profile.profile_name for item in profiles}
        found |= {manifest.name.removesuffix(".yaml").removesuffix(".yml") for manifest in rejected}
        for name in sorted((self._enabled or frozenset()) - found):
            error = NotFound(f"profile {name!r} is enabled, but revision {self._revision!r} has no such manifest")
            yield RejectedManifest(revision=self._revision, name=name, error=error)

    def _plan(self, tenant_id: str, discovery: Discovery) -> LinkingPlan:
        with self._inventory.reading() as read:
            resources = read.all(OSResource, tenant_id)
            return plan_linking(discovery.profiles, resources, tenant_id=tenant_id, mode=self._mode)

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

    def _link_all(self, tenant_id: str, plan: LinkingPlan) -> tuple[Counter[str], Counter[SkipReason]]:
        """Link every instance that is due; return how many for each OS Resource, and how many kept theirs, and why."""
        linked: Counter[str] = Counter()
        due, skipped = self._due(tenant_id, plan)
        for _ in range(_ATTEMPTS):
            before = linked.total()
            for desired, links in due.items():
                linked[desired] += self._link(tenant_id, links, desired)
            # Others held some of them, or linked them down just now.
            due, _ = self._due(tenant_id, plan)
            if not due or linked.total() == before:
                break
        return +linked, skipped

    def _due(self, tenant_id: str, plan: LinkingPlan) -> tuple[dict[str, list[Link]], Counter[SkipReason]]:
        due: dict[str, list[Link]] = {}
        skipped: Counter[SkipReason] = Counter()
        with self._inventory.reading() as read:
            for link, count in read.links(tenant_id).items():
                verdict = plan.judge(link)
                if isinstance(verdict, SkipReason):
                    skipped[verdict] += count
                else:
                    due.setdefault(verdict.resource_id, []).append(link)
        return due, skipped

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


class _Lists:
    """The lists that profiles name, each read once however many profiles name it."""

    def __init__(self, files: ReleaseFiles) -> None:
        self._files = files
        self._read: dict[tuple[str, str, OSType], str | EdgeDay2Error] = {}

    def of(self, found: DiscoveredProfile, rejected: list[RejectedManifest]) -> tuple[tuple[str, str], ...]:
        """Return the lists of a profile as (field, text); add to `rejected` what can't be read."""
        profile, texts = found.profile, []
        named = {"existing_cves": profile.existing_cves_url, "fixed_cves": profile.fixed_cves_url}
        if profile.os_type is OSType.IMMUTABLE:
            named["installed_packages"] = profile.package_manifest_url
        for field, url in named.items():
            if not url:
                continue
            key = field, url, profile.os_type
            if key not in self._read:
                self._read[key] = self._fetch(*key)
            text = self._read[key]
            if isinstance(text, EdgeDay2Error):
                error = RejectedManifest(revision=found.revision, name=profile.profile_name, error=text)
                rejected.append(error)
            else:
                texts.append((field, text))
        return tuple(texts)

    def _fetch(self, field: str, url: str, os_type: OSType) -> str | EdgeDay2Error:
        try:
            if os_type is OSType.MUTABLE:
                return oval_cve_list(self._files.read(url, at_most=_LARGEST_OVAL), fixed=field == "fixed_cves")
            content = b"".join(self._files.read(url, at_most=_LARGEST_JSON))
            return package_list(content) if field == "installed_packages" else cve_list(content)
        except (RequestError, InvalidValue) as error:
            return error


def _rejected(revision: str, resource: OSResource, error: EdgeDay2Error) -> RejectedManifest:
    return RejectedManifest(revision=revision, name=resource.profile_name, error=error)
